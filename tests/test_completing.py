"""recipe completion: what a shell offers for each argument, asked as click's scripts ask it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from runner import completing
from runner.cli import cli

RECIPE = """\
recipe: mine
model: {path: x}
data: {rows: {path: x.jsonl}}
stages:
  base: {kind: pretrain, data: rows}
  qa: {kind: sft, from: base@last, data: rows}
matrix:
  small: {}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two recipes, a run of variants, its checkpoints, and one of another trainer."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "other.yaml").write_text("extends: mine.yaml\nstages:\n  last: {}\n", encoding="utf-8")
    (tmp_path / "compose.yaml").write_text("services: {}\n", encoding="utf-8")
    (tmp_path / "torn.yaml").write_text("recipe: [\n", encoding="utf-8")
    for run in ("mine", "many/small"):
        for step in (9, 10):
            (tmp_path / "results" / run / "qa" / f"ckpt-{step}").mkdir(parents=True)
        (tmp_path / "results" / run / "run.json").touch()
    (tmp_path / "out" / "checkpoint-5").mkdir(parents=True)
    return tmp_path


def offered(*words: str) -> list[tuple[str, str]]:
    """What fits the last word."""
    asked = BashComplete(cli, {}, "recipe", completing.VARIABLE).get_completions(list(words[:-1]), words[-1])
    return [(item.type, item.value) for item in asked]


def values(*words: str) -> list[str]:
    return [value for kind, value in offered(*words) if kind == "plain"]


def test_recipes_are_offered_and_other_yaml_files_are_not(project: Path) -> None:
    assert values("check", "") == ["mine.yaml", "recipes/other.yaml", "torn.yaml"]
    assert values("run", "rec") == ["recipes/other.yaml"]
    assert values("plan", "recipes/o") == ["recipes/other.yaml"]
    assert values("plan", str(project / "m")) == [str(project / "mine.yaml")]


def test_where_no_recipe_fits_the_shell_completes_files_itself(project: Path) -> None:
    assert offered("check", "comp") == [("file", "comp")]


def test_stages_and_variants_are_those_of_the_recipe_that_stands_before(project: Path) -> None:
    assert values("preview", "mine.yaml", "--stage", "") == ["base", "qa"]
    assert values("preview", "recipes/other.yaml", "--rows", "1", "--stage", "") == ["base", "qa", "last"]
    assert values("preview", "mine.yaml", "--stage", "q") == ["qa"]
    assert values("run", "mine.yaml", "--variant", "") == ["small"]
    assert values("preview", "--stage", "") == []
    assert values("preview", "torn.yaml", "--stage", "") == []
    assert values("preview", "gone.yaml", "--stage", "") == []


def test_runs_are_offered_by_name_or_by_folder_as_the_command_takes_them(project: Path) -> None:
    assert values("show", "") == ["many/small", "mine"]
    assert values("bisect", "case", "mi") == ["mine"]
    assert values("report", "results/mi") == ["results/mine"]
    assert offered("show", "elsewhere") == [("dir", "elsewhere")]


def test_checkpoints_of_runs_and_of_other_trainers_are_offered_in_the_order_of_their_steps(project: Path) -> None:
    found = [
        "out/checkpoint-5", "results/many/small/qa/ckpt-9", "results/many/small/qa/ckpt-10", "results/mine/qa/ckpt-9",
        "results/mine/qa/ckpt-10",
    ]  # fmt: skip
    assert values("chat", "") == found
    assert values("export", "results/mine") == found[3:]
    assert values("compare", found[3], "results/mine/qa/ckpt-1") == found[4:]


def test_suites_are_offered_one_after_the_other(project: Path) -> None:
    assert values("new", "--suites", "re") == ["repetition"]
    assert values("new", "--suites", "all,repetition,wat") == ["all,repetition,watched"]


def ask(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("recipe"))]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("shell", "environment", "answer"),
    [
        ("bash", {"COMP_WORDS": "recipe preview mine.yaml --stage ", "COMP_CWORD": "4"}, "plain,base\nplain,qa\n"),
        ("zsh", {"COMP_WORDS": "recipe show mi", "COMP_CWORD": "2"}, "plain\nmine\n_\n"),
        ("fish", {"COMP_WORDS": "recipe show mi", "COMP_CWORD": "mi"}, "plain,mine\n"),
    ],
)
def test_the_command_answers_a_shell_in_its_own_protocol(
    project: Path, shell: str, environment: dict[str, str], answer: str
) -> None:
    done = ask(project, **{completing.VARIABLE: f"{shell}_complete", **environment})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == answer


@pytest.mark.parametrize("shell", completing.SHELLS)
def test_a_script_is_printed_for_each_shell(project: Path, shell: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("recipe")), "completion", shell], capture_output=True, text=True, check=True
    )
    assert completing.VARIABLE in done.stdout
    assert "recipe" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_a_stage_with_the_script(project: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    asks = (
        "source <(recipe completion bash); COMP_WORDS=(recipe preview mine.yaml --stage q); COMP_CWORD=4; "
        '_recipe_completion recipe; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", asks], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("qa\n", "")
