"""Traps of other projects between texts and the loss, each by its name: the project catches it, or has no such trap."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runner.data import chat, tokens
from runner.data.datasets import Example
from runner.data.examples import Message
from runner.data.tokenizer import Fast
from runner.data.tokens import Encoding, Tokens
from runner.errors import BadData, BadRecipe
from runner.preparation import make_plan
from runner.train import isolation
from runner.train.batches import IGNORED, PACKED, Collate, Pack
from runner.train.packing import Layout
from tests.chats import THINKS_FIRST, template, trained
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
