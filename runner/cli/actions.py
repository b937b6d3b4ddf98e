"""In a job of GitHub Actions: nothing that a command prints is a command to the runner of that job."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

_LINE_ENDS = re.compile(r"([\r\n])")


class NoCommands:
    """A stream whose lines are no commands of GitHub's runner, which reads every line that a step prints: `::…` after
    blanks, and `##[…` anywhere in it. Their first letters are spelled out. What others may read, Markdown, JSON or a
    script, holds neither.

    Format: docs.github.com/actions/reference/workflow-commands-for-github-actions; the older one is read by the runner
    to this day.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lead = ""
        """Of the line that has begun, what its first two characters that are not blank are so far."""
        self._end = ""
        """Its last two characters."""

    def write(self, text: str) -> int:
        """Write it; lines may come in pieces. The count is that of `text`, as a stream's."""
        self._stream.write("".join(self._safe(piece) for piece in _LINE_ENDS.split(text)))
        return len(text)

    def _safe(self, piece: str) -> str:
        if piece in ("\r", "\n"):
            self._lead = self._end = ""
            return piece
        before, begins = self._end, piece.lstrip()
        lead, self._lead = self._lead, (self._lead + begins if not self._lead else self._lead + piece)[:2]
        self._end = (before + piece)[-2:]
        shown = (before + piece).replace("##[", r"##\x5b")[len(before) :]
        if self._lead == "::" != lead:
            shown = shown.replace(":", r"\x3a", 1)
        return shown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unheard(environment: Mapping[str, str]) -> Iterator[None]:
    """In a job of GitHub Actions, print no command of its runner while the block runs."""
    with ExitStack() as stack:
        if environment.get("GITHUB_ACTIONS") == "true":
            stack.enter_context(redirect_stdout(cast(TextIO, NoCommands(sys.stdout))))
            stack.enter_context(redirect_stderr(cast(TextIO, NoCommands(sys.stderr))))
        yield
