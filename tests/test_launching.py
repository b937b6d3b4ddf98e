"""Several training processes of one machine: started by torchrun's engine, told to stop together, never left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner import jobs, launch, spec
from runner.check import load_checked
from runner.children import Child, Host
from runner.cli import cli
from runner.errors import BadRecipe
from runner.hosting import Hosting
from runner.preparation import Prepared, inputs_of, new_job, relaid, run_record, start_of
from runner.preparation.devices import check_devices
from runner.standings import Standings
from tests.in_process import events, prepare
from tests.tiny_project import alive, descendants, recipe, started, wait_until, write_project
from tests.tiny_project import events as lines_of

TWO = "launch.processes=2"


# --- deciding ---


def test_auto_takes_one_process_for_each_device_and_one_on_cpus() -> None:
    auto = spec.Launch()
    assert [launch.processes(auto, ["/dev/nvidia0"] * count) for count in (0, 1, 4)] == [1, 1, 4]
    beside = spec.Launch(probing="beside")
    assert [launch.processes(beside, ["/dev/nvidia0"] * count) for count in (0, 1, 4)] == [1, 1, 3]


def test_trainers_see_as_many_devices_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    four = [f"/dev/nvidia{number}" for number in range(4)]
    assert launch.trainer_environment(4, four) == {}
    assert launch.trainer_environment(2, four) == {"CUDA_VISIBLE_DEVICES": "0,1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 5,6,7")
    assert launch.trainer_environment(3, four) == {"CUDA_VISIBLE_DEVICES": "4,5,6"}
    assert launch.trainer_environment(1, []) == {}


def test_more_processes_than_devices_are_an_error_with_its_place(tmp_path: Path) -> None:
    path = write_project(tmp_path)
    loaded = load_checked(path, ["launch.processes=4"], root=tmp_path)
    check_devices(loaded, [])  # on CPUs as many as one likes
    check_devices(loaded, ["/dev/nvidia0"] * 4)
    with pytest.raises(BadRecipe) as caught:
        check_devices(loaded, ["/dev/nvidia0", "/dev/nvidia1"])
    assert caught.value.screen() == (
        "--set launch.processes=4: 4 processes, and 2 GPUs are visible\n    expected: 2 or fewer, or auto"
    )


def test_the_plan_says_which_batches_can_be_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(cli, ["plan", "tiny.yaml", "--processes", "3", "--nodes", "2"])
    assert isinstance(refused.exception, BadRecipe)
    assert str(refused.exception).startswith("tiny.yaml:32:103: stage base: 6 processes cannot share")
    assert "expected: 6 or 12, which 6 processes can share; or 2, 4 or 8 processes" in str(refused.exception)


def test_a_stage_is_the_same_wherever_it_is_trained_and_goes_on_with_other_batches(tmp_path: Path) -> None:
    path = write_project(tmp_path)

    def prepared(*sets: str) -> Prepared:
        return Prepared(load_checked(path, sets, root=tmp_path), tmp_path / "run")

    def job(one: Prepared) -> jobs.Job:
        start, key = start_of(one, Standings(one.recipe, one.run), "base")
        return new_job(one, "base", start, inputs_of(one, "base", start, key))

    alone, two = job(prepared()), job(prepared(TWO))
    assert alone.key == two.key
    assert run_record(prepared(), 0).recipe_sha256 == run_record(prepared(TWO), 0).recipe_sha256  # --locked agrees
    assert (two.processes, two.per_device_batch_size, two.accumulation_steps) == (2, 4, 1)
    assert (alone.processes, alone.per_device_batch_size, alone.accumulation_steps) == (1, 8, 1)
    assert relaid(prepared(), two) == alone
    assert relaid(prepared(TWO), replace(alone, publish_steps=(7, 120))) == replace(two, publish_steps=(7, 120))


def test_a_dry_run_without_slurm_is_refused() -> None:
    done = CliRunner().invoke(cli, ["run", "tiny.yaml", "--dry-run"])
    assert (done.exit_code, done.output.splitlines()[-1]) == (2, "Error: --dry-run belongs to --slurm")


# --- doing ---


@contextmanager
def trainers(root: Path) -> Iterator[tuple[Callable[[], Child], Host, Prepared]]:
    """What starts the two trainers of a stage that publishes its last step alone; the host of all of them."""
    slow = ("stages.base.save_strategy=no", "stages.base.num_train_epochs=2000")
    prepared = prepare(write_project(root), root / "run", TWO, *slow)
    start, key = start_of(prepared, Standings(prepared.recipe, prepared.run), "base")
    jobs.write(prepared.run / "base", new_job(prepared, "base", start, inputs_of(prepared, "base", start, key)))
    with Hosting(root, root / "host.log", preferences=False, gpus=[], several=True) as hosting:
        yield lambda: hosting.train(prepared.run, "base", 2), hosting.start(launch.TRAINER), prepared


def wait(host: Host, ready: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        host.poll(0.05)
        assert time.monotonic() < end, "it took too long"


def pids(prepared: Prepared, launcher: Child) -> list[int]:
    assert launcher.pid is not None
    return sorted(descendants(launcher.pid))


def test_trainers_die_save_and_go_on_together(tmp_path: Path) -> None:
    with trainers(tmp_path) as (train, host, prepared):
        first = train()
        wait(host, lambda: len(events(prepared, "base")) > 5 or first.exit_code is not None)
        both = pids(prepared, first)
        assert len(both) == 2, first.log_tail()
        os.kill(both[1], signal.SIGKILL)
        wait(host, lambda: first.exit_code is not None, 40)
        assert first.exit_code == 3
        assert f"rank 1 of 2 (process {both[1]} on {socket.gethostname()}) was killed by SIGKILL" in first.log_tail()
        assert f"the end of {prepared.run}/events/train-base.rank-1.log:" in first.log_tail()
        assert not any(alive(pid) for pid in both)

        before = len(events(prepared, "base"))
        second = train()
        wait(host, lambda: len(events(prepared, "base")) > before + 5 or second.exit_code is not None)
        everybody = [*pids(prepared, second), second.pid]
        for (
            pid
        ) in everybody:  # as a scheduler does it: every process hears it, the launcher tells the trainers once more
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
        wait(host, lambda: second.exit_code is not None, 40)
        assert second.exit_code == 130, second.log_tail()
        (state,) = (prepared.run / "base" / "state").glob("checkpoint-*/complete.json")
        step = int(state.parent.name.removeprefix("checkpoint-"))

        before = len(events(prepared, "base"))
        third = train()
        wait(host, lambda: len(events(prepared, "base")) > before + 1 or third.exit_code is not None)
        assert events(prepared, "base")[before].step == step  # type: ignore[union-attr]
        left = [*pids(prepared, third), third.pid]
        host.kill()
        wait_until(lambda: not any(alive(pid) for pid in left if pid is not None), timeout_s=20)


def test_a_run_on_two_processes_is_interrupted_and_goes_on_with_one(tmp_path: Path) -> None:
    path = write_project(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("  qa: {kind")].replace("save_steps: [30], ", ""), encoding="utf-8")
    run = tmp_path / "results" / "tiny"
    with started(tmp_path, "run", "tiny.yaml", "--processes", "2") as process:
        wait_until(lambda: len(lines_of(run, "train-base")) > 10, process, timeout_s=200)
        process.send_signal(signal.SIGINT)  # Ctrl-C
        screen, _ = process.communicate(timeout=100)
    assert process.returncode == 130, screen
    assert "interrupted: state is saved, the same command resumes" in screen
    assert json.loads((run / "base" / "stage.json").read_text(encoding="utf-8"))["processes"] == 2
    again = recipe(tmp_path, "run", "tiny.yaml")
    assert again.code == 0, again.screen
    assert json.loads((run / "base" / "stage.json").read_text(encoding="utf-8"))["processes"] == 1
    logged = [event for event in lines_of(run, "train-base") if event["event"] == "logged"]
    assert [event["step"] for event in logged] == list(range(1, 121))  # none was taken twice
