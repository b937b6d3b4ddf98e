"""Data sets: splits by key, texts redrawn per epoch, pairs whose rejected side is wrong everywhere, cases with ids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import spec
from runner.asking import ascii_id
from runner.data import datasets
from runner.data.datasets import Datasets
from runner.errors import BadData

SPLIT = {"by": "char", "train": 0.5, "select": 0.2, "held_out": 0.3}
QUESTION = {"prompt": "{{ char }}?", "completion": "{{ char }}: {{ radical }}"}
ROWS = [{"char": chr(0x4E00 + at), "radical": "abcde"[at % 5]} for at in range(40)]


def build(root: Path, rows: list[dict[str, Any]], seed: int = 1, cases: str | None = None, **data: Any) -> Datasets:
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values: dict[str, Any] = {
        "recipe": "r",
        "seed": seed,
        "model": {"path": "m"},
        "data": {"chars": {"path": "rows.jsonl"}, **data},
        "stages": {"qa": {"kind": "sft", "data": "chars"}},
    }
    if cases:
        values["probes"] = {"suite": {"file": "p.py", "cases": cases}}
    return datasets.build(spec.Recipe.model_validate(values), root)


def split_chars(root: Path, seed: int = 1, rows: list[dict[str, Any]] = ROWS, **data: Any) -> Datasets:
    return build(root, rows, seed, chars={"path": "rows.jsonl", "split": SPLIT}, **data)


def chars_of(data: Datasets, ref: str) -> list[str]:
    return [item.values["char"] for item in data.get(ref).items]


def test_splits_divide_the_keys_by_their_shares_and_keep_equal_keys_together(tmp_path: Path) -> None:
    data = split_chars(tmp_path, rows=[*ROWS, *ROWS])
    sides = [chars_of(data, f"chars.{split}") for split in ("train", "select", "held_out")]
    assert [len(set(side)) for side in sides] == [20, 8, 12]
    assert [len(side) for side in sides] == [40, 16, 24]
    assert not set(sides[0]) & set(sides[1]) | set(sides[1]) & set(sides[2]) | set(sides[0]) & set(sides[2])


def test_a_split_does_not_depend_on_the_order_of_rows_but_on_the_seed(tmp_path: Path) -> None:
    train = set(chars_of(split_chars(tmp_path), "chars.train"))
    assert set(chars_of(split_chars(tmp_path, rows=ROWS[::-1]), "chars.train")) == train
    assert set(chars_of(split_chars(tmp_path, seed=2), "chars.train")) != train


def test_data_sets_made_from_rows_inherit_their_splits(tmp_path: Path) -> None:
    data = split_chars(tmp_path, questions={"rows": "chars", **QUESTION}, some={"rows": "questions.train", "take": 3})
    assert chars_of(data, "questions.train") == chars_of(data, "chars.train")
    assert chars_of(data, "some") == chars_of(data, "chars.train")[:3]


def test_an_empty_split_and_an_unknown_one_are_errors(tmp_path: Path) -> None:
    data = split_chars(tmp_path, rows=ROWS[:1])
    assert len(data.get("chars.select")) == 1
    with pytest.raises(BadData, match=r"data\.chars\.held_out has no rows"):
        len(data.get("chars.held_out"))
    with pytest.raises(BadData, match="no split 'tset'"):
        data.get("chars.tset")
    with pytest.raises(BadData, match="there is no data set 'chart'"):
        data.get("chart")


def test_a_row_without_its_split_key_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        len(split_chars(tmp_path, rows=[*ROWS, {"radical": "a"}]).get("chars.train"))
    assert caught.value.screen() == "rows.jsonl:41: data.chars.split: this row has no char"


def test_a_pick_is_redrawn_each_epoch_from_seed_row_and_epoch(tmp_path: Path) -> None:
    ways = [{"text": f"{{{{ char }}}}{number}"} for number in range(6)]
    entries = {"rows": "chars", "pick": {"n": 3, "of": ways}}
    first = build(tmp_path, ROWS, entries=entries).get("entries")
    again = build(tmp_path, ROWS, entries=entries).get("entries")
    assert first.examples(0) == again.examples(0) != first.examples(1)
    for example in first.examples(0):
        lines = example.completion.split("\n")
        assert len(set(lines)) == 3
        assert {line[0] for line in lines} == {ROWS[example.row]["char"]}
    assert len(set(first.texts())) == 6 * 40 + 1


def test_the_draw_of_a_row_is_the_same_in_a_split(tmp_path: Path) -> None:
    ways = [{"prompt": "{{ char }}", "completion": str(number)} for number in range(9)]
    data = split_chars(tmp_path, asked={"rows": "chars", "pick": {"n": 1, "of": ways}})
    everywhere = {example.row: example for example in data.get("asked").examples(4)}
    assert all(everywhere[example.row] == example for example in data.get("asked.train").examples(4))


def test_columns_named_like_fields_need_no_templates(tmp_path: Path) -> None:
    data = build(tmp_path, [{"prompt": "q", "chosen": "a", "rejected": "b", "text": "t"}], docs={"path": "d.txt"})
    (tmp_path / "d.txt").write_text("one\n")
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in data.get("chars").pairs()] == [("q", "a", "b")]
    assert [(example.prompt, example.completion) for example in data.get("docs").examples(0)] == [("", "one")]


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}])
def test_an_empty_value_or_a_list_is_never_written_into_a_text(tmp_path: Path, value: object) -> None:
    data = build(tmp_path, [{"char": "x", "radical": value}], questions={"rows": "chars", **QUESTION})
    with pytest.raises(BadData, match=r"^rows\.jsonl:1: data\.questions\.completion: \{\{ radical \}\} is"):
        data.get("questions").examples(0)


def test_a_field_that_a_row_lacks_is_an_error_with_its_line(tmp_path: Path) -> None:
    data = build(tmp_path, [*ROWS[:2], {"char": "x"}], questions={"rows": "chars", **QUESTION})
    with pytest.raises(BadData) as caught:
        data.get("questions").examples(0)
    said = "rows.jsonl:3: data.questions.completion: 'radical' is undefined\n"
    assert caught.value.screen() == f"{said}    hint: the row has char"


def test_a_field_with_a_typing_error_is_given_the_name_that_the_row_has(tmp_path: Path) -> None:
    data = build(tmp_path, ROWS, questions={"rows": "chars", **QUESTION, "completion": "{{ radicl }}"})
    with pytest.raises(BadData) as caught:
        data.get("questions").examples(0)
    assert caught.value.problems[0].hint == "did you mean radical?"


def test_case_ids_are_the_id_column_else_the_split_key_else_a_digest(tmp_path: Path) -> None:
    def ids(data: Datasets) -> list[str]:
        return [ascii_id(str(case["id"])) for case in data.get("chars").cases()]  # a column stays as it is written

    assert ids(build(tmp_path, [{"id": 7}, {"id": "a b"}])) == ["7", "U+0061_U+0020_U+0062"]
    assert ids(split_chars(tmp_path, rows=[{"char": "歆"}, {"char": "a-1"}, {"char": "歆"}])) == [
        "U+6B46",
        "a-1",
        "U+6B46-2",
    ]
    digests = ids(build(tmp_path, [{"x": 1}, {"x": 2}]))
    assert len(set(digests)) == 2
    assert all(len(name) == 12 for name in digests)
    (text,) = ids(split_chars(tmp_path, rows=[{"char": "天地玄黄宇宙洪荒日月盈昃"}]))
    assert len(text) == 12  # a text that rows are split by is no name


def test_splits_are_written_with_every_column_and_the_written_texts(tmp_path: Path) -> None:
    data = build(
        tmp_path,
        ROWS,
        cases="questions.held_out",
        chars={"path": "rows.jsonl", "split": SPLIT},
        questions={"rows": "chars", **QUESTION},
    )
    names = {path.name for path in datasets.write_splits(data, tmp_path / "data")}
    assert names == {
        f"{name}.{split}.jsonl" for name in ("chars", "questions") for split in ("train", "select", "held_out")
    }
    lines = (tmp_path / "data" / "questions.held_out.jsonl").read_text("utf-8").splitlines()
    case = json.loads(lines[0])
    assert list(case) == ["id", "char", "radical", "prompt", "completion"]
    assert case["prompt"] == f"{case['char']}?"
    assert len(lines) == 12


def test_a_digest_follows_the_file_the_templates_and_the_seed_and_nothing_else(tmp_path: Path) -> None:
    def digest(rows: list[dict[str, Any]] = ROWS, seed: int = 1, ref: str = "questions", **changed: str) -> str:
        questions = {"rows": "chars", **QUESTION, **changed}
        made = split_chars(tmp_path, seed, rows, questions=questions, more={"path": "x"})
        return made.get(ref).digest()

    assert digest() == digest()
    others = {digest(ROWS[1:]), digest(seed=2), digest(prompt="{{ char }}"), digest(ref="questions.train"), digest()}
    assert len(others) == 5


def test_data_imports_neither_torch_nor_tokenizers_nor_pyarrow() -> None:
    code = "import sys, runner.data.datasets, runner.data.tokens, runner.data.epochs as e; print([m for m in "
    code += "('torch', 'transformers', 'tokenizers', 'pyarrow', 'datasets') if m in sys.modules])"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@given(st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=30), st.integers(0, 99))
def test_every_row_lands_in_exactly_one_split(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str], seed: int
) -> None:
    root = tmp_path_factory.mktemp("split")
    data = split_chars(root, seed, [{"char": key.encode("utf-8", "replace").decode()} for key in keys])
    layer = data.get("chars")._layer
    found = [item.index for split in ("train", "select", "held_out") for item in layer.side(split)]
    assert sorted(found) == list(range(len(keys)))
