"""How a missed case is shown: what was asked, what was said, which assert did not hold. Cheap: there may be many."""

from __future__ import annotations

import linecache
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
    reply: str
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
        lines = [f"{self.path}:{self.line}: asked of {self.ckpt}{self.note}", f"    prompt  {printable(self.prompt)}"]
        lines += [f"    reply   {printable(self.reply)}", f">   {source}", *(f"E   {line}" for line in said)]
        return "\n".join(lines)


def miss(error: AssertionError, path: str, ckpt: str, prompt: str, reply: str, note: str = "") -> Miss:
    """The miss that an assertion means; its line is the last one in the probe file on the way to it."""
    line = _line(error.__traceback__, path)
    return Miss(ckpt, prompt, reply, str(error) or "AssertionError", path, line, note)


def _line(traceback: TracebackType | None, path: str) -> int:
    line = 0
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path or not line:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
