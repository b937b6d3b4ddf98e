"""Ctrl-C and SIGTERM, as a command that has children takes them: once means save and leave, twice means leave now."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from types import FrameType

from runner.errors import Interrupted


class Interruption:
    """Counts the signals from now until the stack is left.

    Args:
        stack: puts the former handlers back.
        kept: what is said to be kept where a second signal ends the command at once.
    """

    def __init__(self, stack: ExitStack, kept: str) -> None:
        self._count, self._kept = 0, kept
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, self._note))

    @property
    def asked_for(self) -> bool:
        """Whether there was a signal."""
        return self._count > 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            raise Interrupted(f"interrupted twice: left at once; {self._kept}")
