"""runner.launch: argv and environment of the children, decided without starting anything."""

import os
import sys
from pathlib import Path

import pytest

from runner import launch


def test_the_host_is_this_python_with_the_modules_to_import() -> None:
    assert launch.host_argv("torch", ["pytest", "rich"]) == [
        sys.executable, "-m", "runner.host", "torch", "--then", "pytest", "rich",
    ]  # fmt: skip


def test_every_module_that_the_host_is_told_to_import_exists() -> None:
    for name in (launch.TRAINER, launch.PREFERENCE_TRAINER, launch.PROBER):
        assert (Path(launch.__file__).parents[1] / f"{name.replace('.', '/')}.py").is_file()


def test_a_child_has_this_environment_without_telemetry_and_without_the_working_folder_on_its_path() -> None:
    environment = launch.environment()
    assert environment["PATH"] == os.environ["PATH"]
    assert (environment["PYTHONSAFEPATH"], environment["HF_HUB_DISABLE_TELEMETRY"]) == ("1", "1")
    assert environment["TOKENIZERS_PARALLELISM"] == "false"


def test_what_steers_pytest_by_hand_does_not_steer_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x -k something")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    assert not {"PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"} & set(launch.environment())
    argv = launch.probe_argv(Path("/p/r/qa/ckpt-8"), ["a.py"], ["a"], Path("/p/r/v.jsonl"), Path("/p"))
    assert argv[argv.index("-o") + 1] == "addopts="


def test_a_trainer_is_told_its_run_and_its_stage() -> None:
    assert launch.train_argv(Path("/p/results/r"), "qa") == ["/p/results/r", "qa"]


def test_a_prober_asks_the_suites_that_are_due_and_leaves_nothing_but_verdicts() -> None:
    argv = launch.probe_argv(
        Path("/p/r/qa/ckpt-8"), ["/p/probes/t.py::test"], ["select", "held_out"], Path("/p/r/v.jsonl"), Path("/p")
    )
    assert argv[:10] == [
        "/p/probes/t.py::test", "--ckpt", "/p/r/qa/ckpt-8", "--probe-suite", "select", "--probe-suite", "held_out",
        "--probe-verdicts", "/p/r/v.jsonl", "--rootdir=/p",
    ]  # fmt: skip
    assert "no:cacheprovider" in argv  # by hand `--lf` remembers, a run leaves no memory in the project


def test_a_broken_probe_file_costs_other_suites_nothing() -> None:
    argv = launch.probe_argv(Path("/p/r/qa/ckpt-8"), ["a.py", "b.py"], ["a", "b"], Path("/p/r/v.jsonl"), Path("/p"))
    assert "--continue-on-collection-errors" in argv
