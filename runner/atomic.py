"""Files that are there whole or not at all: written under a temporary name beside the place, then renamed into it.

What has its name is on the disk: a machine that loses its power leaves no empty file that looks like a whole one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

_AT_ONCE = 8
"""Files that are waited for together: file systems write their journal once for all that ask for it meanwhile."""

_NO_SUCH_THING = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
"""What file systems say that have no such call: those of some user-space programs."""


def publish_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, line ends as they are; see `publish_bytes`."""
    publish_bytes(path, text.encode("utf-8"))


def publish_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`; its folder is made where it is missing.

    A reader sees the file as it was before or as it is after. A writer that is killed in between leaves a file whose
    name begins with a dot and ends in its process id; one that fails leaves nothing.

    Raises:
        OSError: it cannot be written, and names the file.
    """
    publish_parts(path, (content,))


def publish_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts` one after the other, so that they need not all be in memory; else as `publish_bytes`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # what somebody else put there, a link perhaps, is not written through
            file.writelines(parts)
            file.flush()
            _flush(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a write that fails does not say of what
        raise


def settle(paths: Iterable[Path]) -> None:
    """Wait until files, which others have written, are on the disk. Together they wait little longer than one alone.

    Raises:
        OSError: one is not, for example because the disk is full or gone.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_settle, paths))


def _settle(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        _flush(file)
    finally:
        os.close(file)


def _flush(file: int) -> None:
    """Bring a file to the disk, where its file system has such a thing."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:
            raise
