"""The trap of negatives, from real projects: ways in which a negative was none, and what is said of them."""

from __future__ import annotations

from pathlib import Path

from tests.test_pairs import build, preferences

QUESTION = {"prompt": "汉字`{{ char }}`的部首是什么？", "completion": "汉字`{{ char }}`的部首是`{{ radical }}部`"}
ROWS = [
    {"char": "恙", "radical": "心", "wrong": "汉字`恙`的部首是`None部`"},
    {"char": "歆", "radical": "欠", "wrong": "汉字`歆`的部首是`['心', '欠']部`"},
    {"char": "松", "radical": "木", "wrong": "汉字`柏`的部首是`木部`"},  # true, and about another row
    {"char": "柏", "radical": "木", "wrong": "汉字`柏`的部首是`木部`"},  # right
    {"char": "江", "radical": "水", "wrong": "汉字`江`的部首是`木部`"},
]


def test_generated_negatives_contained_none_list_reprs_and_true_facts_about_another_row(tmp_path: Path) -> None:
    found = preferences(tmp_path, ROWS, **QUESTION, rejected="{{ wrong }}")
    assert [pair.rejected for pair in found.pairs] == ["汉字`江`的部首是`木部`"]
    assert found.dropped == {"unwritten": 2, "true": 1, "chosen": 1}
    assert found.without == 4


def test_so_they_are_in_a_file_of_pairs_that_another_script_has_written(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"汉字`{row['char']}`的部首是什么？", "chosen": f"汉字`{row['char']}`的部首是`{row['radical']}部`",
         "rejected": row["wrong"]}
        for row in ROWS
    ]  # fmt: skip
    found = build(tmp_path, rows).get("chars").preferences()
    assert found.dropped == {"unwritten": 2, "true": 1, "chosen": 1}
    assert [pair.row for pair in found.pairs] == [4]


def test_an_empty_column_or_a_list_is_never_written_into_a_negative(tmp_path: Path) -> None:
    rows = [{"char": "恙", "radical": "心", "bad": None}, {"char": "歆", "radical": "欠", "bad": ["a", "b"]},
            {"char": "江", "radical": "水", "bad": "木"}]  # fmt: skip
    found = preferences(tmp_path, rows, **QUESTION, rejected="汉字`{{ char }}`的部首是`{{ bad }}部`")
    assert found.dropped == {"unwritten": 2}
    assert [str(drop.where) for drop in found.first] == ["rows.jsonl:1", "rows.jsonl:2"]


def test_what_was_left_out_is_said_with_its_place_and_its_words(tmp_path: Path) -> None:
    found = preferences(tmp_path, ROWS, **QUESTION, rejected="{{ wrong }}")
    assert found.lines() == (
        "4 negatives left out (2 with None, a list or an object in them, 1 true of another row, 1 equal to chosen): "
        "rows.jsonl:1: 汉字`恙`的部首是`None部`; rows.jsonl:2: 汉字`歆`的部首是`['心', '欠']部`; "
        "rows.jsonl:3: 汉字`柏`的部首是`木部`",
        "4 rows left out: no negative is left for them",
    )
