"""A sweep on several devices: child processes, each with a device of its own, answer for one checkpoint at a time.

What they answer comes back into the one session of pytest, which renders, judges, keeps and reports as if it had asked
itself: the verdicts are the same. What a child cannot answer, the session asks itself, and says what ails it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from runner import launch
from runner.errors import UserError
from runner.gpus import visible_gpus
from runner.probing.answerers import How, fresh, memory_of
from runner.probing.memory import Memory
from runner.probing.questions import Question
from runner.probing.store import Kept
from runner.probing.targets import Target

Known = Mapping[Question, Kept]


def number_wanted(given: int | None) -> int:
    """How many processes generate: as many as the option says, else one for each visible device.

    Raises:
        UserError: the option says none, or more than there are devices.
    """
    gpus = visible_gpus()
    if given is None:
        return max(len(gpus), 1)
    if given < 1:
        raise UserError(f"--probe-workers is {given}", expected="a number above 0")
    if gpus and given > len(gpus):
        raise UserError(
            f"--probe-workers is {given}, and {len(gpus)} GPU{'s are' if len(gpus) > 1 else ' is'} visible",
            expected=f"{len(gpus)} or fewer: each has a device of its own",
        )
    return given


class NoWorkers:
    """Where the session asks by itself."""

    def answers(self, target: Target) -> tuple[Known, list[str]]:
        """Nothing."""
        return {}, []

    def close(self) -> None:
        """Nothing is open."""


NO_WORKERS = NoWorkers()


class Workers:
    """Answers ahead of the session's own order of checkpoints; nothing is started before the first is due.

    Args:
        number: of processes.
        asked: the questions of each checkpoint, in the order they will be needed.
        how: how replies are generated.
    """

    def __init__(self, number: int, asked: Mapping[Target, Sequence[Question]], how: How) -> None:
        self._how = how
        self._memories: dict[Target, Memory] = {}
        self._futures: dict[Target, Future[tuple[list[Kept], list[str]]]] = {}
        self._questions: dict[Target, list[Question]] = {}
        spawning = multiprocessing.get_context("spawn")  # torch must not be forked after it computed
        devices: Queue[str] = spawning.Queue()
        for name in islice(_devices(number), number):
            devices.put(name)
        self._pool = ProcessPoolExecutor(number, spawning, _take_device, (devices,))
        for target, questions in asked.items():
            self._ask(target, questions)

    def _ask(self, target: Target, questions: Sequence[Question]) -> None:
        memory = memory_of(target, self._how)
        known = memory.recall(questions)
        unknown = [question for question in questions if question not in known]
        if unknown:
            self._memories[target], self._questions[target] = memory, unknown
            how = self._how.dtype, self._how.batch_tokens
            self._futures[target] = self._pool.submit(_answers, target.path, unknown, *how)

    def answers(self, target: Target) -> tuple[Known, list[str]]:
        """What a checkpoint answered, which is waited for, and notes; nothing where its child could not say."""
        future = self._futures.pop(target, None)
        if future is None:
            return {}, []
        try:
            found, notes = future.result()
        except BrokenProcessPool:
            return {}, ["a process that generates replies died; what it had to answer is asked here"]
        except Exception:  # noqa: BLE001 - whatever it was, the session meets it too when it asks, and says it
            return {}, []
        known = dict(zip(self._questions.pop(target), found, strict=True))
        self._memories.pop(target).keep(known.items())
        return known, notes

    def close(self) -> None:
        """End the processes; what they still generate is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list((self._pool._processes or {}).values()):  # its own way to end them is of Python 3.14
            process.terminate()


def _devices(number: int) -> Iterator[str]:
    """What CUDA_VISIBLE_DEVICES is for each process; as it is, where there is no device."""
    gpus = visible_gpus()
    yield from launch.device_names(gpus)[: len(gpus)] if gpus else [""] * number


def _take_device(devices: Any) -> None:
    name = devices.get()
    if name:
        os.environ["CUDA_VISIBLE_DEVICES"] = name


def _answers(
    path: Path, questions: list[Question], dtype: str, batch_tokens: int | None
) -> tuple[list[Kept], list[str]]:
    """In a child: the answers of the checkpoint at `path`."""
    answered = fresh(path, questions, [], How(dtype, batch_tokens), lambda _: [])
    return [answered.by_question[question] for question in questions], answered.notes
