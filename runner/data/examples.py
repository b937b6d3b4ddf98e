"""One data set, or a split of it, as training and probes take it: examples redrawn per epoch, pairs, cases."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runner import spec
from runner.asking import ascii_id
from runner.data.layers import Item, Layer, Shape, Writer
from runner.errors import BadData
from runner.templates import compile_template

MAX_DRAWS = 1000
"""Draws of `other` for one rejected text; where so many give only texts that are right, none will do."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text to train on; a document has the prompt ""."""

    prompt: str
    completion: str
    row: int
    """Index of the row in its source."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: after `prompt`, `chosen` rather than `rejected`."""

    prompt: str
    chosen: str
    rejected: str
    row: int


class Dataset:
    """A data set, or one split of it."""

    def __init__(self, layer: Layer, split: str | None) -> None:
        self._layer, self._split = layer, split
        self.name = layer.name if split is None else f"{layer.name}.{split}"

    @property
    def shape(self) -> Shape:
        """What its rows are written as."""
        return self._layer.shape

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Its rows, in the order of the source.

        Raises:
            BadData: it has none, or they cannot be read.
        """
        items = self._layer.items if self._split is None else self._layer.side(self._split)
        if not items:
            raise BadData(f"data.{self.name} has no rows", hint="the share of a split is of the distinct keys, rounded")
        return items

    def __len__(self) -> int:
        return len(self.items)

    @property
    def redrawn(self) -> bool:
        """Whether its texts differ from epoch to epoch."""
        return self._pick is not None

    @property
    def joined(self) -> bool:
        """Whether its documents are made of several texts."""
        return self._pick is not None and self._pick.n > 1

    def examples(self, epoch: int) -> list[Example]:
        """One example per row, as drawn for `epoch` (from 0); unshuffled."""
        return [self.example(position, epoch) for position in range(len(self.items))]

    def example(self, position: int, epoch: int) -> Example:
        """The example of the row at `position`."""
        variants = self.variants(position)
        drawn = self.drawn(position, epoch)
        if len(drawn) == 1:
            return variants[drawn[0]]
        return Example("", "\n".join(variants[index].completion for index in drawn), self.items[position].index)

    def drawn(self, position: int, epoch: int) -> tuple[int, ...]:
        """Which of `variants` a row is written as in an epoch, from (seed, data set, row, epoch)."""
        pick = self._pick
        if pick is None:
            return (0,)
        row = self.items[position].index
        generator = random.Random(f"{self._layer.seed}:{self._layer.name}:{row}:{epoch}")
        return tuple(generator.sample(range(len(pick.of)), pick.n))

    def variants(self, position: int) -> tuple[Example, ...]:
        """Every way a row can be written: one, or one for each template of a pick."""
        found = self._variants.get(position)
        if found is None:
            found = self._variants[position] = tuple(self._write(self.items[position]))
        return found

    def pairs(self) -> list[Pair]:
        """The pairs of all rows: one per rejected template, or one from the columns.

        A rejected text is the completion of no row; of a template that takes fields of `other` alone, it is only no
        completion of a row with the same prompt.

        Raises:
            BadData: a row has no such text.
        """
        if self.shape != "pairs":
            raise BadData(f"data.{self.name} has no pairs", hint="give rejected: with prompt: and completion:")
        return [pair for position in range(len(self.items)) for pair in self._pairs_of(position)]

    def texts(self) -> Iterator[str]:
        """Every text that can occur, all templates of a pick included; for a tokenizer's vocabulary."""
        for position in range(len(self.items)):
            for example in self.variants(position):
                yield from (text for text in (example.prompt, example.completion) if text)
        if self.joined:
            yield "\n"
        if self.shape == "pairs":
            yield from (text for pair in self.pairs() for text in (pair.chosen, pair.rejected))

    def cases(self) -> list[dict[str, Any]]:
        """One case per row: its id, columns, and `prompt` and `completion` where they are written (as in epoch 0).

        The id is the column `id`, else the key of the split, else a digest of the columns; of rows with equal ids the
        second gets `-2` at its end, and so on.
        """
        cases, ids = [], set()
        for position, item in enumerate(self.items):
            values = dict(self._layer.written(item))
            if self.shape == "prompt":
                example = self.example(position, 0)
                values |= {"prompt": example.prompt, "completion": example.completion}
            name = first = self._id(item)
            count = 1
            while name in ids:
                count += 1
                name = f"{first}-{count}"
            ids.add(name)
            given = values.get("id")
            # an id column stays as it is, for templates; written in ASCII it is the case's id all the same
            cases.append({**values, "id": given if given is not None and ascii_id(str(given)) == name else name})
        return cases

    def ids(self) -> Iterator[str]:
        """What each row is about: its id as in `cases`, which rows about the same thing share."""
        return (self._id(item) for item in self.items)

    def columns(self, position: int) -> Mapping[str, Any]:
        """The columns of the row at `position`, and the fields that templates wrote."""
        return self._layer.written(self.items[position])

    def digest(self) -> str:
        """sha256 of all its texts depend on: files, blocks of the recipe, seed. Reads files, but no rows."""
        return self._layer.digest(self._split)

    @cached_property
    def _variants(self) -> dict[int, tuple[Example, ...]]:
        return {}

    @cached_property
    def _pick(self) -> spec.Pick | None:
        found = self._layer.pick
        return found[1] if found is not None else None

    @cached_property
    def _pick_writers(self) -> list[tuple[Writer | None, Writer]]:
        """(prompt, completion) of each template of the pick; (None, text) for documents."""
        found = self._layer.pick
        assert found is not None
        label = f"data.{found[0].name}.pick.of"
        return [
            (None, Writer(way.text, f"{label}[{index}].text"))
            if way.text is not None
            else (
                Writer(way.prompt or "", f"{label}[{index}].prompt"),
                Writer(way.completion or "", f"{label}[{index}]"),
            )
            for index, way in enumerate(found[1].of)
        ]

    def _write(self, item: Item) -> Iterator[Example]:
        found = self._layer.pick
        if found is not None:
            values = found[0].given(item)
            for prompt, completion in self._pick_writers:
                given = "" if prompt is None else prompt.write(values, item.where)
                yield Example(given, completion.write(values, item.where), item.index)
            return
        values = self._layer.written(item)
        if self.shape == "rows":
            raise BadData(
                f"data.{self.name} has rows, but no text",
                expected="text:, or prompt: and completion:, or columns of these names",
            )
        if self.shape == "text":
            yield Example("", _text(values, "text", self.name, item), item.index)
            return
        prompt_text = _text(values, "prompt", self.name, item) if "prompt" in self._layer.names else ""
        said = "completion" if "completion" in self._layer.names else "chosen"
        yield Example(prompt_text, _text(values, said, self.name, item), item.index)

    def _chosen(self, item: Item) -> str:
        field = "chosen" if "chosen" in self._layer.names else "completion"
        return _text(self._layer.written(item), field, self.name, item)

    @cached_property
    def _true(self) -> frozenset[str]:
        """What is right somewhere."""
        found = {self._chosen(item) for item in self.items}
        if "completion" in self._layer.names:
            found |= {_text(self._layer.written(item), "completion", self.name, item) for item in self.items}
        return frozenset(found)

    @cached_property
    def _rejected_writers(self) -> list[Writer]:
        templates = self._layer.rejected or ()
        return [Writer(source, f"data.{self._layer.name}.rejected[{index}]") for index, source in enumerate(templates)]

    def _pairs_of(self, position: int) -> Iterator[Pair]:
        item = self.items[position]
        prompt = self.variants(position)[0].prompt
        chosen = self._chosen(item)
        if not self._rejected_writers:
            rejected = _text(self._layer.written(item), "rejected", self.name, item)
            if rejected == chosen:
                raise BadData(f"data.{self.name}: chosen and rejected are the same text", where=item.where)
            yield Pair(prompt, chosen, rejected, item.index)
        for number, writer in enumerate(self._rejected_writers):
            yield Pair(prompt, chosen, self._reject(position, number, writer), item.index)

    def _reject(self, position: int, number: int, writer: Writer) -> str:
        item = self.items[position]
        values = self._layer.written(item)
        if not writer.draws_other:
            text = writer.write(values, item.where)
            if text in self._true:
                label = f"data.{self.name}.rejected[{number}]"
                raise BadData(f"{label}: {text!r} is the completion of a row, so it is right", where=item.where)
            return text
        generator = random.Random(f"{self._layer.seed}:{self._layer.name}:{item.index}:rejected:{number}")
        right = self._right_for[self.variants(position)[0].prompt] if self._of_other_only(writer) else self._true
        for _ in range(MAX_DRAWS if len(self.items) > 1 else 0):
            other = generator.randrange(len(self.items) - 1)
            other += other >= position  # never the row itself
            text = writer.write(values, item.where, self._layer.written(self.items[other]))
            if text not in right:
                return text
        what = "wrong for this prompt" if right is not self._true else "not also the completion of a row"
        raise BadData(
            f"data.{self.name}.rejected[{number}]: no other row gives a text that is {what}",
            where=item.where,
            hint="a rejected text that is right teaches nothing; use another template or more rows",
        )

    def _of_other_only(self, writer: Writer) -> bool:
        """Whether a template says nothing of the row itself, as `{{ other.capital }}`.

        What it gives is right elsewhere, always or by chance, and there it answers another prompt: it is enough that it
        is wrong for this one. A text that also names its own row states a fact, which must be right nowhere.
        """
        return writer.draws_other and not compile_template(writer.source).names & self._layer.names - {"other"}

    @cached_property
    def _right_for(self) -> Mapping[str, set[str]]:
        """The completions of each prompt."""
        found: dict[str, set[str]] = {}
        for position, item in enumerate(self.items):
            found.setdefault(self.variants(position)[0].prompt, set()).add(self._chosen(item))
        return found

    def _id(self, item: Item) -> str:
        values = self._layer.written(item)
        given = values.get("id")
        if given is None and (divider := self._layer.divided_by) is not None:
            given = divider.key(item)
        if given is None or str(given) == "":
            text = json.dumps(item.values, sort_keys=True, ensure_ascii=False, default=str)
            return hashlib.sha256(text.encode()).hexdigest()[:12]
        return ascii_id(str(given))


def _text(values: Mapping[str, Any], field: str, name: str, item: Item) -> str:
    value = values.get(field)
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    found = "nothing" if value is None else f"a {type(value).__name__}"
    raise BadData(f"data.{name}: {field} is {found} in this row", where=item.where, expected="text")
