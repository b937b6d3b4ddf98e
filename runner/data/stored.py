"""The records of one file by number, without holding them in memory: where each begins, and its bytes when asked.

A plain text file is its own store. What cannot be read from the middle (compressed, JSON lists, parquet) is copied once
into a temporary file, which has no name and goes with the process. A record costs 24 bytes of memory.
"""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import os
import pickle
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from runner.data import containers, hub
from runner.data.formats import CHUNK, Found, Reader, kind_of, reader
from runner.data.json_text import Values
from runner.errors import BadData, Where

_IN_MEMORY = 1 << 20
"""Bytes of a copy that are held in memory before it becomes a file."""
_WINDOW = 128 << 10
"""Bytes that are read around a record: the next ones are asked for next."""

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


class Bytes(Protocol):
    """What records are read from."""

    def read(self, start: int, length: int) -> bytes:
        """The bytes there."""


class FileBytes:
    """A file as it lies on the disk. It is not kept open: a data set may have thousands."""

    def __init__(self, path: Path, shown: str) -> None:
        self._path, self._shown = path, shown
        self._begins, self._window = 0, b""
        self._stamp = self._stamp_of(path.stat())

    def read(self, start: int, length: int) -> bytes:
        """The bytes there.

        Raises:
            BadData: the file is gone, or another one than it was.
        """
        offset = start - self._begins
        if offset < 0 or offset + length > len(self._window):
            self._begins, offset = start, 0
            self._window = self._pread(start, max(length, _WINDOW))
        return self._window[offset : offset + length]

    def _pread(self, start: int, length: int) -> bytes:
        try:
            with self._path.open("rb", buffering=0) as file:
                if self._stamp_of(os.fstat(file.fileno())) != self._stamp:
                    raise BadData("was changed while it was being read", where=Where(self._shown))
                return os.pread(file.fileno(), length, start)
        except OSError as error:
            raise BadData(f"cannot be read: {error}", where=Where(self._shown)) from error

    @staticmethod
    def _stamp_of(stat: os.stat_result) -> tuple[int, int]:
        return stat.st_size, stat.st_mtime_ns


class Copy:
    """Bytes that were read once: in memory while they are few, then in a temporary file."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._file: int | None = None
        self.size = 0

    def append(self, data: bytes) -> int:
        """Add them; gives where they begin."""
        start = self.size
        self.size += len(data)
        self._held += data
        if len(self._held) > (_IN_MEMORY if self._file is None else CHUNK):
            self._flush()
        return start

    def read(self, start: int, length: int) -> bytes:
        """The bytes there."""
        if self._file is None:
            return bytes(self._held[start : start + length])
        if self._held:
            self._flush()
        return os.pread(self._file, length, start)

    def _flush(self) -> None:
        if self._file is None:
            self._file, name = tempfile.mkstemp(prefix="recipe-rows-")
            weakref.finalize(self, os.close, self._file)
            Path(name).unlink()  # it has no name from now on, and goes when it is closed
        while self._held:
            written = os.write(self._file, self._held)
            del self._held[:written]


class _Copied(io.RawIOBase):
    """A stream of which everything that is read is kept."""

    def __init__(self, source: IO[bytes], copy: Copy) -> None:
        self._source, self._copy = source, copy

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        data = self._source.read(len(buffer))
        self._copy.append(data)
        buffer[: len(data)] = data
        return len(data)


class StoredFile:
    """The records of one file."""

    def __init__(self, path: Path, shown: str, separator: str | None) -> None:
        """Nothing is read yet."""
        self.shown = shown
        self._path, self._separator = path, separator
        self._bytes: Bytes = Copy()
        self._parse: Callable[[bytes, int], Values | None] = _unpickled
        self._raw: IO[bytes] | None = None
        self._expected_rows = 0
        self.starts, self.lengths, self.lines = array("Q"), array("Q"), array("Q")

    def scan(self) -> Iterator[tuple[int, int, Values | BadData]]:
        """Every record with its line and its length in bytes, once; the good ones can then be had by number.

        Raises:
            BadData: the file cannot be read, or not beyond a fault in it.
        """
        for found in self._found():
            if not isinstance(found.values, BadData):
                self.starts.append(found.start)
                self.lengths.append(found.length)
                self.lines.append(found.line)
            yield found.line, found.length, found.values

    @property
    def bytes_read(self) -> int:
        """How far `scan` has come in the file as it lies on the disk; of parquet, by its rows."""
        if self._expected_rows:
            return self._path.stat().st_size * len(self) // self._expected_rows
        return self._raw.tell() if self._raw is not None and not self._raw.closed else 0

    def __len__(self) -> int:
        return len(self.starts)

    def values(self, number: int) -> Values:
        """What a record says, by its number among the good ones."""
        raw = self._bytes.read(self.starts[number], self.lengths[number])
        found = self._parse(raw, self.lines[number])
        assert found is not None, f"{self.shown}: record {number} was there when it was scanned"
        return found

    def _found(self) -> Iterator[Found]:
        if self._path.is_dir():
            yield from self._kept(hub.saved_rows(self._path, self.shown))
            return
        kind = kind_of(self._path)
        assert kind is not None, f"{self._path} was not checked by sources"
        if kind == "parquet":
            self._expected_rows = containers.parquet_rows(self._path, self.shown)
            yield from self._kept(containers.parquet(self._path, self.shown))
            return
        try:
            with self._path.open("rb", buffering=CHUNK) as raw, _opened(self._path, raw) as stream:
                self._raw = raw
                if kind == "json":
                    yield from self._kept(containers.json_list(stream, self.shown))
                else:
                    yield from self._scanned(stream, reader(kind, self.shown, self._separator))
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise BadData(f"cannot be read: {error}", where=Where(self.shown)) from error

    def _scanned(self, stream: IO[bytes], text: Reader) -> Iterator[Found]:
        self._parse = text.parse
        if self._path.suffix.lower() in _OPENERS:
            copy = self._bytes = Copy()
            yield from text.scan(io.BufferedReader(_Copied(stream, copy), CHUNK))
        else:
            self._bytes = FileBytes(self._path, self.shown)
            yield from text.scan(stream)

    def _kept(self, records: Iterator[containers.Record]) -> Iterator[Found]:
        copy = self._bytes = Copy()
        for line, values in records:
            if isinstance(values, BadData):
                yield Found(0, 0, line, values)
            else:
                data = pickle.dumps(values, pickle.HIGHEST_PROTOCOL)
                yield Found(copy.append(data), len(data), line, values)


def columns_of(path: Path, shown: str, separator: str | None, *, skip: bool) -> tuple[str, ...]:
    """Column names, from as little of a file as can tell: its first records. None where it has no record.

    Args:
        skip: pass over records that cannot be read.

    Raises:
        BadData: the file, or one of its first records, cannot be read.
    """
    if kind_of(path) == "parquet" and path.is_file():
        return containers.parquet_columns(path, shown)
    names: dict[str, None] = {}
    # objects of JSON need not all have the same keys
    for _, _, values in itertools.islice(StoredFile(path, shown, separator).scan(), 100):
        if not isinstance(values, BadData):
            names.update(dict.fromkeys(values))
        elif not skip:
            raise values
    return tuple(names)


def _opened(path: Path, raw: IO[bytes]) -> IO[bytes]:
    """What is in the file at `path`, unpacked."""
    opener = _OPENERS.get(path.suffix.lower())
    stream: IO[bytes] = opener(raw, "rb") if opener else raw
    return stream


def _unpickled(raw: bytes, _line: int) -> Values:
    values: Values = pickle.loads(raw)
    return values
