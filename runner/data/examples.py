"""One data set, or a split of it, as training and probes take it: examples redrawn per epoch, pairs, cases."""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from runner import spec, underway
from runner.asking import ascii_id
from runner.data.filters import first_of_each, mark
from runner.data.layers import Item, Items, Layer, Shape
from runner.data.pairs import Pair, Preferences, Samples
from runner.data.rejecting import preferences_of
from runner.data.texts import BadExample, Example, Message
from runner.errors import BadData, Problem, Where

__all__ = ["Dataset", "Example", "Message", "Pair"]

_LONGEST_ID = 80
"""Characters of an id that is the key of a split: it stands in test ids, and a longer key is no name."""


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
    def items(self) -> Items:
        """Its rows, in the order of the source.

        Raises:
            BadData: it has none, or they cannot be read.
        """
        items = self._layer.items if self._split is None else self._layer.side(self._split)
        if not items:
            if reasons := ", ".join(f"{rows:,} {why}" for why, rows in self._layer.kept.left_out.items()):
                left = f"data.{self.name} has no rows: {reasons} were left out"
                bad = self._layer.kept.first_bad[:1]
                first = [Problem(f"the first of them: {one.reason}", one.where) for one in bad]
                raise BadData([Problem(left, hint="see its `filter` and `on_bad_row`"), *first])
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

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Errors about one of its texts, with its name and the file and line of the row."""
        try:
            yield
        except BadExample as error:
            raise error.at(self.name, self.where(error.row)) from error

    def where(self, row: int) -> Where:
        """The file and line of the row with this index in its source."""
        return self.items[bisect_left(self.items, row, key=lambda item: item.index)].where

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
        return self._layer.variants(self.items[position])

    def pairs(self) -> list[Pair]:
        """The pairs of all rows, without those that a checkpoint has yet to say; see `preferences`."""
        return list(self.preferences().pairs)

    def preferences(self, samples: Samples | None = None) -> Preferences:
        """The pairs of all rows, and what was left out on the way.

        Args:
            samples: what checkpoints said, for `{sample: …}`.

        Raises:
            BadData: its rows hold no pairs, or not one is left.
        """
        if self.shape != "pairs":
            raise BadData(f"data.{self.name} has no pairs", hint="give rejected: with prompt: and completion:")
        if samples:
            return preferences_of(self, self._layer, samples)
        return self._preferences

    @property
    def rejected(self) -> tuple[spec.Negative, ...]:
        """How its negatives are made; nothing where a column has them."""
        return self._layer.rejected or ()

    def texts(self) -> Iterator[str]:
        """Every text that can occur, all templates of a pick included; for a tokenizer's vocabulary."""
        for position in underway.each(range(len(self.items)), f"reading the texts of {self.name}"):
            for example in self.variants(position):
                yield from (text for text in example.texts if text)
        if self.joined:
            yield "\n"
        if self.shape == "pairs":
            yield from (text for pair in self.pairs() for text in (pair.chosen, pair.rejected))

    def cases(self) -> list[dict[str, Any]]:
        """One case per row: its id, columns, and `prompt` and `completion` where they are written (as in epoch 0); of a
        conversation, `messages` before its last answer.

        The id is the column `id`, else the key of the split, else a digest of the columns; of rows with equal ids the
        second gets `-2` at its end, and so on.
        """
        return list(self.each_case())

    def each_case(self) -> Iterator[dict[str, Any]]:
        """The same, one after the other."""
        ids: set[str] = set()
        for position, item in enumerate(underway.each(self.items, f"writing the cases of {self.name}")):
            values = dict(self._layer.written(item))
            if self.shape in ("prompt", "messages"):
                values |= _asked(self.example(position, 0), values)
            name = first = self._id(item)
            count = 1
            while name in ids:
                count += 1
                name = f"{first}-{count}"
            ids.add(name)
            given = values.get("id")
            # an id column stays as it is, for templates; written in ASCII it is the case's id all the same
            yield {**values, "id": given if given is not None and ascii_id(str(given)) == name else name}

    def ids(self) -> Iterator[str]:
        """What each row is about: its id as in `cases`, which rows about the same thing share."""
        return (self._id(item) for item in self.items)

    @cached_property
    def repeats(self) -> int:
        """Rows that are written like an earlier one; where nothing is written, rows with the same columns."""
        marks = array("Q")
        for position, item in enumerate(underway.each(self.items, f"looking for duplicates in {self.name}")):
            marks.append(mark(self.variants(position) if self.shape != "rows" else (_columns_of(item),)))
        return len(marks) - len(first_of_each(marks))

    def columns(self, position: int) -> Mapping[str, Any]:
        """The columns of the row at `position`, and the fields that templates wrote."""
        return self._layer.written(self.items[position])

    def digest(self) -> str:
        """sha256 of all its texts depend on: files, blocks of the recipe, seed. Reads files, but no rows."""
        return self._layer.digest(self._split)

    @cached_property
    def _pick(self) -> spec.Pick | None:
        found = self._layer.pick
        return found[1] if found is not None else None

    @cached_property
    def _preferences(self) -> Preferences:
        return preferences_of(self, self._layer)

    def _id(self, item: Item) -> str:
        values = self._layer.written(item)
        given = values.get("id")
        if given is None and (divider := self._layer.divided_by) is not None:
            key = divider.key(item)
            given = key if len(ascii_id(str(key))) <= _LONGEST_ID else None
        if given is None or str(given) == "":
            text = json.dumps(item.values, sort_keys=True, ensure_ascii=False, default=str)
            return hashlib.sha256(text.encode()).hexdigest()[:12]
        return ascii_id(str(given))


def _columns_of(item: Item) -> Example:
    return Example("", json.dumps(item.values, sort_keys=True, ensure_ascii=False, default=str), item.index)


def _asked(example: Example, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a case that say what is asked, and the right answer."""
    if not example.messages:
        return {"prompt": example.prompt, "completion": example.completion}
    answered = example.messages[-1].role == "assistant"
    said = example.messages[:-1] if answered else example.messages
    found: dict[str, Any] = {"messages": [{"role": turn.role, "content": turn.content} for turn in said]}
    if answered:
        found["completion"] = example.messages[-1].content
    if "prompt" not in values and said and said[-1].role == "user":
        found["prompt"] = said[-1].content
    return found
