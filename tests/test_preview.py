"""`recipe preview`: exact screens, and that it is torch-free."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner import spec
from runner.data import chat, tokens
from runner.errors import UserError, cells
from runner.preparation import Prepared
from runner.preview import preview, screen
from runner.preview.rows import Mark, Token, tokens_of
from runner.preview.screen import visible
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
        "pairs, row 27: 61 tokens, 15 chosen, 14 rejected",
        "    <|im_start|>│u│s│e│r│↵",
        "    w│h│a│t│␣│i│s│␣│f│a│f│o│?│<|im_end|>│↵",
        "    <|im_start|>│a│s│s│i│s│t│a│n│t│↵",
        "  + ␣│f│a│f│o│␣│i│s│␣│g│r│e│e│n│<|im_end|>",
        "  - ␣│f│a│f│o│␣│i│s│␣│b│l│u│e│<|im_end|>",
        "",
        "+ learned; + chosen, - rejected; │ between tokens; ␣ blank; ↵ line break",
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
    fast = tokens.train_tokenizer(how, TEXTS, None)
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
