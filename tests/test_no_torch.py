"""The parent process never imports torch: each command in a process of its own, which then lists what it imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from runner.verdicts import SuiteAsked, Verdict, VerdictFile, write

ROOT = Path(__file__).parents[1]
HEAVY = "{'torch', 'transformers', 'trl', 'peft', 'datasets', 'accelerate'}"


def heavy_after(code: str) -> str:
    """What of HEAVY a process has imported after `code`."""
    script = f"import sys\n{code}\nprint('heavy:', sorted({HEAVY} & set(sys.modules)), file=sys.stderr)\n"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stderr.splitlines()[-1]


def command(*arguments: str) -> str:
    return (
        f"sys.argv = ['recipe', *{arguments!r}]\nfrom runner import cli\n"
        "try:\n    cli.main()\nexcept SystemExit as leaving:\n    assert leaving.code == 0, leaving.code"
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["check", "recipes/zhdict_dpo.yaml"], ["schema"]], ids=lambda a: a[0]
)
def test_a_command_that_trains_nothing_imports_no_torch(arguments: list[str]) -> None:
    assert heavy_after(command(*arguments)) == "heavy: []"


def test_planning_the_demonstration_imports_no_torch(tmp_path: Path) -> None:
    arguments = command("plan", "recipes/zhdict_dpo.yaml", "--out", str(tmp_path / "out"))
    assert heavy_after(arguments) == "heavy: []"
    assert not (tmp_path / "out").exists()


def test_comparing_imports_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "v.jsonl"
    write(file, VerdictFile("a", "", (SuiteAsked("s", "", (), None, 1),), (Verdict("s", "t.py::t", "c", "pass"),)))
    assert heavy_after(command("compare", str(file), str(file))) == "heavy: []"


def test_a_pytest_session_without_a_checkpoint_imports_no_torch() -> None:
    assert heavy_after("import runner.probing.plugin") == "heavy: []"


def test_the_module_that_runs_recipes_imports_no_torch() -> None:
    assert heavy_after("import runner.run, runner.progress, runner.host") == "heavy: []"


def test_what_a_probe_file_imports_is_light() -> None:
    assert heavy_after("from runner import probe, repetition\nassert 'pytest' not in sys.modules") == "heavy: []"
