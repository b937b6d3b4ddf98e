"""When a checkpoint that another trainer writes is complete: decided from what its files are and how long they stay so.

No trainer says when it is done. A folder is taken as complete when its files can be loaded, and either transformers'
Trainer has written `trainer_state.json`, which comes last, or nothing in it changed for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner import loadable

SETTLE_S = 10.0
"""So long nothing may change in a checkpoint that can be loaded, where no file says that it is complete."""
GIVEN_UP_S = 60.0
"""So long nothing may change in one that cannot be loaded, before it is asked all the same, and the reason recorded."""
FINAL = "final"
"""What the weights are called that a trainer saves into the watched folder itself when it ends."""

Signature = tuple[tuple[str, int, int], ...]
"""Name, size in bytes and time of change in ns of every file that loading may read."""


@dataclass(frozen=True)
class Arrival:
    """A checkpoint that can be asked now."""

    path: Path
    name: str
    """`checkpoint-10`; FINAL for the weights in the watched folder itself."""
    signature: Signature
    problem: str = ""
    """Why it cannot be loaded, and does not change any more."""


@dataclass
class _Seen:
    signature: Signature
    changed_s: float
    """Time of the clock at which it was last seen to change."""
    problem: str
    is_closed: bool


class Arrivals:
    """Looks at a folder again and again."""

    def __init__(
        self,
        folder: Path,
        settle_s: float = SETTLE_S,
        given_up_s: float = GIVEN_UP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._settle_s, self._given_up_s, self._clock = folder, settle_s, given_up_s, clock
        self._seen: dict[Path, _Seen] = {}
        self._looked_before = False
        self.waiting: dict[str, Signature] = {}
        """Checkpoints that may still change, by name."""

    def look(self) -> list[Arrival]:
        """The checkpoints that are complete, first to last; a folder that is not there has none."""
        found, self.waiting = [], {}
        places = _places(self._folder)
        for path in self._seen.keys() - places.keys():
            del self._seen[path]
        for path, name in places.items():
            seen = self._look_at(path)
            if seen is None:
                continue
            quiet_s = self._clock() - seen.changed_s
            if seen.problem:
                # the trainer is through with it, or will hardly go on
                complete = quiet_s >= (self._settle_s if seen.is_closed else self._given_up_s)
            else:
                complete = seen.is_closed or quiet_s >= self._settle_s
            if complete:
                found.append(Arrival(path, name, seen.signature, seen.problem))
            else:
                self.waiting[name] = seen.signature
        self._looked_before = True
        return found

    def _look_at(self, path: Path) -> _Seen | None:
        try:
            now = signature(path)
            before = self._seen.get(path)
            if before is None or before.signature != now:
                changed_s = self._clock() - (0.0 if self._looked_before else _age_s(path))
                problem = loadable.problem(path)
                if not problem and loadable.is_half_written(path):
                    problem = "a file in it breaks off"
                self._seen[path] = _Seen(now, changed_s, problem, loadable.is_closed(path))
        except OSError:
            self._seen.pop(path, None)  # it is being deleted
        return self._seen.get(path)


def signature(folder: Path) -> Signature:
    """What tells whether a checkpoint changed.

    Raises:
        OSError: a file vanished meanwhile.
    """
    stats = [(file.name, file.stat()) for file in loadable.files(folder)]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def is_gone(folder: Path, name: str) -> bool:
    """Whether a checkpoint that once was in a watched folder is there no more."""
    return not (folder / name).is_dir() if name != FINAL else not loadable.weights(folder)


def _places(folder: Path) -> dict[Path, str]:
    """Where checkpoints are or are being written, by their numbers; the folder itself last, once it has weights."""
    try:
        found = {path: path.name for path in loadable.numbered(folder)}
        if loadable.weights(folder):
            found[folder] = FINAL
    except OSError:
        return {}
    return found


def _age_s(folder: Path) -> float:
    """Seconds since a file came into a folder or was written. The folder's own time is that of its inode, which copying
    does not set back; a file's is not, because the hard links of a watch count as a change there."""
    times = [folder.stat().st_ctime, *(file.stat().st_mtime for file in loadable.files(folder))]
    return max(time.time() - max(times), 0.0)
