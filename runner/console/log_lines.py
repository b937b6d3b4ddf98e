"""Plain lines about what takes long, for a pipe or the log of a CI job: few enough to be read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from runner import underway
from runner.console.words import duration, left_words, work_words
from runner.errors import printable
from runner.underway import Work

FIRST_S, THEN_S = 20.0, 60.0
"""Until a piece of work is worth a line, and from one line to the next."""
_LOOK_EVERY_S = 1.0


class LogLines:
    """Looks once a second, in a thread of its own. A context manager.

    Args:
        console: what the lines are printed on.
        begin_line: called before a line; somebody else may have left one half written.
    """

    def __init__(self, console: Console, begin_line: Callable[[], None] = lambda: None) -> None:
        self._console, self._begin_line = console, begin_line
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None
        self._pace = Pace()

    def __enter__(self) -> LogLines:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No line comes after this."""
        self._leaving.set()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while not self._leaving.wait(_LOOK_EVERY_S):
            for line in self._pace.lines(underway.now(), time.monotonic()):
                self._begin_line()
                self._console.print(Text(printable(line)), soft_wrap=True)


class Pace:
    """Says which pieces of work are worth a line now."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, float], float] = {}
        """By what it is and when it began: when it was told of."""

    def lines(self, works: Sequence[Work], at: float) -> list[str]:
        """A line for each that is.

        Args:
            at: now, by `time.monotonic`.
        """
        found = []
        for work in works:
            key = work.what, work.began
            due = self._told[key] + THEN_S if key in self._told else work.began + FIRST_S
            if at >= due:
                self._told[key] = at
                found.append(
                    f"{work_words(work)}, {left_words(work.seconds_left) or f'for {duration(work.elapsed_s)}'}"
                )
        return found
