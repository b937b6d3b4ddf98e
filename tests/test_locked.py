"""`recipe run --locked`: refused, before anything is written, where something is not as `run.json` says."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runner import cli, recipe
from runner.check import load_checked
from runner.errors import UserError
from runner.folder import read_run, write_run
from runner.preparation import Prepared, run_record
from runner.run import check_locked
from tests.recorded import RECIPE, project

HINT = "    hint: run without --locked to accept what is new; nothing was written"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with the record of a run, which trained nothing."""
    loaded = project(tmp_path / "p")
    run = tmp_path / "p" / "results" / "recorded"
    run.mkdir(parents=True)
    write_run(run, run_record(Prepared(loaded, run), looks=1))
    (run / "recipe.yaml").write_text(recipe.dump(loaded), encoding="utf-8")
    return tmp_path / "p"


def prepared(root: Path, *sets: str) -> Prepared:
    return Prepared(load_checked(root / "recorded.yaml", sets), root / "results" / "recorded")


def refused(root: Path, *sets: str) -> str:
    """The screen."""
    with pytest.raises(UserError) as caught:
        check_locked(prepared(root, *sets))
    return caught.value.screen()


def test_what_is_as_it_was_may_run(root: Path) -> None:
    check_locked(prepared(root))


def test_a_recipe_that_differs_is_refused_by_its_keys(root: Path) -> None:
    screen = refused(root, "stages.qa.learning_rate=0.5", "probes.select.gate={min_pass_rate: 1}", "result=null")
    assert screen == (
        "--locked: the recipe differs in stages.qa.learning_rate, probes.select.gate, result\n"
        "    expected: the recipe of the run\n" + HINT
    )


def test_data_that_differ_are_refused_by_their_names(root: Path) -> None:
    with (root / "chars.tsv").open("a", encoding="utf-8") as rows:
        rows.write("雨\t雨\n")
    was = read_run(root / "results" / "recorded").data
    now = prepared(root).digests
    screen = refused(root)
    assert screen.startswith(
        "--locked: data questions differs\n"
        f"    expected: digest {was['questions'][:12]}, as in run.json; it is {now['questions'][:12]}\n"
    )
    assert [line.removeprefix("--locked: ") for line in screen.splitlines() if line.startswith("--locked")] == [
        "data questions differs", "data questions.held_out differs", "data questions.train differs",
        "data texts differs", "the tokenizer differs",
    ]  # fmt: skip
    assert screen.endswith(HINT)


def test_versions_that_differ_are_refused_with_both(root: Path) -> None:
    run = root / "results" / "recorded"
    record = read_run(run)
    write_run(run, replace(record, versions={**record.versions, "torch": "1.13.0", "jax": "0.4"}))
    torch = record.versions["torch"]
    assert refused(root) == (
        "--locked: jax is not recorded\n    expected: 0.4, as in run.json\n\n"
        f"--locked: torch is {torch}\n    expected: 1.13.0, as in run.json\n{HINT}"
    )


def test_a_recipe_that_cannot_be_read_any_more_is_told_by_its_digest(root: Path) -> None:
    run = root / "results" / "recorded"
    (run / "recipe.yaml").unlink()
    check_locked(prepared(root))  # run.json alone is enough where nothing differs
    assert refused(root, "seed=4").startswith("--locked: the recipe differs\n    expected: the recipe of the run")


def test_the_same_keys_in_another_order_are_another_recipe(root: Path) -> None:
    text = (root / "recorded.yaml").read_text(encoding="utf-8")
    (root / "recorded.yaml").write_text(text.replace("seed: 3\n", "") + "seed: 3\n", encoding="utf-8")
    assert refused(root).startswith("--locked: the recipe's keys are in another order")


def test_where_there_was_no_run_nothing_can_be_locked_to(root: Path) -> None:
    (root / "results" / "recorded" / "run.json").unlink()
    assert refused(root) == (
        f"{root}/results/recorded holds no run that could be locked to\n"
        "    expected: run.json and recipe.yaml of a run\n    hint: run once without --locked"
    )


def test_the_command_exits_with_2_and_writes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    (root / "recorded.yaml").write_text(RECIPE.replace("seed: 3", "seed: 4"), encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in (root / "results").rglob("*")}
    monkeypatch.setattr(sys, "argv", ["recipe", "run", "recorded.yaml", "--locked"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2
    assert "--locked: the recipe differs in seed" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (root / "results").rglob("*")} == before
