"""What is found of a file that is looked at, and how the files of a folder are listed while it may be written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.errors import UserError

EXIT_DAMAGED = 1
_TIMES = 5
"""A writer that takes something away again and again does so at checkpoints, which are further apart than looks."""


@dataclass(frozen=True)
class Finding:
    """A file that is not as it should be, or that is worth a word."""

    path: Path
    found: str
    hint: str = ""
    """What to do."""
    expected: str = ""
    is_damage: bool = True
    """Otherwise nothing of the run is lost or wrong by it."""


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what of it is not whole."""

    folder: Path
    checkpoints: int
    verdict_files: int
    size_bytes: int
    """Of what was compared with digests."""
    findings: tuple[Finding, ...]

    @property
    def damages(self) -> tuple[Finding, ...]:
        """What is damaged."""
        return tuple(found for found in self.findings if found.is_damage)

    @property
    def exit_code(self) -> int:
        """0 where everything is whole."""
        return EXIT_DAMAGED if self.damages else 0


def below(folder: Path) -> Iterator[Path]:
    """Every file below a folder. What goes while it is listed is left out; so is what has a dot before its name: it is
    being made, or was left by a writer that was killed, and nothing reads it."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def looked(look: Callable[[Path], Iterable[Finding]], path: Path) -> list[Finding]:
    """What is found of something; it is looked at again where a part of it went meanwhile.

    Raises:
        FileNotFoundError: each time.
    """
    for _ in range(_TIMES - 1):
        try:
            return list(look(path))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return list(look(path))


def reason(error: UserError, path: Path) -> str:
    """What is wrong, without the path that stands before it anyway."""
    problem = error.problems[0]
    line = f"line {problem.where.line} " if problem.where and problem.where.line else ""
    return f"{line}{problem.message}".replace(f"{path} ", "").removeprefix("is damaged: it ")
