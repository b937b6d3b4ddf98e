"""Training a stage in this process: what the parent of a run writes before it starts a trainer, then the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, signal

from runner import checkpoints, jobs, recipe
from runner.check import load_checked
from runner.events import Event, Finished, Follower, Logged
from runner.folder import Superseded, write_run
from runner.preparation import Prepared, inputs_of, new_job, run_record, start_of, write_data
from runner.standings import Standings


def prepare(recipe_file: Path, run: Path, *sets: str) -> Prepared:
    """A run folder that is ready for its first stage."""
    prepared = Prepared(load_checked(recipe_file, sets), run)
    run.mkdir(parents=True)
    write_data(prepared, Superseded(run))
    (run / "recipe.yaml").write_text(recipe.dump(prepared.loaded), encoding="utf-8")
    write_run(run, run_record(prepared, {}))
    return prepared


def begin(prepared: Prepared, stage: str) -> int:
    """Train a stage that publishes nothing but its end, or resume it; gives the trainer's exit code."""
    from runner.train import worker

    start, key = start_of(prepared, Standings(prepared.recipe, prepared.run), stage)
    jobs.write(prepared.run / stage, new_job(prepared, stage, start, inputs_of(prepared, stage, start, key)))
    with _signals_kept():
        return worker.main([str(prepared.run), stage])


def train(prepared: Prepared, stage: str) -> Path:
    """Train a stage to its end; gives its checkpoint."""
    assert begin(prepared, stage) == 0
    ((_, folder),) = checkpoints.published(prepared.run / stage)
    return folder


@contextmanager
def _signals_kept() -> Iterator[None]:
    """A trainer takes SIGINT and SIGTERM for itself; in this process they are pytest's."""
    kept = {number: signal(number, lambda *_: None) for number in (SIGINT, SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal(number, handler)


def events(prepared: Prepared, stage: str) -> list[Event]:
    """What the trainer of a stage reported."""
    return [stamped.event for stamped in Follower(prepared.run / "events" / f"train-{stage}.jsonl").new()]


def losses(prepared: Prepared, stage: str) -> list[Logged]:
    """The losses it recorded."""
    return [event for event in events(prepared, stage) if isinstance(event, Logged)]


def finished(prepared: Prepared, stage: str) -> Finished:
    """What it had done at its end."""
    (event,) = (event for event in events(prepared, stage) if isinstance(event, Finished))
    return event
