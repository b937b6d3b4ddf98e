"""`recipe watch`: what another trainer writes is probed once it is complete, and never before."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from runner import loadable, verdicts
from runner.errors import FolderTaken, TrainingFailed, UserError
from runner.folder import writing
from runner.verdicts import SuiteAsked, Verdict, VerdictFile
from runner.watching import holding
from runner.watching.arrivals import FINAL, Arrivals
from runner.watching.following import watch
from runner.watching.ledger import Asked, Ledger, probes_key
from runner.watching.options import Options
from runner.watching.prober import _renamed
from runner.watching.sweep import Sweep
from tests.tiny import copy, make_checkpoint
from tests.tiny_project import recipe, started, wait_until

MATRIX = re.compile(r"checkpoint-\d+ .*(\[|not one answered)")
"""A line of the last table, whatever came of the checkpoint."""

ROOT = Path(__file__).parent.parent
PROBE = """
from runner import probe
ROWS = [{"id": char, "char": char} for char in "心水木"]

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=6, gate={"min_pass_rate": 0.6})
def test_not_water(case, reply):
    assert case.char != "水"
"""


UNTIL_IT_IS_GONE = """
import time
from pathlib import Path

def pytest_collection_finish(session):
    held = Path(session.config.getoption("--ckpt")[0])
    (held.parents[1] / f"begun{held.name}").touch()
    end = time.monotonic() + 60
    while held.name == "_watched-checkpoint-2" and held.with_name("checkpoint-2").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
"""
"""Of a prober that loads checkpoint-2 only after its trainer has deleted it, however the machine is loaded."""


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def names(arrivals: Arrivals) -> list[str]:
    return [arrival.name for arrival in arrivals.look()]


# --- when a checkpoint is complete ---


def test_a_checkpoint_that_trainer_closed_is_complete_at_once(
    tmp_path: Path, tiny_checkpoint: Path, clock: Clock
) -> None:
    arrivals = Arrivals(tmp_path, clock=clock)
    assert names(arrivals) == []
    path = copy(tiny_checkpoint, tmp_path / "checkpoint-3")
    assert names(arrivals) == []
    assert list(arrivals.waiting) == ["checkpoint-3"]
    (path / "trainer_state.json").write_text('{"log_history": [{"loss": 2.5}, {"eval_loss": 1}]}')
    assert names(arrivals) == ["checkpoint-3"]
    assert loadable.loss(path) == 2.5


def test_a_state_file_older_than_the_weights_closes_nothing(
    tmp_path: Path, tiny_checkpoint: Path, clock: Clock
) -> None:
    path = copy(tiny_checkpoint, tmp_path / "checkpoint-3")
    (path / "trainer_state.json").write_text("{}")
    os.utime(path / "trainer_state.json", (1, 1))  # of an earlier checkpoint of the same name
    assert names(Arrivals(tmp_path, clock=clock)) == []


def test_without_such_a_file_a_checkpoint_is_complete_when_nothing_changed_for_a_while(
    tmp_path: Path, tiny_checkpoint: Path, clock: Clock
) -> None:
    arrivals = Arrivals(tmp_path, settle_s=10, clock=clock)
    arrivals.look()
    path = tmp_path / "step_7"
    path.mkdir()
    for file in sorted(tiny_checkpoint.iterdir()):  # it can be loaded before its last file is there
        shutil.copy(file, path / file.name)
        assert names(arrivals) == []
        clock.now += 9
        assert names(arrivals) == []
    clock.now += 1.1
    assert names(arrivals) == ["step_7"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_file_that_breaks_off_is_waited_for(
    tmp_path: Path, tiny_checkpoint: Path, clock: Clock, name: str, share: float
) -> None:
    arrivals = Arrivals(tmp_path, settle_s=10, given_up_s=60, clock=clock)
    arrivals.look()
    path = copy(tiny_checkpoint, tmp_path / "checkpoint-3")
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[: int(len(whole) * share)])
    arrivals.look()
    clock.now += 50
    assert names(arrivals) == []
    (path / name).write_bytes(whole)
    assert names(arrivals) == []
    clock.now += 11
    assert names(arrivals) == ["checkpoint-3"]


def test_what_stays_broken_is_given_up_and_says_why(tmp_path: Path, tiny_checkpoint: Path, clock: Clock) -> None:
    arrivals = Arrivals(tmp_path, given_up_s=60, clock=clock)
    arrivals.look()
    path = copy(tiny_checkpoint, tmp_path / "checkpoint-3")
    (path / "model.safetensors").unlink()
    assert names(arrivals) == []
    clock.now += 61
    (arrival,) = arrivals.look()
    assert (arrival.name, arrival.problem) == ("checkpoint-3", "no weights: there is no *.safetensors")


def test_what_lay_there_long_before_the_watch_began_is_complete_at_once(
    tmp_path: Path, tiny_checkpoint: Path, clock: Clock
) -> None:
    path = copy(tiny_checkpoint, tmp_path / "checkpoint-3")
    for file in path.iterdir():
        os.utime(file, (1, 1))
    assert names(Arrivals(tmp_path, settle_s=1, clock=clock)) == []  # copied just now, with its old times
    time.sleep(1.1)
    assert names(Arrivals(tmp_path, settle_s=1, clock=clock)) == ["checkpoint-3"]


def test_weights_that_a_trainer_saves_at_its_end_come_last(tmp_path: Path, tiny_checkpoint: Path, clock: Clock) -> None:
    (tmp_path / "config.json").write_text("{}")  # axolotl writes it as it begins
    for step in (10, 9):
        copy(tiny_checkpoint, tmp_path / f"checkpoint-{step}")
    arrivals = Arrivals(tmp_path, clock=clock)
    arrivals.look()
    for file in tiny_checkpoint.iterdir():
        shutil.copy(file, tmp_path / file.name)
    arrivals.look()
    clock.now += 11
    assert names(arrivals) == ["checkpoint-9", "checkpoint-10", FINAL]


# --- keeping it while it is asked ---


def test_a_held_checkpoint_outlives_its_folder_and_leaves_its_time_alone(tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = copy(tiny_checkpoint, tmp_path / "checkpoint-3")
    (path / "optimizer.pt").write_bytes(b"large")
    time_before = path.stat().st_mtime_ns
    with holding.held(path) as folder:
        assert path.stat().st_mtime_ns == time_before  # Trainer deletes the oldest first
        assert (folder / "model.safetensors").samefile(path / "model.safetensors")
        assert not (folder / "optimizer.pt").exists()
        assert not folder.match("checkpoint-*")  # nor is it one more to delete
        shutil.rmtree(path)
        assert loadable.problem(folder) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_base_named_relative_to_its_adapter_is_found_from_the_held_one(tmp_path: Path) -> None:
    path = tmp_path / "out" / "checkpoint-3"
    path.mkdir(parents=True)
    (tmp_path / "base").mkdir()
    with holding.held(path) as folder:
        assert (folder / "../../base").resolve() == (path / "../../base").resolve()


def test_what_a_killed_watch_held_is_released(tmp_path: Path) -> None:
    (tmp_path / "_watched-checkpoint-3").mkdir()
    holding.release_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- what was asked before ---


def test_every_change_of_the_probes_or_the_choice_of_suites_is_another_key(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("{}")
    (tmp_path / "test_a.py").write_text("CASES = 'data/rows.jsonl'")
    keys = [probes_key([tmp_path], []), probes_key([tmp_path], ["loops"])]
    (tmp_path / "data" / "rows.jsonl").write_text('{"a": 1}')
    keys.append(probes_key([tmp_path], []))
    (tmp_path / "helping.py").write_text("X = 1")
    keys.append(probes_key([tmp_path], []))
    assert len(set(keys)) == 4
    assert probes_key([tmp_path], []) == keys[-1]


def test_a_damaged_ledger_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_text("{")
    with pytest.raises(UserError) as caught:
        Ledger(tmp_path)
    assert caught.value.screen().startswith(f"{tmp_path}/watch.json is damaged (JSONDecodeError")
    assert caught.value.screen().endswith("    hint: delete it: every checkpoint is asked again")


def test_a_ledger_is_read_as_it_was_written_without_what_was_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for step in (1, 2):
        ledger.put(Asked(f"checkpoint-{step}", "key", "weights", "files", 0.5))
    ledger.forget(["checkpoint-1"])
    assert Ledger(tmp_path).all() == [Asked("checkpoint-2", "key", "weights", "files", 0.5)]


# --- judging ---


def verdict_file(ckpt: str, outcomes: str, **gate: object) -> VerdictFile:
    """A suite of its gate whose cases passed (`p`), missed (`m`) or ended in an error (`e`)."""
    words = {"p": "pass", "m": "miss", "e": "error"}
    rows = [
        Verdict("suite", "test_p.py::test_a", f"c{n}", words[letter], reason="why", ckpt=ckpt)  # type: ignore[arg-type]
        for n, letter in enumerate(outcomes)
    ]
    asked = SuiteAsked("suite", "key", ("test_p.py::test_a",), gate or None, len(rows))
    return VerdictFile(ckpt, "", (asked,), tuple(rows))


def ending(sweep: Sweep) -> tuple[str, int]:
    console = Console(width=100, file=io.StringIO(), highlight=False)
    screen, code = sweep.ending(console)
    console.print(screen)
    return console.file.getvalue(), code  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("outcomes", "gate", "code"),
    [
        ("ppp", {"min_pass_rate": 0.6}, 0),
        ("pmm", {"min_pass_rate": 0.6}, 1),
        ("pmm", {}, 0),  # recorded
        ("ppe", {}, 1),  # what could not be asked is never green
    ],
)
def test_the_exit_code_is_that_of_the_gates_at_every_checkpoint(
    outcomes: str, gate: dict[str, object], code: int
) -> None:
    sweep = Sweep()
    sweep.put("checkpoint-1", verdict_file("a", outcomes, **gate), None)
    sweep.put("checkpoint-2", verdict_file("b", "ppp", **gate), None)
    screen, found = ending(sweep)
    assert found == code
    assert screen.splitlines()[-1] == ("red: exit code 1" if code else "green: exit code 0")
    assert [line.split()[0] for line in screen.splitlines()[:3]] == ["checkpoint", "checkpoint-1", "checkpoint-2"]


def test_a_suite_is_compared_with_the_baseline_where_there_is_one() -> None:
    sweep = Sweep()
    sweep.put("checkpoint-1", verdict_file("a", "m" * 12, max_regression="significant"), None)
    assert ending(sweep)[1] == 0  # recorded
    sweep.baseline = verdict_file("before", "p" * 12)
    screen, code = ending(sweep)
    assert code == 1
    assert (
        "✗ checkpoint-1 suite: 0 % of 12 red (12 lost and 0 gained against before: p = 0.00024, below 0.05)" in screen
    )


@pytest.mark.parametrize(
    ("stopped", "last"),
    [
        (3, "green where it was asked, but a prober died: exit code 3"),
        (130, "green where it was asked, but interrupted: exit code 130"),
    ],
)
def test_the_last_line_has_the_exit_code_of_what_ended_the_watch(stopped: int, last: str) -> None:
    sweep = Sweep()
    sweep.put("checkpoint-1", verdict_file("a", "ppp", min_pass_rate=0.6), None)
    console = Console(width=100, file=io.StringIO(), highlight=False)
    screen, code = sweep.ending(console, stopped)
    console.print(screen)
    assert code == stopped
    assert console.file.getvalue().splitlines()[-1] == last  # type: ignore[attr-defined]


def test_an_import_error_is_said_without_pytests_mark(tmp_path: Path) -> None:
    error = Verdict("test_p", "test_p.py", "collection", "error", reason="E   ModuleNotFoundError: No module named 'x'")
    (told,) = _renamed(VerdictFile("a", "", (), (error,)), tmp_path, "shown").verdicts
    assert told.reason == "ModuleNotFoundError: No module named 'x'"


# --- a real one ---


def write_probe(root: Path, text: str = PROBE) -> Path:
    (root / "probes").mkdir(exist_ok=True)
    (root / "pyproject.toml").touch()
    (root / "probes" / "test_p.py").write_text(text, encoding="utf-8")
    return root / "probes"


def close(checkpoint: Path) -> Path:
    """As transformers' Trainer does it."""
    (checkpoint / "trainer_state.json").write_text("{}")
    return checkpoint


@dataclass
class Seen:
    """What a watch did in its life."""

    out: Path
    screen: str
    code: int
    asked: dict[str, VerdictFile]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Seen:
    """A watch that begins before its folder is there, while a writer does what trainers do."""
    root = tmp_path_factory.mktemp("watched")
    probes = write_probe(root)
    (probes / "conftest.py").write_text(UNTIL_IT_IS_GONE)
    out = root / "out"
    other = make_checkpoint(root / "other", seed=1)
    failed: list[BaseException] = []

    def writer() -> None:
        try:
            wait_until(lambda: "waiting" in screen.getvalue())
            _write(out, tiny_checkpoint, other)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    screen = io.StringIO()
    console = Console(width=100, file=screen, highlight=False)
    thread = threading.Thread(target=writer)
    thread.start()
    code = watch(Options(out, [str(probes)], idle_s=6, settle_s=2, given_up_s=3), console)
    thread.join()
    assert not failed
    asked = {path.stem: verdicts.read(path) for path in (out / "probes").glob("*.jsonl")}
    return Seen(out, screen.getvalue(), code, asked)


def _write(out: Path, source: Path, other: Path) -> None:
    slow = out / "checkpoint-1"
    slow.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        with (slow / file.name).open("wb") as stream:
            whole = file.read_bytes()
            for part in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
                stream.write(part)
                stream.flush()
                assert not (out / "probes").exists()
                time.sleep(0.2)
    wait_until((out / "probes" / "checkpoint-1.jsonl").exists)
    goes = close(copy(source, out / "checkpoint-2"))
    wait_until((out.parent / "begun_watched-checkpoint-2").exists)  # all of its files are held by then
    shutil.rmtree(goes)  # save_total_limit
    wait_until((out / "probes" / "checkpoint-2.jsonl").exists)
    (copy(source, out / "checkpoint-3") / "model.safetensors").unlink()
    wait_until((out / "probes" / "checkpoint-3.jsonl").exists)
    shutil.copy(other / "model.safetensors", slow / "model.safetensors")
    before = (out / "probes" / "checkpoint-1.jsonl").stat().st_ino
    wait_until(lambda: (out / "probes" / "checkpoint-1.jsonl").stat().st_ino != before)
    for file in other.iterdir():  # trainer.save_model() at the end: the same weights once more
        shutil.copy(file, out / file.name)


def test_a_folder_that_is_not_there_yet_is_waited_for(seen: Seen) -> None:
    assert seen.screen.splitlines()[0] == f"{seen.out} does not exist yet: waiting for one"


def test_a_checkpoint_written_slowly_is_asked_when_it_is_whole(seen: Seen) -> None:
    assert [verdict.outcome for verdict in seen.asked["checkpoint-1"].verdicts] == ["pass", "miss", "pass"]
    assert seen.asked["checkpoint-1"].ckpt == str(seen.out / "checkpoint-1")


def test_a_checkpoint_deleted_while_it_is_asked_has_its_verdicts(seen: Seen) -> None:
    assert [verdict.outcome for verdict in seen.asked["checkpoint-2"].verdicts] == ["pass", "miss", "pass"]
    assert not (seen.out / "checkpoint-2").exists()
    assert "checkpoint-2 test_not_water: 66.7 % of 3 green" in seen.screen


def test_a_checkpoint_that_was_never_finished_is_red_and_says_why(seen: Seen) -> None:
    assert "checkpoint-3 cannot be loaded: no weights: there is no *.safetensors" in seen.screen
    (verdict,) = seen.asked["checkpoint-3"].verdicts
    assert (verdict.outcome, verdict.reason) == (
        "error",
        f"{seen.out}/checkpoint-3: no weights: there is no *.safetensors",
    )
    assert seen.code == 1


def test_other_weights_under_the_same_name_are_asked_again(seen: Seen, tiny_checkpoint: Path) -> None:
    assert seen.screen.count("checkpoint-1 test_not_water: 66.7 % of 3 green") == 2
    assert seen.asked["checkpoint-1"].weights_sha256 != seen.asked["checkpoint-2"].weights_sha256


def test_what_was_deleted_of_a_training_that_began_anew_is_left_out_of_the_matrix(seen: Seen) -> None:
    assert "left out, because checkpoint-1 is of another training now: checkpoint-2" in seen.screen
    matrix = [line.split()[0] for line in seen.screen.splitlines() if MATRIX.match(line)]
    assert matrix == ["checkpoint-1", "checkpoint-3"]


def test_final_weights_that_are_those_of_a_checkpoint_are_not_asked_once_more(seen: Seen) -> None:
    assert sorted(seen.asked) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def test_nothing_is_left_in_the_folder_but_verdicts(seen: Seen) -> None:
    made = {path.name for path in seen.out.iterdir() if path.is_dir()}
    assert made == {"checkpoint-1", "checkpoint-3", "probes"}
    assert {path.name for path in (seen.out / "probes").iterdir()} == {
        "checkpoint-1.jsonl", "checkpoint-2.jsonl", "checkpoint-3.jsonl", "watch.json", "lock",
    }  # fmt: skip


def test_a_watch_started_again_asks_nothing_that_is_there_and_ends_the_same(seen: Seen) -> None:
    done = recipe(seen.out.parent, "watch", "out", "--probes", "probes", "--once")
    assert done.code == 1
    lines = done.screen.splitlines()
    assert lines[0] == "asked before: checkpoint-1, checkpoint-3"
    matrix = [line for line in seen.screen.splitlines() if MATRIX.match(line)]
    assert [line for line in lines if MATRIX.match(line)] == matrix
    assert len(matrix) == 2


def test_a_real_trainer_with_a_limit_of_two_loses_no_checkpoint_that_was_asked(tmp_path: Path) -> None:
    write_probe(tmp_path)
    make_checkpoint(tmp_path / "base", seed=5)
    arguments = ["max_steps=5", "save_steps=1", "save_total_limit=2", 'output_dir="out"']
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PAUSE_AFTER_SAVE_S": "0.7", "HF_HUB_OFFLINE": "1"}
    trainer = subprocess.Popen(
        [sys.executable, "-m", "tests.foreign_trainers", "base", "trainer", *arguments],
        cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with started(tmp_path, "watch", "out", "--probes", "probes") as process:
        assert trainer.wait(timeout=300) == 0
        wait_until((tmp_path / "out" / "probes" / "checkpoint-5.jsonl").exists, process)
        process.send_signal(signal.SIGINT)
        screen, _ = process.communicate(timeout=90)
    assert process.returncode == 130, screen
    assert screen.splitlines()[-1] == "interrupted: verdicts are in out/probes, the same command goes on"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["checkpoint-4", "checkpoint-5", "probes"]
    files = {path.stem: verdicts.read(path) for path in (tmp_path / "out" / "probes").glob("*.jsonl")}
    went = {f"checkpoint-{step}" for step in range(1, 6)} - files.keys()
    assert {"checkpoint-4", "checkpoint-5"} <= files.keys()
    # what comes and goes between two looks was never there for the watch
    assert all(f"{name} was deleted before it could be asked" in screen for name in went if name in screen)
    assert {verdict.outcome for file in files.values() for verdict in file.verdicts} == {"pass", "miss"}
    assert len({file.weights_sha256 for file in files.values()}) == len(files)
    assert json.loads((tmp_path / "out" / "probes" / "watch.json").read_text())["asked"][-1]["loss"] > 0


DYING = """
import os, signal
from pathlib import Path

def pytest_collection_finish(session):
    if Path(session.config.getoption("--ckpt")[0], "special.json").exists():
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_prober_that_dies_ends_in_exit_code_3_and_costs_no_other_checkpoint_its_verdicts(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    probes = write_probe(tmp_path)
    (probes / "conftest.py").write_text(DYING)
    for step in (1, 2, 3):
        path = copy(tiny_checkpoint, tmp_path / "out" / f"checkpoint-{step}")
        if step == 2:
            (path / "special.json").write_text("{}")
        close(path)
    console = Console(width=100, file=io.StringIO(), highlight=False)
    with pytest.raises(TrainingFailed) as caught:
        watch(Options(tmp_path / "out", [str(probes)], once=True), console)
    assert str(caught.value).startswith(
        "the prober of checkpoint-2 was killed by SIGKILL (out of memory?); the end of its log:\n"
    )
    screen = console.file.getvalue()  # type: ignore[attr-defined]
    assert "checkpoint-2: its prober was killed by SIGKILL (out of memory?)" in screen
    assert [line.split()[0] for line in screen.splitlines() if "[" in line] == ["checkpoint-1", "checkpoint-3"]
    assert screen.splitlines()[-1] == "green where it was asked, but a prober died: exit code 3"


def test_a_baseline_that_is_a_checkpoint_is_asked_first_and_only_once(tmp_path: Path, tiny_checkpoint: Path) -> None:
    write_probe(tmp_path, PROBE.replace('"min_pass_rate": 0.6', '"max_regression": 0'))
    copy(tiny_checkpoint, tmp_path / "base")
    close(copy(tiny_checkpoint, tmp_path / "out" / "checkpoint-1"))
    call = ("watch", "out", "--probes", "probes", "--once", "--baseline", "base")
    first = recipe(tmp_path, *call)
    assert first.code == 0, first.screen
    assert first.screen.splitlines()[0] == "baseline base: asked"
    assert "-0 +0" in first.screen
    again = recipe(tmp_path, *call)
    assert again.screen.splitlines()[0] == "asked before: checkpoint-1"
    by_file = recipe(tmp_path, *call[:-1], "out/probes/baseline.jsonl")
    assert by_file.screen == again.screen


# --- what cannot be ---


def make_run(root: Path) -> None:
    (root / "out" / "qa").mkdir(parents=True)
    (root / "out" / "run.json").write_text("{}")


@pytest.mark.parametrize(
    ("prepare", "arguments", "shown"),
    [
        (
            lambda root: (root / "outs").mkdir(), ["out", "--once"],
            "out: no such folder\n    hint: did you mean outs?",
        ),
        (
            lambda root: None, ["out", "--once"],
            "out: no such folder\n    hint: without --once it is waited for",
        ),
        (
            lambda root: (root / "out").mkdir(), ["out", "--once"],
            "out holds no checkpoint\n    expected: checkpoint-N, ckpt-N, step_N, epoch_N or iter_N",
        ),
        (
            lambda root: (root / "out").touch(), ["out"],
            "out is a file\n    expected: the output folder of a trainer",
        ),
        (
            make_run, ["out"],
            "out belongs to a run of a recipe\n"
            "    hint: recipe run probes its checkpoints; where that says launch.probing: elsewhere, "
            "recipe watch out does, with the suites of its recipe and without --probes",
        ),
        (
            make_run, ["out/qa"],
            "out/qa belongs to a run of a recipe\n"
            "    hint: recipe run probes its checkpoints; where that says launch.probing: elsewhere, "
            "recipe watch out does, with the suites of its recipe and without --probes",
        ),
        (
            lambda root: (root / "out" / "checkpoint-1").mkdir(parents=True), ["out/checkpoint-1"],
            "out/checkpoint-1 is a checkpoint\n    expected: the folder it is in\n    hint: recipe watch out",
        ),
        (
            lambda root: None, ["out", "--probes", "prob"],
            "--probes prob: no such file or folder",
        ),
        (
            lambda root: None, ["out", "--baseline", "gone"],
            "--ckpt gone: no such folder\n    hint: checkpoints are folders on this machine",
        ),
        (
            lambda root: None, ["out", "--idle", "0.01"],
            "out does not exist yet: waiting for one\n"
            "no checkpoint came in out within 0.01 minutes\n"
            "    hint: is that the folder the trainer writes (output_dir)?",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_watched_says_why(
    tmp_path: Path, prepare: Callable[[Path], object], arguments: list[str], shown: str
) -> None:
    write_probe(tmp_path)
    prepare(tmp_path)
    probes = [] if "--probes" in arguments else ["--probes", "probes"]
    done = recipe(tmp_path, "watch", *arguments, *probes)
    assert (done.code, done.screen.rstrip("\n")) == (2, shown)


def test_once_and_idle_exclude_each_other(tmp_path: Path) -> None:
    done = recipe(tmp_path, "watch", "out", "--probes", ".", "--once", "--idle", "1")
    assert done.code == 2
    assert done.screen.splitlines()[-1] == "Error: --once and --idle exclude each other"


def test_a_folder_without_probes_is_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    write_probe(tmp_path, "def test_nothing(): pass\n")
    close(copy(tiny_checkpoint, tmp_path / "out" / "checkpoint-1"))
    done = recipe(tmp_path, "watch", "out", "--probes", "probes", "--once", "--suite", "loops")
    assert (done.code, done.screen) == (2, "--suite loops: there is no such suite here\n")


def test_a_second_watch_of_a_folder_says_who_has_it(tmp_path: Path, tiny_checkpoint: Path) -> None:
    probes = write_probe(tmp_path)
    close(copy(tiny_checkpoint, tmp_path / "out" / "checkpoint-1"))
    with writing(tmp_path / "out" / "probes"), pytest.raises(FolderTaken) as caught:
        watch(Options(tmp_path / "out", [str(probes)], once=True), Console(file=io.StringIO()))
    first, second = caught.value.screen().splitlines()
    assert first.startswith(f"{tmp_path}/out is being watched by process {os.getpid()} on ")
    assert second == "    hint: one watch per folder: wait for it, or stop it"


def test_an_interrupt_while_waiting_leaves_no_process_behind(tmp_path: Path) -> None:
    write_probe(tmp_path)
    with started(tmp_path, "watch", "out", "--probes", "probes") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "out does not exist yet: waiting for one\n"
        process.send_signal(signal.SIGINT)
        screen, _ = process.communicate(timeout=90)
    assert process.returncode == 130
    assert screen.splitlines() == [
        "interrupted: what is being asked is left",
        "no checkpoint was asked",
        "interrupted: verdicts are in out/probes, the same command goes on",
    ]
    assert not (tmp_path / "out").exists()


def test_the_process_that_watches_imports_no_torch() -> None:
    script = "import sys, runner.watching.following\nassert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == 0
