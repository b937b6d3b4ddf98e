"""What the checkpoints of a watched folder were asked: `probes/watch.json`, beside their verdict files.

A watch that is started again asks only what is not there: checkpoints with other files or weights than were asked, or
all of them where the probes changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner import asking, checkpoints
from runner.atomic import publish_text
from runner.errors import BadCheckpoint, UserError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Asked:
    """A checkpoint that has a verdict file."""

    name: str
    """`checkpoint-10`; its verdicts are in `probes/checkpoint-10.jsonl`."""
    probes_key: str
    """See `probes_key`."""
    weights_sha256: str
    files: str
    """Digest of the names, sizes and times of its files."""
    loss: float | None = None
    """The training loss it had logged last."""


def probes_key(paths: Iterable[Path], suites: Sequence[str]) -> str:
    """A digest of all that a watch asks: every Python file at `paths` with the data it names, and the suites chosen.

    Raises:
        OSError: one of the files cannot be read.
    """
    files = {file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])}
    keys = [asking.suite_key(file) for file in sorted(files)]
    return hashlib.sha256(json.dumps([keys, sorted(suites)]).encode()).hexdigest()


def files_key(signature: object) -> str:
    """A digest of a checkpoint's signature."""
    return hashlib.sha256(json.dumps(signature).encode()).hexdigest()


class Ledger:
    """The file `watch.json`; only the process that holds the folder's lock writes it."""

    def __init__(self, probes: Path) -> None:
        """Read what is there.

        Raises:
            UserError: it is damaged, or a newer version wrote it.
        """
        self._path = probes / "watch.json"
        self._asked: dict[str, Asked] = {}
        try:
            row: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            if (version := row["format_version"]) > FORMAT_VERSION:
                raise UserError(f"{self._path} has format {version}, this version reads up to {FORMAT_VERSION}")
            self._asked = {asked["name"]: Asked(**asked) for asked in row["asked"]}
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self._path} is damaged ({type(error).__name__}: {error})",
                hint="delete it: every checkpoint is asked again",
            ) from error

    def get(self, name: str) -> Asked | None:
        """What is recorded about a checkpoint."""
        return self._asked.get(name)

    def all(self) -> list[Asked]:
        """Everything recorded."""
        return list(self._asked.values())

    def put(self, asked: Asked) -> None:
        """Record a checkpoint, and publish the file."""
        self._asked[asked.name] = asked
        self._publish()

    def forget(self, names: Iterable[str]) -> None:
        """Record no longer what these were asked; their verdict files stay."""
        for name in names:
            del self._asked[name]
        self._publish()

    def _publish(self) -> None:
        row = {"format_version": FORMAT_VERSION, "asked": [asdict(one) for one in self._asked.values()]}
        publish_text(self._path, json.dumps(row, ensure_ascii=False, indent=1) + "\n")


def weights_sha256(folder: Path) -> str:
    """Digest of a checkpoint's weights; empty where there are none to read."""
    try:
        return checkpoints.weights_sha256(folder)
    except (BadCheckpoint, OSError):
        return ""  # it cannot be loaded either, or is gone
