"""A run that is killed and run again ends as if it had not been; `make faults` does the same on the demo."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.forked import Forked
from tests.faults.killing import Victim, came, gone, kill, victims
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


def killed(forked: Forked, root: Path, who: Victim, when: Callable[[], bool]) -> int:
    """`recipe run`, killed as soon as `when` is so; gives its exit code, once nothing of it is left."""
    command = forked.start(root, ["run", "tiny.yaml"], root / "log")
    wait_until(lambda: when() or not alive(command))
    assert alive(command), (root / "log").read_text(encoding="utf-8")
    below = descendants(command)
    kill(victims(command, who))
    code = forked.wait()
    wait_until(lambda: gone(below), timeout_s=30)
    return code


def interrupted(forked: Forked, root: Path, when: Callable[[], bool]) -> int:
    """The same with Ctrl-C."""
    command = forked.start(root, ["run", "tiny.yaml"], root / "log")
    wait_until(lambda: when() or not alive(command))
    os.kill(command, signal.SIGINT)
    return forked.wait()


def test_a_run_that_was_killed_three_times_and_interrupted_ends_with_the_undisturbed_weights_and_verdicts(
    forked: Forked, tmp_path: Path
) -> None:
    calm, root = project(tmp_path / "calm"), project(tmp_path / "killed")
    expected = came(calm / RUN, run(forked, calm))
    assert expected.exit_code == 1  # its suite is red, whatever is trained
    assert {label.split(" ")[0] for label in expected.files} == {"base@30", "base@120", "qa@3", "qa@6"}
    assert list(expected.verdicts) == ["qa@3", "qa@6"]

    def at(stage: str, step: int) -> Callable[[], bool]:
        return lambda: any(
            row["event"] == "logged" and row["step"] >= step for row in events(root / RUN, f"train-{stage}")
        )

    assert killed(forked, root, "the trainer or prober", at("base", 35)) == 3
    assert "killed by SIGKILL" in (root / "log").read_text(encoding="utf-8")
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
