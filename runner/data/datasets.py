"""The data sets of a recipe by name, and the files of their splits. Nothing is read before it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from runner import spec
from runner.atomic import publish_parts
from runner.data import accounts, chat, sources, tokenizer_files
from runner.data.accounts import Account
from runner.data.chat import ChatTemplate
from runner.data.conversations import Writing, writing_of
from runner.data.examples import Dataset, Example
from runner.data.layers import Layer
from runner.data.pairs import Pair
from runner.data.tokenizer import NAMES
from runner.errors import BadData, nearest

__all__ = ["Dataset", "Datasets", "Example", "Pair", "build", "write_splits"]

WRITTEN_ROWS = 1_000_000
"""A split with more rows that no suite asks about is not written into the run: its rows lie in the source."""


class Datasets:
    """All data sets of a recipe, by `name` and `name.split`."""

    def __init__(self, recipe: spec.Recipe, root: Path) -> None:
        self._recipe, self._root = recipe, root
        self._layers: dict[str, Layer] = {}
        self._found: dict[str, Dataset] = {}
        self._accounts: dict[str, Account] = {}
        self._missing: dict[str, bool] = {}

    def get(self, ref: str) -> Dataset:
        """The data set or split that `ref` names.

        Raises:
            BadData: there is none.
        """
        if ref not in self._found:
            self._found[ref] = Dataset(*self._resolve(ref))
        return self._found[ref]

    def splits(self, name: str) -> tuple[str, ...]:
        """Names of the splits of a data set; none where it is not divided."""
        return self._layer(name).splits

    def missing(self, ref: str) -> str | None:
        """The data set from whose files `ref` is made in the end, where they are not here and the recipe says how many
        rows they have; None where they are here, or reading them would say what is wrong."""
        name = ref.partition(".")[0]
        while (block := self._recipe.data.get(name)) is not None and block.rows is not None:
            name = block.rows.partition(".")[0]
        if block is None or block.num_rows is None:
            return None
        if name not in self._missing:
            self._missing[name] = not sources.is_here(block, self._root)
        return name if self._missing[name] else None

    def account(self, ref: str) -> Account:
        """What a data set is made from and what was left out, counted and measured; its rows are read once for it."""
        if ref not in self._accounts:
            self._accounts[ref] = accounts.of(self.get(ref), self._resolve(ref)[0])
        return self._accounts[ref]

    def files(self) -> tuple[str, ...]:
        """What `write_splits` writes: every split of each data set that declares one or of which the recipe uses one,
        if it has at most WRITTEN_ROWS, and the data sets whose rows are cases."""
        recipe = self._recipe
        cases = [suite.cases for suite in recipe.probes.values() if suite.cases is not None]
        rows = [block.rows for block in recipe.data.values() if block.rows is not None]
        used = [*cases, *rows, *(ref for stage in recipe.stages for ref in recipe.reads(stage))]
        divided = {name for name, block in recipe.data.items() if block.split is not None}
        divided |= {ref.partition(".")[0] for ref in used if "." in ref}
        refs = [f"{name}.{split}" for name in recipe.data if name in divided for split in self.splits(name)]
        return tuple(dict.fromkeys([*(ref for ref in refs if self._is_small(ref)), *cases]))

    def _is_small(self, ref: str) -> bool:
        name, _, split = ref.partition(".")
        return len(self._layer(name).side(split)) <= WRITTEN_ROWS

    @cached_property
    def _chat(self) -> ChatTemplate | None:
        return chat.of(self._recipe.model, self._root)

    @cached_property
    def _writing(self) -> Writing | None:
        if self._chat is None:
            return None
        folder = chat.tokenizer_folder(self._recipe.model, self._root)
        return writing_of(self._chat, NAMES if folder is None else tokenizer_files.special_tokens(folder))

    def _resolve(self, ref: str) -> tuple[Layer, str | None]:
        name, _, split = ref.partition(".")
        layer = self._layer(name)
        if split and split not in layer.splits:
            raise BadData(f"data.{name} has no split {split!r}", expected=_one_of(layer.splits, "split: in its block"))
        return layer, split or None

    def _layer(self, name: str) -> Layer:
        if name not in self._layers:
            block = self._recipe.data.get(name)
            if block is None:
                close = nearest(name, self._recipe.data)
                raise BadData(f"there is no data set {name!r}", hint=f"did you mean {close!r}?" if close else None)
            parent, split = self._resolve(block.rows) if block.rows is not None else (None, None)
            self._layers[name] = Layer(
                name, block, parent, split,
                root=self._root, seed=self._recipe.seed, chat=lambda: self._chat, writing=lambda: self._writing,
            )  # fmt: skip
        return self._layers[name]


def build(recipe: spec.Recipe, root: Path, names: Iterable[str] | None = None) -> Datasets:
    """The data sets of a recipe whose relative paths start at `root`; no file is opened yet.

    Args:
        names: data sets and splits that will be asked for, looked up at once.

    Raises:
        BadData: one of `names` is not there.
    """
    datasets = Datasets(recipe, root)
    for ref in names or ():
        datasets.get(ref)
    return datasets


def write_splits(datasets: Datasets, folder: Path) -> tuple[Path, ...]:
    """Write `datasets.files()` as folder/NAME.SPLIT.jsonl or folder/NAME.jsonl, one case per line; gives the paths."""
    written = []
    for ref in datasets.files():
        path = folder / f"{ref}.jsonl"
        publish_parts(path, (_line(case) for case in datasets.get(ref).each_case()))
        written.append(path)
    return tuple(written)


def _line(case: Mapping[str, Any]) -> bytes:
    first = {"id": case["id"], **{name: value for name, value in case.items() if name != "id"}}
    return (json.dumps(first, ensure_ascii=False, default=str) + "\n").encode()


def _one_of(names: Iterable[str], otherwise: str) -> str:
    return ", ".join(names) or otherwise
