"""How a missed case is shown: what was asked, what was said, which assert did not hold. Cheap: there may be many.

What a model said is shown with its control characters escaped, wherever pytest would show it.
"""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from runner.errors import first_line, printable


@dataclass(frozen=True)
class Crash:
    """Where and why, in pytest's words; `--tb=line`, the short summary and JUnit read it."""

    path: str
    lineno: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.lineno}: {self.message}"


@dataclass(frozen=True)
class Miss:
    """What pytest shows in place of a traceback."""

    ckpt: str
    prompt: str
    replies: Sequence[str]
    """All samples."""
    explanation: str
    """The assertion's message."""
    path: str
    line: int
    note: str = ""

    @property
    def reprcrash(self) -> Crash:
        """Place and first line."""
        return Crash(self.path, self.line, printable(first_line(self.explanation)))

    def __str__(self) -> str:
        source = linecache.getline(self.path, self.line).strip()
        said = [printable(line) for line in self.explanation.splitlines()]
        heard = [f"    reply   {printable(reply)}" for reply in self.replies]
        lines = [f"{self.path}:{self.line}: asked of {self.ckpt}{self.note}", f"    prompt  {printable(self.prompt)}"]
        lines += [*heard, f">   {source}", *(f"E   {line}" for line in said)]
        return "\n".join(lines)


def miss(error: AssertionError, path: str, ckpt: str, prompt: str, replies: Sequence[str], note: str = "") -> Miss:
    """The miss that an assertion means; its line is the last one in the probe file on the way to it."""
    line = _line(error.__traceback__, path)
    return Miss(ckpt, prompt, replies, str(error) or "AssertionError", path, line, note)


def escaped(text: str) -> str:
    """Lines of pytest's own, in which a model may be quoted, safe for a terminal."""
    return "\n".join(printable(line) for line in text.split("\n"))


@dataclass(frozen=True)
class Escaped:
    """A failure as pytest shows it, safe for a terminal."""

    text: str
    reprcrash: Crash | None

    def __str__(self) -> str:
        return self.text


def shown_safely(shown: object) -> object:
    """What pytest made of a failure; where a control character is in it, its text without."""
    if isinstance(shown, Miss):
        return shown
    text = str(shown)
    safe = escaped(text)
    if safe == text:
        return shown
    crash = getattr(shown, "reprcrash", None)
    return Escaped(safe, Crash(str(crash.path), crash.lineno, escaped(crash.message)) if crash else None)


def _line(traceback: TracebackType | None, path: str) -> int:
    line = 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path or not line:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
