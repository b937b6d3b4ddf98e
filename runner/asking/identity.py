"""Identity of what is asked: the ids of cases, and the digest of everything that decides what a suite asks."""

from __future__ import annotations

import ast
import glob
import hashlib
import json
import re
from collections.abc import Mapping
from numbers import Number
from pathlib import Path
from typing import Any

from runner.errors import BadProbe

FORMAT_VERSION = 1
"""Part of every suite key: raised when the same probe and cases would be asked differently than before."""

_PLAIN_ID = re.compile(r"[A-Za-z0-9_.+-]+")
_DATA_SUFFIXES = (".csv", ".gz", ".json", ".jsonl", ".parquet", ".tsv", ".txt", ".xz")


def ascii_id(text: str) -> str:
    """`text` where it is made of ASCII letters, digits and `_.+-`; else every character as `U+6B46`, joined by `_`."""
    return text if _PLAIN_ID.fullmatch(text) else "_".join(f"U+{ord(char):04X}" for char in text)


def case_id(row: Mapping[str, Any]) -> str:
    """The row's `id` in ASCII; where it has none (None, NaN and empty text are none), the first 12 hex digits of a
    sha256 over its fields.

    Raises:
        BadProbe: the `id` is neither text nor a number.
    """
    given = row.get("id")
    if not isinstance(given, (str, Number)) and given is not None:
        raise BadProbe(f"the id {given!r} is of type {type(given).__name__}", expected="text or a number")
    if given not in (None, "") and given == given:  # NaN, an empty place in a table of numbers, equals nothing
        return ascii_id(str(given))
    canonical = json.dumps(dict(row), ensure_ascii=True, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def suite_key(
    file: Path, function: str | None = None, cases: Path | None = None, decoding: Mapping[str, Any] | None = None
) -> str:
    """A digest of everything that decides what a suite asks and asserts, without importing the probe file.

    It covers the probe file, the `conftest.py` beside it, the files that a string in it names (from its folder) or that
    lie below `data/` beside it and are mentioned by name, the case file of the recipe, its changes of decoding, and the
    version of the way probes are asked.

    Args:
        file: the probe file.
        function: the one probe of it that is asked, if not all.
        cases: the case file that the run wrote, for a suite with `cases:`.
        decoding: the `decoding:` of the suite in the recipe.

    Raises:
        OSError: one of the files cannot be read.
    """
    source = file.read_bytes()
    beside = [path for path in [file.parent / "conftest.py"] if path.is_file()]
    data = (path for path in sorted((file.parent / "data").rglob("*")) if path.is_file())
    beside += [path for path in data if path.name.encode() in source]
    beside += [path for path in _named_files(source, file.parent) if path not in beside]
    digest = hashlib.sha256(f"{FORMAT_VERSION}:{file.name}::{function or ''}".encode())
    for content in (source, *(path.read_bytes() for path in beside), cases.read_bytes() if cases else b""):
        digest.update(hashlib.sha256(content).digest())
    if decoding:
        digest.update(json.dumps(decoding, sort_keys=True).encode())
    return digest.hexdigest()


def _named_files(source: bytes, folder: Path) -> list[Path]:
    """The files that strings of a probe file name: `cases="../data/x.csv"` for one, `cases="data/*.csv"` for many."""
    try:
        strings = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    except SyntaxError:
        return []  # asking will say so
    names = {text for text in strings if isinstance(text, str) and 0 < len(text) <= 255 and "\0" not in text}
    plain = [folder / name for name in names if "." in name]
    globs = [name for name in names if glob.has_magic(name) and name.endswith(_DATA_SUFFIXES)]
    matches = [folder / match for name in globs for match in glob.glob(name, root_dir=folder, recursive=True)]  # noqa: PTH207 - takes absolute patterns too
    return sorted({path for path in (*plain, *matches) if path.is_file()})
