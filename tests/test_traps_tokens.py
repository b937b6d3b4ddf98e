"""Traps of other projects between texts and the loss, each by its name: the project catches it, or has no such trap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tokenizers import AddedToken

from runner.data import chat, tokens
from runner.data.chat import ChatTemplate
from runner.data.conversations import Conversations, writing_of
from runner.data.datasets import Example
from runner.data.examples import Message
from runner.data.pairs import Pair
from runner.data.tokenizer import Fast
from runner.data.tokens import Encoding, Tokens
from runner.errors import BadCheckpoint, BadData, BadRecipe, UserError
from runner.preparation import make_plan
from runner.train import isolation
from runner.train.batches import IGNORED, PACKED, Collate, Pack, micro_batches
from runner.train.packing import Layout
from tests.chats import ONE, REWRITING, SYSTEM, THINKS_FIRST, TWO, template, trained
from tests.in_process import prepare
from tests.test_packing import network
from tests.tiny_project import write_project


def said(fast: Fast, row: Tokens) -> list[str]:
    return [fast.tokenizer.decode(row.ids[start:stop], skip_special_tokens=False) for start, stop in row.spans]


# "The last *matching* template token was taken as the start of the answer: half the answer tokens were never trained."


@pytest.mark.parametrize("words", ["assistant\n", "<|im_start|>assistant\n", "<|im_end|>\n", "user"])
def test_trap_last_matching_template_token_an_answer_that_holds_the_templates_words_is_learned_whole(
    words: str,
) -> None:
    made, answer = chat.shipped("chatml"), f"first half {words} second half"
    fast = trained("char", made, answer)
    ((row,),) = tokens.encode(fast, [Example("ask", answer, 0)], Encoding(512, chat=made))
    assert said(fast, row) == [f"{answer}<|im_end|>"]


# "Losing EOS from the targets is the best-known cause of a model that never stops."


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("made", [None, chat.shipped("chatml"), chat.shipped("plain")])
def test_trap_eos_lost_from_targets_every_answers_stop_token_is_a_label_where_padding_has_its_id_too(
    made: chat.ChatTemplate | None, packing: bool
) -> None:
    fast = trained("char", made or chat.shipped("plain"))
    examples = [Example("你好吗？", "很好。" * times, times) for times in (1, 2, 9)]
    rows = [row for (row,) in tokens.encode(fast, examples, Encoding(512, chat=made))]
    stop = rows[0].ids[-1]
    # as many tokenizers have it: padding is the EOS
    batches = Pack(stop, 0.0, Layout.GROUPED, 3)(rows)[PACKED] if packing else [Collate(stop, 0.0)(rows)]
    labels = torch.cat([batch["labels"].flatten() for batch in batches])
    assert int((labels == stop).sum()) == len(rows)
    assert int((labels != IGNORED).sum()) == sum(row.supervised for row in rows)


def test_trap_eos_lost_from_targets_a_row_that_loses_its_end_is_counted() -> None:
    fast = trained("char", chat.shipped("plain"))
    ((row,),) = tokens.encode(fast, [Example("你好吗？", "很好。", 0)], Encoding(7))
    assert row.truncated
    assert fast.eos_id not in row.ids


# "The inference prompt was not a prefix of the training text."


def test_trap_inference_prompt_not_a_prefix_is_an_error_before_anything_trains(tmp_path: Path) -> None:
    recipe = write_project(tmp_path / "project")
    (recipe.parent / "mine.jinja").write_text(THINKS_FIRST)
    prepared = prepare(recipe, tmp_path / "run", "model.chat_template=mine.jinja")
    with pytest.raises(BadData, match="the prompt as probes ask it is not a prefix of the text that is trained"):
        make_plan(prepared)


# "Fully masked rows are dropped without a count."


@pytest.mark.parametrize("packing", ["false", "true"])
def test_trap_fully_masked_rows_dropped_without_a_count_the_plan_counts_them(tmp_path: Path, packing: str) -> None:
    recipe = write_project(tmp_path / "project")
    cut = ("stages.qa.max_length=8", f"stages.qa.packing={packing}", "stages.qa.num_train_epochs=1")
    prepared = prepare(recipe, tmp_path / "run", *cut)
    counts = prepared.counts("qa")
    assert counts is not None
    assert (counts.rows, counts.dropped) == (20, 20)
    with pytest.raises(BadRecipe, match="stage qa has nothing to learn: all of its 20 rows are cut off"):
        make_plan(prepared)


# "`assistant_only_loss` needs an exactly known template string."


def test_trap_assistant_only_loss_a_template_that_nobody_knows_gives_exact_masks() -> None:
    made = template(
        "{% for message in messages %}({{ message.role | upper }}){{ message.content | trim }}<|over|>;{% endfor %}"
        "{% if add_generation_prompt %}(ASSISTANT){% endif %}"
    )
    fast = trained("char", made, "(ASSISTANT)USER;")
    turns = (Message("user", "(ASSISTANT)"), Message("assistant", " (USER) "), Message("user", "x"))
    ((row,),) = tokens.encode(fast, [Example("", "", 0, (*turns, Message("assistant", "y")))], Encoding(512, chat=made))
    assert said(fast, row) == ["(USER)<|over|>", "<unk><|over|>"]


# "Packing without FlashAttention is correct now"; `wrapped` does not isolate documents.


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_trap_packing_isolation_another_row_in_the_sequence_changes_nothing(attention: str) -> None:
    model = network(attention=attention).eval()
    layout = isolation.choose(model, attention)
    pack = Pack(0, 0.0, layout, 4)
    row, lengths = Tokens([5, 6, 7, 8], ((0, 4),), 0), (9, 4, 4)
    found = []
    for seed in (1, 2):
        others = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(seed)).tolist()
        (batch,) = pack([Tokens(others[0], ((0, 9),), 1), row, Tokens(others[1][:4], ((0, 4),), 2)])[PACKED]
        batch.pop("labels")
        ((line, start),) = [(line, start) for line, start, number in pack.places(lengths) if number == 1]
        found.append(model(**batch).logits[line, start : start + 4])
    assert torch.equal(found[0], found[1])


# What ends an answer is known without a tokenizer too, and conversations are then written alike.


def test_without_a_tokenizer_an_answer_ends_in_the_first_special_token_behind_it() -> None:
    made = chat.shipped("chatml")
    fast = trained("char", made)
    writing = writing_of(made, fast.names)
    assert writing is not None
    assert (writing.stop, writing.chat) == ("<|im_end|>", made)
    for turns in ("all", "last"):
        assert writing.documents((SYSTEM, *TWO), turns, 0) == Conversations(made, fast).documents(
            (SYSTEM, *TWO), turns, 0
        )
    answers = "{% for message in messages %}{{ message.content }}<b><a>{{ eos_token }}{% endfor %}"
    first = writing_of(template(answers), {"eos_token": "<e>", "x": "<a>", "y": "<b>"})
    assert first is not None
    assert first.stop == "<b>"
    assert writing_of(template("{% for message in messages %}{{ message.content }}{% endfor %}"), {"x": "<a>"}) is None
    assert writing_of(template("{{ raise_exception('no') }}"), {"x": "<a>"}) is None
    assert writing_of(template("<a>"), {"x": "<a>"}) is None  # it writes no answer at all


def test_what_the_tokenizer_puts_before_a_text_stands_before_the_prompt_of_a_pair_once() -> None:
    plain = trained("char", chat.shipped("plain"), "abc")
    fast = Fast(plain.tokenizer, (1,), plain.eos_id, plain.unknown_id)
    (row,) = tokens.encode_pairs(fast, [Pair("ab", "c", "b", 7)], 5)
    (a, b, c) = fast.ids(["abc"])[0]
    assert (row.prompt_ids, row.chosen_ids, row.rejected_ids) == ([1, a, b], [c, fast.eos_id], [b, fast.eos_id])
    assert (row.row, row.truncated) == (7, False)  # exactly as long as there is room
    (cut,) = tokens.encode_pairs(fast, [Pair("ab", "c", "b", 7)], 4)
    assert (cut.chosen_ids, cut.truncated) == ([c], True)


def test_a_chat_template_writes_the_beginning_of_a_row_and_of_a_pair_itself() -> None:
    made = chat.shipped("plain")
    plain = trained("char", made)
    fast = Fast(plain.tokenizer, (1,), plain.eos_id, plain.unknown_id, plain.names)
    rows, how = [Example("好", "很好", 0)], Encoding(64, chat=made)
    assert tokens.encode(fast, rows, how) == tokens.encode(plain, rows, how)
    pairs = [Pair("好", "很好", "你", 0)]
    assert tokens.encode_pairs(fast, pairs, 64, made) == tokens.encode_pairs(plain, pairs, 64, made)


def test_a_pair_that_is_a_conversation_is_told_with_its_row_where_no_template_is_set() -> None:
    with pytest.raises(BadData, match="^row 8: a conversation, and no chat template is set"):
        tokens.encode_pairs(trained("char", chat.shipped("plain")), [Pair("", "a", "b", 7, ONE[:1])], 64)


def test_the_first_chunk_repeats_nothing_and_learns_its_beginning_too() -> None:
    fast = trained("char", chat.shipped("plain"), "abcdefghij")
    how = Encoding(8, truncation="chunk", chunk_overlap=3)
    (rows,) = tokens.encode(fast, [Example("", "abcdefghij", 0)], how)
    assert [said(fast, row) for row in rows] == [["abcdefgh"], ["ij<eos>"]]


# --- a conversation's pieces, and what is said of one that has none ---

KEEPS_NEWEST_THOUGHTS = """\
{%- for message in messages %}
    {%- set said = message.content %}
    {%- if not loop.last %}{% set said = said.split('</think>')[-1] %}{% endif %}
    {{- '<|im_start|>' + message.role + '\\n' + said + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
"""Takes thoughts out of earlier answers where there are some: an answer without any is written alike everywhere."""


@dataclass(frozen=True)
class Counted(ChatTemplate):
    """It counts how often it is rendered."""

    asked: list[bool] = field(default_factory=list, compare=False)

    def render(self, messages: Sequence[Message], special: Mapping[str, str], **how: Any) -> str:
        self.asked.append(how.get("ask", False))
        return super().render(messages, special, **how)


def turns_of(*said: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if at % 2 else "user", text) for at, text in enumerate(said))


def counted(source: str, messages: tuple[Message, ...]) -> list[bool]:
    """Which renderings the documents of a conversation take, once what the template does is known."""
    made = Counted(source, "mine.jinja", chosen=True)
    writing = writing_of(made, {"eos_token": "<eos>"})
    assert writing is not None
    writing.documents(TWO, "all", 0)
    made.asked.clear()
    writing.documents(messages, "all", 0)
    return made.asked


def test_a_conversation_is_rendered_whole_and_once_per_question_however_long_it_is() -> None:
    said = turns_of(*(f"turn {at}" for at in range(20)))
    assert counted(chat.shipped("chatml").source, said) == [False, *[True] * 10]


def test_an_answer_that_the_template_changes_is_found_by_rendering_up_to_it_and_the_last_needs_no_more() -> None:
    trims = "{% for message in messages %}{{ message.content | trim }}<eos>{% endfor %}"
    assert counted(trims, turns_of("a", " b ", "c", " d ")) == [False, True, False, True]


def test_an_answer_that_holds_the_stop_token_is_learned_through_its_last_one() -> None:
    made = chat.shipped("chatml")
    fast = trained("char", made, "it is over")
    ((row,),) = tokens.encode(
        fast, [Example("", "", 0, turns_of("a", "it is<|im_end|> over", "b", "it"))], Encoding(512, chat=made)
    )
    assert said(fast, row) == ["it is<|im_end|> over<|im_end|>", "it<|im_end|>"]


@pytest.mark.parametrize("turns", ["all", "last"])
def test_what_comes_after_the_last_answer_is_not_even_shown_to_the_template(turns: Literal["all", "last"]) -> None:
    made = chat.shipped("alpaca")  # it refuses the role tool
    fast = trained("char", made)
    both = [Example("", "", 0, messages) for messages in ((*ONE, Message("tool", "x")), ONE)]
    more, row = tokens.encode(fast, both, Encoding(512, turns=turns, chat=made))
    assert more == row


@pytest.mark.parametrize("turns", ["all", "last"])
@pytest.mark.parametrize("source", [THINKS_FIRST, REWRITING + "{% if add_generation_prompt %}?{% endif %}"])
def test_a_prompt_that_is_no_prefix_is_told_with_its_row_whichever_answers_are_learned(
    source: str, turns: Literal["all", "last"]
) -> None:
    made = template(source)
    with pytest.raises(BadData, match="^row 12: the prompt as probes ask it is not a prefix"):
        tokens.encode(trained("char", made), [Example("", "", 11, TWO)], Encoding(512, turns=turns, chat=made))


def test_an_earlier_answer_that_is_written_otherwise_than_it_was_learned_is_told_by_its_number() -> None:
    made = template(KEEPS_NEWEST_THOUGHTS)
    messages = turns_of("a", "plain", "b", "<think>hm</think>4", "c", "5")
    with pytest.raises(BadData) as caught:
        tokens.encode(trained("char", made), [Example("", "", 0, messages)], Encoding(512, chat=made))
    assert caught.value.screen() == (
        "row 1: the conversation up to answer 2 is not a prefix of the text that is trained: after "
        "'>user\\nb<|im_end|>\\n<|im_start|>assistant\\n' comes '<think>hm</think>4<|im_end|>' and not "
        "'4<|im_end|>\\n<|im_start|>user\\nc<|im_end|>'\n"
        "    expected: a chat template that writes what is said before an answer alike without it; mine.jinja does "
        "not\n"
        "    hint: model.chat_template: a shipped name, a file, or none"
    )


def test_a_template_that_writes_less_than_it_asks_for_is_shown_where_its_text_ends() -> None:
    ends = "{% for message in messages %}{{ message.content }}{% endfor %}"
    made = template(
        ends + "{% if add_generation_prompt %}<eos>now:{% elif messages[-1].content != 'b' %}<eos>{% endif %}"
    )
    with pytest.raises(BadData, match="after 'a<eos>' comes 'now:' and not ''"):
        tokens.encode(trained("char", made), [Example("a", "", 0)], Encoding(64, chat=made))


def test_a_row_that_the_template_refuses_is_told_with_the_way_out() -> None:
    made = chat.shipped("alpaca")
    with pytest.raises(BadData) as caught:
        tokens.encode(
            trained("char", made), [Example("", "", 2, (Message("tool", "x"), *ONE))], Encoding(64, chat=made)
        )
    assert caught.value.screen().endswith("\n    hint: on_bad_row: skip leaves such rows out, and counts them")


def test_a_tokenizers_own_template_may_name_tokens_that_it_lacks() -> None:
    answers = "{% for message in messages %}<|odd|>{{ message.content }}{{ eos_token }}{% endfor %}"
    fast = trained("char", chat.shipped("plain"), "<|odd|>")
    assert Conversations(ChatTemplate(answers, "folder"), fast).stop == "<eos>"
    with pytest.raises(BadCheckpoint, match=r"has no token <\|odd\|>"):
        Conversations(template(answers), fast)


def test_a_template_that_refuses_the_plainest_conversation_is_told() -> None:
    made = template("{{ raise_exception('never') }}")
    with pytest.raises(UserError) as caught:
        Conversations(made, trained("char", chat.shipped("plain")))
    assert caught.value.screen() == "the chat template of mine.jinja writes no plain conversation: never"


@pytest.mark.parametrize(
    ("written", "stop"),
    [
        ("{{ message.content }}<b><a><b>", "<b>"),  # the first one behind it, though it comes again
        ("{{ message.content }}<a>{{ message.content }}<b>", "<b>"),  # behind the last time that it is written
    ],
)
def test_the_token_that_ends_an_answer_is_the_first_one_behind_it(written: str, stop: str) -> None:
    made = template("{% for message in messages %}" + written + "{% endfor %}")
    found = writing_of(made, {"x": "<a>", "y": "<b>"})
    assert found is not None
    assert found.stop == stop


def test_an_answer_that_is_not_ended_as_the_others_are_is_told_with_its_row() -> None:
    ends = "{% if message.content != 'quiet' %}<eos>{% endif %}"
    made = template("{% for message in messages %}{{ message.content }}" + ends + "{% endfor %}")
    with pytest.raises(BadData) as caught:
        tokens.encode(
            trained("char", made), [Example("", "", 4, turns_of("a", "b", "c", "quiet"))], Encoding(64, chat=made)
        )
    assert caught.value.screen() == "row 5: the chat template of mine.jinja ends this answer in no <eos>"


def test_a_prompt_that_the_answer_to_it_would_change_is_told_with_its_row() -> None:
    made = template(
        "{% if messages[-1].content == ' b ' %}!{% endif %}"
        "{% for message in messages %}{{ message.content | trim }}<eos>{% endfor %}"
    )
    with pytest.raises(BadData) as caught:
        tokens.encode(
            trained("char", made), [Example("", "", 4, turns_of("a", " b ", "c", "d"))], Encoding(64, chat=made)
        )
    assert caught.value.screen().splitlines()[0] == (
        "row 5: the prompt as probes ask it is not a prefix of the text that is trained: after '' comes 'a<eos>' and "
        "not '!a<eos>b<eos>'"
    )


def test_a_stop_token_that_the_tokenizer_does_not_find_behind_a_word_is_told() -> None:
    fast = trained("char", chat.shipped("plain"), "abc")
    fast.tokenizer.add_special_tokens([AddedToken("stop", single_word=True, special=True)])
    made = template("{% for message in messages %}{{ message.content }}stop{% endfor %}")
    with pytest.raises(BadData) as caught:
        tokens.encode(fast, [Example("a", "b", 0)], Encoding(64, chat=made))
    assert caught.value.screen() == "the tokenizer does not read stop behind an answer as one token"


# --- batches ---


def test_a_step_has_the_micro_batches_of_all_that_was_loaded_packed_or_not() -> None:
    packed, padded = [{"a": 1}, {"a": 2}], {"a": 3}
    assert micro_batches([{PACKED: packed}, padded]) == [*packed, padded]
