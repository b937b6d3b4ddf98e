"""The job file of a stage, `<stage>/stage.json`: what a trainer is to do, and how far the stage has come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from runner.atomic import publish_text
from runner.checkpoints import Parent
from runner.errors import UserError

FORMAT_VERSION = 1
State = Literal["running", "done", "stopped"]


@dataclass(frozen=True)
class Job:
    """One stage's training, decided in every number before a trainer starts."""

    stage: str
    key: str
    """Digest of `inputs`; where it differs from the plan's, the stage has changed."""
    inputs: Mapping[str, str]
    """Everything the weights depend on, by name: settings, data digests, parent, versions."""
    start: Parent | None
    """The checkpoint to start from; None for the first stage, which starts from `model`."""
    steps_per_epoch: int
    total_steps: int
    publish_steps: tuple[int, ...]
    per_device_batch_size: int
    accumulation_steps: int
    state: State = "running"
    steps_done: int = 0
    """Steps taken when the stage was done; fewer than `total_steps` where a gate stopped it."""
    processes: int = 1
    """That train it, on all machines together."""
    deepspeed: str = ""
    """Path of the DeepSpeed configuration it is trained with, in its own folder; empty without."""

    def ended(self, state: State, steps: int) -> Job:
        """This job, once its trainer has taken its last step."""
        return replace(self, state=state, steps_done=steps)


def write(stage_folder: Path, job: Job) -> None:
    """Publish the job file, whole or not at all."""
    row = {"format_version": FORMAT_VERSION, **asdict(job)}
    publish_text(stage_folder / "stage.json", json.dumps(row, ensure_ascii=False, indent=1) + "\n")


def read(stage_folder: Path) -> Job | None:
    """The job file of a stage, or None where the stage never began.

    Raises:
        UserError: it is damaged, or a newer version wrote it.
    """
    path = stage_folder / "stage.json"
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (version := row.pop("format_version")) > FORMAT_VERSION:
            raise UserError(f"{path} has format {version}, this version reads up to {FORMAT_VERSION}")
        start = row.pop("start")
        row["publish_steps"] = tuple(row["publish_steps"])
        return Job(**row, start=Parent(**start) if start else None)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error})",
            hint=f"move {stage_folder} away; the stage is then trained again",
        ) from error


def decision_path(stage_folder: Path, step: int) -> Path:
    """Where the parent tells a waiting trainer whether to go on after checkpoint `step`."""
    return stage_folder / "state" / f"decision-{step}.json"


def write_decision(stage_folder: Path, step: int, *, go_on: bool) -> None:
    """Answer the trainer that waits at checkpoint `step`."""
    row = {"format_version": FORMAT_VERSION, "go_on": go_on}
    publish_text(decision_path(stage_folder, step), json.dumps(row) + "\n")


def read_decision(stage_folder: Path, step: int) -> bool | None:
    """Whether to go on after checkpoint `step`; None while the parent has not decided."""
    try:
        text = decision_path(stage_folder, step).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return bool(json.loads(text)["go_on"])
