"""What training saw of conversations: a question is told from others by what was said before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner import leaks
from runner.check import load_checked
from runner.data import datasets, seen

RECIPE = """\
recipe: r
model: {config: {model_type: qwen3}, tokenizer: {train: char, from_data: talks}, chat_template: plain}
data:
  chars: {path: chars.csv, split: {by: char, train: 0.5, held_out: 0.5}}
  talks:
    rows: chars
    system: Be brief.
    messages:
      - {role: user, content: "radical of {{ char }}?"}
      - {role: assistant, content: "{{ radical }}"}
      - {role: user, content: "sure?"}
      - {role: assistant, content: "yes"}
stages: {base: {kind: sft, data: talks.train}}
probes:
  held_out: {file: test_it.py, cases: talks.held_out}
  trained: {file: test_it.py, cases: talks.train}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "chars.csv").write_text("char,radical\n" + "".join(f"{char},{char.upper()}\n" for char in "abcdefgh"))
    (tmp_path / "test_it.py").write_text("def test_it(): ...\n")
    (tmp_path / "pyproject.toml").touch()
    return tmp_path / "r.yaml"


def test_a_question_that_ends_like_all_others_is_told_from_them_by_what_was_said_before(recipe: Path) -> None:
    loaded = load_checked(recipe)
    data = datasets.build(loaded.spec, loaded.root)
    found = seen.gather(data.get("talks.train"))
    for side, expected in (("train", "question"), ("held_out", "")):
        for position in range(len(data.get(f"talks.{side}"))):
            messages = data.get(f"talks.{side}").variants(position)[0].messages
            for asked in (messages[:2], messages[:4]):
                assert found.holds(seen.question_of(asked), "") == expected
    assert found.holds("sure?", "") == ""
    assert [(leak.suite, leak.leaked) for leak in leaks.find(loaded.spec, data)] == [("trained", 4)]


def test_through_a_template_a_prompt_has_to_be_all_that_a_user_said(recipe: Path, tmp_path: Path) -> None:
    loaded = load_checked(recipe)
    found = seen.gather(datasets.build(loaded.spec, loaded.root).get("talks.train"))
    seen.write(found, tmp_path / "seen")
    kept = seen.read("talks.train", tmp_path / "seen")
    assert kept == found
    (first, *_) = kept.rows
    assert seen.differs([(first.prompt, first)], chat=True) is None
    assert seen.differs([(first.turns[1], first)], chat=True) is None
    assert seen.differs([("radical of", first)], chat=True) == ("radical of", first.prompt)
    plain = seen.Row({}, "radical of a?", "radical of a? A")
    assert seen.differs([("radical of", plain)]) is None
    assert seen.differs([("radical of", plain)], chat=True) == ("radical of", "radical of a?")
    assert seen.differs([("radical of a?", plain)], chat=True) is None


def test_files_of_earlier_versions_are_read(recipe: Path, tmp_path: Path) -> None:
    loaded = load_checked(recipe)
    folder = tmp_path / "seen"
    seen.write(seen.gather(datasets.build(loaded.spec, loaded.root).get("talks.train")), folder)
    path = folder / "talks.train.json"
    about = json.loads(path.read_text())
    about["rows"] = [row[:3] for row in about["rows"]]
    path.write_text(json.dumps(about))
    kept = seen.read("talks.train", folder)
    assert kept is not None
    assert {row.turns for row in kept.rows} == {()}
