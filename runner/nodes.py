"""Several machines that run the same command: node 0 decides, the others start trainers when it says so.

They meet in small files of the run folder, which all of them see: `nodes/node-R.json`, written by node R every two
seconds. One that is no longer written says that its node has died.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from runner import spec
from runner.atomic import publish_text
from runner.errors import Interrupted, TrainingFailed, UserError

FORMAT_VERSION = 1
BEAT_S = 2.0
"""Between two signs of life."""
SILENT_S = 90.0
"""Without one a node is given up. NFS may show a file as it was a minute ago."""
WAIT_S = 600.0
"""The longest that nodes wait for each other to begin."""
_LOOK_EVERY_S = 0.1

State = Literal["preparing", "training", "here", "failed", "left", "ended"]


@dataclass(frozen=True)
class Node:
    """Which machine of how many this is."""

    rank: int = 0
    count: int = 1
    rendezvous: str = ""
    """`HOST:PORT` of node 0; empty for one machine."""


ALONE = Node()


def this_node(how: spec.Launch, rank: int | None, environment: Mapping[str, str]) -> Node:
    """What `--node-rank`, the recipe's `launch:` and Slurm's variables say.

    Raises:
        UserError: they do not say enough, or contradict each other.
    """
    if how.nodes == 1:
        if rank:
            raise UserError(f"--node-rank {rank} of one node", hint="give --nodes too, or leave --node-rank out")
        return ALONE
    if rank is None and "SLURM_JOB_ID" in environment:
        return _in_slurm(how, environment)
    if rank is None:
        raise UserError(
            f"which of the {how.nodes} nodes is this?",
            expected=f"--node-rank 0 on the first one, up to --node-rank {how.nodes - 1}",
            hint="or --slurm, which starts them all",
        )
    if rank >= how.nodes:
        raise UserError(f"--node-rank {rank} of {how.nodes} nodes", expected=f"0 to {how.nodes - 1}")
    if how.rendezvous is None:
        raise UserError(
            "where do the nodes find each other?",
            expected="--rendezvous HOST:PORT, the same on every node",
            hint="HOST is the first node's name or address, PORT any free one, such as 29500",
        )
    return Node(rank, how.nodes, how.rendezvous)


def _in_slurm(how: spec.Launch, environment: Mapping[str, str]) -> Node:
    if "SLURM_STEP_NUM_NODES" not in environment:
        raise UserError(f"launch.nodes is {how.nodes}, and this is one process of the job", hint="start it with srun")
    found, tasks = int(environment["SLURM_STEP_NUM_NODES"]), int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if found != how.nodes:
        raise UserError(f"launch.nodes is {how.nodes}, and srun started {found}", hint="srun --nodes, or --nodes here")
    if tasks != found:
        raise UserError(
            f"srun started {tasks} tasks on {found} nodes", expected="one of each node", hint="--ntasks-per-node=1"
        )
    first = first_host(environment["SLURM_STEP_NODELIST"])
    port = 20000 + int(environment["SLURM_JOB_ID"]) % 20000  # the same on every node, another for every job
    return Node(int(environment["SLURM_NODEID"]), found, how.rendezvous or f"{first}:{port}")


def first_host(nodes: str) -> str:
    """The first host of a list as Slurm writes it: `gpu03` of `gpu[03-05,9],login1`."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def interface_of(host: str) -> str | None:
    """The network interface by which this machine reaches a host, or is it; None where that cannot be found out."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # of a datagram socket: nothing is sent
            address = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                asked = struct.pack("256s", name.encode()[:15])
                try:
                    found = fcntl.ioctl(probe.fileno(), 0x8915, asked)  # SIOCGIFADDR of linux/sockios.h
                except OSError:
                    continue  # it has no address
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    except OSError:
        return None
    return None


@dataclass(frozen=True)
class Said:
    """What a node says."""

    session: str
    """Node 0's: one invocation of the command. Another node repeats that of the one it has joined."""
    host: str
    state: State = "preparing"
    beat: int = 0
    attempt: int = 0
    """How many times trainers have been started in this session."""
    run: str = ""
    """Folder of the run that is trained, from the command's."""
    stage: str = ""
    processes: int = 0
    """Of each node."""
    code: int = 0
    """The exit code, once it has ended."""
    why: str = ""
    recipe: str = ""
    """Digest of what node 0 runs."""


class Voice:
    """Says something again and again from a thread of its own, so that it is heard of while it is busy."""

    def __init__(self, folder: Path, rank: int, said: Said) -> None:
        self._path, self._said = place(folder, rank), said
        self._changing, self._closed = threading.Lock(), threading.Event()
        self._publish()
        self._thread = threading.Thread(target=self._go_on, name=f"node {rank}", daemon=True)
        self._thread.start()

    @property
    def said(self) -> Said:
        """What is said now."""
        return self._said

    def say(self, said: Said) -> None:
        """Say something else, at once."""
        with self._changing:
            self._said = replace(said, beat=self._said.beat)
            self._publish()

    def close(self) -> None:
        """Fall silent."""
        self._closed.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._closed.wait(BEAT_S):
            with self._changing:
                self._publish()

    def _publish(self) -> None:
        self._said = replace(self._said, beat=self._said.beat + 1)
        try:
            publish_text(self._path, json.dumps({"format_version": FORMAT_VERSION, **asdict(self._said)}) + "\n")
        except OSError:
            return  # a file system that is away for a moment; it is tried again


class Ear:
    """Listens to one node."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._path = place(folder, rank)
        self._heard: Said | None = None
        self._at = time.monotonic()

    def listen(self) -> Said | None:
        """What the node said last; None where it never said anything."""
        try:
            row = json.loads(self._path.read_text(encoding="utf-8"))
            row.pop("format_version")
            found = Said(**row)
        except (OSError, ValueError, TypeError, KeyError):
            return self._heard  # not there yet, or of another version
        if found != self._heard:
            self._heard, self._at = found, time.monotonic()
        return self._heard

    @property
    def silent_s(self) -> float:
        """Seconds since it last said anything."""
        self.listen()
        return time.monotonic() - self._at


class Lead:
    """Node 0, as the others hear it; and the others, as it hears them.

    Args:
        folder: of the command's results, which all nodes see.
        node: which must be 0.
        recipe: digest of what is run.
    """

    def __init__(self, folder: Path, node: Node, recipe: str) -> None:
        self._folder, self._node = folder, node
        self._session = uuid.uuid4().hex[:12]
        self._voice = Voice(folder, 0, Said(self._session, socket.gethostname(), recipe=recipe))
        self._ears = {rank: Ear(folder, rank) for rank in range(1, node.count)}
        self._failed_at: float | None = None

    def __enter__(self) -> Lead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = getattr(error, "exit_code", 70) if error is not None else 0
        self._voice.say(replace(self._voice.said, state="ended", code=code, why=str(error or "").partition("\n")[0]))
        self._voice.close()

    def gather(self, tell: Callable[[str], None], left: Callable[[], bool]) -> None:
        """Wait until every other node is there.

        Args:
            tell: called with a sentence where there is something to wait for.
            left: whether the user wants to leave.

        Raises:
            TrainingFailed: one does not come.
            Interrupted: `left` said so.
        """
        began, told = time.monotonic(), False
        self._voice.say(replace(self._voice.said, state="preparing"))  # who comes now finds nothing to train yet
        while missing := [str(rank) for rank in self._ears if not self._is_here(rank)]:
            self._check_left()
            names = f"node {missing[0]}" if len(missing) == 1 else f"nodes {', '.join(missing)}"
            waited = time.monotonic() - began
            if waited > WAIT_S:
                again = "run the same command there with its --node-rank"
                raise TrainingFailed(f"{names} did not come within {WAIT_S / 60:.0f} minutes: {again}")
            if not told and waited > BEAT_S:
                tell(f"for {names}, at most {WAIT_S / 60:.0f} minutes")
                told = True
            if left():
                raise Interrupted("interrupted before a step was taken: the same command starts again")
            time.sleep(_LOOK_EVERY_S)

    def _is_here(self, rank: int) -> bool:
        said = self._ears[rank].listen()
        return said is not None and said.session == self._session and said.state == "here"

    def _check_left(self) -> None:
        for rank, ear in self._ears.items():
            said = ear.listen()
            if said is None or said.session != self._session:
                continue
            if said.state == "left":
                raise Interrupted(f"node {rank} ({said.host}) was {said.why}")
            if said.state == "failed":
                raise TrainingFailed(f"node {rank} ({said.host}): {said.why}")

    def announce(self, run: Path, stage: str, processes: int) -> str:
        """Have the others train a stage too; gives the name of this attempt."""
        said = self._voice.said
        where = os.path.relpath(run, self._folder)
        said = replace(said, state="training", attempt=said.attempt + 1, run=where, stage=stage, processes=processes)
        self._failed_at = None
        self._voice.say(said)
        return attempt_name(said)

    def check(self) -> None:
        """Whether the others are still there, while a stage trains.

        Raises:
            TrainingFailed: one is not, and the trainers here have not noticed by themselves.
        """
        for rank, ear in self._ears.items():
            said = ear.listen()
            if ear.silent_s > SILENT_S:
                raise TrainingFailed(_silent(rank, ear, said))
            if said is not None and said.session == self._session and said.state in ("failed", "left"):
                self._failed_at = self._failed_at or time.monotonic()
                if time.monotonic() - self._failed_at > SILENT_S / 2:
                    raise TrainingFailed(f"node {rank} ({said.host}): {said.why}")

    def about_others(self) -> str:
        """What became of the others, now that the trainers here have failed; empty where they are all well."""
        time.sleep(2.5 * BEAT_S)  # one that lives is heard of in this time
        lines = []
        for rank, ear in self._ears.items():
            silent, said = ear.silent_s, ear.listen()
            if said is not None and said.session == self._session and said.state in ("failed", "left"):
                lines.append(f"node {rank} ({said.host}): {said.why}")
            elif silent > 2 * BEAT_S:
                lines.append(_silent(rank, ear, said))
        return "\n".join(lines)


def place(folder: Path, rank: int) -> Path:
    """The file in which a node says something."""
    return folder / "nodes" / f"node-{rank}.json"


def attempt_name(said: Said) -> str:
    """The name of the trainers that node 0 has announced last."""
    return f"{said.session}-{said.attempt}"


def _silent(rank: int, ear: Ear, said: Said | None) -> str:
    who = f"node {rank}" + (f" ({said.host})" if said is not None else "")
    return f"{who} has died, or cannot be reached: nothing was heard of it for {ear.silent_s:.0f} s"
