"""What is under way: long work tells how far it has come, and screens look when they like.

Who works says so through `work` or `each`, which cost next to nothing, and knows of no screen. Who shows asks `now`. A
child process writes the same into a file (`tell`), and its parent takes that for work of its own (`Relay`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

_SHORT_S = 0.5
"""Work that has not lasted so long is part of a longer one, which is what there is to tell."""
_TELL_EVERY_S = 0.25
_SOONEST_S = 0.5
"""A pace is of no use before."""


@dataclass
class Work:
    """A piece of work, which only who does it changes."""

    what: str
    """`reading data.entries`."""
    total: float | None = None
    """In `unit`; None where nobody knows."""
    unit: str = "rows"
    """`bytes` are shown as what they are."""
    done: float = 0
    began: float = field(default_factory=time.monotonic)
    """By a clock that all processes of this machine share."""

    def advance(self, more: float = 1) -> None:
        """So much more is done."""
        self.done += more
        _tell_others()

    @property
    def elapsed_s(self) -> float:
        """Since it began."""
        return max(time.monotonic() - self.began, 0.0)

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None where that cannot be said."""
        if not self.total or self.done <= 0 or self.elapsed_s < _SOONEST_S:
            return None
        return max(self.total - self.done, 0.0) * self.elapsed_s / self.done


_own: list[Work] = []
"""The last one is the innermost."""
_relayed: dict[int, Work] = {}
"""Of children, by the relay."""
_told: _Told | None = None


def now() -> tuple[Work, ...]:
    """What is under way in this process, the innermost work that lasts alone, then in its children."""
    own = _lasting()
    return (*([own] if own is not None else []), *_relayed.values())


def _lasting() -> Work | None:
    works = tuple(_own)  # another thread may look while this one works
    return next((one for one in reversed(works) if one.elapsed_s >= _SHORT_S), works[0] if works else None)


@contextmanager
def work(what: str, total: float | None = None, unit: str = "rows") -> Iterator[Work]:
    """A piece of work, for as long as the block lasts; who works calls `Work.advance`."""
    found = Work(what, total, unit)
    _own.append(found)
    _tell_others()
    try:
        yield found
    finally:
        # by what it is, not by its place: a generator may end later than what was begun after it
        _own[:] = [one for one in _own if one is not found]
        _tell_others(at_once=not _own)


def each(items: Iterable[Item], what: str, total: float | None = None, unit: str = "rows") -> Iterator[Item]:
    """The items one after the other, counted.

    Args:
        total: how many there are; by itself, where `items` says that.
    """
    if total is None and isinstance(items, Collection):
        total = len(items)
    with work(what, total, unit) as found:
        for item in items:
            yield item
            found.done += 1
            if _told is not None:
                _told.tell()


# --- from one process to another ---


class _Told:
    """The file in which another process looks."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0.0
        self._is_there = False

    def tell(self, *, at_once: bool = False) -> None:
        at = time.monotonic()
        if not at_once and at - self._at < _TELL_EVERY_S:
            return
        self._at = at
        with suppress(OSError):  # of a full disk other files tell; nothing depends on this one
            lasting = _lasting()
            if lasting is None:
                if self._is_there:
                    self._path.unlink(missing_ok=True)
                self._is_there = False
                return
            partial = _partial(self._path)
            partial.write_text(json.dumps(asdict(lasting)), encoding="utf-8")
            partial.replace(self._path)
            self._is_there = True


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _tell_others(*, at_once: bool = False) -> None:
    if _told is not None:
        _told.tell(at_once=at_once)


def beside(log: Path) -> Path:
    """The file in which a child tells, by the one that it prints into."""
    return log.with_suffix(".underway")


def tell(path: Path | None) -> None:
    """From now on write what is under way in this process to `path`; None ends it."""
    global _told
    _told = _Told(path) if path is not None else None


class Relay:
    """What a child tells, as if it were work of this process. A context manager; leaving it forgets what was told.

    Args:
        path: the file it writes, see `tell`.
        who: said before its words: `qa@96`.
    """

    def __init__(self, path: Path, who: str = "") -> None:
        self._path, self._who, self._looked = path, who, 0.0

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def look(self) -> None:
        """Take what the child has told since; cheap, however often it is called."""
        at = time.monotonic()
        if at - self._looked < _TELL_EVERY_S:
            return
        self._looked = at
        try:
            row = json.loads(self._path.read_text(encoding="utf-8"))
            told = Work(**row)
        except (OSError, ValueError, TypeError):  # nothing is under way there
            _relayed.pop(id(self), None)
            return
        if self._who:
            told.what = f"{self._who} {told.what}"
        _relayed[id(self)] = told

    def close(self) -> None:
        """The child has ended."""
        _relayed.pop(id(self), None)
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            _partial(self._path).unlink(missing_ok=True)
