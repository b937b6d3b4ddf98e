"""A run that is disturbed and run again ends as if it had not been; `make faults` does so at many more moments."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import table
from tests.faults.campaign import SIGNALS, aims
from tests.faults.forked import Forked
from tests.faults.killing import Came, Victim, came, gone, kill, left_in, victims
from tests.faults.looking import Watcher
from tests.faults.phases import PHASES
from tests.tiny_project import RUN, alive, descendants, events, leave_out_dpo, wait_until, write_project


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    made = Forked()
    yield made
    made.close()


def project(root: Path) -> Path:
    leave_out_dpo(write_project(root))
    return root


def run(forked: Forked, root: Path) -> int:
    """`recipe run` to its end; gives its exit code."""
    forked.start(root, ["run", "tiny.yaml"], root / "log")
    return forked.wait()


def said(root: Path) -> str:
    return (root / "log").read_text(encoding="utf-8")


class Calm(NamedTuple):
    """The undisturbed run."""

    expected: Came
    watcher: Watcher
    """A reader that was beside it all the time."""


@pytest.fixture(scope="module")
def calm(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    root = project(tmp_path_factory.mktemp("calm") / "project")
    with Watcher(root / RUN) as watcher:
        code = run(forked, root)
    return Calm(came(root / RUN, code), watcher)


def killed(forked: Forked, root: Path, who: Victim, when: Callable[[], bool]) -> int:
    """`recipe run`, killed as soon as `when` is so; gives its exit code, once nothing of it is left."""
    command = forked.start(root, ["run", "tiny.yaml"], root / "log")
    wait_until(lambda: when() or not alive(command))
    assert alive(command), said(root)
    below = descendants(command)
    kill(victims(command, who))
    code = forked.wait()
    wait_until(lambda: gone(below), timeout_s=30)
    assert left_in(root) == []
    return code


def interrupted(forked: Forked, root: Path, when: Callable[[], bool]) -> int:
    """The same with Ctrl-C."""
    command = forked.start(root, ["run", "tiny.yaml"], root / "log")
    wait_until(lambda: when() or not alive(command))
    os.kill(command, signal.SIGINT)
    return forked.wait()


def test_who_lists_loads_shows_compares_and_reports_a_run_while_it_goes_on_meets_nothing_half(calm: Calm) -> None:
    assert calm.watcher.faults == []
    assert calm.watcher.loaded > 0
    assert calm.watcher.read > 0


def test_a_run_that_was_killed_three_times_and_interrupted_ends_with_the_undisturbed_weights_and_verdicts(
    forked: Forked, calm: Calm, tmp_path: Path
) -> None:
    root, expected = project(tmp_path / "killed"), calm.expected
    assert expected.exit_code == 1  # its suite is red, whatever is trained
    assert {label.split(" ")[0] for label in expected.files} == {"base@30", "base@120", "qa@3", "qa@6"}
    assert list(expected.verdicts) == ["qa@3", "qa@6"]

    def at(stage: str, step: int) -> Callable[[], bool]:
        return lambda: any(
            row["event"] == "logged" and row["step"] >= step for row in events(root / RUN, f"train-{stage}")
        )

    assert killed(forked, root, "the trainer or prober", at("base", 35)) == 3
    assert "killed by SIGKILL" in said(root)
    assert killed(forked, root, "everything", at("base", 60)) == -9
    assert interrupted(forked, root, at("base", 80)) == 130
    assert killed(forked, root, "the host", at("qa", 1)) == 3
    assert came(root / RUN, run(forked, root)).differs_from(expected) == ""
    starts = [row["step"] for row in events(root / RUN, "train-base") if row["event"] == "started"]
    assert starts[:3] == [0, 30, 30]
    assert 80 <= starts[3] < 120  # Ctrl-C saves where it was


def test_a_command_that_is_killed_leaves_nothing_behind_and_the_same_one_goes_on(
    forked: Forked, tmp_path: Path
) -> None:
    root = project(tmp_path / "killed")
    probing = lambda: any((root / RUN / "events").glob("probe-qa-3.log"))  # noqa: E731
    assert killed(forked, root, "the command", probing) == -9
    assert run(forked, root) == 1
    assert [row["step"] for row in events(root / RUN, "train-qa") if row["event"] == "published"][-2:] == [3, 6]


# --- disks ---


@pytest.fixture
def disk(forked: Forked, tmp_path: Path) -> Path:
    """The root of a project whose results are on a file system of their own."""
    root = project(tmp_path / "project")
    (root / "results").mkdir()
    try:
        forked.mount(root / "results", 2**26)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error.strerror}")
    return root


def test_a_full_disk_is_said_and_with_room_the_same_command_makes_anew_what_is_missing_and_ends_the_same(
    forked: Forked, calm: Calm, disk: Path
) -> None:
    seen = forked.mount(disk / "results", 320 * 1024, again=True) / RUN.name
    code = run(forked, disk)
    assert code == 3, said(disk)
    assert "no space left on the disk" in said(disk)
    assert "make room, then run the same command again: it goes on where it was" in said(disk)
    assert "Traceback" not in said(disk)
    wait_until(lambda: left_in(disk) == [], timeout_s=30)
    forked.mount(disk / "results", 2**26, again=True)
    (seen / "data" / "questions.train.jsonl").unlink()  # perhaps by who made room
    assert came(seen, run(forked, disk)).differs_from(calm.expected) == ""


def test_a_file_system_that_is_read_only_is_refused_before_anything_is_done(forked: Forked, disk: Path) -> None:
    forked.mount(disk / "results", 2**26, again=True, read_only=True)
    assert run(forked, disk) == 2
    place = f"{disk}/results/tiny"
    assert said(disk) == f"{place} cannot be made: Read-only file system\n    hint: give another one with --out\n"


# --- the campaign itself ---


def test_every_signal_is_aimed_at_every_phase_and_the_same_seed_aims_the_same() -> None:
    cells = len(SIGNALS) * len(PHASES)
    found = aims(2 * cells, seed=1)
    assert found == aims(2 * cells, seed=1)
    assert len({(aim.phase, aim.signal) for aim in found[:cells]}) == cells
    assert [aim.number for aim in found] == list(range(2 * cells))


def test_the_table_counts_what_was_hit_and_names_what_was_wrong() -> None:
    def row(hit: str, name: str, wrong: str = "") -> dict[str, object]:
        return {"aim": {"signal": name}, "hit": [hit, ""], "wrong": wrong, "looks": 10, "loaded": 2}

    rows = [row("probing", "SIGTERM"), row("probing", "SIGINT", "left running: 1 processes"), row("missed", "SIGINT")]
    lines = table.markdown(rows, ["probing", "report"], ["SIGTERM", "SIGINT"]).splitlines()
    assert lines[:5] == [
        "| hit in | SIGTERM | SIGINT | all |",
        "|---|---|---|---|",
        "| probing | 1 | 1 | 2 |",
        "| report | – | – | – |",
        "| all | 1 | 1 | 2 |",
    ]
    assert lines[6].startswith("2 runs were hit. 1 came to something else than the undisturbed run, 1 left a process")
    assert "listed everything 20 times and loaded 4 checkpoints" in lines[6]
    assert lines[7] == "1 aims were missed: the phase was over too soon, time after time."
