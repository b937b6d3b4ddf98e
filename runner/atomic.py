"""Files that are there whole or not at all: written under a temporary name beside the place, then renamed into it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def publish_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, line ends as they are; see `publish_bytes`."""
    publish_bytes(path, text.encode("utf-8"))


def publish_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`; its folder is made where it is missing.

    A reader sees the file as it was before or as it is after. A writer that is killed in between leaves a file whose
    name begins with a dot and ends in its process id.
    """
    publish_parts(path, (content,))


def publish_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts` one after the other, so that they need not all be in memory; else as `publish_bytes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.writelines(parts)
    temporary.replace(path)
