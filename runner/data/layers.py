"""A data set as the recipe declares it: its rows, the values its templates see, and which split a row belongs to."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

from runner import spec, underway
from runner.data import filters, negative_files, shapes, sides, sources
from runner.data.chat import ChatTemplate
from runner.data.conversations import Writing
from runner.data.recent import Recent
from runner.data.texts import Example, Message
from runner.data.ways import Ways
from runner.data.writers import Writer
from runner.errors import BadData, Where
from runner.spec.row_formats import ROW_FORMATS, FormatName, missing, recognise

Shape = Literal["text", "prompt", "messages", "pairs", "rows"]
"""What the rows of a data set are written as: a document; a prompt with its completion; a conversation; a prompt (or a
conversation) with a chosen and a rejected completion; or nothing yet."""

FIELDS = ("text", "prompt", "completion", "chosen", "system")
"""Templates of a data set that give one text per row; each is also a name that data sets made from it can use."""

DIGEST_VERSION = 3
"""Counts up when the same recipe and files would give other texts, splits or draws than before."""

_SHAPES: Mapping[FormatName, Shape] = {
    "alpaca": "prompt", "sharegpt": "messages", "messages": "messages", "preference": "pairs", "text": "text",
}  # fmt: skip

Item = sources.Row
"""A row of a data set. Its index is that of the row in its source, the same in every data set made from it, so that
draws do not move."""


class Items(Sequence[Item]):
    """Some rows of a source, read when they are asked for."""

    def __init__(self, rows: Sequence[Item], chosen: Sequence[int]) -> None:
        self._rows, self.chosen = rows, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, position: int) -> Item: ...
    @overload
    def __getitem__(self, position: slice) -> Items: ...
    def __getitem__(self, position: int | slice) -> Item | Items:
        if isinstance(position, slice):
            return Items(self._rows, self.chosen[position])
        return self._rows[self.chosen[position]]

    def __iter__(self) -> Iterator[Item]:
        return (self._rows[position] for position in self.chosen)


class Layer:
    """One entry of `data:`, over the file or the data set it is made from."""

    def __init__(
        self,
        name: str,
        block: spec.Data,
        parent: Layer | None,
        parent_split: str | None,
        *,
        root: Path,
        seed: int,
        chat: Callable[[], ChatTemplate | None] = lambda: None,
        writing: Callable[[], Writing | None] = lambda: None,
    ) -> None:
        """Nothing is read yet.

        Args:
            chat: the chat template, where one is set.
            writing: how it writes conversations, as far as that is known without a tokenizer.
        """
        self.name, self.block, self.parent, self.seed, self.root = name, block, parent, seed, root
        self._parent_split, self._chat, self.writing = parent_split, chat, writing
        self._writers = {
            field: Writer(getattr(block, field), f"data.{name}.{field}")
            for field in FIELDS
            if getattr(block, field) is not None
        }
        self._turns = [
            (turn.role, Writer(turn.content, f"data.{name}.messages[{number}].content"))
            for number, turn in enumerate(block.messages or ())
        ]
        self._written: Recent[Mapping[str, Any]] = Recent()
        self._variants: Recent[tuple[Example, ...]] = Recent()
        self._ways = Ways(self)
        self._side_rows: dict[str, Items] = {}
        self._writes = block.writes

    # --- rows ---

    @cached_property
    def table(self) -> sources.Table:
        """All rows of the files that it is made from, in the end. Raises BadData as `sources.read`."""
        return sources.read(self.block, self.name, self.root) if self.parent is None else self.parent.table

    @property
    def rows(self) -> Sequence[Item]:
        """The same: positions of `Items.chosen` are places among them."""
        return self.table.rows

    @cached_property
    def kept(self) -> filters.Kept:
        """Its rows, and those left out."""
        if self.parent is None:
            return filters.keep(self, range(len(self.rows)))
        found = self.parent.items if self._parent_split is None else self.parent.side(self._parent_split)
        return filters.keep(self, found.chosen[: self.block.take])

    @cached_property
    def items(self) -> Items:
        """Its rows. Raises BadData as `sources.read` and `filters.keep`."""
        return Items(self.rows, self.kept.chosen)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of its files, and the fields that `columns:` names."""
        return sources.head(self.block, self.name, self.root) if self.parent is None else self.parent.columns

    @cached_property
    def names(self) -> frozenset[str]:
        """Columns and fields that its rows have."""
        below = self.parent.names if self.parent is not None else frozenset(self.columns)
        own = set(self._writers) | (set(ROW_FORMATS[self.format].writes) if self.format is not None else set())
        if self._turns:
            own |= {"messages", "prompt", "completion"}
        return below | own

    @cached_property
    def format(self) -> FormatName | None:
        """The named format that its own files are read as: declared, or recognised where no template says what the
        columns mean.

        Raises:
            BadData: the declared one needs columns that are not there.
        """
        block = self.block
        if block.path is None:
            return None
        if block.format is None:
            return None if block.writes else recognise(self.columns)
        if lacks := missing(block.format, self.columns):
            first = sources.find(block, self.name, self.root)[0].shown
            raise BadData(
                f"data.{self.name}: format: {block.format} needs {' and '.join(lacks)}",
                where=Where(first, 1),
                expected=f"found {', '.join(self.columns)}",
                hint=f"these columns are those of format: {close}" if (close := recognise(self.columns)) else None,
            )
        return block.format

    # --- how they are written ---

    @cached_property
    def shape(self) -> Shape:
        """How its rows are written."""
        block = self.block
        if block.pick is not None:
            return "text" if block.pick.of[0].text is not None else "prompt"
        if block.text is not None:
            return "text"
        if not block.writes and block.chosen is None and block.rejected is None and self.parent is not None:
            return self.parent.shape
        if self.rejected is not None:
            return "pairs"
        if block.messages is not None:
            return "messages"
        if self.format is not None:
            return _SHAPES[self.format]
        if "rejected" in self.names:
            return "pairs"
        if {"prompt", "completion"} <= self.names:
            return "prompt"
        return "text" if "text" in self.names else "rows"

    @cached_property
    def pick(self) -> tuple[Layer, spec.Pick] | None:
        """The pick that writes its rows, and the data set that declares it."""
        if self.block.pick is not None:
            return self, self.block.pick
        if self.parent is None or self.block.writes or self.block.chosen or self.block.rejected is not None:
            return None
        return self.parent.pick

    @cached_property
    def joins(self) -> int:
        """How many ways to write a row are joined into one document."""
        return self.pick[1].n if self.pick is not None else 1

    @cached_property
    def rejected(self) -> tuple[spec.Negative, ...] | None:
        """How its rejected completions are made, as it says itself or those it is made from."""
        return self.block.rejected or (self.parent.rejected if self.parent is not None else None)

    @cached_property
    def has_system(self) -> bool:
        """Whether a template writes the system's message, its own or inherited."""
        return self.block.system is not None or (self.parent is not None and self.parent.has_system)

    def written(self, item: Item) -> Mapping[str, Any]:
        """The row's columns, and every field written by this data set and those it is made from.

        Raises:
            BadData: a template cannot be rendered for it, or it is not of the format.
        """
        if not self._writers and not self._turns:
            return self.given(item)
        found = self._written.get(item.index)
        if found is None:
            found = self.given(item)
            added: dict[str, Any] = {name: writer.text(found, item) for name, writer in self._writers.items()}
            if self._turns:
                said = tuple(Message(role, writer.text(found, item)) for role, writer in self._turns)
                added |= {"messages": said, **shapes.last_round(said)}
            elif self._writes and isinstance(found.get("messages"), tuple):
                # what the rows below were as a conversation, they are no longer
                found = {name: value for name, value in found.items() if name != "messages"}
            found = {**found, **added}
            self._written.put(item.index, found, item.size)
        return found

    def given(self, item: Item) -> Mapping[str, Any]:
        """What its own templates see of a row."""
        if self.parent is not None:
            return self.parent.written(item)
        if self.format is None:
            return item.values
        try:
            chat = self.format == "alpaca" and self._chat() is not None
            return {**item.values, **shapes.fields(self.format, item.values, chat=chat)}
        except shapes.Unfit as unfit:
            raise BadData(
                f"data.{self.name}: {unfit}", where=item.where, expected=f"{unfit.expected} (format: {self.format})"
            ) from None

    def variants(self, item: Item) -> tuple[Example, ...]:
        """Every way a row can be written: one, or one for each template of a pick.

        Raises:
            BadData: it cannot be written.
            EmptyText: one of its texts is empty.
        """
        found = self._variants.get(item.index)
        if found is None:
            found = self._ways.of(item)
            self._variants.put(item.index, found, item.size)
        return found

    # --- splits ---

    @cached_property
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

    def side(self, split: str) -> Items:
        """Its rows on one side of its split."""
        found = self._side_rows.get(split)
        if found is None:
            divider = self.divided_by
            assert divider is not None, f"data.{self.name} has no splits"
            number, numbers = self.splits.index(split), divider._sides
            chosen = array("Q", (position for position in self.items.chosen if numbers[position] == number))
            found = self._side_rows[split] = Items(self.rows, chosen)
        return found

    def key(self, item: Item) -> str:
        """The value by which a row is divided. Raises BadData where the row has none."""
        assert self.block.split is not None
        by = self.block.split.by
        value = self._field(item, by)
        if value is None:
            raise BadData(f"data.{self.name}.split: this row has no {by}", where=item.where)
        return str(value)

    def _field(self, item: Item, name: str) -> Any:
        """One value of a row; templates that do not write it are not rendered."""
        if name in self._writers or self._turns or self.format is not None:
            return self.written(item).get(name)
        return item.values.get(name) if self.parent is None else self.parent._field(item, name)

    @cached_property
    def _sides(self) -> array[int]:
        """For every row of the table the number of its side; of one that this data set leaves out, any."""
        assert self.block.split is not None
        found = array("H", bytes(2 * len(self.rows)))
        items = underway.each(self.items, f"dividing data.{self.name}")
        numbers = sides.divide(self.seed, self.block.split.shares, (self.key(item) for item in items))
        for position, number in zip(self.items.chosen, numbers, strict=True):
            found[position] = number
        return found

    # --- digests ---

    def inputs(self) -> dict[str, Any]:
        """Everything its texts depend on: blocks, digests of files, seed. Of rows only the first are
        read, for the names of their columns."""
        own: dict[str, Any] = {
            "name": self.name,
            # how many rows there are is found out, and what the recipe says of it changes no text
            "block": self.block.model_dump(mode="json", exclude_none=True, exclude={"num_rows"}),
            "seed": self.seed,
            "version": DIGEST_VERSION,
        }
        against = [how.file for how in self.block.rejected or () if isinstance(how, spec.FromFile)]
        if against:
            own["negatives"] = [[file, negative_files.digest(file, self.root)] for file in against]
        if self.block.on_bad_row == "skip" and (template := self._chat()) is not None:
            own["written by"] = template.source  # rows that it cannot write are left out
        if self.parent is not None:
            return {**own, "rows": self.parent.inputs()}
        own["format"] = self.format
        if self.format == "alpaca":
            own["chat"] = self._chat() is not None
        files = sources.digests(sources.find(self.block, self.name, self.root))
        return {**own, "files": [[file.path, file.sha256] for file in files]}

    def digest(self, split: str | None) -> str:
        """sha256 of `inputs` and the split."""
        text = json.dumps([self.inputs(), split], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
