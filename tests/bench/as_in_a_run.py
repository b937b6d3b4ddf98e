"""A stage trained as a run trains it, recorded and published, for benches to compare others with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from runner import jobs, spec
from runner.events import Journal
from runner.jobs import Job
from runner.train.publishing import Publishing


def train(run: Path, stage: spec.AnyStage, job: Job, trainer: Any, *callbacks: transformers.TrainerCallback) -> Path:
    """Train a stage to its end; gives the path of the events that its trainer wrote."""
    jobs.write(run / job.stage, job)
    path = run / "events.jsonl"
    journal = Journal(path)
    publishing = Publishing(
        run=run,
        recipe="bench",
        kind=stage.kind,
        job=job,
        tokens_in_step=trainer.tokens_in_step,
        journal=journal,
        attention="sdpa",
    )
    for callback in (publishing, *callbacks):
        trainer.add_callback(callback)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    journal.close()
    return path
