"""Trains stages one after the other in the processes that torchrun starts, and acts as their parent meanwhile.

`python -m torch.distributed.run … -m tests.many_processes RUN STAGE STEP …`: at optimizer step STEP the last process
sends itself SIGTERM, where it is not 0.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import checkpoints, jobs


@dataclass(frozen=True)
class Task:
    """A stage of a run that is ready for it."""

    run: Path
    stage: str = "base"
    interrupted_at: int = 0


@dataclass(frozen=True)
class Trained:
    """What became of the tasks."""

    codes: list[list[int]]
    """What each process returned for each of them."""
    screen: str


def train(tasks: Sequence[Task], processes: int = 2) -> Trained:
    """Train them in new processes; every checkpoint is answered with a decision to go on."""
    arguments = [word for task in tasks for word in (str(task.run), task.stage, str(task.interrupted_at))]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-addr=127.0.0.1",
         f"--master-port={port}", "-m", __name__, *arguments],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        while started.poll() is None:
            _decide(tasks)
            time.sleep(0.02)
        screen, _ = started.communicate()
    finally:
        started.kill()
    lines = [tuple(map(int, found)) for found in re.findall(rf"{_SAID}(\d+) (\d+) (-?\d+)\n", screen)]
    codes = [[code for _, number, code in sorted(lines) if number == at] for at in range(len(tasks))]
    return Trained(codes, screen)


_SAID = "returned: "


def _decide(tasks: Sequence[Task]) -> None:
    for task in tasks:
        folder = task.run / task.stage
        for step, _ in checkpoints.published(folder):
            if jobs.read_decision(folder, step) is None:
                jobs.write_decision(folder, step, go_on=True)


def main(arguments: Sequence[str]) -> None:
    """What each of the processes does."""
    from runner.train import causal, processes, worker

    with processes.together(on_cpu=True):
        for number, at in enumerate(range(0, len(arguments), 3)):
            run, stage, step = arguments[at : at + 3]
            with _interrupted(causal, int(step) if processes.rank() == processes.count() - 1 else 0):
                code = worker.main([run, stage])
            # in one piece: all write into one pipe
            os.write(1, f"{_SAID}{processes.rank()} {number} {code}\n".encode())


@contextmanager
def _interrupted(causal: Any, step: int) -> Iterator[None]:
    whole = causal.CausalTrainer

    class Interrupted(whole):  # type: ignore[misc,valid-type]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if step and self.state.global_step == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(*args, **kwargs)

    causal.CausalTrainer = Interrupted
    try:
        yield
    finally:
        causal.CausalTrainer = whole


if __name__ == "__main__":
    main(sys.argv[1:])
