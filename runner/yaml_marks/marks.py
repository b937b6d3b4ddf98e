"""Where in a text a value and its key are written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runner.errors import Where

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the file."""


@dataclass(frozen=True)
class Source:
    """A text with positions; `lines` are without their newlines."""

    file: str
    lines: tuple[str, ...]

    def at(self, line: int, column: int, length: int = 1) -> Where:
        """The place at `line` and `column`, which count from 0 here; only the name where there are no lines to show."""
        if not self.lines:
            return Where(self.file)
        text = self.lines[line] if line < len(self.lines) else ""
        return Where(self.file, line + 1, column + 1, max(1, length), text)


@dataclass(frozen=True)
class Mark:
    """Where a value is written, and its key where it has one. Lines and columns count from 0."""

    source: Source
    key: tuple[int, int, int] | None
    """Line, column and length of the key."""
    start: tuple[int, int]
    end: tuple[int, int]

    def at_key(self) -> Where:
        """The key, or the value where there is none (an item of a list, the file itself)."""
        return self.source.at(*self.key) if self.key else self.at_value()

    def at_value(self) -> Where:
        """The first line of the value; the key where the value is not on its line or is empty."""
        line, column = self.start
        if self.key and (line > self.key[0] or self.start == self.end):
            return self.at_key()
        text = self.source.lines[line] if line < len(self.source.lines) else ""
        end = self.end[1] if self.end[0] == line else len(text.rstrip())
        return self.source.at(line, column, end - column)

    def within(self, words: str) -> Where:
        """The first place inside the value where `words` stand by themselves, or the value."""
        pattern = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)")
        for line in range(self.start[0], min(self.end[0] + 1, len(self.source.lines))):
            first = self.start[1] if line == self.start[0] else 0
            last = self.end[1] if line == self.end[0] else len(self.source.lines[line])
            if found := pattern.search(self.source.lines[line], first, last):
                return self.source.at(line, found.start(), found.end() - found.start())
        return self.at_value()


Marks = dict[Path, Mark]
