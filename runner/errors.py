"""The tree of errors a user can cause or meet, and the one way each is shown.

::

    UserError            exit 2   what the user wrote cannot be done as written
    ├── BadRecipe        exit 2   the recipe file, found by `recipe check`
    ├── BadData          exit 2   a data file or a row of it
    ├── BadCheckpoint    exit 2   a folder that is not a loadable checkpoint
    ├── BadProbe         exit 2   a probe file, its cases or its options
    └── FolderTaken      exit 2   the output folder belongs to another recipe or is being written
    TrainingFailed       exit 3   a trainer or prober process died; what was won is kept
    Interrupted          exit 130 state is saved, the same command resumes

What the operating system refuses (room, permission, memory) is put into words by `refused`. Anything else that escapes
is a bug of this project and is shown as a traceback.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_GATE_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_TRAINING_FAILED = 3
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Where:
    """A place in a file. `line` and `column` count from 1; `length` is in characters."""

    file: str
    line: int | None = None
    column: int | None = None
    length: int = 1
    text: str | None = None
    """The source line itself, without its newline; where it is given, a caret is drawn under it."""

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what was found, what was expected, what to do."""

    message: str
    where: Where | None = None
    expected: str | None = None
    hint: str | None = None

    def screen(self) -> str:
        """The exact lines a user sees, without colour; the last line has no newline."""
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.where and self.where.text is not None and self.where.line is not None:
            lines += _snippet(self.where)
        if self.expected:
            lines.append(f"    expected: {self.expected}")
        if self.hint:
            lines.append(f"    hint: {self.hint}")
        return "\n".join(lines)


def cells(text: str) -> int:
    """Terminal cells that `text` takes: two for each wide East Asian character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def printable(text: str) -> str:
    """`text` on one line and safe for a terminal: control characters, which a model may well say, become escapes."""
    return "".join(char if char.isprintable() else "⏎" if char == "\n" else ascii(char)[1:-1] for char in text)


def first_line(said: str | BaseException) -> str:
    """The first line of a message that is not empty, at most 500 characters; the type of an error without words."""
    wordless = "" if isinstance(said, str) else type(said).__name__
    return next((line.strip() for line in str(said).splitlines() if line.strip()), wordless)[:500]


_LONGEST_LINE = 400
"""Characters of a source line that are shown; of a longer one those around the column."""


def _snippet(where: Where) -> list[str]:
    gutter = f"{where.line:>5} | "
    text = (where.text or "").expandtabs(1)
    column = (where.column or 1) - 1
    if len(text) > _LONGEST_LINE:
        start = max(column - _LONGEST_LINE // 4, 0)
        shown = ("…" if start else "") + text[start : start + _LONGEST_LINE]
        column += (1 if start else 0) - start
        text = shown + ("…" if start + _LONGEST_LINE < len(text) else "")
    marked = text[column : column + max(where.length, 1)]
    return [
        gutter + text.rstrip(),
        " " * (len(gutter) - 2) + "| " + " " * cells(text[:column]) + "^" * max(cells(marked), 1),
    ]


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name of `names` that `name` was most likely meant to be, or None."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return close[0] if close else None


class UserError(Exception):
    """What the user wrote cannot be done as written. Carries every problem found, not only the first."""

    exit_code = EXIT_USER_ERROR

    def __init__(
        self,
        problems: str | Problem | Iterable[Problem],
        *,
        where: Where | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        if isinstance(problems, str):
            problems = Problem(problems, where, expected, hint)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self.screen())

    def screen(self) -> str:
        """Every problem's screen, an empty line between two."""
        return "\n\n".join(problem.screen() for problem in self.problems)


class BadRecipe(UserError):
    """The recipe file cannot be run as written."""


class BadData(UserError):
    """A data file, or a row of it, is not what the recipe says it is."""


class BadCheckpoint(UserError):
    """A folder is not a checkpoint that can be loaded."""


class BadProbe(UserError):
    """A probe file, its cases, or the options it was called with are wrong."""


class FolderTaken(UserError):
    """The output folder belongs to another recipe, or another process is writing it."""


class TrainingFailed(Exception):
    """A trainer or prober process died. The message says which, where, and the end of its log."""

    exit_code = EXIT_TRAINING_FAILED


class Interrupted(Exception):
    """The user interrupted the run; state is saved and the same command resumes."""

    exit_code = EXIT_INTERRUPTED
