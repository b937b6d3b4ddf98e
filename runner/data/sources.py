"""The rows of a data set's files: which files a path names, their columns, their rows and their digests."""

from __future__ import annotations

import glob
import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from runner import spec, underway
from runner.data import formats, hub
from runner.data.hub import DataFile, Wanted
from runner.data.recent import Recent
from runner.data.stored import StoredFile, columns_of
from runner.errors import BadData, Where, nearest

SHOWN_BAD = 3
"""Rows that cannot be used are counted; of so many it is kept what is wrong."""
_TOLD_EVERY = 1024
"""Rows after which it is said how far reading has come."""
_HASHED_BYTES = 1 << 20
"""Of a file, at a time."""


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

    index: int
    """Its number in the source, from 0. One that cannot be read has a number too, so that draws do not move when it is
    mended."""
    values: Mapping[str, Any]
    """By column, and by the fields that `columns:` names."""
    file: str
    line: int
    """From 1; for parquet the number of the row."""
    size: int
    """Bytes in the source."""

    @property
    def where(self) -> Where:
        """For errors about this row."""
        return Where(self.file, self.line)


class Rows(Sequence[Row]):
    """All rows of a data set's files, parsed when they are asked for."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._files: list[StoredFile] = []
        self._ends: list[int] = []
        self._indexes = array("Q")
        self._recent: Recent[Row] = Recent()

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Row]: ...
    def __getitem__(self, position: int | slice) -> Row | Sequence[Row]:
        if isinstance(position, slice):
            return [self[at] for at in range(*position.indices(len(self)))]
        if position < 0:
            position += len(self)
        row = self._recent.get(position)
        if row is None:
            number = bisect_right(self._ends, position)
            file = self._files[number]
            inside = position - (self._ends[number - 1] if number else 0)
            row = self._row(self._indexes[position], file.values(inside), file, inside)
            self._recent.put(position, row, row.size)
        return row

    def scan(self, file: StoredFile, first: int) -> Iterator[tuple[int, Mapping[str, Any] | BadData]]:
        """Add the rows of a file; gives every one's number, from `first`, and its columns or what is wrong with it."""
        self._files.append(file)
        self._ends.append(len(self))
        for index, (_, _, values) in enumerate(file.scan(), start=first):
            if not isinstance(values, BadData):
                self._ends[-1] += 1
                self._indexes.append(index)
                row = self._row(index, values, file, len(file) - 1)
                self._recent.put(len(self) - 1, row, row.size)
            yield index, values

    def _row(self, index: int, values: dict[str, Any], file: StoredFile, number: int) -> Row:
        if self._fields:
            added = {field: values[column] for field, column in self._fields.items() if column in values}
            values = {**values, **added}
        return Row(index, values, file.shown, file.lines[number], file.lengths[number])


@dataclass(frozen=True)
class BadRow:
    """A row that was passed over."""

    where: Where | None
    reason: str


@dataclass(frozen=True)
class Table:
    """All rows of a data set's files."""

    columns: tuple[str, ...]
    rows: Sequence[Row]
    bad: int = 0
    """Rows that cannot be read, where they are skipped."""
    first_bad: tuple[BadRow, ...] = ()
    """The first SHOWN_BAD of them."""


def find(data: spec.Data, name: str, root: Path) -> tuple[DataFile, ...]:
    """The files of the data set `name`, in sorted order, shown as they are written: relative to `root` if written so.

    Raises:
        BadData: no such file, a folder without data, a hub that cannot be reached, or a format that is not known.
            Without a position in the recipe: who has the recipe at hand puts it there.
    """
    pattern = data.path
    assert pattern is not None, "a data set with rows has no files"
    path = root / pattern
    wanted = Wanted(name, pattern, data.subset, data.from_split)
    if path.is_dir():
        return hub.in_folder(wanted, path)
    if path.is_file():
        found = [pattern]
    else:
        # the literal file comes first, so that a name with brackets in it can be written as it is
        matches = glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207 - takes absolute patterns too
        found = sorted(match for match in matches if (root / match).is_file())
    if not found and hub.is_hub_id(pattern, root):
        with underway.work(f"fetching {pattern}"):
            return hub.of_hub(wanted)
    if not found:
        raise _missing(pattern, name, root)
    if data.subset is not None or data.from_split is not None:
        field = "subset" if data.subset is not None else "from_split"
        raise BadData(f"data.{name}: {field} is of a data set on the hub or in a folder; {pattern} is a file")
    for shown in found:
        if formats.kind_of(Path(shown)) is None:
            known = ", ".join(f".{kind}" for kind in formats.KINDS)
            raise BadData(f"data.{name}: {shown} is of no known format", expected=f"one of {known}; plain, .gz or .xz")
    return tuple(DataFile(shown, root / shown) for shown in found)


def is_here(data: spec.Data, root: Path) -> bool:
    """Whether there is something at its path; a hub is not asked, what was fetched from it is here."""
    pattern = data.path
    assert pattern is not None, "a data set with rows has no files"
    if (root / pattern).exists() or next(glob.iglob(pattern, root_dir=root, recursive=True), None):  # noqa: PTH207
        return True
    return hub.is_hub_id(pattern, root) and hub.is_fetched(pattern)


def head(data: spec.Data, name: str, root: Path) -> tuple[str, ...]:
    """Names of the columns and of the fields that `columns:` adds, from the first record of each file.

    Raises:
        BadData: as `find`; also a file that cannot be read up to its first record, no row at all, or a column named in
            `columns:` that is not there.
    """
    names: dict[str, None] = {}
    for file in find(data, name, root):
        found = columns_of(file.path, file.shown, data.separator, skip=data.on_bad_row == "skip")
        names.update(dict.fromkeys(found))
    if not names:
        raise _empty(data, name)
    return _with_fields(data, name, tuple(names))


def read(data: spec.Data, name: str, root: Path) -> Table:
    """All rows of the data set `name`, file after file; `take` of them where it is given.

    Every row is looked at once and then parsed again when it is asked for, so that a file may be larger than the
    memory.

    Raises:
        BadData: as `head`, and a fault in any row, unless `on_bad_row: skip`.
    """
    names: dict[str, None] = {}
    seen: tuple[str, ...] = ()
    rows, bad = Rows(data.columns or {}), 0
    first_bad: list[BadRow] = []
    for values in _scanned(data, rows, find(data, name, root)):
        if not isinstance(values, BadData):
            if (columns := tuple(values)) != seen:
                seen = columns
                names.update(dict.fromkeys(columns))
            continue
        if data.on_bad_row == "fail":
            raise values
        bad += 1
        if len(first_bad) < SHOWN_BAD:
            first_bad.append(bad_row(values))
    if not rows:
        raise _empty(data, name, bad)
    _check_number(data, name, len(rows), bad)
    return Table(_with_fields(data, name, tuple(names)), rows, bad, tuple(first_bad))


def _check_number(data: spec.Data, name: str, rows: int, bad: int) -> None:
    """Whether there are as many rows as the recipe says; of those that `take` leaves, no more than they are."""
    found, said = rows + bad, data.num_rows
    if said is None or found == said or (rows == data.take and found < said):
        return
    raise BadData(
        f"data.{name}: num_rows is {said:,}, and {data.path} has {found:,} rows",
        hint=f"say num_rows: {found}, or remove it: what is here is counted",
    )


def _scanned(data: spec.Data, rows: Rows, files: Sequence[DataFile]) -> Iterator[Mapping[str, Any] | BadData]:
    count, before = 0, 0
    with underway.work(f"reading {data.path}", sum(file.size_bytes for file in files) or None, "bytes") as reading:
        for file in files:
            for index, values in rows.scan(stored := StoredFile(file.path, file.shown, data.separator), count):
                yield values
                count = index + 1
                if not count % _TOLD_EVERY:
                    reading.advance(before + stored.bytes_read - reading.done)
                if len(rows) == data.take:
                    return
            before += file.size_bytes


def bad_row(error: BadData) -> BadRow:
    """What is kept of a row that is passed over."""
    problem = error.problems[0]
    expected = f"; expected {problem.expected}" if problem.expected else ""
    return BadRow(problem.where, problem.message + expected)


def digests(files: Sequence[DataFile]) -> tuple[SourceFile, ...]:
    """The files with their sha256, without looking into them."""
    with underway.work("digesting files", sum(file.size_bytes for file in files) or None, "bytes") as hashing:
        return tuple(SourceFile(file.shown, _sha256(file.path, hashing)) for file in files)


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


def _empty(data: spec.Data, name: str, bad: int = 0) -> BadData:
    found = f" that can be read ({bad:,} cannot)" if bad else ""
    return BadData(f"data.{name}: {data.path} has no rows{found}", expected="at least one row")


def _sha256(path: Path, hashing: underway.Work) -> str:
    if path.is_dir():  # that `datasets` saved
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        parts = "".join(f"{file.relative_to(path)} {_sha256(file, hashing)}\n" for file in inside)
        return hashlib.sha256(parts.encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(_HASHED_BYTES):
            digest.update(block)
            hashing.advance(len(block))
    return digest.hexdigest()
