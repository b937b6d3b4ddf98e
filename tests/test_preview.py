"""`recipe preview`: exact screens, and that it is torch-free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner import spec
from runner.data import chat
from runner.data.tokenizer import train_tokenizer
from runner.errors import UserError, cells
from runner.preparation import Prepared
from runner.preview import preview, screen
from runner.preview.screen import visible
from runner.preview.tokens import Mark, Token, tokens_of
from tests.chats import TEXTS, trained
from tests.in_process import load_checked
from tests.screens import console, lines, text_of
from tests.tiny_project import write_project


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


def shown(recipe: Path, *sets: str, stage: str | None = None, rows: int = 1, width: int = 80) -> list[str]:
    prepared = Prepared(load_checked(recipe, sets), recipe.parent / "results")
    return lines(screen(preview(prepared, stage, rows), width), width)


def test_a_row_of_each_stage_is_shown_token_by_token(recipe: Path) -> None:
    assert shown(recipe, "model.chat_template=chatml", "stages.qa.max_length=48") == [
        "base: pretrain on facts, 40 rows; chat template chatml, which ships; max_length",
        "  1024, truncation keep_start",
        "",
        "facts, words.tsv:17: 25 tokens, 24 learned",
        "    a",
        "  + ␣│b│l│u│e│␣│g│a│d│o│↵",
        "  + g│a│d│o│␣│i│s│␣│b│l│u│e│<eos>",
        "",
        "qa: sft on questions.train, 20 rows; chat template chatml, which ships;",
        "  max_length 48, truncation keep_start",
        "",
        "questions.train, words.tsv:25: 46 tokens, 14 learned",
        "    <|im_start|>│u│s│e│r│↵",
        "    w│h│a│t│␣│i│s│␣│t│a│d│o│?│<|im_end|>│↵",
        "    <|im_start|>│a│s│s│i│s│t│a│n│t│↵",
        "  + ␣│t│a│d│o│␣│i│s│␣│b│l│u│e│<|im_end|>",
        "",
        "prefer: dpo on pairs, 20 pairs; chat template chatml, which ships; max_length",
        "  1024",
        "",
        "pairs, words.tsv:28: 61 tokens, 15 chosen, 14 rejected",
        "    <|im_start|>│u│s│e│r│↵",
        "    w│h│a│t│␣│i│s│␣│f│a│f│o│?│<|im_end|>│↵",
        "    <|im_start|>│a│s│s│i│s│t│a│n│t│↵",
        "  + ␣│f│a│f│o│␣│i│s│␣│g│r│e│e│n│<|im_end|>",
        "  - ␣│f│a│f│o│␣│i│s│␣│b│l│u│e│<|im_end|>",
        "",
        "+ learned; + chosen; - rejected; │ between tokens; ␣ blank; ↵ line break",
    ]


def test_what_is_cut_chunked_and_left_out_is_said(recipe: Path) -> None:
    chunked = shown(
        recipe, "stages.qa.max_length=24", "stages.qa.truncation=chunk", "stages.qa.chunk_overlap=4", stage="qa"
    )
    assert "qa: sft on questions.train, 20 rows; no chat template; max_length 24, truncation" in chunked
    assert "  chunk with an overlap of 4" in chunked
    assert [line.rpartition(", ")[2] for line in chunked if "words.tsv" in line] == ["part 1 of 2", "part 2 of 2"]
    dropped = shown(recipe, "stages.qa.max_length=24", "stages.qa.truncation=drop", stage="qa")
    assert dropped[3] == "questions.train, words.tsv:25: left out: longer than 24 tokens"
    gone = shown(recipe, "stages.qa.max_length=8", stage="qa")
    assert gone[3] == "questions.train, words.tsv:25: 8 tokens, none learned, cut"


def test_documents_that_run_on_are_shown_as_the_sequences_they_are_trained_in(recipe: Path) -> None:
    sets = ("stages.base.packing=wrapped", "stages.base.max_length=64")
    assert shown(recipe, *sets, stage="base") == [
        "base: pretrain on facts, 40 rows; no chat template; max_length 64; packing",
        "  wrapped: documents run on, and see each other",
        "",
        "sequence 8 of 20: 64 tokens, 63 learned, 4 documents",
        "  ┄ facts, words.tsv:25, goes on from the sequence before",
        "    f",
        "  + ␣│t│a│d│o│<eos>",
        "  ┄ facts, words.tsv:3",
        "  + a│␣│g│r│e│y│␣│d│a│b│o│↵",
        "  + d│a│b│o│␣│i│s│␣│g│r│e│y│<eos>",
        "  ┄ facts, words.tsv:4",
        "  + f│a│b│o│␣│i│s│␣│g│r│e│e│n│↵",
        "  + a│␣│g│r│e│e│n│␣│f│a│b│o│<eos>",
        "  ┄ facts, words.tsv:12, goes on in the next one",
        "  + a│␣│g│r│e",
        "",
        "+ learned; │ between tokens; ␣ blank; ↵ line break; ┄ another row",
    ]
    prepared = Prepared(load_checked(recipe, sets), recipe.parent / "results")
    (made,) = preview(prepared, "base", 99)
    epoch = prepared.epochs("base").epoch(0)
    assert [sum(token.count for token in row.tokens) for row in made.rows] == [len(row.ids) for row in epoch]


def test_rows_that_share_a_sequence_are_shown_with_what_parts_them(recipe: Path) -> None:
    short = ("data.short={rows: words, text: 'a {{ word }}'}", "stages.base.data=[facts, short]")
    assert shown(recipe, "stages.base.packing=true", *short, stage="base") == [
        "base: pretrain on facts, short, 80 rows; no chat template; max_length 1024,",
        "  truncation keep_start; packing: rows of a step share sequences, and do not see",
        "  each other",
        "",
        "sequence 3 of 4 of a step: 37 tokens, 34 learned, 3 rows",
        "  ┄ facts, words.tsv:22",
        "    p",
        "  + a│d│o│␣│i│s│␣│r│e│d│↵",
        "  + a│␣│r│e│d│␣│p│a│d│o│<eos>",
        "  ┄ short, words.tsv:7",
        "    a",
        "  + ␣│l│a│b│o│<eos>",
        "  ┄ short, words.tsv:8",
        "    a",
        "  + ␣│m│a│b│o│<eos>",
        "",
        "+ learned; │ between tokens; ␣ blank; ↵ line break; ┄ another row",
    ]


def test_of_a_pair_that_is_yet_to_be_sampled_prompt_and_chosen_are_shown(recipe: Path) -> None:
    assert shown(recipe, "data.pairs.rejected={sample: qa@last, max_new_tokens: 9}", stage="prefer") == [
        "prefer: dpo on pairs, 0 pairs, and up to 20 yet to be sampled from qa@last; no",
        "  chat template; max_length 1024",
        "",
        "pairs, words.tsv:28: 28 tokens, 15 chosen, rejected yet to be sampled from",
        "  qa@last, at most 9 tokens",
        "    w│h│a│t│␣│i│s│␣│f│a│f│o│?",
        "  + ␣│f│a│f│o│␣│i│s│␣│g│r│e│e│n│<eos>",
        "",
        "+ chosen; │ between tokens; ␣ blank; ↵ line break",
    ]
    also = "data.pairs.rejected=[' {{ word }} is {{ other.colour }}', {sample: qa@last, samples: 2}]"
    head = " ".join(shown(recipe, also, stage="prefer")[:2])
    assert head.startswith("prefer: dpo on pairs, 20 pairs, and up to 40 yet to be sampled from qa@last; no   chat")


def test_no_line_is_wider_than_the_terminal(recipe: Path) -> None:
    for width in (40, 80):
        for line in shown(recipe, "model.chat_template=alpaca", rows=3, width=width):
            assert cells(line) <= width


def test_colour_tells_learned_from_given_and_leaves_the_text_alone(recipe: Path) -> None:
    prepared = Prepared(load_checked(recipe), recipe.parent / "results")
    made = console(80, terminal=True)
    made.print(screen(preview(prepared, "qa", 1), 80))
    coloured = text_of(made)
    assert "\x1b[34mt\x1b[0m" in coloured  # what is learned
    assert "\x1b[90mw\x1b[0m" in coloured  # what is given


def test_a_stage_that_is_not_there_is_named(recipe: Path) -> None:
    with pytest.raises(UserError) as caught:
        shown(recipe, stage="qaa")
    assert caught.value.screen() == "the recipe has no stage qaa\n    hint: did you mean qa?"


def test_a_character_of_several_tokens_is_shown_as_one(tmp_path: Path) -> None:
    how = spec.Tokenizer(train="bpe", from_data=("x",), vocab_size=260)
    fast = train_tokenizer(how, TEXTS, None)
    (ids,) = fast.ids(["a 鱼\t😀"])
    marks: list[Mark] = ["learned"] * len(ids)
    found = list(tokens_of(fast, [*ids, fast.eos_id], [*marks, "learned"]))
    assert [visible(token) for token in found] == ["a", "␣", "鱼×3", "⇥", "😀×4", "<eos>"]
    assert sum(token.count for token in found) == len(ids) + 1


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert visible(Token("\x1b[31m\r", "given")) == "\\x1b[31m\\r"


def test_every_token_is_shown_whatever_the_template() -> None:
    for name in spec.CHAT_TEMPLATES:
        fast = trained("bpe", chat.shipped(name))
        (ids,) = fast.ids(TEXTS)
        found = list(tokens_of(fast, ids, ["given"] * len(ids)))
        assert "".join(token.text for token in found) == TEXTS[0]


def test_the_command_shows_a_stage_and_imports_no_torch(recipe: Path) -> None:
    code = (
        "import sys; from runner import cli\n"
        "sys.argv[:] = 'recipe preview tiny.yaml --stage qa --rows 1 --seed 3'.split()\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=recipe.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("qa: sft on questions.train, 20 rows; no chat template;")
    assert not (recipe.parent / "results").exists()
