"""The ways in which a row of a data set is written: as a document, a prompt with its completion, or a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runner.data import filters
from runner.data.texts import Example, Message
from runner.data.writers import Writer
from runner.errors import BadData

if TYPE_CHECKING:
    from runner.data.layers import Item, Layer


class Ways:
    """Those of one layer."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def of(self, item: Item) -> tuple[Example, ...]:
        """All ways to write a row. Raises as `Layer.variants`."""
        layer = self._layer
        ways = self._pick_ways(item) if layer.pick is not None else (self._one_way(item),)
        found = tuple([self._with_system(way, item) for way in ways] if layer.has_system else ways)
        for way in found:
            if (what := filters.empty_text(way, asks=layer.shape == "prompt")) is not None:
                raise filters.EmptyText(
                    f"data.{layer.name}: {what} is empty in this row",
                    where=item.where,
                    hint="filter: {empty: true} leaves such rows out",
                )
        return found

    def _pick_ways(self, item: Item) -> Iterator[Example]:
        assert self._layer.pick is not None
        values = self._layer.pick[0].given(item)
        for prompt, completion in self._pick_writers:
            given = "" if prompt is None else prompt.text(values, item)
            yield Example(given, completion.text(values, item), item.index)

    @cached_property
    def _pick_writers(self) -> list[tuple[Writer | None, Writer]]:
        """(prompt, completion) of each template of the pick; (None, text) for documents."""
        assert self._layer.pick is not None
        label = f"data.{self._layer.pick[0].name}.pick.of"
        return [
            (None, Writer(way.text, f"{label}[{index}].text"))
            if way.text is not None
            else (
                Writer(way.prompt or "", f"{label}[{index}].prompt"),
                Writer(way.completion or "", f"{label}[{index}]"),
            )
            for index, way in enumerate(self._layer.pick[1].of)
        ]

    def _one_way(self, item: Item) -> Example:
        if self._layer.shape == "rows":
            raise BadData(
                f"data.{self._layer.name} has rows, but no text",
                expected="text:, or prompt: and completion:, or columns of these names",
            )
        values = self._layer.written(item)
        if self._layer.shape == "text":
            return Example("", self._text(values, "text", item), item.index)
        said = values.get("messages")
        before: tuple[Message, ...] = said if isinstance(said, tuple) else ()
        if self._layer.shape == "pairs":
            right = self._text(values, "chosen" if "chosen" in self._layer.names else "completion", item)
            if before and before[-1].role == "assistant":  # a conversation whose last answer is the chosen one
                before = before[:-1]
            if before:
                return Example("", "", item.index, (*before, Message("assistant", right)))
            return Example(
                self._text(values, "prompt", item) if "prompt" in self._layer.names else "", right, item.index
            )
        if before:
            return Example("", "", item.index, before)
        return Example(self._text(values, "prompt", item), self._text(values, "completion", item), item.index)

    def _with_system(self, way: Example, item: Item) -> Example:
        """The same as a conversation that a system message opens, where a template writes one."""
        if self._layer.shape == "text":
            return way
        system = self._text(self._layer.written(item), "system", item)
        if not system.strip():
            return way
        said = way.messages or (Message("user", way.prompt), Message("assistant", way.completion))
        if said[0].role == "system":
            raise BadData(
                f"data.{self._layer.name}: system: writes a message, and this row has one of its own",
                where=item.where,
                hint="leave system: out; the row's is used",
            )
        return Example("", "", item.index, (Message("system", system), *said))

    def _text(self, values: Mapping[str, Any], field: str, item: Item) -> str:
        return plain_text(self._layer.name, values, field, item)


def plain_text(name: str, values: Mapping[str, Any], field: str, item: Item) -> str:
    """A field of a row of data set `name`. Raises BadData where it is neither text nor a number."""
    value = values.get(field)
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    found = "nothing" if value is None else f"a {type(value).__name__}"
    raise BadData(f"data.{name}: {field} is {found} in this row", where=item.where, expected="text")
