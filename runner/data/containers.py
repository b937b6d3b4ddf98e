"""Sources that cannot be read from the middle: JSON lists, parquet, and folders that `datasets` wrote.

They are read once, from the beginning, in bounded memory; `stored` keeps what came of it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from runner.data.formats import CHUNK
from runner.data.json_text import DECODER, TOO_LONG, NotJsonError, Values, an_object, json_fault
from runner.errors import BadData, Where, first_line

Record = tuple[int, Values | BadData]
"""The line a record starts on (where there are no lines: its number), from 1; and what it says, or what is wrong."""

_BATCH = 1024
"""Rows that are taken out of parquet at a time."""


def json_list(stream: IO[bytes], shown: str) -> Iterator[Record]:
    """The objects of one list.

    Raises:
        BadData: it is not JSON, or no list: what follows the fault cannot be read.
    """
    window = _Window(stream, shown)
    first = window.next()
    if not first:
        return
    if first != "[":
        raise BadData("found no list", where=Where(shown, window.line), expected="a list of objects: [{…}, …]")
    window.at += 1
    while window.next() != "]":
        line = window.line
        value, text = window.value()
        try:
            yield line, an_object(value, text, shown, line)
        except BadData as error:
            yield line, error
        if window.next() == ",":
            window.at += 1
            window.next()
        elif window.next() != "]":
            raise BadData("not JSON: Expecting ',' or ']'", where=Where(shown, window.line))


class _Window:
    """The part of a text that is being read; what lies before `at` is dropped when more is needed."""

    def __init__(self, stream: IO[bytes], shown: str) -> None:
        self._stream, self._shown = stream, shown
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self._ended = "", 0, False
        self._counted, self._line, self._column = 0, 1, 0
        self._more()
        self.text = self.text.removeprefix("\ufeff")

    @property
    def line(self) -> int:
        """Of `at`, from 1."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def next(self) -> str:
        """The next character that is no white space, which `at` then stands on; empty at the end."""
        while True:
            found = _SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def value(self) -> tuple[Any, str]:
        """The JSON value at `at`, and its text."""
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                # what was cut off shows at the cut, but for a string, which shows where it began
                cut = error.pos >= len(self.text) - 16 or error.msg.startswith("Unterminated string")
                if cut and self._more():
                    continue
                line = self.line + self.text.count("\n", self.at, error.pos)
                column = error.colno + (self._column if "\n" not in self.text[: error.pos] else 0)
                raise BadData(f"not JSON: {json_fault(error)}", where=Where(self._shown, line, column)) from None
            except (NotJsonError, RecursionError) as error:
                raise BadData(f"not JSON: {error}", where=Where(self._shown, self.line)) from None
            except ValueError:
                raise BadData(TOO_LONG, where=Where(self._shown, self.line)) from None
            text, self.at = self.text[self.at : end], end
            return value, text

    def _more(self) -> bool:
        """Reads on; whether there was more."""
        if self._ended:
            return False
        line = self.line  # counts up to `at`, which is about to become 0
        newline = self.text.rfind("\n", 0, self.at)
        self._column = self.at - newline - 1 if newline >= 0 else self._column + self.at
        held = self.text[self.at :]
        raw = self._stream.read(max(CHUNK, 2 * len(held)))  # a long value is not joined again and again
        self._ended = not raw
        try:
            added = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            before = held + error.object[: error.start].decode()
            bad = error.object[error.start]
            raise BadData(
                f"byte {bad:#04x} is not UTF-8",
                where=Where(self._shown, line + before.count("\n")),
                expected="text in UTF-8",
                hint="files in GBK or GB18030 are converted by: iconv -f GB18030 -t UTF-8",
            ) from None
        if "\0" in added:
            raise BadData(
                "a NUL byte; this is not a text file in UTF-8",
                where=Where(self._shown, line + (held + added).count("\n", 0, (held + added).index("\0"))),
                hint="a file in UTF-16 is converted by: iconv -f UTF-16 -t UTF-8",
            )
        self.text, self.at, self._counted = held + added, 0, 0
        return bool(raw)


_SPACE = re.compile(r"[ \t\r\n]*")


def parquet(path: Path, shown: str) -> Iterator[Record]:
    """The rows of a parquet file. Raises BadData where it is none."""
    import pyarrow

    number = 0
    file = _parquet_file(path, shown)
    try:
        for batch in file.iter_batches(batch_size=_BATCH):
            for values in batch.to_pylist():
                number += 1
                yield number, values
    except (
        OSError,
        ValueError,
        OverflowError,
        pyarrow.ArrowException,
    ) as error:  # its end is whole, a page of it is not
        raise BadData(
            f"damaged after row {number:,}: {first_line(error)}", where=Where(shown), hint="fetch or write it again"
        ) from error


def parquet_rows(path: Path, shown: str) -> int:
    """How many rows it has, from its end alone. Raises BadData where it is none."""
    rows: int = _parquet_file(path, shown).metadata.num_rows
    return rows


def parquet_columns(path: Path, shown: str) -> tuple[str, ...]:
    """Its columns, from its end alone; none where it has no row."""
    file = _parquet_file(path, shown)
    return tuple(file.schema_arrow.names) if file.metadata.num_rows else ()


def _parquet_file(path: Path, shown: str) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BadData("parquet needs pyarrow", where=Where(shown), hint="pip install pyarrow") from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise BadData(f"not a parquet file: {error}", where=Where(shown)) from error
