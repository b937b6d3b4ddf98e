"""Ctrl-C and SIGTERM, as a command that has children takes them: once means save and leave, twice means leave now."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from runner.errors import Interrupted


class Interruption:
    """Counts the signals from now until the stack is left.

    Args:
        stack: puts the former handlers back.
        kept: what is said to be kept where a second signal ends the command at once.
        heard: called at the first signal, in its handler: it must not wait for anything, and says that it was heard.
    """

    def __init__(self, stack: ExitStack, kept: str, heard: Callable[[], None] = lambda: None) -> None:
        self._count, self._kept, self._heard = 0, kept, heard
        self._at_once = ""
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, self._note))

    @property
    def asked_for(self) -> bool:
        """Whether there was a signal."""
        return self._count > 0

    @contextmanager
    def leaving_at_once(self, words: str) -> Iterator[None]:
        """For as long as there is nothing to save, the first signal ends the command too.

        Args:
            words: what is then said.
        """
        self._at_once = words
        if self.asked_for:
            raise Interrupted(words)
        try:
            yield
        finally:
            self._at_once = ""

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            raise Interrupted(f"interrupted twice: left at once; {self._kept}")
        if self._at_once:
            raise Interrupted(self._at_once)
        self._heard()
