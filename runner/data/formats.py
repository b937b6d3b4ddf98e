"""The text formats of sources, row by row: where in its file a record begins, and what it says.

A file is scanned once, from its beginning, which finds every record and its fault; later a record is parsed again from
its own bytes. JSON lists and parquet, which cannot be read from the middle, are in `containers`.

Text is UTF-8. A byte-order mark and CRLF line ends are taken off; a NUL byte or bytes that are not UTF-8 are errors.
Only `\\n` ends a line, so that U+2028 or a form feed inside a value stay where they are.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from runner.data.json_text import Values, an_object, json_value
from runner.errors import BadData, Where

KINDS = ("tsv", "csv", "json", "jsonl", "txt", "parquet")
"""Extensions of the formats that can be read."""
COMPRESSED = (".gz", ".xz")
CHUNK = 1 << 20
"""Bytes that are read at a time."""


class Found(NamedTuple):
    """A record of a file."""

    start: int
    """Of its bytes in the file."""
    length: int
    line: int
    """Where it begins, from 1."""
    values: Values | BadData
    """What it says, or what is wrong with it."""


class Reader(Protocol):
    """A text format, on one file."""

    def scan(self, stream: IO[bytes]) -> Iterator[Found]:
        """Every record of a file, in order.

        Raises:
            BadData: a fault after which nothing of the file can be read.
        """

    def parse(self, raw: bytes, line: int) -> Values | None:
        """What a record says that begins on `line`, from its bytes; None where they hold none.

        Raises:
            BadData: it is not what the format wants.
        """


def kind_of(path: Path) -> str | None:
    """The format of a file by its name, `.gz` and `.xz` left aside; None where it is not one of KINDS."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    kind = suffixes[-1][1:] if suffixes else ""
    return kind if kind in KINDS else None


def reader(kind: str, shown: str, separator: str | None) -> Reader:
    """The reader of a text format.

    Args:
        shown: the name of the file in errors.
        separator: for txt, what stands between two records; None for one record per line.
    """
    if kind == "txt" and separator not in (None, "\n"):
        return Separated(shown, separator or "")
    return _READERS[kind](shown)


def decoded(raw: bytes, shown: str, line: int) -> str:
    """The text of some whole lines of a file, of which the first is number `line`.

    Raises:
        BadData: it is not UTF-8, or holds a NUL byte.
    """
    if line == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in raw:
        raise BadData(
            "a NUL byte; this is not a text file in UTF-8",
            where=Where(shown, line + raw.count(b"\n", 0, raw.index(b"\0"))),
            hint="a file in UTF-16 is converted by: iconv -f UTF-16 -t UTF-8",
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        begins = raw.rfind(b"\n", 0, error.start) + 1
        raise BadData(
            f"byte {raw[error.start]:#04x} is not UTF-8",
            where=Where(shown, line + raw.count(b"\n", 0, begins), len(raw[begins : error.start].decode()) + 1),
            expected="text in UTF-8",
            hint="files in GBK or GB18030 are converted by: iconv -f GB18030 -t UTF-8",
        ) from None
    return text.replace("\r\n", "\n") if b"\r\n" in raw else text


class _Lines(ABC):
    """A format with a record per line."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def scan(self, stream: IO[bytes]) -> Iterator[Found]:
        """Every line that holds a record."""
        start = 0
        for line, raw in enumerate(stream, start=1):
            values = _tried(self.parse, raw, line)
            if values is not None:
                yield Found(start, len(raw), line, values)
            start += len(raw)

    @abstractmethod
    def parse(self, raw: bytes, line: int) -> Values | None:
        """A line's record."""


def _tried(parse: Callable[[bytes, int], Values | None], raw: bytes, line: int) -> Values | BadData | None:
    try:
        return parse(raw, line)
    except BadData as error:
        return error


class Jsonl(_Lines):
    """One object per line. Empty lines are left out."""

    def parse(self, raw: bytes, line: int) -> Values | None:
        """A line's object."""
        text = decoded(raw, self.shown, line).strip()
        if not text:
            return None
        value, end = json_value(text, 0, self.shown, line)
        if end != len(text):
            raise BadData("not JSON: more text after the object", where=Where(self.shown, line, end + 1))
        return an_object(value, text, self.shown, line)


class Txt(_Lines):
    """One record per line, in the column `text`. Lines of white space only are left out."""

    def parse(self, raw: bytes, line: int) -> Values | None:
        """A line."""
        text = decoded(raw, self.shown, line)
        return {"text": text.removesuffix("\n")} if text.strip() else None


class Tsv(_Lines):
    """One record per line, values between tabs; nothing is quoted. Empty lines are left out."""

    def __init__(self, shown: str) -> None:
        super().__init__(shown)
        self._header: tuple[str, ...] = ()

    def scan(self, stream: IO[bytes]) -> Iterator[Found]:
        """Every line but the first, which is the header."""
        start = 0
        for line, raw in enumerate(stream, start=1):
            if not self._header:
                if text := decoded(raw, self.shown, line).removesuffix("\n"):
                    self._header = _header(text.split("\t"), self.shown, line)
            elif (values := _tried(self.parse, raw, line)) is not None:
                yield Found(start, len(raw), line, values)
            start += len(raw)

    def parse(self, raw: bytes, line: int) -> Values | None:
        """A line's values by column."""
        text = decoded(raw, self.shown, line).removesuffix("\n")
        return _filled(self._header, text.split("\t"), self.shown, line) if text else None


class Csv:
    """RFC 4180, quoted values may hold line breaks. Empty lines are left out."""

    def __init__(self, shown: str) -> None:
        csv.field_size_limit(sys.maxsize)
        self.shown = shown
        self._header: tuple[str, ...] = ()

    def scan(self, stream: IO[bytes]) -> Iterator[Found]:
        """Every record but the first, which is the header."""
        lines = _Followed(stream, self.shown)
        reader = csv.reader(lines, strict=True)
        while True:
            start, line = lines.read_bytes, lines.read_lines + 1
            found: Values | BadData | None
            try:
                row = next(reader, None)
                if row is None:
                    return
                if row and not self._header:
                    self._header = _header(row, self.shown, line)
                    continue
                found = _filled(self._header, row, self.shown, line) if row else None
            except csv.Error as error:
                found = BadData(f"not CSV: {error}", where=Where(self.shown, line))
                if lines.ended:  # a quotation mark without its other half: all that follows was taken for one value
                    raise found from error
            except BadData as error:
                if not self._header:
                    raise
                found = error
            if found is not None:
                yield Found(start, lines.read_bytes - start, line, found)

    def parse(self, raw: bytes, line: int) -> Values | None:
        """A record's values by column."""
        text = decoded(raw, self.shown, line)
        try:
            row = next(csv.reader(io.StringIO(text, newline="\n"), strict=True), None)
        except csv.Error as error:
            raise BadData(f"not CSV: {error}", where=Where(self.shown, line)) from error
        return _filled(self._header, row, self.shown, line) if row else None


class _Followed:
    """The lines of a stream as text, and how much of it was read."""

    def __init__(self, stream: IO[bytes], shown: str) -> None:
        self._stream, self._shown = stream, shown
        self.read_bytes = self.read_lines = 0
        self.ended = False

    def __iter__(self) -> _Followed:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline()
        if not raw:
            self.ended = True
            raise StopIteration
        self.read_bytes += len(raw)
        self.read_lines += 1
        return decoded(raw, self._shown, self.read_lines)


class Separated:
    """Records of a txt file between separators; newlines around one, and those of white space only, are left out."""

    def __init__(self, shown: str, separator: str) -> None:
        self.shown = shown
        # where lines end in CRLF, so do those of the separator
        self._separator = re.compile(re.escape(separator.encode()).replace(b"\\\n", rb"\r?\n"))
        self._longest = 2 * len(separator.encode())

    def scan(self, stream: IO[bytes]) -> Iterator[Found]:
        """Every record, from its first line that is not empty."""
        start, line = 0, 1
        for part, between in self._parts(stream):
            before = _EMPTY_LINES.match(part)
            skipped = before.end() if before else 0
            begins = line + part.count(b"\n", 0, skipped)
            raw = part[skipped:]
            if (values := _tried(self.parse, raw, begins)) is not None:
                yield Found(start + skipped, len(raw), begins, values)
            line += part.count(b"\n") + between.count(b"\n")
            start += len(part) + len(between)

    def parse(self, raw: bytes, line: int) -> Values | None:
        """A record's text."""
        text = decoded(raw, self.shown, line).strip("\n")
        return {"text": text} if text.strip() else None

    def _parts(self, stream: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """What lies between separators, and the separator after it; the last one has none."""
        held = bytearray()
        looked = 0
        while chunk := stream.read(max(CHUNK, len(held))):
            held += chunk
            begin = 0
            for match in self._separator.finditer(held, looked):
                yield bytes(held[begin : match.start()]), match[0]
                begin = match.end()
            looked = max(len(held) - self._longest, begin) - begin
            del held[:begin]
        yield bytes(held), b""


_EMPTY_LINES = re.compile(rb"(?:\xef\xbb\xbf)?(?:\r?\n)*")


def _header(names: list[str], shown: str, line: int) -> tuple[str, ...]:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise BadData(
            f"two columns are named {twice!r}", where=Where(shown, line), expected="a header of distinct names"
        )
    return tuple(names)


def _filled(header: tuple[str, ...], values: list[str], shown: str, line: int) -> Values:
    if len(values) != len(header):
        raise BadData(
            f"{len(values)} values, but the header has {len(header)} columns",
            where=Where(shown, line),
            expected=f"{', '.join(header)}",
        )
    return dict(zip(header, values, strict=True))


_READERS: dict[str, Callable[[str], Reader]] = {"tsv": Tsv, "csv": Csv, "jsonl": Jsonl, "txt": Txt}
