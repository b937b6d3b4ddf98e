"""A data set as the recipe declares it: its rows, the values its templates see, and which split a row belongs to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from runner import spec
from runner.data import sources
from runner.errors import BadData, Where
from runner.templates import Template, TemplateProblem, compile_template

Shape = Literal["text", "prompt", "pairs", "rows"]
"""What the rows of a data set are written as: a document; a prompt with its completion; a prompt with a chosen and a
rejected completion; or nothing yet."""

FIELDS = ("text", "prompt", "completion", "chosen")
"""Templates of a data set that give one text per row; each is also a name that data sets made from it can use."""

DIGEST_VERSION = 1
"""Counts up when the same recipe and files would give other texts, splits or draws than before."""

_BARE = re.compile(r"\{\{-?\s*(?:other\.)?(\w+)\s*-?\}\}")


@dataclass(frozen=True, slots=True)
class Item:
    """A row of a data set."""

    index: int
    """Of the row in its source, from 0: the same in every data set made from it, so that draws do not move."""
    values: Mapping[str, Any]
    where: Where


class Writer:
    """One template of a data set."""

    def __init__(self, source: str, label: str) -> None:
        self.source, self._label = source, label
        try:
            self._template: Template = compile_template(source)
        except TemplateProblem as problem:
            raise BadData(f"{label}: {problem}") from problem
        self.draws_other = "other" in self._template.names
        self._bare = [(match[0], match[1], "other." in match[0]) for match in _BARE.finditer(source)]

    def write(self, values: Mapping[str, Any], where: Where, other: Mapping[str, Any] | None = None) -> str:
        """The text for a row.

        Raises:
            BadData: the template cannot be rendered for this row, or would print an empty value, a list or an object.
        """
        for expression, name, of_other in self._bare:
            seen = other if of_other else values
            value = seen.get(name, "") if seen is not None else ""
            if value is None or isinstance(value, (list, dict)):
                found = "nothing (null)" if value is None else f"a {type(value).__name__}"
                raise BadData(f"{self._label}: {expression} is {found} in this row", where=where, expected="text")
        if other is not None:
            # a namespace, because a column may be named like a method of dict
            values = {**values, "other": SimpleNamespace(**other)}
        try:
            return self._template.render(values)
        except TemplateProblem as problem:
            raise BadData(f"{self._label}: {problem}", where=where) from problem


class Layer:
    """One entry of `data:`, over the file or the data set it is made from."""

    def __init__(
        self, name: str, block: spec.Data, parent: Layer | None, parent_split: str | None, *, root: Path, seed: int
    ) -> None:
        self.name, self.block, self.parent, self.seed = name, block, parent, seed
        self._parent_split, self._root = parent_split, root
        self._writers = {
            field: Writer(getattr(block, field), f"data.{name}.{field}")
            for field in FIELDS
            if getattr(block, field) is not None
        }
        self._written: dict[int, Mapping[str, Any]] = {}

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Its rows. Raises BadData as `sources.read`."""
        if self.parent is None:
            table = sources.read(self.block, self.name, self._root)
            return tuple(Item(index, row.values, row.where) for index, row in enumerate(table.rows))
        found = self.parent.items if self._parent_split is None else self.parent.side(self._parent_split)
        return found[: self.block.take]

    @cached_property
    def names(self) -> frozenset[str]:
        """Columns and fields that its rows have."""
        if self.parent is not None:
            return self.parent.names | self._writers.keys()
        return frozenset(sources.head(self.block, self.name, self._root)) | self._writers.keys()

    @property
    def shape(self) -> Shape:
        """How its rows are written."""
        block = self.block
        if block.pick is not None:
            return "text" if block.pick.of[0].text is not None else "prompt"
        if block.text is not None:
            return "text"
        if not self._writers and block.rejected is None and self.parent is not None:
            return self.parent.shape
        if self.rejected is not None or "rejected" in self.names:
            return "pairs"
        if {"prompt", "completion"} <= self.names:
            return "prompt"
        return "text" if "text" in self.names else "rows"

    @property
    def pick(self) -> tuple[Layer, spec.Pick] | None:
        """The pick that writes its rows, and the data set that declares it."""
        if self.block.pick is not None:
            return self, self.block.pick
        if self.parent is None or self._writers or self.block.rejected is not None:
            return None
        return self.parent.pick

    @property
    def rejected(self) -> tuple[str, ...] | None:
        """The templates of its rejected completions, its own or inherited."""
        return self.block.rejected or (self.parent.rejected if self.parent is not None else None)

    def written(self, item: Item) -> Mapping[str, Any]:
        """The row's columns, and every field written by this data set and those it is made from."""
        found = self._written.get(item.index)
        if found is None:
            found = self.given(item)
            if self._writers:
                found = {**found, **{name: writer.write(found, item.where) for name, writer in self._writers.items()}}
            self._written[item.index] = found
        return found

    def given(self, item: Item) -> Mapping[str, Any]:
        """What its own templates see of a row."""
        return item.values if self.parent is None else self.parent.written(item)

    @property
    def divided_by(self) -> Layer | None:
        """The data set whose `split` divides its rows: itself, or the nearest it is made from."""
        if self.block.split is not None:
            return self
        return self.parent.divided_by if self.parent is not None else None

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of its splits, in the order written."""
        divider = self.divided_by
        return tuple(divider.block.split.shares) if divider is not None and divider.block.split is not None else ()

    def side(self, split: str) -> tuple[Item, ...]:
        """Its rows on one side of its split."""
        divider = self.divided_by
        assert divider is not None, f"data.{self.name} has no splits"
        return tuple(item for item in self.items if divider.sides[divider.key(item)] == split)

    def key(self, item: Item) -> str:
        """The value by which a row is divided. Raises BadData where the row has none."""
        assert self.block.split is not None
        by = self.block.split.by
        value = self.written(item).get(by)
        if value is None:
            raise BadData(f"data.{self.name}.split: this row has no {by}", where=item.where)
        return str(value)

    @cached_property
    def sides(self) -> Mapping[str, str]:
        """Key → split. Distinct keys in the order of sha256(seed:key), cut at the rounded cumulative shares."""
        assert self.block.split is not None
        keys = sorted(
            {self.key(item) for item in self.items},
            key=lambda key: hashlib.sha256(f"{self.seed}:{key}".encode()).digest(),
        )
        found: dict[str, str] = {}
        share, start = 0.0, 0
        for split, part in self.block.split.shares.items():
            share += part
            stop = round(share * len(keys))
            found |= dict.fromkeys(keys[start:stop], split)
            start = stop
        return found

    def inputs(self) -> dict[str, Any]:
        """Everything its texts depend on: blocks, digests of files, seed. No row is read."""
        own: dict[str, Any] = {
            "name": self.name,
            "block": self.block.model_dump(mode="json", exclude_none=True),
            "seed": self.seed,
            "version": DIGEST_VERSION,
        }
        if self.parent is not None:
            return {**own, "rows": self.parent.inputs()}
        files = sources.digests(sources.find(self.block, self.name, self._root), self._root)
        return {**own, "files": [[file.path, file.sha256] for file in files]}

    def digest(self, split: str | None) -> str:
        """sha256 of `inputs` and the split."""
        text = json.dumps([self.inputs(), split], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
