"""Rows that are left out: counted by reason, shown by file and line, recorded in the run, and never silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner import console, spec
from runner.check import load_checked
from runner.data import datasets, measures
from runner.data.datasets import Dataset, Datasets
from runner.errors import BadData
from runner.preparation import Prepared, make_plan
from tests import screens

QA = {"rows": "src", "prompt": "{{ q }}", "completion": "{{ a }}"}


def build(root: Path, lines: list[str], source: dict[str, Any], **data: Any) -> Datasets:
    (root / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": {"config": {"model_type": "qwen3"}, "tokenizer": {"train": "char", "from_data": "src"}},
            "data": {"src": {"path": "rows.jsonl", **source}, **data},
            "stages": {"s": {"kind": "sft", "data": "src"}},
        }
    )
    return datasets.build(recipe, root)


def row(prompt: str, answer: object) -> str:
    return json.dumps({"q": prompt, "a": answer})


def prompts(data: Dataset) -> list[str]:
    return [example.prompt for example in data.examples(0)]


def test_a_bad_line_ends_the_reading_unless_bad_rows_are_skipped(tmp_path: Path) -> None:
    lines = [row("1", "x"), "{oops", row("3", "x")]
    with pytest.raises(BadData, match=r"rows\.jsonl:2:2: not JSON"):
        len(build(tmp_path, lines, {}).get("src"))
    data = build(tmp_path, lines, {"on_bad_row": "skip"}, qa=QA)
    assert prompts(data.get("qa")) == ["1", "3"]
    assert [example.row for example in data.get("qa").examples(0)] == [0, 2], "mending line 2 moves no draw"
    assert data.account("qa").lines() == (
        "data.src: left out: 1 bad",
        "  rows.jsonl:2:2: not JSON: Expecting property name enclosed in double quotes",
    )


def test_a_row_that_cannot_be_written_is_skipped_where_the_templates_stand(tmp_path: Path) -> None:
    lines = [row("1", "x"), row("2", None), row("3", ["x"]), row("4", "  "), *(row(str(n), {}) for n in range(5, 9))]
    with pytest.raises(BadData, match=r"rows\.jsonl:2: data\.qa\.completion: \{\{ a \}\} is nothing"):
        build(tmp_path, lines, {"on_bad_row": "skip"}, qa=QA).get("qa").examples(0)
    account = build(tmp_path, lines, {}, qa={**QA, "on_bad_row": "skip"}).account("qa")
    assert account.rows == 1
    assert account.lines() == (
        "data.qa: left out: 7 bad",
        "  rows.jsonl:2: data.qa.completion: {{ a }} is nothing (null) in this row; expected text",
        "  rows.jsonl:3: data.qa.completion: {{ a }} is a list in this row; expected text",
        "  rows.jsonl:4: data.qa: what is to be said is empty in this row",
    )


def test_an_empty_text_is_bad_unless_a_filter_leaves_such_rows_out(tmp_path: Path) -> None:
    lines = [row("1", "x"), row("2", ""), row(" ", "x")]
    with pytest.raises(BadData) as caught:
        build(tmp_path, lines, {}, qa=QA).get("qa").examples(0)
    assert caught.value.screen() == (
        "rows.jsonl:2: data.qa: what is to be said is empty in this row\n"
        "    hint: filter: {empty: true} leaves such rows out"
    )
    data = build(tmp_path, lines, {}, qa={**QA, "filter": {"empty": True}})
    assert prompts(data.get("qa")) == ["1"]
    assert data.account("qa").record()["left_out"] == {"qa": {"empty": 2}}


def test_lengths_are_those_of_all_texts_of_a_row(tmp_path: Path) -> None:
    lines = [row("12", "3"), row("12", "345"), row("1234567", "890")]
    data = build(tmp_path, lines, {}, qa={**QA, "filter": {"min_chars": 4, "max_chars": 9}})
    assert [example.completion for example in data.get("qa").examples(0)] == ["345"]
    assert data.account("qa").left_out[0].rows == {"shorter than 4 characters": 1, "longer than 9 characters": 1}


def test_a_picks_lengths_are_those_of_its_shortest_and_longest_document(tmp_path: Path) -> None:
    lines = [row("1", "x")]
    ways = [{"text": "a"}, {"text": "bb"}, {"text": "ccc"}]
    pick = {"rows": "src", "pick": {"n": 2, "of": ways}}
    for bounds, left in (({"min_chars": 4, "max_chars": 6}, 1), ({"min_chars": 5}, 0), ({"max_chars": 5}, 0)):
        data = build(tmp_path, lines, {}, docs={**pick, "filter": bounds})
        assert len(data._layer("docs").items) == left, bounds


def test_duplicates_are_counted_and_left_out_where_a_filter_says_so(tmp_path: Path) -> None:
    lines = [row("1", "x"), row("2", "y"), row("1", "x"), row("1", "z"), row("2", "y"), row("2", "y")]
    data = build(tmp_path, lines, {}, qa=QA, once={**QA, "filter": {"duplicates": True}})
    assert data.account("qa").duplicates == 3
    assert [example.row for example in data.get("once").examples(0)] == [0, 1, 3]
    assert data.account("once").record()["left_out"] == {"once": {"duplicate": 3}}
    assert data.account("once").duplicates == 0


def test_a_split_divides_what_a_filter_left(tmp_path: Path) -> None:
    lines = [row(str(number), "x" if number % 2 else "") for number in range(40)]
    split = {"by": "q", "train": 0.5, "held_out": 0.5}
    written = {"prompt": "{{ q }}", "completion": "{{ a }}"}
    data = build(tmp_path, lines, {**written, "filter": {"empty": True}, "split": split})
    sides = [set(prompts(data.get(f"src.{side}"))) for side in ("train", "held_out")]
    assert [len(side) for side in sides] == [10, 10]
    assert sides[0] | sides[1] == {str(number) for number in range(1, 40, 2)}


def test_take_counts_rows_before_they_are_filtered(tmp_path: Path) -> None:
    lines = [row("1", ""), row("2", "x"), row("3", "x")]
    data = build(tmp_path, lines, {}, qa={**QA, "take": 2, "filter": {"empty": True}})
    assert prompts(data.get("qa")) == ["2"]


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    data = build(tmp_path, [row("1", ""), row("2", "")], {}, qa={**QA, "filter": {"empty": True}})
    with pytest.raises(BadData) as caught:
        len(data.get("qa"))
    assert (
        caught.value.screen()
        == "data.qa has no rows: 2 empty were left out\n    hint: see its `filter` and `on_bad_row`"
    )
    with pytest.raises(BadData, match=r"has no rows that can be read \(2 cannot\)"):
        len(build(tmp_path, ["{", "{"], {"on_bad_row": "skip", "columns": None}).get("src"))


def test_an_unclosed_quotation_mark_ends_the_reading_even_where_bad_rows_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('text\nfine\n"never closed\nfine\nfine\n')
    data = build(tmp_path, [], {"path": "rows.csv", "on_bad_row": "skip"})
    with pytest.raises(BadData, match=r"rows\.csv:3: not CSV: unexpected end of data"):
        len(data.get("src"))


# --- measures ---


def test_varied_texts_have_a_higher_distinct_n_and_a_lower_compression_ratio() -> None:
    same = measures.diversity(["the cat sat on the mat"] * 50)
    varied = measures.diversity([f"{number * 7919} {number * 104729}" for number in range(50)])
    assert (same.distinct_1, same.distinct_2) == (5 / (6 * 50), 5 / (5 * 50))
    assert (varied.distinct_1, varied.distinct_2) == (0.99, 1.0)
    assert same.compression > 20 > 3 > varied.compression


def test_the_sample_that_is_measured_is_bounded(tmp_path: Path) -> None:
    found = measures.diversity(["x" * 400_000] * 5)
    assert found.rows == 3
    lines = [row(str(number), "x") for number in range(measures.SAMPLE_ROWS * 2)]
    assert build(tmp_path, lines, {}, qa=QA).account("qa").diversity.rows == measures.SAMPLE_ROWS


# --- in the plan ---

RECIPE = """\
recipe: r
model: {config: {model_type: qwen3, hidden_size: 8}, tokenizer: {train: char, from_data: chats}, chat_template: chatml}
data:
  chats: {path: rows.jsonl, on_bad_row: skip, filter: {duplicates: true}}
stages:
  qa: {kind: sft, data: chats, num_train_epochs: 1}
"""


def prepared(root: Path) -> Prepared:
    (root / "pyproject.toml").touch()
    (root / "r.yaml").write_text(RECIPE)
    chats = [json.dumps({"conversations": [{"human": text, "assistant": "yes"}]}) for text in ("a", "b", "a")]
    (root / "rows.jsonl").write_text("\n".join([*chats, "{", '{"conversations": []}', ""]))
    return Prepared(load_checked(root / "r.yaml", ()), root / "results" / "r")


def test_the_plan_shows_the_format_the_counts_and_the_first_bad_rows(tmp_path: Path) -> None:
    shown = screens.lines(console.plan_screen(make_plan(prepared(tmp_path))))
    start = next(number for number, line in enumerate(shown) if line.startswith("data "))
    assert shown[start : start + 7] == [
        "data   rows  left out  duplicates  distinct-1, -2  zlib  written as",
        "chats     2         3           0      0.75, 1.00  0.8×  conversations",
        "                                                         (sharegpt, recognised)",
        "  data.chats: left out: 2 bad, 1 duplicate",
        "    rows.jsonl:4:2: not JSON: Expecting property name enclosed in double quotes",
        "    rows.jsonl:5: data.chats: conversations is empty; expected turns of a",
        "conversation (format: sharegpt)",
    ]


def test_what_was_left_out_is_recorded_with_the_runs_data(tmp_path: Path) -> None:
    accounts = prepared(tmp_path).accounts
    assert [account.record()["left_out"] for account in accounts] == [{"chats": {"bad": 2, "duplicate": 1}}]
