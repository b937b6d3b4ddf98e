"""The JSON Schema of the language: what an editor completes, explains and underlines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from runner import cli, recipe
from runner.recipe.layers import project_root, read_layers
from runner.starter import schema_text, write_starter

ROOT = Path(__file__).parents[1]
SCHEMA = recipe.schema()
SMALL: dict[str, Any] = {
    "recipe": "small", "model": {"path": "x"}, "data": {"a": {"path": "x.jsonl"}},
    "stages": {"qa": {"kind": "sft", "data": "a"}},
}  # fmt: skip


def faults(values: object) -> list[str]:
    """Places and messages, the innermost of each."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    found = []
    for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(values):
        inner = jsonschema.exceptions.best_match([error])
        found.append(f"{'.'.join(map(str, inner.absolute_path))}: {inner.message}")
    return found


def written(file: Path) -> dict[str, Any]:
    """The values of a file as they stand there, `extends` among them."""
    values = dict(read_layers(file, project_root(file)).values)
    own = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("extends:")]
    return {**values, **({"extends": own[0].partition(":")[2].strip()} if own else {})}


def test_the_schema_is_one() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.name)
def test_a_recipe_that_ships_has_no_fault(file: Path) -> None:
    assert faults(written(file)) == []


def test_a_first_recipe_has_no_fault_and_lies_beside_the_schema_it_names(tmp_path: Path) -> None:
    file, *_ = write_starter("mine", tmp_path)
    assert faults(written(file)) == []
    named = file.read_text(encoding="utf-8").splitlines()[0].rpartition("$schema=")[2]
    assert json.loads((tmp_path / named).read_text(encoding="utf-8")) == SCHEMA


def test_a_schema_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "recipe.schema.json").write_text("{}", encoding="utf-8")
    assert [path.name for path in write_starter("mine", tmp_path)] == ["mine.yaml", "mine.tsv", "test_mine.py"]
    assert (tmp_path / "recipe.schema.json").read_text(encoding="utf-8") == "{}"


def test_one_text_stands_for_a_list_and_a_template_for_a_number() -> None:
    stage = {"kind": "sft", "data": ["a"], "learning_rate": "{{ lr }}", "save_steps": [1, 2], "packing": "{{ packs }}"}
    pairs = {"rows": "a", "prompt": "p", "completion": "c", "rejected": "{{ other.c }}"}
    assert faults({**SMALL, "stages": {"qa": stage}, "data": {**SMALL["data"], "pairs": pairs}}) == []


def test_what_extends_another_and_a_variant_say_only_what_differs() -> None:
    assert (
        faults({"extends": "small.yaml", "recipe": "other", "stages": {"qa": {"learning_rate": 1e-4}, "b": None}}) == []
    )
    assert faults({**SMALL, "matrix": {"slow": {"stages": {"qa": {"learning_rate": 1e-4}}}, "none": {}}}) == []
    assert faults({**SMALL, "matrix": {"slow": {"stages": {"qa": {"learning_rat": 1e-4}}}}}) != []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sed": 3}, ": Additional properties are not allowed ('sed' was unexpected)"),
        ({"recipe": "汉字"}, "recipe: '汉字' does not match '^[A-Za-z][A-Za-z0-9_-]*$'"),
        ({"stages": {}}, "stages: {} should be non-empty"),
    ],
)
def test_what_check_refuses_in_the_shape_of_a_recipe_the_schema_refuses_too(change: dict[str, Any], fault: str) -> None:
    assert faults({**SMALL, **change}) == [fault]


@pytest.mark.parametrize(
    "stage",
    [
        {"kind": "sft"}, {"kind": "stf", "data": "a"}, {"kind": "sft", "data": []}, {"data": "a"},
        {"kind": "sft", "data": "a", "learning_rate": "fast"}, {"kind": "sft", "data": "a", "truncation": "keep"},
        {"kind": "pretrain", "data": "a", "beta": 0.1},
    ],
)  # fmt: skip
def test_a_stage_that_is_wrong_is_refused(stage: dict[str, Any]) -> None:
    assert faults({**SMALL, "stages": {"qa": stage}}) != []


def test_hover_texts_are_sentences_on_one_line() -> None:
    fields = [
        (name, field) for block in SCHEMA["$defs"].values() for name, field in block.get("properties", {}).items()
    ]
    assert len(fields) > 250
    assert [name for name, field in fields if not field.get("description", "").endswith(".")] == []
    assert [name for name, field in fields if "\n" in field["description"]] == []


def test_the_command_prints_it_or_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["schema"], ["schema", "--out", "recipe.schema.json"]):
        monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        assert leaving.value.code == 0
    assert capsys.readouterr().out == schema_text() + "wrote recipe.schema.json\n"
    assert (tmp_path / "recipe.schema.json").read_text(encoding="utf-8") == schema_text()
