"""The file formats of sources: one file → records with the line each starts on; every fault has a file and a line.

Text is UTF-8. A byte-order mark and CRLF line ends are taken off; a NUL byte or bytes that are not UTF-8 are errors.
Only `\\n` ends a line, so that U+2028 or a form feed inside a value stay where they are.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from runner.errors import BadData, Where

Record = tuple[int, dict[str, Any]]
"""The line a record starts on (for parquet its number), from 1, and its values by column."""

COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


def kind_of(path: Path) -> str | None:
    """The format of a file by its name, `.gz` and `.xz` left aside; None where it is not one of FORMATS."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    kind = suffixes[-1][1:] if suffixes else ""
    return kind if kind in FORMATS else None


def records(path: Path, shown: str, separator: str | None) -> Iterator[Record]:
    """The records of one file, in its order.

    Args:
        shown: the name of the file in errors.
        separator: for txt, what stands between two records; None for one record per line.

    Raises:
        BadData: the file, or a record of it, cannot be read.
    """
    kind = kind_of(path)
    assert kind is not None, f"{path} was not checked by sources"
    if kind == "parquet":
        yield from _parquet(path, shown)
        return
    try:
        with _opened(path) as stream:
            if kind == "txt":
                yield from _txt(stream, shown, separator)
            else:
                yield from FORMATS[kind](stream, shown)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise BadData(f"cannot be read: {error}", where=Where(shown)) from error


def columns(path: Path, shown: str, separator: str | None) -> tuple[str, ...]:
    """Column names, from as little of the file as can tell: its first records. None where it has no record."""
    if kind_of(path) == "parquet":
        parquet = _parquet_file(path, shown)
        return tuple(parquet.schema_arrow.names) if parquet.metadata.num_rows else ()
    # objects of JSON need not all have the same keys
    first = itertools.islice(records(path, shown, separator), 100)
    return tuple(dict.fromkeys(name for _, values in first for name in values))


def _opened(path: Path) -> IO[bytes]:
    opener = COMPRESSED.get(path.suffix.lower(), open)
    stream: IO[bytes] = opener(path, "rb")
    return stream


def _lines(stream: IO[bytes], shown: str) -> Iterator[str]:
    """Decoded lines, each with its `\\n` (CRLF made `\\n`)."""
    for number, raw in enumerate(stream, start=1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in raw:
            raise BadData(
                "a NUL byte; this is not a text file in UTF-8",
                where=Where(shown, number),
                hint="a file in UTF-16 is converted by: iconv -f UTF-16 -t UTF-8",
            )
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            raise BadData(
                f"byte {raw[error.start]:#04x} is not UTF-8",
                where=Where(shown, number, len(raw[: error.start].decode()) + 1),
                expected="text in UTF-8",
                hint="files in GBK or GB18030 are converted by: iconv -f GB18030 -t UTF-8",
            ) from None
        yield line[:-2] + "\n" if line.endswith("\r\n") else line


def _tsv(stream: IO[bytes], shown: str) -> Iterator[Record]:
    """One record per line, values between tabs; nothing is quoted. Empty lines are left out."""
    header: tuple[str, ...] = ()
    for number, line in enumerate(_lines(stream, shown), start=1):
        if line in ("\n", ""):
            continue
        values = line.removesuffix("\n").split("\t")
        if not header:
            header = _header(values, shown, number)
        else:
            yield number, _filled(header, values, shown, number)


def _csv(stream: IO[bytes], shown: str) -> Iterator[Record]:
    """RFC 4180, quoted values may hold line breaks. Empty lines are left out."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(_lines(stream, shown), strict=True)
    header: tuple[str, ...] = ()
    start = 1
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise BadData(f"not CSV: {error}", where=Where(shown, start)) from error
        if values is None:
            return
        if values and not header:
            header = _header(values, shown, start)
        elif values:
            yield start, _filled(header, values, shown, start)
        start = reader.line_num + 1


def _header(names: list[str], shown: str, line: int) -> tuple[str, ...]:
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise BadData(
            f"two columns are named {twice!r}", where=Where(shown, line), expected="a header of distinct names"
        )
    return tuple(names)


def _filled(header: tuple[str, ...], values: list[str], shown: str, line: int) -> dict[str, Any]:
    if len(values) != len(header):
        raise BadData(
            f"{len(values)} values, but the header has {len(header)} columns",
            where=Where(shown, line),
            expected=f"{', '.join(header)}",
        )
    return dict(zip(header, values, strict=True))


def _decode(text: str, start: int, shown: str, line: int) -> tuple[Any, int]:
    """The JSON value at `start`, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        at = Where(shown, line + text.count("\n", start, error.pos), error.colno)
        raise BadData(f"not JSON: {error.msg}", where=at) from None
    except (_NotJsonError, RecursionError) as error:
        raise BadData(f"not JSON: {error}", where=Where(shown, line)) from None
    if not isinstance(value, dict):
        raise BadData(
            f"found {_JSON_NAMES.get(type(value), type(value).__name__)}",
            where=Where(shown, line),
            expected='an object with named values, for example {"text": "…"}',
        )
    if "\\u" in text[start:end]:
        _no_half_characters(value, shown, line)
    return value, end


def _no_half_characters(value: object, shown: str, line: int) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadData("half of a \\u surrogate pair, which is no character", where=Where(shown, line)) from None


def _jsonl(stream: IO[bytes], shown: str) -> Iterator[Record]:
    """One object per line. Empty lines are left out."""
    for number, line in enumerate(_lines(stream, shown), start=1):
        text = line.strip()
        if text:
            value, end = _decode(text, 0, shown, number)
            if end != len(text):
                raise BadData("not JSON: more text after the object", where=Where(shown, number, end + 1))
            yield number, value


def _json(stream: IO[bytes], shown: str) -> Iterator[Record]:
    """One list of objects."""
    text = "".join(_lines(stream, shown))
    position = _past_space(text, 0)
    if position == len(text):
        return
    if text[position] != "[":
        raise BadData(
            "found no list",
            where=Where(shown, text.count("\n", 0, position) + 1),
            expected="a list of objects: [{…}, …]",
        )
    position, counted, line = _past_space(text, position + 1), 0, 1
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        value, end = _decode(text, position, shown, line)
        yield line, value
        position = _past_space(text, end)
        if text[position : position + 1] == ",":
            position = _past_space(text, position + 1)
        elif text[position : position + 1] != "]":
            raise BadData("not JSON: Expecting ',' or ']'", where=Where(shown, text.count("\n", 0, position) + 1))


def _past_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _txt(stream: IO[bytes], shown: str, separator: str | None) -> Iterator[Record]:
    """Records between separators; newlines around a record, and records of white space only, are left out."""
    if separator is None or separator == "\n":
        for number, line in enumerate(_lines(stream, shown), start=1):
            if line.strip():
                yield number, {"text": line.removesuffix("\n")}
        return
    start = 1
    for part in "".join(_lines(stream, shown)).split(separator):
        body = part.lstrip("\n")
        if body.strip():
            yield start + len(part) - len(body), {"text": body.rstrip("\n")}
        start += part.count("\n") + separator.count("\n")


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


def _parquet(path: Path, shown: str) -> Iterator[Record]:
    number = 0
    for batch in _parquet_file(path, shown).iter_batches():
        for values in batch.to_pylist():
            number += 1
            yield number, values


class _NotJsonError(Exception):
    pass


def _constant(name: str) -> object:
    raise _NotJsonError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_constant)
_JSON_NAMES: dict[type, str] = {
    list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false", type(None): "null",
}  # fmt: skip

FORMATS: dict[str, Callable[[IO[bytes], str], Iterator[Record]]] = {
    "tsv": _tsv,
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "txt": lambda stream, shown: _txt(stream, shown, None),
    "parquet": lambda _stream, _shown: iter(()),
}
"""Readers by extension; parquet is read from its path and txt with its separator, by `records`."""
