"""The data sets of a stage as streams of rows, and how much of each an epoch takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runner import spec
from runner.data.examples import Dataset
from runner.data.mixture import Balanced, Buffered, Drawn, Passes, Stream, replayed_per_epoch, rows_per_epoch


@dataclass(frozen=True)
class Drawing:
    """Data sets that one stream draws from."""

    parts: tuple[int, ...]
    """Their numbers, the stage's own first, then the replayed ones."""
    starts: tuple[int, ...]
    """The first row of each in the stream's numbers."""
    stream: Stream
    per_epoch: int
    replayed: bool = False

    @property
    def alike(self) -> bool:
        """Whether every epoch has the same rows."""
        return isinstance(self.stream, Passes) and self.per_epoch % len(self.stream) == 0

    def drawn(self, epoch: int) -> list[Drawn]:
        """What an epoch has of each part."""
        drawn = self.stream.take(epoch * self.per_epoch, (epoch + 1) * self.per_epoch)
        if len(self.parts) == 1:
            return [drawn]
        of = np.searchsorted(self.starts, drawn.positions, "right") - 1
        return [
            Drawn(drawn.positions[of == number] - start, drawn.sights[of == number])
            for number, start in enumerate(self.starts)
        ]


def drawings(
    datasets: Sequence[Dataset],
    seed: int,
    mix: Mapping[str, spec.Part],
    replay: tuple[spec.Replay, Sequence[Dataset]] | None,
) -> list[Drawing]:
    """What the epochs of a stage draw from: each of its data sets by itself, and all replayed ones as one."""
    streams = [_stream(dataset, seed, mix.get(dataset.name)) for dataset in datasets]
    wanted = rows_per_epoch({data.name: len(stream) for data, stream in zip(datasets, streams, strict=True)}, mix)
    found = [
        Drawing((number,), (0,), stream, wanted[dataset.name])
        for number, (dataset, stream) in enumerate(zip(datasets, streams, strict=True))
    ]
    if replay is not None:
        how, earlier = replay
        sizes = [len(dataset) for dataset in earlier]
        key = f"{seed}:replay"
        pool = Passes(sum(sizes), key) if how.buffer is None else Buffered(sum(sizes), how.buffer, key)
        numbers = range(len(datasets), len(datasets) + len(earlier))
        starts = tuple(sum(sizes[:number]) for number in range(len(sizes)))
        rows = replayed_per_epoch(sum(source.per_epoch for source in found), how)
        found.append(Drawing(tuple(numbers), starts, pool, rows, replayed=True))
    return found


def _stream(dataset: Dataset, seed: int, part: spec.Part | None) -> Stream:
    key = f"{seed}:{dataset.name}"
    if part is None or part.oversample is None:
        return Passes(len(dataset), key)
    column = part.oversample
    values = [dataset.columns(position).get(column) for position in range(len(dataset))]
    return Balanced([str(value) for value in values], key)
