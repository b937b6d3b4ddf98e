"""The rows of each epoch as token ids: redrawn from (seed, row, epoch), shuffled from (seed, epoch), and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runner import spec, underway
from runner.data.chat import ChatTemplate
from runner.data.counts import Counts, Source, Total
from runner.data.datasets import Datasets
from runner.data.drawing import drawings
from runner.data.epoch_rows import Rows, StoredRows, WrappedRows, references
from runner.data.examples import Dataset
from runner.data.mixture import Buffered, Ints, Passes, permutation
from runner.data.parts import JoinedPart, Shelf, WholePart
from runner.data.token_store import Kept, TokenStore
from runner.data.tokenizer import Fast
from runner.data.tokens import Encoding
from runner.errors import BadData

_ENDLESS = 2**31 - 1
"""Documents that run on through the rows are not cut."""


@dataclass(frozen=True)
class _Made:
    """An epoch."""

    epoch: int
    rows: Rows
    examples: tuple[int, ...]
    """Drawn from each part."""
    left_out: int
    pieces: int


class Epochs:
    """Data sets, shuffled together, as the epochs that a stage trains on: every row once in each, unless `mix` says
    otherwise. All epochs have as many rows as the first one.

    Args:
        datasets: the stage's own.
        tokenizer: of the model that is trained.
        seed: of draws and orders.
        how: how texts become rows.
        mix: how often rows of a data set are seen, by its name.
        replay: what is replayed, and the data sets that it is drawn from.
        wrapped: documents run on through rows of exactly `how.max_length` tokens.
        kept: where token ids are kept for other processes.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        tokenizer: Fast,
        seed: int,
        how: Encoding,
        *,
        mix: Mapping[str, spec.Part] | None = None,
        replay: tuple[spec.Replay, Sequence[Dataset]] | None = None,
        wrapped: bool = False,
        kept: Kept | None = None,
    ) -> None:
        self._seed, self._how, self._wrapped = seed, how, wrapped
        self._datasets = [*datasets, *(replay[1] if replay else ())]
        self._sources = drawings(datasets, seed, mix or {}, replay)
        uncut = Encoding(_ENDLESS, how.whole, turns=how.turns, chat=how.chat)
        shelf = Shelf(tokenizer, uncut if wrapped else how, kept)
        drawing = f"{seed} {sorted((mix or {}).items())} {replay[0] if replay else ''}"
        if kept is not None:
            drawing += " ".join(kept.digests[dataset.name] for dataset in self._datasets)
        self._of_parts = [self._datasets[part] for source in self._sources for part in source.parts]
        self._parts = [
            JoinedPart(self._datasets[part], shelf, drawing, source.per_epoch if len(source.parts) == 1 else None)
            if self._datasets[part].joined
            else WholePart(self._datasets[part], shelf)
            for source in self._sources
            for part in source.parts
        ]
        self._stores: list[TokenStore] = []
        self._part_of: list[int] = []
        """Of each store."""
        self._length: int | None = None
        self._last: list[_Made] = []

    @property
    def keys(self) -> frozenset[str]:
        """Of the stores it is made from, where they are kept."""
        return frozenset(part.key for part in self._parts)

    def __len__(self) -> int:
        """Rows of an epoch. What becomes of long rows, and of conversations, is only known when they are encoded.

        Raises:
            BadData: there are none.
        """
        if self._length is None:
            # a chat template may make several rows of a conversation
            one_each = self._how.truncation in ("keep_start", "keep_end") and self._how.chat is None
            if one_each and not self._wrapped:
                self._length = sum(source.per_epoch for source in self._sources)
            else:
                self._length = len(self._made(0).rows)
        return self._length

    def epoch(self, epoch: int) -> Rows:
        """The rows of an epoch (from 0), in the order they are trained on."""
        return self._made(epoch).rows

    def data_of(self, store: int) -> Dataset:
        """The data set whose rows are in the store of this number, once an epoch was made."""
        return self._of_parts[self._part_of[store]]

    def origins(self, epoch: int, start: int, stop: int) -> list[tuple[Dataset, int]]:
        """What rows start to stop of an epoch are made of: data sets, with rows of their sources."""
        found = self._made(epoch).rows.origins(start, stop)
        return [(self.data_of(store), row) for store, row in found]

    def _made(self, epoch: int) -> _Made:
        if epoch and self._length is None:
            len(self)  # what follows has as many rows as the first one
        for made in self._last:
            if made.epoch == epoch:
                return made
        made = self._make(epoch)
        self._last = [*self._last[-1:], made]  # two: where one ends and the next begins, both are asked for
        return made

    def _make(self, epoch: int) -> _Made:
        refs, examples, left_out, pieces = [], [], 0, 0
        drawn_of_parts = [drawn for source in self._sources for drawn in source.drawn(epoch)]
        for number, (part, drawn) in enumerate(zip(self._parts, drawn_of_parts, strict=True)):
            store = self._number_of(number, part.store_of(epoch, drawn))
            found = part.rows(epoch, drawn)
            refs.append(references(store, found.rows))
            examples.append(len(drawn.positions))
            left_out += found.left_out
            pieces += found.pieces if self._how.truncation == "chunk" else 0
        together = np.concatenate(refs)
        shuffled = together[permutation(len(together), f"{self._seed}:shuffle:{epoch}")]
        return _Made(epoch, self._rows(shuffled), tuple(examples), left_out, pieces)

    def _rows(self, shuffled: Ints) -> Rows:
        rows: Rows
        if self._wrapped:
            rows = WrappedRows(self._stores, shuffled, self._how.max_length, self._length)
        elif self._length is None or len(shuffled) in (0, self._length):
            rows = StoredRows(self._stores, shuffled)
        else:
            # steps are counted before training, and texts that are drawn anew may have other numbers of pieces
            rows = StoredRows(self._stores, np.resize(shuffled, self._length))
        if len(rows):
            return rows
        names, longest = self._names, self._how.max_length
        if self._wrapped:
            raise BadData(f"{names}: all documents together fill no row of max_length {longest}")
        raise BadData(
            f"{names}: every row is longer than max_length {longest}, and so left out",
            hint="raise max_length, or take another truncation than drop",
        )

    def _number_of(self, part: int, store: TokenStore) -> int:
        for number, known in enumerate(self._stores):
            if known is store:
                return number
        self._stores.append(store)
        self._part_of.append(part)
        return len(self._stores) - 1

    # --- counting ---

    def counts(self, global_batch_size: int, total_steps: int) -> Counts:
        """Counts over so many steps, each of `global_batch_size` rows but the last of an epoch."""
        steps_per_epoch = -(-len(self) // global_batch_size)
        whole, rest = divmod(total_steps, steps_per_epoch)
        # where every epoch has the same rows, one is counted for all
        alike = not self._wrapped and all(source.alike for source in self._sources)
        alike = alike and not any(dataset.redrawn for dataset in self._datasets)
        total = Total(len(self._parts))
        for epoch in underway.each(range(min(whole, 1) if alike else whole), f"counting {self._names}", unit="epochs"):
            self._add(total, epoch, len(self), whole if alike else 1)
        if rest:
            self._add(total, whole, min(rest * global_batch_size, len(self)), 1)
        for part in self._parts:
            part.finish()
        return total.counts(self._shares(total, total_steps / steps_per_epoch))

    @property
    def _names(self) -> str:
        return ", ".join(dataset.name for dataset in self._datasets)

    def _add(self, total: Total, epoch: int, rows: int, times: int) -> None:
        made = self._made(epoch)
        tally = made.rows.tally(0, rows)
        total.rows += times * np.array(
            (tally.rows, tally.tokens, tally.supervised, tally.truncated, tally.dropped, tally.unknown)
        )
        total.cut += times * np.array((made.left_out, made.pieces))
        total.examples += times * rows / len(made.rows) * np.array(made.examples)
        np.add.at(total.of_parts, self._part_of[: len(tally.by_store)], times * tally.by_store)

    def _shares(self, total: Total, epochs: float) -> tuple[Source, ...]:
        plain = all(isinstance(s.stream, Passes) and s.per_epoch == len(s.stream) for s in self._sources)
        if plain and len(self._parts) == 1:
            return ()
        rows, tokens, supervised = total.of_parts.T
        seen = tokens if self._wrapped else rows
        found = []
        for source in self._sources:
            for part, start in zip(source.parts, source.starts, strict=True):
                available = len(self._datasets[part])
                if isinstance(source.stream, Buffered):
                    available = source.stream.within(start, start + available)
                found.append(
                    Source(
                        self._datasets[part].name,
                        source.replayed,
                        available,
                        per_epoch=total.examples[part] / epochs,
                        passes=total.examples[part] / max(available, 1),
                        rows=seen[part] / max(seen.sum(), 1),
                        supervised=supervised[part] / max(supervised.sum(), 1),
                    )
                )
        return tuple(found)


def stage_epochs(
    recipe: spec.Recipe,
    name: str,
    data: Datasets,
    tokenizer: Fast,
    chat: ChatTemplate | None,
    kept: Kept | None = None,
) -> Epochs:
    """The epochs of a stage of a recipe.

    Raises:
        BadData: a data set cannot be read.
    """
    stage = recipe.stages[name]
    assert isinstance(stage, spec.Causal), f"{name} trains on pairs"
    replay = (stage.replay, [data.get(ref) for ref in recipe.replayed(name)]) if stage.replay else None
    return Epochs(
        [data.get(ref) for ref in stage.data],
        tokenizer,
        recipe.seed,
        encoding_of(stage, chat),
        mix=stage.mix,
        replay=replay,
        wrapped=stage.packing == "wrapped",
        kept=kept,
    )


def encoding_of(stage: spec.Causal, chat: ChatTemplate | None) -> Encoding:
    """How the texts of a stage become rows."""
    return Encoding(
        stage.max_length,
        whole=isinstance(stage, spec.Pretrain),
        truncation=stage.truncation,
        chunk_overlap=stage.chunk_overlap,
        turns=stage.train_on_turns if isinstance(stage, spec.Sft) else "all",
        chat=chat,
    )


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows of an epoch, shuffled from (seed, epoch)."""
    order: list[int] = permutation(length, f"{seed}:shuffle:{epoch}").tolist()
    return order
