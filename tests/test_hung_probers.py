"""Probers that never return or crash: they are ended with what they started, and other suites keep their verdicts."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from runner import export, launch, recipe, underway, verdicts
from runner.checkpoints import verdict_path
from runner.children import EXIT_LATE, Child, Host, late_path
from runner.console import Note
from runner.errors import EXIT_TRAINING_FAILED, TrainingFailed
from runner.events import Journal
from runner.folder import Superseded
from runner.prober import Prober, ProberDied
from runner.probing.fixtures import ASKED
from runner.probing.limits import Limits
from runner.standings import Checkpoint, Standings
from runner.verdicts import SuiteAsked, Verdict, VerdictFile
from runner.watching.options import TIMEOUT_S, Options
from runner.watching.prober import ForeignProber
from runner.watching.run_folder import _RunWatch
from tests.recorded import RECIPE, project, publish

ROOT = Path(__file__).parents[1]
QUIET = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--import-mode=importlib"]
HANGS = """\
import subprocess, sys, time, pathlib

def test_hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    pathlib.Path(__file__).with_suffix(".pid").write_text(str(child.pid))
    while True:
        time.sleep(0.01)
"""
STACK = """\
Thread 0x00007f (most recent call first):
  File "limits.py", line 60 in _end

Thread 0x00008f (most recent call first):
  File "probes/test_chars.py", line 7 in test_radical
  File "python.py", line 168"""
CRASHES = "import os, signal\n\ndef test_crashes():\n    os.kill(os.getpid(), signal.SIGSEGV)\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that imports pytest alone."""
    folder = tmp_path_factory.mktemp("host")
    environment = {**launch.environment(), "PYTHONPATH": str(ROOT)}
    with Host(launch.host_argv("pytest", ()), environment, folder / "host.log", folder) as found:
        yield found


def ended(host: Host, child: Child) -> Child:
    wait(host, lambda: child.exit_code is not None)
    return child


def wait(host: Host, until: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it took too long"
        host.poll(0.02)


def start(host: Host, folder: Path, code: str, limit_s: float | None = None) -> Child:
    file = folder / "test_it.py"
    file.write_text(code, encoding="utf-8")
    return host.start("probe", [str(file), f"--rootdir={folder}", *QUIET], folder / "it.log", limit_s=limit_s)


def gone(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_prober_that_never_returns_is_ended_with_what_it_started_and_its_log_says_where_it_was(
    host: Host, tmp_path: Path
) -> None:
    child = start(host, tmp_path, HANGS, limit_s=300)
    pid = tmp_path / "test_it.pid"
    wait(host, lambda: pid.exists() and pid.read_text())
    child.due = 0.0  # its time is up
    assert ended(host, child).how_it_ended() == "did not end within 300 s and was ended"
    assert 'test_it.py", line 7 in test_hangs' in child.log_tail(60)
    wait(host, lambda: gone(int(pid.read_text())))


def test_what_a_prober_told_whose_parent_was_killed_is_not_taken_for_the_next_ones_work(
    host: Host, tmp_path: Path
) -> None:
    stale = underway.beside(tmp_path / "it.log")
    stale.write_text('{"what": "answering", "total": 10, "unit": "questions", "done": 3, "began": 0.0}')
    child = start(host, tmp_path, "def test_a(): pass\n")
    assert not stale.exists()
    ended(host, child)


def test_a_prober_that_crashes_says_with_what_and_its_log_says_where(host: Host, tmp_path: Path) -> None:
    child = ended(host, start(host, tmp_path, CRASHES, limit_s=300))
    assert child.how_it_ended() == "was killed by SIGSEGV"
    assert 'test_it.py", line 4 in test_crashes' in child.log_tail(60)


# --- what the run makes of it ---

THREE = RECIPE.replace(
    "best: select",
    "  loops: {file: probes/test_chars.py, cases: questions.held_out, stages: qa, timeout_s: 2.5}\nbest: select",
)


@dataclass
class Pretending(Host):
    """Stands for a host whose probers die of the suites in `deadly`, and answer all others."""

    deadly: tuple[str, ...]
    version: Callable[[str], str]
    """Of a suite, as it is written into its verdicts."""
    asked: list[tuple[tuple[str, ...], float | None]] = field(default_factory=list)

    def start(self, kind, argv, log, environment=None, limit_s=None):  # type: ignore[no-untyped-def]
        suites = tuple(value for name, value in itertools.pairwise(argv) if name == "--probe-suite")
        self.asked.append((suites, limit_s))
        assert len(self.asked) < 9, "it is asked again and again"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("the last line\n", encoding="utf-8")
        if set(suites) & set(self.deadly):
            return Child(0, kind, log, exit_code=-11)
        rows = tuple(Verdict(suite, "p", "c0", "pass", ckpt="qa@2") for suite in suites)
        made = VerdictFile(
            "qa@2", "w", tuple(SuiteAsked(suite, self.version(suite), ("p",), None, 1) for suite in suites), rows
        )
        verdicts.write(Path(argv[argv.index("--probe-verdicts") + 1]), made)
        return Child(0, kind, log, exit_code=0)


@dataclass
class Asked:
    prober: Prober
    at: Checkpoint
    host: Pretending

    def all(self) -> None:
        """As a run does: ask until nothing is left that can be asked."""
        while due := self.prober.askable(self.at):
            with contextlib.suppress(ProberDied):
                self.prober.finish(self.prober.start(self.host, self.at, due))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Asked]:
    loaded, folder = project(tmp_path / "p", THREE), tmp_path / "run"
    (folder / "data").mkdir(parents=True)
    for split in ("train", "held_out"):
        (folder / "data" / f"questions.{split}.jsonl").write_text('{"id": "c0"}\n', encoding="utf-8")
    at = Checkpoint("qa", 2, publish(folder, "qa", 2))

    def made(*deadly: str) -> Asked:
        standings = Standings(loaded.spec, folder)
        prober = Prober(loaded.spec, loaded.root, folder, standings, Superseded(folder))
        return Asked(prober, at, Pretending(deadly, prober.version))

    return made


def test_a_prober_may_take_as_long_as_its_suites_together(run: Callable[..., Asked]) -> None:
    asked = run()
    asked.all()
    assert asked.host.asked == [(("select", "held_out", "loops"), 2 * 14_400 + 2.5)]
    assert asked.prober.failure(asked.at) is None


def test_suites_that_were_twice_asked_with_a_deadly_one_are_asked_alone_and_keep_their_verdicts(
    run: Callable[..., Asked],
) -> None:
    asked = run("held_out")
    asked.all()
    assert [suites for suites, _ in asked.host.asked] == [
        ("select", "held_out", "loops"), ("select", "held_out", "loops"), ("select",), ("held_out",), ("loops",),
    ]  # fmt: skip
    failure = asked.prober.failure(asked.at)
    assert isinstance(failure, TrainingFailed)
    assert failure.exit_code == EXIT_TRAINING_FAILED
    words = str(failure)
    assert words.startswith("probing qa@2 was killed by SIGSEGV (suite held_out); the end of ")
    assert words.endswith("probe-qa-2.log:\nthe last line")
    file = verdicts.read(verdict_path(asked.at.path))
    assert {verdict.suite: verdict.outcome for verdict in file.verdicts} == {
        "select": "pass", "held_out": "error", "loops": "pass",
    }  # fmt: skip
    (row,) = file.of("held_out")
    assert (row.case_id, row.reason) == ("prober", "its prober was killed by SIGSEGV")


def test_a_probe_file_that_is_edited_while_it_is_asked_is_asked_once_by_a_run_and_stays_due(
    run: Callable[..., Asked],
) -> None:
    asked = run()
    asking = asked.prober.start(asked.host, asked.at, asked.prober.askable(asked.at))
    probe = asked.prober._root / "probes" / "test_chars.py"
    probe.write_text(probe.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    loaded = recipe.load(asked.prober._root / "recorded.yaml").spec
    now = Prober(loaded, asked.prober._root, asked.prober._run, asked.prober._standings, asked.prober._superseded)
    asked.host.version = now.version  # as a prober finds it, which reads the file once it is there
    asked.host.start("probe", asked.prober.argv(asked.at, asking.due), asking.child.log)
    asked.prober.finish(asking)
    assert asked.prober.askable(asked.at) == ()
    assert asked.prober.due(asked.at) == ("select", "held_out", "loops")
    assert now.due(asked.at) == ()


def test_a_watch_asks_a_suite_once_whose_version_it_cannot_reach(run: Callable[..., Asked]) -> None:
    asked = run()
    asked.host.version = lambda suite: "another one, always"
    with ExitStack() as stack:
        folder = asked.prober._run
        watch = _RunWatch(Options(folder, (), once=True), Console(file=io.StringIO()), stack, Note(is_live=False))
        watch._read = lambda: None  # type: ignore[method-assign]
        watch._loaded = SimpleNamespace(spec=asked.prober._recipe, root=asked.prober._root)  # type: ignore[assignment]
        watch._standings, watch._journal = asked.prober._standings, Journal(folder / "events" / "watch.jsonl")
        watch._hosting = SimpleNamespace(start=lambda which: asked.host)  # type: ignore[assignment]
        watch._is_done = lambda: False  # type: ignore[method-assign]
        watch._follow()
        watch._journal.close()
    assert [suites for suites, _ in asked.host.asked] == [("select", "held_out", "loops")]


def test_the_next_invocation_asks_only_what_died(run: Callable[..., Asked]) -> None:
    run("held_out").all()
    again = run()
    assert again.prober.due(again.at) == ("held_out",)
    again.all()
    assert again.prober.failure(again.at) is None
    assert [verdict.outcome for verdict in verdicts.read(verdict_path(again.at.path)).of("held_out")] == ["pass"]


def test_a_prober_that_was_killed_from_outside_costs_no_verdict_and_is_told(run: Callable[..., Asked]) -> None:
    asked = run()
    due = asked.prober.askable(asked.at)
    asking = asked.prober.start(asked.host, asked.at, due)
    asking.child.exit_code = -9
    with pytest.raises(ProberDied, match=r"was killed by SIGKILL \(out of memory\?\)"):
        asked.prober.finish(asking)
    asked.all()
    # the same again: asked in other batches, they would have other last digits than in a run that nobody disturbed
    assert [suites for suites, _ in asked.host.asked[1:]] == [("select", "held_out", "loops")]
    assert "have their verdicts: the same command goes on" in str(asked.prober.failure(asked.at))


def test_a_suite_that_took_too_long_is_known_and_the_others_are_asked_together(run: Callable[..., Asked]) -> None:
    asked = run()
    asking = asked.prober.start(asked.host, asked.at, asked.prober.askable(asked.at))
    asking.child.exit_code = EXIT_LATE
    fresh = Path(asked.prober.argv(asked.at, ())[asked.prober.argv(asked.at, ()).index("--probe-verdicts") + 1])
    late_path(fresh).write_text("loops", encoding="utf-8")
    asking.child.log.write_text(STACK, encoding="utf-8")
    with pytest.raises(ProberDied) as caught:
        asked.prober.finish(asking)
    assert str(caught.value) == (
        "probing qa@2 did not end within its timeout_s, 2.5 s, and was ended (suite loops); where it was, by "
        f'{asking.child.log}:\n  File "probes/test_chars.py", line 7 in test_radical\n  File "python.py", line 168'
    )
    asked.all()
    assert [suites for suites, _ in asked.host.asked[1:]] == [("select", "held_out")]
    assert [verdict.outcome for verdict in verdicts.read(verdict_path(asked.at.path)).of("loops")] == ["error"]


def test_a_suite_that_took_too_long_of_exported_weights_is_named(run: Callable[..., Asked], tmp_path: Path) -> None:
    asked = run("loops")

    def late(kind: Any, argv: list[str], log: Path, **limits: float) -> Child:
        log.write_text(STACK, encoding="utf-8")
        late_path(Path(argv[argv.index("--probe-verdicts") + 1])).write_text("loops", encoding="utf-8")
        return Child(0, kind, log, exit_code=EXIT_LATE)

    asked.host.start = late  # type: ignore[method-assign, assignment]
    of_run: Any = SimpleNamespace(recipe=asked.prober._recipe, root=asked.prober._root)
    with pytest.raises(TrainingFailed) as caught:
        export._asked(asked.host, of_run, tmp_path / "staged", ("held_out", "loops"), tmp_path)
    assert str(caught.value) == (
        "probing the exported weights did not end within the timeout_s of suite loops, 2.5 s; where it was:\n"
        '  File "probes/test_chars.py", line 7 in test_radical\n  File "python.py", line 168'
    )


@pytest.mark.parametrize(("given", "limit_s"), [(None, TIMEOUT_S), (90.0, 90.0)])
def test_a_watch_of_another_trainer_gives_a_checkpoint_the_time_that_it_was_told(
    run: Callable[..., Asked], tmp_path: Path, given: float | None, limit_s: float
) -> None:
    asked = run()
    options = Options(tmp_path, [str(asked.prober._root / "probes")], timeout_s=given)
    with ExitStack() as stack:
        prober = ForeignProber(options, stack, lambda: False)
        prober._host = asked.host
        child = prober._finished(["--probe-verdicts", str(tmp_path / "v.jsonl")], tmp_path / "checkpoint-1.log")
    assert child.exit_code == 0
    assert asked.host.asked == [((), limit_s)]


@dataclass(frozen=True, eq=False)
class _Sitting:
    """Stands for a suite at a checkpoint."""

    suite: str
    target: Any


def test_the_time_of_a_suite_runs_while_its_tests_run(tmp_path: Path) -> None:
    def item(suite: str) -> Any:
        of_suite = SimpleNamespace(timeout_s=0.2)
        target = SimpleNamespace(run=SimpleNamespace(recipe=SimpleNamespace(probes={"loops": of_suite})))
        sitting = _Sitting(suite, target)
        return SimpleNamespace(stash={ASKED: SimpleNamespace(ask=SimpleNamespace(sitting=sitting))})

    path = tmp_path / "v.jsonl"
    pid = os.fork()
    if pid == 0:
        try:
            with (tmp_path / "log").open("w") as log:
                os.dup2(log.fileno(), 2)
                limits = Limits(path)
                limits.pytest_runtest_setup(item("another"))  # which has no limit of its own here
                time.sleep(0.5)
                limits.pytest_runtest_logfinish()
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
                (tmp_path / "pid").write_text(str(child.pid))
                limits.pytest_runtest_setup(item("loops"))
                time.sleep(100)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == EXIT_LATE
    assert late_path(path).read_text() == "loops"
    assert "in test_the_time_of_a_suite_runs_while_its_tests_run" in (tmp_path / "log").read_text()
    end = time.monotonic() + 30
    while not gone(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < end


def test_a_prober_that_leaves_without_a_word_is_one_that_died(run: Callable[..., Asked], tmp_path: Path) -> None:
    asked = run()
    asking = asked.prober.start(asked.host, asked.at, ("loops",))
    asked.prober.discard(asking)  # as os._exit(0) in a probe leaves it
    with pytest.raises(ProberDied, match=r"ended with exit code 0, without verdicts \(suite loops\)"):
        asked.prober.finish(asking)
    assert os.listdir(asked.at.path.parent / "probes") == ["ckpt-2.jsonl"]
