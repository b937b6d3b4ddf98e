"""The rows of a data set's files: which files a path names, their columns, their rows and their digests."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import spec
from runner.data import formats
from runner.errors import BadData, Where, nearest


@dataclass(frozen=True)
class SourceFile:
    """A file that was read."""

    path: str
    """Relative to the project root, as in the recipe."""
    sha256: str
    """Of its bytes as they lie on the disk."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row, and where it came from."""

    values: Mapping[str, Any]
    """By column, and by the fields that `columns:` names."""
    file: str
    line: int
    """From 1; for parquet the number of the row."""

    @property
    def where(self) -> Where:
        """For errors about this row."""
        return Where(self.file, self.line)


@dataclass(frozen=True)
class Table:
    """All rows of a data set's files."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def find(data: spec.Data, name: str, root: Path) -> tuple[str, ...]:
    """Paths of the files of the data set `name`, in sorted order, as they are shown: relative to `root` if written so.

    Raises:
        BadData: no such file, a folder, or a format that is not known. Without a position in the recipe: who has the
            recipe at hand puts it there.
    """
    pattern = data.path
    assert pattern is not None, "a data set with rows has no files"
    path = root / pattern
    if path.is_dir():
        raise BadData(
            f"data.{name}: {pattern} is a folder",
            expected="a file or a glob",
            hint=f"path: {pattern.rstrip('/')}/*.jsonl",
        )
    if path.is_file():
        found = [pattern]
    else:
        # the literal file comes first, so that a name with brackets in it can be written as it is
        matches = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 - takes absolute patterns too
        found = sorted(match for match in matches if (root / match).is_file())
    if not found:
        raise _missing(pattern, name, root)
    for shown in found:
        if formats.kind_of(Path(shown)) is None:
            known = ", ".join(f".{kind}" for kind in formats.FORMATS)
            raise BadData(f"data.{name}: {shown} is of no known format", expected=f"one of {known}; plain, .gz or .xz")
    return tuple(found)


def head(data: spec.Data, name: str, root: Path) -> tuple[str, ...]:
    """Names of the columns and of the fields that `columns:` adds, from the first record of each file.

    Raises:
        BadData: as `find`; also a file that cannot be read up to its first record, no row at all, or a column named in
            `columns:` that is not there.
    """
    names: dict[str, None] = {}
    for shown in find(data, name, root):
        names.update(dict.fromkeys(formats.columns(root / shown, shown, data.separator)))
    if not names:
        raise _empty(data, name)
    return _with_fields(data, name, tuple(names))


def read(data: spec.Data, name: str, root: Path) -> Table:
    """All rows of the data set `name`, file after file; `take` of them where it is given.

    Raises:
        BadData: as `head`, and a fault in any row.
    """
    files = find(data, name, root)
    names: dict[str, None] = {}
    rows = []
    for shown, line, values in _records(data, files, root):
        names.update(dict.fromkeys(values))
        if data.columns:
            values |= {field: values[column] for field, column in data.columns.items() if column in values}
        rows.append(Row(values, shown, line))
    if not rows:
        raise _empty(data, name)
    return Table(_with_fields(data, name, tuple(names)), tuple(rows))


def digests(files: tuple[str, ...], root: Path) -> tuple[SourceFile, ...]:
    """The files with their sha256, without looking into them."""
    return tuple(SourceFile(shown, _sha256(root / shown)) for shown in files)


def _records(data: spec.Data, files: tuple[str, ...], root: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    count = 0
    for shown in files:
        for line, values in formats.records(root / shown, shown, data.separator):
            yield shown, line, values
            count += 1
            if count == data.take:
                return


def _with_fields(data: spec.Data, name: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """`names` and the fields of `columns:`; of two names for a value both can be used."""
    for field, column in (data.columns or {}).items():
        if column not in names:
            close = nearest(column, names)
            raise BadData(
                f"data.{name}.columns: {field} is to be the column {column!r}, which {data.path} does not have",
                expected=f"one of {', '.join(names)}",
                hint=f"did you mean {close!r}?" if close else None,
            )
    return (*names, *(field for field in data.columns or {} if field not in names))


def _missing(pattern: str, name: str, root: Path) -> BadData:
    folder = (root / pattern).parent
    if glob.has_magic(pattern):
        return BadData(f"data.{name}: no file matches {pattern}", hint=f"relative paths start at {root}")
    if not folder.is_dir():
        return BadData(
            f"data.{name}: there is no folder {Path(pattern).parent}", hint=f"relative paths start at {root}"
        )
    close = nearest(Path(pattern).name, sorted(entry.name for entry in folder.iterdir() if entry.is_file()))
    hint = f"did you mean {Path(pattern).with_name(close)}?" if close else f"relative paths start at {root}"
    return BadData(f"data.{name}: there is no file {pattern}", hint=hint)


def _empty(data: spec.Data, name: str) -> BadData:
    return BadData(f"data.{name}: {data.path} has no rows", expected="at least one row")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
