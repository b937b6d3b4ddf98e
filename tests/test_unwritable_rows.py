"""Rows that the chat template cannot write: named by data set, file and line, and left out where the recipe says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner import console
from runner.check import load_checked
from runner.errors import BadData
from runner.preparation import Prepared, make_plan
from tests import screens

TEMPLATE = """\
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {{- '[' + message.role + ']' + (message.content.split('!')[-1] if not loop.last else message.content) + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '[assistant]' }}{%- endif %}
"""
"""As strict about roles as many published ones; of an earlier answer it leaves out what stands before a `!`."""

RECIPE = """\
recipe: r
model:
  config: {model_type: qwen3, hidden_size: 8}
  tokenizer: {train: char, from_data: chats}
  chat_template: mine.jinja
data:
  chats: {path: rows.jsonl, on_bad_row: BAD}
  pairs: {rows: chats, rejected: "no"}
stages:
  qa: {kind: KIND, data: DATA, num_train_epochs: 1}
"""


def said(*turns: str) -> str:
    """A line of the file: each turn is its speaker, a blank and what is said."""
    spoken = [dict(zip(("role", "content"), turn.split(" ", 1), strict=True)) for turn in turns]
    return json.dumps({"messages": spoken})


LINES = (
    said("user a", "assistant yes"),
    said("user b", "user really", "assistant yes"),
    said("user c", "assistant hm!yes", "user sure", "assistant yes"),
    said("user d", "assistant yes", "user sure", "assistant yes"),
)


def prepared(root: Path, bad: str, lines: tuple[str, ...] = LINES, kind: str = "sft", data: str = "chats") -> Prepared:
    (root / "pyproject.toml").touch()
    (root / "mine.jinja").write_text(TEMPLATE)
    (root / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (root / "r.yaml").write_text(RECIPE.replace("BAD", bad).replace("KIND", kind).replace("DATA", data))
    return Prepared(load_checked(root / "r.yaml", ()), root / "results" / "r")


ROLES = (
    "rows.jsonl:2: data.chats: the chat template of mine.jinja cannot write it: "
    "roles must alternate user/assistant/user/assistant/..."
)
HINT = "\n    hint: on_bad_row: skip leaves such rows out, and counts them"


def test_a_conversation_that_the_template_refuses_is_an_error_with_its_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        make_plan(prepared(tmp_path, "fail"))
    assert caught.value.screen() == ROLES + HINT


def test_so_is_one_whose_earlier_answers_are_written_differently(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        make_plan(prepared(tmp_path, "fail", LINES[:1] + LINES[2:]))
    assert caught.value.screen() == (
        "rows.jsonl:2: data.chats: the conversation up to answer 1 is not a prefix of the text that is trained: after "
        "'[user]c<eos>[assistant]' comes 'hm!yes<eos>' and not 'yes<eos>[user]sure<eos>[assistant]yes<eo'\n"
        "    expected: a chat template that writes what is said before an answer alike without it; mine.jinja does "
        "not\n"
        "    hint: model.chat_template: a shipped name, a file, or none"
    )


def test_where_bad_rows_are_skipped_they_are_counted_and_the_first_ones_shown(tmp_path: Path) -> None:
    made = prepared(tmp_path, "skip")
    plan = make_plan(made)
    assert [example.row for example in made.data.get("chats").examples(0)] == [0, 3]
    shown = screens.lines(console.plan_screen(plan), 100)
    start = next(number for number, line in enumerate(shown) if line.startswith("  data.chats"))
    assert shown[start : start + 6] == [
        "  data.chats: left out: 2 bad",
        "    rows.jsonl:2: data.chats: the chat template of mine.jinja cannot write it: roles must alternate",
        "user/assistant/user/assistant/...",
        "    rows.jsonl:3: data.chats: the conversation up to answer 1 is not a prefix of the text that is",
        "trained: after '[user]c<eos>[assistant]' comes 'hm!yes<eos>' and not",
        "'yes<eos>[user]sure<eos>[assistant]yes<eo'; expected a chat template that writes what is said before",
    ]


def test_pairs_are_named_by_file_and_line_too(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        make_plan(prepared(tmp_path, "fail", kind="dpo", data="pairs"))
    assert caught.value.screen() == ROLES.replace("data.chats", "data.pairs") + HINT
    assert make_plan(prepared(tmp_path, "skip", kind="dpo", data="pairs")).stages[0].arithmetic.rows == 2


def test_where_the_template_can_write_no_row_at_all_the_first_one_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        make_plan(prepared(tmp_path, "skip", LINES[1:2] * 2))
    assert caught.value.screen() == (
        "data.chats has no rows: 2 bad were left out\n    hint: see its `filter` and `on_bad_row`\n\n"
        + ROLES.replace(":2: data.chats", ":1: the first of them: data.chats", 1)
    )


def test_which_rows_are_left_out_follows_from_the_template(tmp_path: Path) -> None:
    before = prepared(tmp_path, "skip").digests["chats"]
    fails = prepared(tmp_path, "fail").digests["chats"]
    (tmp_path / "mine.jinja").write_text(TEMPLATE.replace("!= (loop", "== (loop"))
    load = Prepared(load_checked(tmp_path / "r.yaml", ()), tmp_path / "results" / "r")
    assert load.digests["chats"] == fails
    (tmp_path / "r.yaml").write_text((tmp_path / "r.yaml").read_text().replace("on_bad_row: fail", "on_bad_row: skip"))
    assert Prepared(load_checked(tmp_path / "r.yaml", ()), tmp_path / "results" / "r").digests["chats"] != before
