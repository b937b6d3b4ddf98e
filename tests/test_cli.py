"""runner.cli: the exact words and the exit code of each command."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner import __version__, cli
from runner.cli import root
from runner.errors import Interrupted, TrainingFailed
from tests.recorded import RECIPE, project

ROOT = Path(__file__).parents[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with recorded.yaml, which is the working folder."""
    project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def test_help_names_every_command_and_every_exit_code(monkeypatch: Patch, capsys: Captured) -> None:
    assert recipe(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Usage: recipe [OPTIONS] COMMAND [ARGS]...\n")
    assert [name for name in ("check", "new", "plan", "run", "schema") if f"\n  {name} " not in shown] == []
    assert (
        "Exit codes: 0 the result's gates passed, 1 a gate failed, 2 the recipe or the command line is wrong"
        in " ".join(shown.split())
    )


def test_help_fits_a_terminal_of_80_columns_and_no_summary_is_cut() -> None:
    shown = CliRunner().invoke(cli.cli, ["--help"], terminal_width=80).output
    assert "..." not in shown.partition("Commands:")[2]
    assert "    recipe watch out --probes probes checkpoints that another trainer writes\n" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "[DIR]" in CliRunner().invoke(cli.cli, ["list", "--help"]).output


def test_the_version_is_that_of_the_package(monkeypatch: Patch, capsys: Captured) -> None:
    assert recipe(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"recipe, version {__version__}\n"


def test_a_command_that_does_not_exist_exits_with_2(monkeypatch: Patch, capsys: Captured) -> None:
    assert recipe(monkeypatch, "trian", "x.yaml") == 2
    assert "No such command 'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["run"], ["check", "a", "b"], ["plan", "a", "--nowhere"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str], monkeypatch: Patch, capsys: Captured) -> None:
    assert recipe(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.startswith(f"Usage: recipe {arguments[0]} ")


def test_a_fine_recipe_is_called_fine(here: Path, monkeypatch: Patch, capsys: Captured) -> None:
    assert recipe(monkeypatch, "check", "recorded.yaml") == 0
    assert capsys.readouterr().out == (
        "recorded.yaml: fine. stages: base (pretrain), qa (sft); suites: select, held_out\n"
    )


def test_every_fault_of_a_recipe_is_shown_on_stderr(here: Path, monkeypatch: Patch, capsys: Captured) -> None:
    (here / "recorded.yaml").write_text(RECIPE.replace("seed: 3", "sed: 3"), encoding="utf-8")
    assert recipe(monkeypatch, "check", "recorded.yaml", "--set", "stages.qa.learning_rate=fast") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "recorded.yaml:2:1: " in err
    assert "    2 | sed: 3\n      | ^^^\n" in err
    assert "--set stages.qa.learning_rate=fast" in err


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_a_recipe_that_is_not_there_exits_with_2(
    command: str, here: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    assert recipe(monkeypatch, command, "recorde.yaml") == 2
    assert "recorde.yaml" in capsys.readouterr().err
    assert not (here / "results").exists()


def test_the_plan_in_a_pipe_is_not_cut_and_writes_nothing(here: Path, monkeypatch: Patch, capsys: Captured) -> None:
    before = sorted(here.rglob("*"))
    assert recipe(monkeypatch, "plan", "recorded.yaml", "--set", "stages.qa.num_train_epochs=3") == 0
    shown = capsys.readouterr().out
    assert "writes     results/recorded" in shown
    assert "qa: checkpoints at 2, 4, 6; asked: select, held_out" in shown
    assert sorted(here.rglob("*")) == before


def test_the_schema_is_json_schema_of_the_language(monkeypatch: Patch, capsys: Captured) -> None:
    assert recipe(monkeypatch, "schema") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["$schema"].startswith("https://json-schema.org/")
    assert set(made["$defs"]["Recipe"]["required"]) == {"recipe", "model", "data", "stages"}


def test_new_says_what_it_wrote_and_what_to_type(tmp_path: Path, monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe(monkeypatch, "new", "mine") == 0
    assert capsys.readouterr().out == (
        "wrote mine.yaml\nwrote data/mine.tsv\nwrote probes/test_mine.py\nwrote recipe.schema.json\n"
        "\nnow:  recipe run mine.yaml\n"
    )
    assert recipe(monkeypatch, "check", "mine.yaml") == 0
    assert recipe(monkeypatch, "new", "mine") == 2


def test_a_folder_of_another_recipe_is_refused_before_anything_is_written(
    here: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.tex").write_text("ten years", encoding="utf-8")
    assert recipe(monkeypatch, "run", "recorded.yaml", "--out", "out") == 2
    assert (
        "is not empty and is not the folder of a run (it holds 'thesis.tex', but no run.json)"
        in capsys.readouterr().err
    )
    assert [path.name for path in (here / "out").iterdir()] == ["thesis.tex"]


def test_a_folder_that_is_being_written_is_refused(here: Path, monkeypatch: Patch, capsys: Captured) -> None:
    (here / "out").mkdir()
    with (here / "out" / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert recipe(monkeypatch, "run", "recorded.yaml", "--out", "out") == 2
    assert "is being written by another process" in capsys.readouterr().err
    assert [path.name for path in (here / "out").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (TrainingFailed("the trainer died"), 3, "the trainer died\n"),
        (Interrupted("state is saved"), 130, "state is saved\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_ends_a_run_has_its_exit_code(raised: BaseException, code: int, told: str, capsys: Captured) -> None:
    def fails() -> None:
        raise raised

    assert root.guarded(fails) == code
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("code", [0, 1])
def test_the_exit_code_of_a_run_is_that_of_its_result(code: int) -> None:
    assert root.guarded(lambda: code) == code


def test_a_fault_of_this_project_is_a_traceback_and_not_taken_for_a_red_gate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert root.guarded(lambda: 1 / 0) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["schema"], ["plan", "recorded.yaml"]], ids=["click", "rich"])
def test_a_reader_that_leaves_early_is_not_taken_for_a_red_gate(arguments: list[str], here: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    code = f"import sys\nsys.argv = ['recipe', *{arguments}]\nfrom runner import cli\ncli.main()\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert ran.returncode == 141
    assert b"Traceback" not in ran.stderr  # how far it is may stand there, where it takes long
