"""The shape inside: a module imports only from floors below its own, and only some may import torch."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNNER = ROOT / "runner"

TABLE = """
| floor | modules |
|---|---|
| 0 | `errors` · `atomic` · `orphans` · `foreign_code` · `sandbox` · `underway` |
| 1 | `yaml_marks` · `spec` · `templates` · `asking` · `events` · `verdicts` · `loadable` · `repetition` · `answers` · `classification` · `forgetting` · `markdown` · `trackers` · `interruption` · `refused` · `gpus` · `dividing` |
| 2 | `__init__` · `recipe` · `checkpoints` · `gate` · `launch` · `children` · `folder` · `data` · `handover` · `stage_ends` · `diverging` · `pulls` · `memory` · `deepspeed_config` · `nodes` · `slurm` |
| 3 | `check` · `plan` · `leaks` · `jobs` · `tables` · `model` · `starter` · `hosting` · `locked` · `saving` · `amounts` |
| 4 | `standings` · `console` · `train` · `sharing` · `joining` · `completing` |
| 5 | `preparation` · `prober` · `ending` · `progress` · `comparing` · `probing` · `sampler` · `model_card` |
| 6 | `bisecting` · `export` · `host` · `listing` · `preview` · `report` · `run` · `verifying` · `watching` |
| 7 | `matrix` |
| 8 | `cli` |
"""  # noqa: E501

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "deepspeed"}
MAY_BE_HEAVY = re.compile(r"model\.py|data/hub\.py|train/\w+\.py|probing/(engine/\w+|warm)\.py")


@dataclass(frozen=True)
class Import:
    """One import of one module, wherever in its file it stands."""

    file: Path
    line: int
    of: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.of}"


def floors(markdown: str) -> dict[str, int]:
    """Module → floor, from a table whose rows are `| 3 | `name` (words) · `name` |`."""
    found: dict[str, int] = {}
    for row in re.finditer(r"^\| (\d+) \| (.*) \|$", markdown, re.MULTILINE):
        for name in re.findall(r"`(\w+)/?`", re.sub(r"\([^)]*\)", "", row[2])):
            assert name not in found, f"{name} stands on two floors"
            found[name] = int(row[1])
    return found


FLOORS = floors(TABLE)


def unit_of(file: Path) -> str:
    """The module, or the package as one."""
    return file.relative_to(RUNNER).with_suffix("").parts[0]


def for_types_only(tree: ast.AST) -> set[ast.AST]:
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


def imports(file: Path) -> Iterator[Import]:
    """Every import that can run, inside functions too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    left_out = for_types_only(tree)
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import hides what it imports"
            # `from runner import spec` imports the module, `from runner import probe` the package's own face
            whole = [f"runner.{alias.name}" for alias in node.names] if node.module == "runner" else [node.module or ""]
            yield from (Import(file, node.lineno, name) for name in whole)


def modules() -> list[Path]:
    return sorted(RUNNER.rglob("*.py"))


def imported_unit(name: str) -> str | None:
    """The unit of this package that an import reaches, or None for another library."""
    top, _, rest = name.partition(".")
    if top != "runner":
        return None
    unit = rest.partition(".")[0] or "__init__"
    return unit if (RUNNER / f"{unit}.py").exists() or (RUNNER / unit / "__init__.py").exists() else "__init__"


def test_every_module_of_the_package_stands_on_a_floor() -> None:
    assert sorted(FLOORS) == sorted({unit_of(file) for file in modules()})


def test_a_module_imports_only_from_lower_floors() -> None:
    wrong = [
        str(found)
        for file in modules()
        for found in imports(file)
        if (target := imported_unit(found.of)) not in (None, unit_of(file)) and FLOORS[target] >= FLOORS[unit_of(file)]
    ]
    assert wrong == []


def test_torch_is_imported_in_model_train_and_the_engine_and_nowhere_else() -> None:
    wrong = [
        str(found)
        for file in modules()
        if not MAY_BE_HEAVY.fullmatch(file.relative_to(RUNNER).as_posix())
        for found in imports(file)
        if found.of.partition(".")[0] in HEAVY
    ]
    assert wrong == []


def test_no_module_is_named_for_holding_anything() -> None:
    banned = {"utils", "common", "helpers", "base", "manager", "factory"}
    assert [file for file in modules() if file.stem in banned] == []


@pytest.mark.skipif(not (ROOT / "CONTRIBUTING.md").exists(), reason="CONTRIBUTING.md is not written yet")
def test_contributing_draws_these_floors() -> None:
    assert floors((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")) == FLOORS


def test_an_import_inside_a_function_counts_and_one_for_types_does_not(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from runner.run import run\n"
        "def late():\n    from runner import cli, probe\n    import runner.train.worker\n",
        encoding="utf-8",
    )
    assert [(found.line, imported_unit(found.of)) for found in imports(file)] == [
        (1, None), (5, "cli"), (5, "__init__"), (6, "train"),
    ]  # fmt: skip
