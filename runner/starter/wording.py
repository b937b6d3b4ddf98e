"""A proposal as files: the recipe with its reasons in comments, and the probe that it asks."""

from __future__ import annotations

import json
from collections.abc import Iterator

from runner.errors import printable
from runner.starter.looking import Look
from runner.starter.proposing import ASKED, BATCH, PAIRS, Proposal, Training

_POSITIONS = {"char": 2048, "bpe": 4096}
"""Tokens that the small model takes: more than any case has that is asked."""
_LONGEST_CASE = 1200
"""Characters."""
_GIVEN = 24
"""Characters of a document that are given, at most half of it; the rest is to be predicted."""


def recipe_text(look: Look, proposal: Proposal, name: str, file: str, data: str, probe: str) -> str:
    """The recipe.

    Args:
        name: of the recipe.
        file: its own file's, for the commands in its head.
        data: path of the rows, from the project's root.
        probe: path of the probe file, from the project's root.
    """
    parts = (
        _head(look, file), [f"recipe: {name}", "seed: 1"], _model(proposal), _data(look, proposal, data),
        _stages(proposal), _probes(proposal, probe),
    )  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _head(look: Look, file: str) -> list[str]:
    more = " at least" if look.more else ""
    return [
        f"# Made by `recipe new --from-data` from {printable(look.path)}:{more} {look.rows:,} rows, {read_as(look)}.",
        "# It is a beginning: a small model made from nothing, which runs as it is in a minute or two on two cores.",
        "#",
        f"#     recipe plan {file}       what it will do, in numbers",
        f"#     recipe preview {file}    rows as they are learned, token by token",
        f"#     recipe run {file}        do it",
    ]


def read_as(look: Look) -> str:
    """`read as alpaca`, or which columns are asked and said, and why."""
    if look.guess.fields:
        used = ", ".join(f"{printable(column)} as {field}" for field, column in look.guess.fields.items())
        return f"{used} ({look.guess.why})"
    return f"read as {look.format or 'prompt and completion'}"


def _model(proposal: Proposal) -> list[str]:
    texts = ", ".join(_learned(proposal))
    vocabulary = "train: char" if proposal.tokenizer == "char" else "train: bpe, vocab_size: 2048"
    return [
        "model:",
        "  # No checkpoint is known, so this one starts from nothing. To fine-tune one, write instead of the rest:",
        "  #   path: Qwen/Qwen3-0.6B          # a folder with weights, or an id on the hub; its tokenizer comes along",
        "  # and learning rates of 1.0e-5 (lora: 1.0e-4); `kind: lora` in a stage trains an adapter.",
        "  config: {model_type: qwen3, hidden_size: 128, num_hidden_layers: 2, num_attention_heads: 4,",
        "           num_key_value_heads: 4, head_dim: 32, intermediate_size: 384, tie_word_embeddings: true,",
        f"           max_position_embeddings: {_POSITIONS[proposal.tokenizer]}, initializer_range: 0.06}}",
        f"  tokenizer: {{{vocabulary}, from_data: [{texts}]}}",
        *(["  chat_template: chatml             # with `path:` remove it: a checkpoint has its own"]
          if proposal.converses else []),
    ]  # fmt: skip


def _learned(proposal: Proposal) -> list[str]:
    """The data sets that have every text."""
    return [_answers(proposal), "pairs"] if proposal.what == "pairs" else [_answers(proposal)]


def _answers(proposal: Proposal) -> str:
    """The data set that the first stage learns, without its split."""
    return "rows" if proposal.what == "documents" or not (_derived(proposal)) else "answers"


def _derived(proposal: Proposal) -> bool:
    """Whether what is learned is written in a data set of its own."""
    return proposal.parted or proposal.last_round or not proposal.key.is_column or proposal.what == "pairs"


# --- data ---


def _data(look: Look, proposal: Proposal, path: str) -> list[str]:
    lines = ["data:", "  rows:", f"    path: {quoted(path)}"]
    if look.guess.fields:
        used = ", ".join(f"{field}: {quoted(column)}" for field, column in look.guess.fields.items())
        lines += [f"    columns: {{{used}}}    # {look.guess.why}"]
    elif look.turns is None and look.format is not None:
        lines.append(f"    format: {look.format}")
    if look.bad:
        lines.append(f"    on_bad_row: skip                 # leaves out {look.bad:,}; the plan shows the first")
    if look.turns is not None:
        lines += _conversation(look.turns[0], look.turns[1])
    if proposal.key.is_column:
        lines += _split(proposal)
    lines += _filter(look) if _answers(proposal) == "rows" else []
    if _answers(proposal) == "answers":
        lines += ["  answers:", "    rows: rows", *_written(look, proposal)]
        lines += ["    on_bad_row: skip"] if look.bad or look.empty else []
        lines += _filter(look)
        lines += [] if proposal.key.is_column else _split(proposal)
    if proposal.what == "pairs":
        lines += _pairs(look, proposal)
    return [*lines, *_cases(proposal)]


def _split(proposal: Proposal) -> Iterator[str]:
    held = f"{proposal.held_out:.4g}"
    yield f"    # {printable(proposal.key.why)}"
    yield f"    split: {{by: {quoted(proposal.key.name)}, train: {1 - float(held):.6g}, held_out: {held}}}"


def _filter(look: Look) -> list[str]:
    rules = [rule for rule, wanted in (("duplicates: true", look.duplicates), ("empty: true", look.empty)) if wanted]
    return [f"    filter: {{{', '.join(rules)}}}"] if rules else []


def _written(look: Look, proposal: Proposal) -> list[str]:
    said = "chosen" if proposal.what == "pairs" else "completion"
    if not proposal.asks:
        return [f'    text: "{{{{ {said} }}}}"']
    if look.turns is not None:
        return []
    if proposal.last_round:
        return _conversation("{{ prompt }}", "{{ completion }}")
    if proposal.parted:
        return [
            '    prompt: "{{ prompt }}\\n"          # what is said has a line of its own; choose your words',
            f'    completion: "{{{{ {said} }}}}"',
        ]
    return ['    prompt: "{{ prompt }}"', '    completion: "{{ chosen }}"'] if proposal.what == "pairs" else []


def _conversation(asked: str, said: str) -> list[str]:
    return [
        "    messages:                        # the last question alone: what was said before it is left out",
        f'      - {{role: user, content: "{asked}"}}',
        f'      - {{role: assistant, content: "{said}"}}',
    ]


def _pairs(look: Look, proposal: Proposal) -> list[str]:
    if look.turns is not None:
        _, chosen, rejected = look.turns
        return ["  pairs:", "    rows: answers.train", f'    chosen: "{chosen}"', f'    rejected: "{rejected}"']
    if proposal.parted:
        return [
            "  pairs:", "    rows: rows.train" if proposal.key.is_column else "    rows: answers.train",
            '    prompt: "{{ prompt }}\\n"', '    chosen: "{{ chosen }}"', '    rejected: "{{ rejected }}"',
        ]  # fmt: skip
    return ["  pairs: {rows: rows.train}"]


def _cases(proposal: Proposal) -> list[str]:
    source = _answers(proposal)
    if proposal.is_exact:
        return [f"  seen: {{rows: {source}.train, take: 50}}     # asked too, to tell learning from guessing"]
    return (
        [
            f"  asked:                             # {ASKED} of the rows held out: their replies are long",
            f"    rows: {source}.held_out",
            f"    filter: {{max_chars: {_LONGEST_CASE}}}        # a small model takes no more",
            f"    take: {ASKED}",
        ]
        if proposal.asks
        else [f"  asked: {{rows: {source}.held_out, take: {ASKED}}}"]
    )


# --- stages and probes ---


def _stages(proposal: Proposal) -> list[str]:
    learned = f"{_answers(proposal)}.train"
    if proposal.asks:
        head = f"  answer: {{kind: sft, data: {learned}, {_length(proposal.training)},"
    else:
        head = f"  read: {{kind: pretrain, data: {learned}, {_length(proposal.training)},"
    chunk = "" if proposal.asks else ", truncation: chunk"
    indent = " " * (head.index("{") + 1)
    lines = [
        "stages:", head,
        f"{indent}learning_rate: 2.0e-3, warmup_steps: 0.05, lr_scheduler_type: cosine,",
        f"{indent}global_batch_size: {BATCH}, max_length: {proposal.max_length}{chunk},",
        f"{indent}save_steps: {proposal.training.save_every}}}",
    ]  # fmt: skip
    if proposal.preferring is not None:
        first = "answer" if proposal.asks else "read"
        lines += [
            f"  prefer: {{kind: dpo, from: {first}@last, data: pairs, {_length(proposal.preferring)},",
            f"           learning_rate: 2.0e-5, global_batch_size: {PAIRS}, max_length: {2 * proposal.max_length}}}",
        ]
    return lines


def _length(training: Training) -> str:
    return f"num_train_epochs: {training.epochs}" if training.epochs else f"max_steps: {training.steps}"


def _probes(proposal: Proposal, probe: str) -> list[str]:
    source = _answers(proposal)
    path = quoted(probe)[1:-1]
    if proposal.is_exact:
        return [
            "probes:",
            f'  seen: {{file: "{path}", cases: seen, leaks: expected}}',
            *_suite("held_out", path, f"{source}.held_out", "{min_pass_rate: 0.5, max_regression: significant}"),
        ]
    return [
        "probes:",
        *_suite("replies", f"{path}::test_reply", "asked", "{word_seq_rep_4: {max_mean: 0.2}}"),
        *_suite("predicts", f"{path}::test_predicts", "asked", "{nll_per_token: {max_mean_rise: 0.1}}"),
    ]


def _suite(name: str, file: str, cases: str, gate: str) -> list[str]:
    return [
        f"  {name}:",
        f'    file: "{file}"',
        f"    cases: {cases}",
        "    # once you know what can be reached, let a drop fail the run:",
        f"    # gate: {gate}",
    ]


def probe_text(proposal: Proposal) -> str:
    """The probe file: exact match where answers are short, else loops and held-out texts."""
    asked = 'messages="{{ messages }}"' if proposal.converses else 'prompt="{{ prompt }}"'
    if proposal.is_exact:
        return _EXACT.format(asked=asked, tokens=proposal.max_new_tokens)
    if proposal.asks:
        return _LONG.format(what=_LONG_WHAT, asked=asked, choice="{{ completion }}", tokens=proposal.max_new_tokens)
    given = f"[{_GIVEN}, text|length // 2]|min"
    asked = f'prompt="{{{{ text[:{given}] }}}}"'
    choice = f"{{{{ text[{given}:{_LONGEST_CASE // 2}] }}}}"
    return _LONG.format(what=_TEXT_WHAT, asked=asked, choice=choice, tokens=min(128, proposal.max_new_tokens))


_LONG_WHAT = "Questions that were held out: does the model loop, and how well does it predict the right answer?"
_TEXT_WHAT = "Texts that were held out: does the model go on without looping, and how well does it predict the rest?"

_EXACT = '''\
"""Does the model give the right answer, to the letter? The cases are rows of the recipe; every row has its completion.

By hand, on any checkpoint of the run: pytest THIS_FILE --ckpt CHECKPOINT
"""

from runner import probe


@probe({asked}, max_new_tokens={tokens})
def test_answer(case, reply):
    """White space around an answer counts for nothing. Is another wording right too? Say so here."""
    assert reply.strip() == str(case.completion).strip()
'''

_LONG = '''\
"""{what}

By hand, on any checkpoint of the run: pytest THIS_FILE --ckpt CHECKPOINT
"""

import math

from runner import probe, repetition


@probe({asked}, max_new_tokens={tokens})
def test_reply(reply, record):
    """It says something, and does not go round in circles. That it is right, only you can say: add what you know."""
    record(**repetition.measures(reply, reply.tokens), never_stops=reply.stop_reason == "length")
    assert reply.strip(), "it said nothing"
    assert repetition.seq_rep(reply, n=4, unit="word") < 0.5, "it goes round in circles"


@probe({asked}, choices=["{choice}"])
def test_predicts(reply, record):
    """Never fails: it records how well the text is predicted. Perplexity is exp(nll_per_token)."""
    record(
        nll_per_token=-reply.logprob / len(reply.tokens),
        bits_per_char=-reply.logprob / math.log(2) / len(reply),
    )
'''


def quoted(text: str) -> str:
    """A text in a recipe, in double quotes; what looks like a template stays as it is written, and what YAML holds no
    raw letter for is spelled out."""
    if any(mark in text for mark in ("{{", "{%", "{#")):
        text = "{{ " + _spelled(text) + " }}" if "endraw" in text else "{% raw %}" + text + "{% endraw %}"
    return _spelled(text)


def _spelled(text: str) -> str:
    """As JSON, which is YAML, and Jinja where nothing lies beyond U+FFFF: others than printable letters as numbers."""
    made = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in made)
