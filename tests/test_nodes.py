"""Several nodes: which this is, what they say to each other, and two machines made of network namespaces."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from runner import nodes, spec
from runner.errors import Interrupted, TrainingFailed, UserError
from runner.hosting import Hosting
from runner.joining import join
from runner.nodes import ALONE, Ear, Lead, Node, Said, Voice, attempt_name, first_host, interface_of, this_node
from tests.tiny_project import events, wait_until, write_project

TWO = spec.Launch(nodes=2, rendezvous="10.0.0.1:29500")
SLURM = {
    "SLURM_JOB_ID": "1234", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
}  # fmt: skip


# --- which node ---


def test_a_machine_alone_needs_to_be_told_nothing() -> None:
    assert this_node(spec.Launch(), None, {}) == ALONE == this_node(spec.Launch(), 0, SLURM)
    with pytest.raises(UserError, match="^--node-rank 1 of one node"):
        this_node(spec.Launch(), 1, {})


def test_by_hand_each_node_says_which_it_is_and_where_they_meet() -> None:
    assert this_node(TWO, 1, {}) == Node(1, 2, "10.0.0.1:29500")
    with pytest.raises(UserError) as caught:
        this_node(TWO, None, {})
    assert caught.value.screen() == (
        "which of the 2 nodes is this?\n"
        "    expected: --node-rank 0 on the first one, up to --node-rank 1\n"
        "    hint: or --slurm, which starts them all"
    )
    with pytest.raises(UserError, match="^--node-rank 2 of 2 nodes\n    expected: 0 to 1"):
        this_node(TWO, 2, {})
    with pytest.raises(UserError, match="^where do the nodes find each other"):
        this_node(spec.Launch(nodes=2), 0, {})


def test_slurm_says_which_node_it_is_and_the_first_one_is_where_they_meet() -> None:
    assert this_node(spec.Launch(nodes=2), None, SLURM) == Node(1, 2, "gpu03:21234")
    assert this_node(TWO, None, SLURM).rendezvous == "10.0.0.1:29500"
    with pytest.raises(UserError, match="launch.nodes is 3, and srun started 2"):
        this_node(spec.Launch(nodes=3), None, SLURM)
    with pytest.raises(UserError, match="srun started 16 tasks on 2 nodes"):
        this_node(spec.Launch(nodes=2), None, {**SLURM, "SLURM_STEP_NUM_TASKS": "16"})
    with pytest.raises(UserError, match="start it with srun"):
        this_node(spec.Launch(nodes=2), None, {"SLURM_JOB_ID": "1234"})


@pytest.mark.parametrize(
    ("listed", "first"),
    [("gpu03", "gpu03"), ("a,b", "a"), ("gpu[03-05,9],login1", "gpu03"), ("n[7,9]", "n7"), ("r[1-2]n[08-11]", "r1n08"),
     ("gpu-[001-128].cluster", "gpu-001.cluster")],
)  # fmt: skip
def test_the_first_host_of_a_list_as_slurm_writes_it(listed: str, first: str) -> None:
    assert first_host(listed) == first


def test_the_interface_of_an_address_is_found() -> None:
    assert interface_of("127.0.0.1") == "lo"


# --- what they say ---


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    monkeypatch.setattr(nodes, "SILENT_S", 0.6)
    monkeypatch.setattr(nodes, "WAIT_S", 0.6)


def test_what_a_node_says_is_heard_and_one_that_falls_silent_is_noticed(tmp_path: Path, quick: None) -> None:
    ear = Ear(tmp_path, 1)
    assert ear.listen() is None
    voice = Voice(tmp_path, 1, Said("s", "machine", "here"))
    first = ear.listen()
    assert first is not None
    wait_until(lambda: (ear.listen() or first).beat > first.beat + 2, timeout_s=5)
    assert ear.silent_s < 0.5
    voice.say(replace(voice.said, state="failed", why="out of memory"))
    heard = ear.listen()
    assert heard is not None
    assert (heard.state, heard.why) == ("failed", "out of memory")
    voice.close()
    ear.listen()
    time.sleep(0.3)
    assert ear.silent_s > 0.25


def test_node_0_waits_for_the_others_says_so_and_gives_up_after_a_time(tmp_path: Path, quick: None) -> None:
    told: list[str] = []
    with pytest.raises(TrainingFailed) as caught:
        with Lead(tmp_path, Node(0, 3, "10.0.0.1:29500"), "r") as lead:
            lead.gather(told.append, lambda: False)
    assert told == ["for nodes 1, 2, at most 0 minutes"]
    assert str(caught.value).startswith("nodes 1, 2 did not come within 0 minutes: run the same command there")
    ended = Ear(tmp_path, 0).listen()
    assert ended is not None
    assert (ended.state, ended.code, ended.why) == ("ended", 3, str(caught.value))
    with pytest.raises(Interrupted), Lead(tmp_path, Node(0, 2, "10.0.0.1:29500"), "r") as lead:
        lead.gather(told.append, lambda: True)


def test_node_0_announces_a_stage_and_notices_a_node_that_dies(tmp_path: Path, quick: None) -> None:
    with Lead(tmp_path, Node(0, 2, "10.0.0.1:29500"), "r") as lead:
        said = Ear(tmp_path, 0).listen()
        assert said is not None
        other = Voice(tmp_path, 1, Said(said.session, "machine", "here"))
        lead.gather(lambda words: None, lambda: False)
        name = lead.announce(tmp_path / "variant", "base", 4)
        said = Ear(tmp_path, 0).listen()
        assert said is not None
        assert (said.state, said.run, said.stage, said.processes, attempt_name(said)) == (
            "training", "variant", "base", 4, name,
        )  # fmt: skip
        lead.check()
        other.close()
        time.sleep(0.8)
        with pytest.raises(TrainingFailed, match=r"^node 1 \(machine\) has died, or cannot be reached: nothing was"):
            lead.check()
        assert "node 1 (machine) has died" in lead.about_others()


def test_a_node_of_an_earlier_session_is_not_taken_for_one_that_is_there(tmp_path: Path, quick: None) -> None:
    other = Voice(tmp_path, 1, Said("another", "machine", "here"))
    with pytest.raises(TrainingFailed, match="^node 1 did not come within"):
        with Lead(tmp_path, Node(0, 2, "10.0.0.1:29500"), "r") as lead:
            lead.gather(lambda words: None, lambda: False)
    other.close()


# --- signals and deaths while nothing is trained ---


def hosting(folder: Path) -> Hosting:
    """Of a node whose trainers never start."""
    return Hosting(folder, folder / "host.log", preferences=False, gpus=[], several=True, node=SECOND)


SECOND = Node(1, 2, "10.0.0.1:29500")


def leaves_at(words: str, told: list[str]) -> Callable[[str], None]:
    """A listener that gets SIGTERM, as from a scheduler, when it is told this."""

    def tell(line: str) -> None:
        told.append(line)
        if words in line:
            os.kill(os.getpid(), signal.SIGTERM)

    return tell


def test_a_node_that_is_told_to_leave_before_node_0_begins_leaves_at_once(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(Interrupted, match="^interrupted while nothing was trained: the same commands resume$"):
        join(tmp_path, SECOND, hosting(tmp_path), "r", leaves_at("waiting for node 0", told))
    assert len(told) == 1
    assert not (tmp_path / "host.log").exists()


def test_a_node_that_leaves_between_stages_is_heard_of_by_node_0_which_waits_for_it_no_longer(
    tmp_path: Path, quick: None
) -> None:
    told: list[str] = []
    before = Voice(tmp_path, 0, Said("an earlier session", "machine"))  # so that the new one is seen to begin
    before.close()
    with ThreadPoolExecutor() as pool:
        leads = pool.submit(_lead, tmp_path)
        with pytest.raises(Interrupted, match="^interrupted while nothing was trained"):
            join(tmp_path, SECOND, hosting(tmp_path), "r", leaves_at("joined node 0", told))
        with pytest.raises(Interrupted, match=r"^node 1 \(.*\) was interrupted while nothing was trained"):
            leads.result()
    assert [line.partition(": ")[2].partition(" on ")[0] for line in told][-1] == "joined node 0"


def _lead(folder: Path) -> None:
    """Node 0, which waits for the other one once it was there; it trains nothing."""
    with Lead(folder, Node(0, 2, "10.0.0.1:29500"), "r") as lead:
        other = Ear(folder, 1)
        wait_until(lambda: (said := other.listen()) is not None and said.state == "left", timeout_s=60)
        lead.gather(lambda words: None, lambda: False)


# --- two machines ---


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a wire between them: 10.77.0.1 and 10.77.0.2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    names = (f"one{os.getpid()}", f"two{os.getpid()}")
    made: list[str] = []
    try:
        for name in names:
            try:
                _ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
            made.append(name)
        _ip("link", "add", "wire0", "netns", names[0], "type", "veth", "peer", "name", "wire1", "netns", names[1])
        for number, name in enumerate(names):
            _ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", f"wire{number}")
            for device in ("lo", f"wire{number}"):
                _ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in made:
            _ip("netns", "del", name)


def _node(root: Path, machine: str, rank: int) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("recipe")), "run", "tiny.yaml", "--nodes", "2"]
    command += ["--node-rank", str(rank), "--rendezvous", "10.77.0.1:29501"]
    return subprocess.Popen(
        ["ip", "netns", "exec", machine, *command],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def test_two_nodes_train_one_dies_and_the_same_commands_go_on(tmp_path: Path, machines: tuple[str, str]) -> None:
    path = write_project(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("  qa: {kind")], encoding="utf-8")
    run = tmp_path / "results" / "tiny"
    running = [_node(tmp_path, machines[rank], rank) for rank in (1, 0)][::-1]
    try:
        wait_until(lambda: (run / "base" / "ckpt-30" / "manifest.json").exists(), running[0], timeout_s=200)
        wait_until(lambda: len(events(run, "train-base")) > 36, running[0])
        os.killpg(running[1].pid, signal.SIGKILL)
        screen, _ = running[0].communicate(timeout=60)
        assert running[0].returncode == 3, screen
        assert "\nnode 1 (" in screen
        assert "has died, or cannot be reached: nothing was heard of it for" in screen
        running[1].communicate(timeout=20)

        running = [_node(tmp_path, machines[rank], rank) for rank in (0, 1)]
        screens = [process.communicate(timeout=240)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0], screens
        assert screens[1].splitlines()[1:] == [
            f"node 1 of 2: joined node 0 on {os.uname().nodename}",
            "node 1 of 2: stage base: running",
            "node 1 of 2: stage base: done",
            "node 1 of 2: node 0 is finished",
        ]
        begun = [event["step"] for event in events(run, "train-base") if event["event"] == "started"]
        assert begun == [0, 30]
        assert (run / "base" / "ckpt-120" / "manifest.json").exists()
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate(timeout=20)
