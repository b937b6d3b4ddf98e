"""Amounts of data that are allowed and probably not meant, in words, for the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from runner import spec
from runner.data.counts import Source

_TIMES_THE_BATCH = 4
"""So many times its own rows a step may read for the KL to its start before it is said that most of the time goes
there; each costs about as much as a row that is learned."""


def odd(name: str, stage: spec.Stage, sources: Sequence[Source], penalty_rows: Mapping[str, int]) -> Iterator[str]:
    """A sentence for each amount of a stage.

    Args:
        name: of the stage.
        stage: its block.
        sources: its data sets, where it mixes or replays.
        penalty_rows: of the data sets that each of `stage.penalty_data` names, how many rows there are.
    """
    if not isinstance(stage, spec.Causal):
        return
    if stage.replay is not None:
        yield from _replay(f"stages.{name}.replay", stage.replay, sources)
    available = {source.name: source.available for source in sources if not source.replayed}
    for data, part in stage.mix.items():
        there = available.get(data, 0)
        if part.rows is not None and part.oversample is None and part.rows > there > 0:
            yield f"stages.{name}.mix.{data}: rows: {part.rows:,} of {_each(part.rows, there)} an epoch"
    if stage.kl is not None and stage.kl.data is not None:
        yield from _compared(f"stages.{name}.kl", stage.kl.rows or stage.global_batch_size, stage, penalty_rows["kl"])


def _replay(place: str, replay: spec.Replay, sources: Sequence[Source]) -> Iterator[str]:
    own = round(sum(source.per_epoch for source in sources if not source.replayed))
    old = round(sum(source.per_epoch for source in sources if source.replayed))
    there = sum(source.available for source in sources if source.replayed)
    if old > own:
        yield f"{place}: {old:,} rows of an epoch are old and {own:,} new; ratio is old rows for each new one"
    if old > there:
        yield f"{place}: {old:,} rows an epoch of {_each(old, there)} an epoch"
    if replay.buffer is not None and replay.buffer > there:
        yield f"{place}: buffer: {replay.buffer:,} bounds nothing, there are {there:,} rows"


def _compared(place: str, each: int, stage: spec.Stage, there: int) -> Iterator[str]:
    batch = stage.global_batch_size
    if each > there:
        yield f"{place}: {each:,} rows a step of {_each(each, there)} a step; say rows: {there} or fewer"
    elif each > _TIMES_THE_BATCH * batch:
        yield (
            f"{place}: {each:,} rows are compared at each step, and {batch:,} learned: most of the time goes into the "
            "comparison"
        )


def _each(wanted: int, there: int) -> str:
    return f"the {there:,} there are: each is seen {wanted / there:.1f} times"
