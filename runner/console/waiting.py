"""What is under way, shown: drawn again and again in a terminal, in rare lines elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.text import Text

from runner import underway
from runner.console.going import works_screen
from runner.console.live_view import LiveView
from runner.console.log_lines import LogLines
from runner.tables import BAD


def is_live(console: Console) -> bool:
    """Whether what stands on it can be drawn again."""
    return console.is_interactive


def shown(console: Console, render: Callable[[], RenderableType]) -> LiveView | LogLines:
    """A live view of what `render` gives; where there can be none, lines about what takes long."""
    return LiveView(console, render) if is_live(console) else LogLines(console)


class Note:
    """Words that are said at once, from a handler of signals too: it waits for nobody.

    Args:
        is_live: whether a live view shows them.
    """

    def __init__(self, *, is_live: bool) -> None:
        self._is_live = is_live
        self.words = ""

    def say(self, words: str) -> None:
        """Say it."""
        self.words = words
        if not self._is_live:
            os.write(2, f"{words}\n".encode())  # in one call: print may be interrupted in the middle


@contextmanager
def waiting(console: Console) -> Iterator[Note]:
    """Show what is under way, where a command has no screen of its own.

    Args:
        console: standard error, where the command's result goes to standard output.
    """
    note = Note(is_live=is_live(console))

    def render() -> RenderableType:
        said = [Text(f"  {note.words}", style=BAD, no_wrap=True, overflow="ellipsis")] if note.words else []
        return Group(*said, works_screen(underway.now(), console.width))

    with shown(console, render):
        yield note
