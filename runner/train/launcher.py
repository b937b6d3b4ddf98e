"""The launcher of a stage that several processes train: torchrun's own engine starts those of this machine.

It is forked by `runner.host` in a trainer's place, and forks the trainers: imports are paid once. It computes nothing.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from runner import underway
from runner.diverging import EXIT_AGAIN
from runner.errors import EXIT_INTERRUPTED, EXIT_TRAINING_FAILED, EXIT_USER_ERROR
from runner.nodes import interface_of
from runner.orphans import die_with_parent
from runner.refused import in_short, tell
from runner.train import worker

_LEAVE: list[mmap.mmap] = []
"""A byte that a launcher shares with its trainers: 1 once a signal has come. One that was not forked yet, or could not
listen, looks at it."""
_RENDEZVOUS_S = 300
"""For the other nodes to come; each has said before that it is there, and still has to import torch."""


@dataclass(frozen=True)
class Group:
    """The processes that train a stage together."""

    run: Path
    stage: str
    processes: int
    """Of each node."""
    nodes: int
    node_rank: int
    rendezvous: str
    """`HOST:PORT`, where node 0 listens."""
    name: str
    """Of this one attempt: late comers of an earlier one find nobody."""

    @property
    def is_single(self) -> bool:
        """Whether all of them are on this machine."""
        return self.nodes == 1

    def log(self, rank: int) -> Path:
        """What a process prints; the first one writes into the launcher's log."""
        return self.run / "events" / f"train-{self.stage}.rank-{rank}.log"


def main(arguments: Sequence[str]) -> int:
    """Start the processes of this node, and wait for them.

    Args:
        arguments: those of `launch.launcher_argv`.

    Returns:
        0 when all have taken the last step, 130 when a signal ended them and state is saved, 2 when one met an error of
        the user, 3 when one died; which one, and the end of its log, is then printed. Where a loss was no number, what
        the trainers say: 3, or `diverging.EXIT_AGAIN`.
    """
    run, stage, processes, nodes, rank, rendezvous, name = arguments
    if not rendezvous:  # nobody else has to find it
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            rendezvous = f"127.0.0.1:{free.getsockname()[1]}"
    group = Group(Path(run), stage, int(processes), int(nodes), int(rank), rendezvous, name)
    _prepare_environment(group)
    return _Watch(group).launch()


class _Watch:
    """The processes of one node, as the launcher sees them."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._births_read, self._births_write = os.pipe()
        os.set_blocking(self._births_read, False)
        _LEAVE[:] = [mmap.mmap(-1, 1)]  # of this one alone: the host forks a launcher for each stage
        self._signalled = False
        self._first: tuple[int, int] | None = None
        """Process id and exit code of the first one that died; others die of it."""

    def launch(self) -> int:
        group = self._group
        logging.disable(logging.CRITICAL)  # torch tells of each end in many lines, which are told here in a few
        config = LaunchConfig(
            min_nodes=group.nodes,
            max_nodes=group.nodes,
            nproc_per_node=group.processes,
            logs_specs=_Started(self._take_signals),
            run_id=group.name,
            role="trainer",
            rdzv_endpoint=group.rendezvous,
            rdzv_backend="static",
            rdzv_configs={"rank": group.node_rank, "timeout": _RENDEZVOUS_S},
            max_restarts=0,
            start_method="fork",
            signals_to_handle="SIGQUIT",  # of the others it would kill the trainers before they have saved
        )
        try:
            codes = elastic_launch(config, _trainer)(str(group.run), group.stage, self._births_write)
        except ChildFailedError as error:
            return self._failed(error)
        except RuntimeError as error:  # torch's word for a rendezvous that nobody came to
            print(f"node {group.node_rank} did not find the others at {group.rendezvous}: {error}", file=sys.stderr)
            return EXIT_TRAINING_FAILED
        return max(int(code) for code in codes.values())

    def _take_signals(self) -> None:
        """From now on a signal is for the trainers, which save and leave together; before, it simply ends this one."""
        signal.signal(signal.SIGTERM, self._pass_on)
        signal.signal(signal.SIGINT, self._pass_on)
        signal.signal(signal.SIGCHLD, self._note_death)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        _LEAVE[0][0] = 1
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)

    def _note_death(self, number: int, frame: FrameType | None) -> None:
        if self._first is not None:
            return
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # torch's engine reaps it
        except ChildProcessError:
            return
        if dead is not None and dead.si_status != 0:
            code = dead.si_status if dead.si_code == os.CLD_EXITED else -dead.si_status
            self._first = dead.si_pid, code

    def _failed(self, error: ChildFailedError) -> int:
        """Say who died first, and what it printed."""
        if self._first is None:  # it was reaped before it could be seen
            failure = error.get_first_failure()[1]
            self._first = failure.pid, failure.exitcode
        pid, code = self._first
        rank = self._ranks().get(pid)
        log = self._group.log(rank) if rank is not None else None
        there = log is not None and log.exists()
        printed = in_short(log.read_text(encoding="utf-8", errors="replace")) if log is not None and there else ""
        if code in (EXIT_USER_ERROR, EXIT_INTERRUPTED):
            print(printed, end="", file=sys.stderr)
            return code
        if self._signalled and code == -signal.SIGTERM:  # they had not begun to listen, nor to train
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        who = f"rank {rank} of {self._group.processes * self._group.nodes}" if rank is not None else "a trainer"
        print(f"{who} (process {pid} on {socket.gethostname()}) {_how(code)}", file=sys.stderr)
        if log is not None and log.exists():  # the first one's is this one's own
            tail = printed.splitlines()[-20:]
            print("\n".join([f"the end of {log}:", *(tail or ["(it printed nothing)"])]), file=sys.stderr)
        return EXIT_TRAINING_FAILED

    def _ranks(self) -> Mapping[int, int]:
        """Which rank each process id has, as they said when they began."""
        try:
            said = os.read(self._births_read, 65536).decode().split()
        except BlockingIOError:
            said = []
        return {int(pid): int(rank) for pid, _, rank in (one.partition(":") for one in said)}


class _Started(LogsSpecs):
    """Where trainers print: they see to that. torch asks once the nodes are together, right before it forks."""

    def __init__(self, told: Any) -> None:
        super().__init__()
        self._told = told

    @property
    def root_log_dir(self) -> str:
        """None."""
        return ""

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Nothing is redirected, and no file is written."""
        self._told()
        nowhere = dict.fromkeys(envs, "")
        return LogsDest(nowhere, nowhere, {}, {}, nowhere, "", "")


def _prepare_environment(group: Group) -> None:
    """What torch reads before its engine starts."""
    # whether there are devices is asked of the driver's library: torch would open them, and could then not be forked
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    interface = interface_of(group.rendezvous.rpartition(":")[0].strip("[]"))
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        if not group.is_single:
            os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def _trainer(run: str, stage: str, births: int) -> int:
    """What each process does; its return value reaches the launcher."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if _LEAVE[0][0]:
        os.kill(os.getpid(), signal.SIGTERM)
    die_with_parent()
    logging.disable(logging.NOTSET)
    rank = int(os.environ["RANK"])
    os.write(births, f"{os.getpid()}:{rank} ".encode())
    if rank > 0:
        underway.tell(None)  # the first one tells for all
        log = Path(run) / "events" / f"train-{stage}.rank-{rank}.log"
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"]), 1)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # accelerate reads it
        torch.set_num_threads(threads)
    try:
        code = worker.main([run, stage])
    except Exception as error:  # noqa: BLE001 - the boundary of a process: torch would put it where nobody looks
        tell(error)
        code = 1
    if code not in (0, EXIT_INTERRUPTED, EXIT_AGAIN, EXIT_TRAINING_FAILED):  # which all have agreed on
        sys.exit(code)  # the others may wait for this one, and are ended
    return code


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
