"""runner.data.seen: what training saw is found again by digest."""

from pathlib import Path

import pytest

from runner.check import load_checked
from runner.data import datasets, seen
from runner.errors import BadData

RECIPE = """\
recipe: r
model: {config: {model_type: qwen3}, tokenizer: {train: char, from_data: facts}}
data:
  chars: {path: chars.csv, split: {by: char, train: 0.5, held_out: 0.5}}
  facts:
    rows: chars
    pick: {n: 1, of: [{text: "{{ char }} is filed under {{ radical }}"}, {text: "{{ radical }}: {{ char }}"}]}
  questions: {rows: chars, prompt: "radical of {{ char }}?", completion: " {{ radical }}"}
stages: {base: {kind: pretrain, data: facts}, qa: {kind: sft, from: base@last, data: questions.train}}
"""
CHARS = "char,radical\n" + "".join(f"{char},{char.upper()}\n" for char in "abcdefgh")


@pytest.fixture
def data(tmp_path: Path) -> datasets.Datasets:
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "chars.csv").write_text(CHARS, encoding="utf-8")
    (tmp_path / "pyproject.toml").touch()
    loaded = load_checked(tmp_path / "r.yaml", ())
    return datasets.build(loaded.spec, loaded.root)


def chars(data: datasets.Datasets, ref: str) -> list[str]:
    return [case["char"] for case in data.get(ref).cases()]


def test_a_trained_question_is_found_and_a_held_out_one_is_not(data: datasets.Datasets) -> None:
    found = seen.gather(data.get("questions.train"))
    assert {found.holds(f"radical of {char}?", char) for char in chars(data, "questions.train")} == {"question"}
    assert {found.holds(f"radical of {char}?", char) for char in chars(data, "questions.held_out")} == {""}


def test_the_same_thing_in_other_words_was_seen_as_facts(data: datasets.Datasets) -> None:
    found = seen.gather(data.get("questions.train"))
    assert {found.holds(f"what of {char}?", char) for char in chars(data, "questions.train")} == {"facts"}
    assert seen.gather(data.get("facts")).holds("radical of a?", "a") == "facts"


def test_every_text_a_document_can_have_counts_as_seen(data: datasets.Datasets) -> None:
    found = seen.gather(data.get("facts"))
    assert found.holds("a is filed under A", "?") == found.holds("A: a", "?") == "question"


def test_it_is_the_same_after_it_was_kept_in_files(data: datasets.Datasets, tmp_path: Path) -> None:
    found = seen.gather(data.get("questions.train"))
    seen.write(found, tmp_path / "seen")
    assert seen.read("questions.train", tmp_path / "seen") == found
    assert seen.read("questions.held_out", tmp_path / "seen") is None


def test_a_damaged_file_is_named(data: datasets.Datasets, tmp_path: Path) -> None:
    seen.write(seen.gather(data.get("questions.train")), tmp_path)
    (tmp_path / "questions.train.u64").write_bytes(b"x" * 8)
    with pytest.raises(BadData, match=r"questions\.train\.json cannot be read \(ValueError: 1 digests\)"):
        seen.read("questions.train", tmp_path)


def test_a_prompt_that_is_not_how_training_wrote_it_differs(data: datasets.Datasets) -> None:
    rows = seen.gather(data.get("questions.train")).rows
    asked = [(f"Radical of {row.columns['char']}?", row) for row in rows]
    assert seen.differs(asked) == (asked[0][0], rows[0].prompt)
    assert seen.differs([(row.prompt, row) for row in rows]) is None
    assert seen.differs([("radical of", row) for row in rows]) is None
