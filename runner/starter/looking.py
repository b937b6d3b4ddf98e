"""A look at a file of rows: its columns and what they hold, what the rows are read as, and what is wrong with them."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner import spec
from runner.data import shapes, sources
from runner.data.formats import KINDS, kind_of
from runner.data.sources import BadRow, Row
from runner.errors import BadData, UserError, nearest
from runner.spec.row_formats import FormatName, recognise
from runner.starter.guessing import Guess, guess

LOOKED_AT = 100_000
"""Rows that are read at most: a look takes seconds, whatever the size of the file."""
_SAMPLE_CHARS = 500_000
"""Characters whose scripts are counted."""
_MAY_BE_BAD = 0.1
"""Of a file with a larger share of rows that cannot be read, none is taken."""

Kind = Literal["text", "number", "list", "map", "mixed", "nothing"]


@dataclass(frozen=True)
class Lengths:
    """Of texts, in characters."""

    median: int
    most: int
    """Nineteen of twenty are not longer."""
    longest: int


@dataclass(frozen=True)
class Column:
    """A column, or a field that a format gives to its rows."""

    name: str
    kind: Kind
    filled: float
    """Share of the rows in which it is not empty."""
    distinct: int
    """Different values; empty ones are none."""
    lengths: Lengths
    """Of its values as text."""

    @property
    def is_scalar(self) -> bool:
        """Whether a template can write it, and a split go by it."""
        return self.kind in ("text", "number")


@dataclass(frozen=True)
class Look:
    """What was found."""

    path: str
    """As it was given."""
    rows: int
    """That can be used."""
    more: bool
    """Whether the file has more rows than were looked at."""
    bad: int
    """Rows that cannot be read, or are not of the format."""
    first_bad: tuple[BadRow, ...]
    columns: tuple[Column, ...]
    duplicates: int
    """Rows that are like an earlier one."""
    scripts: Mapping[str, float]
    """Share of the letters, the largest first: `Han`, `Latin`, …"""
    characters: int
    """Different ones: the size of a vocabulary of characters."""
    format: FormatName | None
    """Recognised from the columns; None where they are `prompt` and `completion`, or of no known format."""
    guess: Guess
    """What the columns mean, where no format says it."""
    fields: tuple[Column, ...]
    """What is asked and said, as the format or the guess has it: `text`, or `prompt` and `completion`, or `prompt`,
    `chosen` and `rejected`."""
    converses: bool
    """Whether its rows are, or some of them hold, conversations."""
    turns: tuple[str, str, str] | None
    """Of conversations that are preferred: templates of the last question, the chosen answer and the rejected one."""
    several_rejected: bool
    """Whether a row has a list of rejected texts."""
    empty: int
    """Rows in which a text is empty."""

    def field(self, name: str) -> Column | None:
        """One of `fields`."""
        return next((field for field in self.fields if field.name == name), None)


def look(file: str) -> Look:
    """Read the rows of a file (at most LOOKED_AT of them), and say what they are.

    Raises:
        UserError: there is no such file, its rows cannot be read, or they hold no texts.
    """
    _check_there(Path(file))
    block = spec.Data(path=file, take=LOOKED_AT + 1, on_bad_row="skip")
    table = sources.read(block, "rows", Path.cwd())
    _check_bad(file, len(table.rows), table.bad, table.first_bad)
    rows = [table.rows[at] for at in range(min(len(table.rows), LOOKED_AT))]
    columns = tuple(_column(name, [row.values.get(name) for row in rows]) for name in table.columns)
    known = recognise(table.columns)
    meant = guess(columns, known)
    if meant.fields:
        known = recognise((*table.columns, *meant.fields))
    if known is None and not {"prompt", "completion"} <= {*table.columns, *meant.fields}:
        _no_texts(file, columns)
    read, unfit = _read_as(known, meant, rows)
    _check_bad(file, len(read), table.bad + len(unfit), (*table.first_bad, *unfit))
    texts = [text for fields in read for text in fields.values() if isinstance(text, str)]
    if not any(text.strip() for text in texts):
        _no_texts(file, columns)
    wanted = _FIELDS[known]
    seen = Counter(json.dumps(row.values, sort_keys=True, default=str) for row in rows)
    return Look(
        path=file,
        rows=len(read),
        more=len(table.rows) > LOOKED_AT,
        bad=table.bad + len(unfit),
        first_bad=(*table.first_bad, *unfit)[: sources.SHOWN_BAD],
        columns=columns,
        duplicates=len(rows) - len(seen),
        scripts=_scripts(texts),
        characters=len(set().union(*texts)),
        format=known,
        guess=meant,
        fields=tuple(_column(name, [fields.get(name) for fields in read]) for name in wanted),
        converses=any(isinstance(fields.get("messages"), tuple) for fields in read),
        turns=_last_turns(rows[0].values) if known == "preference" else None,
        several_rejected=any(isinstance(fields.get("rejected"), list) for fields in read),
        empty=sum(any(_is_empty(fields.get(name)) for name in wanted if name != "prompt") for fields in read),
    )


_FIELDS: Mapping[FormatName | None, tuple[str, ...]] = {
    "text": ("text",),
    "preference": ("prompt", "chosen", "rejected"),
    **dict.fromkeys(("alpaca", "sharegpt", "messages", None), ("prompt", "completion")),
}


def _check_there(path: Path) -> None:
    if path.is_file() and kind_of(path) is None:
        known = ", ".join(f".{kind}" for kind in KINDS)
        raise UserError(f"{path} is of no known format", expected=f"one of {known}; plain, .gz or .xz")
    if path.exists():
        return
    there = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    close = nearest(path.name, there)
    hint = f"did you mean {path.with_name(close)}?" if close else None
    raise UserError(f"{path}: no such file", expected="a file of rows", hint=hint)


def _check_bad(file: str, good: int, bad: int, first: Sequence[BadRow]) -> None:
    if good and bad <= _MAY_BE_BAD * (good + bad):
        return
    if bad:
        told = [BadData(one.reason, where=one.where).problems[0] for one in first[: sources.SHOWN_BAD]]
        raise BadData([*BadData(f"{file}: {bad:,} of {good + bad:,} rows cannot be read; the first of them:").problems,
                       *told])  # fmt: skip


def _no_texts(file: str, columns: Sequence[Column]) -> None:
    found = ", ".join(f"{column.name} ({column.kind})" for column in columns)
    raise BadData(
        f"{file} has no column of texts that could be learned: {found}",
        expected="a column of texts, or two, such as question and answer; or alpaca, sharegpt, messages, preference",
    )


def _read_as(known: FormatName | None, meant: Guess, rows: Iterable[Row]) -> tuple[list[dict[str, Any]], list[BadRow]]:
    """What is asked and said in each row, and the rows that are not of the format."""
    read, unfit = [], []
    for row in rows:
        values = {**row.values, **{field: row.values.get(column) for field, column in meant.fields.items()}}
        if known is None:
            read.append(values)
            continue
        try:
            fields = {**values, **shapes.fields(known, values, chat=False)}
        except shapes.Unfit as wrong:
            unfit.append(BadRow(row.where, f"{wrong}; expected {wrong.expected} (format: {known})"))
            continue
        if known == "preference" and fields.get("messages"):
            fields["prompt"] = fields["messages"][-1].content
        read.append(fields)
    return read, unfit


def _last_turns(values: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Templates of the last turns, as the first row has them; None where it holds texts."""
    chosen, prompt = values.get("chosen"), values.get("prompt")
    if not isinstance(chosen, list) or not chosen or not isinstance(chosen[-1], Mapping):
        return None
    said = "content" if "content" in chosen[-1] else "value"
    asked = f"{{{{ chosen[-2].{said} }}}}"
    if len(chosen) < 2:
        asked = "{{ prompt }}" if isinstance(prompt, str) else f"{{{{ prompt[-1].{said} }}}}"
    return asked, f"{{{{ chosen[-1].{said} }}}}", f"{{{{ rejected[-1].{said} }}}}"


def _column(name: str, values: Sequence[Any]) -> Column:
    there = [value for value in values if not _is_empty(value)]
    kinds = {_kind(value) for value in there}
    texts = [value if isinstance(value, str) else json.dumps(value, default=str) for value in there]
    sizes = sorted(map(len, texts)) or [0]
    kind = kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "nothing"
    lengths = Lengths(sizes[len(sizes) // 2], sizes[min(len(sizes) - 1, len(sizes) * 19 // 20)], sizes[-1])
    return Column(name, kind, len(there) / len(values), len(set(texts)), lengths)


def _kind(value: object) -> Kind:
    if isinstance(value, str):
        return "text"
    if isinstance(value, (int, float)):
        return "mixed" if isinstance(value, bool) else "number"
    if isinstance(value, Mapping):
        return "map"
    return "list" if isinstance(value, (list, tuple)) else "mixed"


def _is_empty(value: object) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip()) or value in ([], {})


def _scripts(texts: Iterable[str]) -> dict[str, float]:
    """Of the letters of the first _SAMPLE_CHARS characters."""
    found: Counter[str] = Counter()
    looked = 0
    for text in texts:
        found.update(_script(char) for char in text if char.isalpha())
        looked += len(text)
        if looked >= _SAMPLE_CHARS:
            break
    return {script: count / found.total() for script, count in found.most_common()}


def _script(char: str) -> str:
    if char.isascii():
        return "Latin"
    name = unicodedata.name(char, "").partition(" ")[0]
    return {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}.get(name, name.capitalize() or "other")


def below(path: str, root: Path) -> str:
    """A path as a recipe names it: from the project's root where it lies below it, else absolute."""
    whole = Path(path).resolve()
    return os.path.relpath(whole, root) if whole.is_relative_to(root) else str(whole)
