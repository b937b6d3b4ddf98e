"""The job of a stage: what it starts from, what its weights depend on, and how far it has come."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runner import deepspeed_config, jobs, plan, sharing
from runner.checkpoints import Parent, read_manifest, weights_sha256
from runner.data import preferred, samples
from runner.data.samples import Request
from runner.errors import BadCheckpoint, UserError
from runner.jobs import Job
from runner.preparation.prepared import PREFERENCE, Prepared
from runner.spec import parse_ref
from runner.standings import Standings

DONE_IN = "done in "
"""Before the name of the variant that has trained a stage."""


def start_of(prepared: Prepared, standings: Standings, name: str) -> tuple[Parent | None, str]:
    """The checkpoint that a stage starts from, and the key of the stage it belongs to.

    Raises:
        UserError: there is no such checkpoint (yet).
    """
    reference = prepared.recipe.stages[name].from_
    if reference is None:
        return None, ""
    if parse_ref(reference) is None:
        path = prepared.loaded.root / reference
        if not path.is_dir():
            raise BadCheckpoint(f"stages.{name}.from: there is no folder {path}")
        return Parent(reference, str(path), weights_sha256(path)), ""
    found = standings.resolve(reference)
    job = standings.job(found.stage)
    digest = read_manifest(found.path).weights_sha256
    return Parent(found.label, os.path.relpath(found.path, prepared.run / name), digest), job.key if job else ""


def requests_of(prepared: Prepared, name: str) -> tuple[Request, ...]:
    """What checkpoints are to be asked before a stage begins.

    Raises:
        UserError: there is no such checkpoint (yet).
    """
    stage, standings = prepared.recipe.stages[name], Standings(prepared.recipe, prepared.run)
    found = []
    for ref, number, how in samples.entries(prepared.data, stage.data if isinstance(stage, PREFERENCE) else ()):
        if parse_ref(how.sample) is None:
            path = prepared.loaded.root / how.sample
            if not path.is_dir():
                raise BadCheckpoint(f"data.{ref}.rejected[{number}].sample: there is no folder {path}")
            found.append(Request(ref, number, how, how.sample, str(path), weights_sha256(path)))
        else:
            at = standings.resolve(how.sample)
            digest = read_manifest(at.path).weights_sha256
            found.append(Request(ref, number, how, at.label, str(at.path), digest))
    return tuple(found)


def inputs_of(prepared: Prepared, name: str, start: Parent | None, start_key: str) -> dict[str, str]:
    """Everything that the weights of a stage will depend on."""
    asked = dict(request.input for request in requests_of(prepared, name))
    return asked | plan.stage_inputs(
        prepared.recipe,
        name,
        data=prepared.digests,
        start=start,
        start_key=start_key,
        tokenizer=prepared.digests["tokenizer"],
        weights=prepared.weights if start is None else "",
    )


def new_job(prepared: Prepared, name: str, start: Parent | None, inputs: Mapping[str, str]) -> Job:
    """The job of a stage that has not begun; what it is to learn from has been asked of the checkpoints."""
    numbers, stage = prepared.arithmetic[name], prepared.recipe.stages[name]
    if requests_of(prepared, name):
        rows = preferred.rows(stage, prepared.preferences(name, inputs))
        numbers = plan.arithmetic(stage, rows, prepared.processes)
    job = Job(
        stage=name,
        key=plan.key(inputs),
        inputs=inputs,
        start=start,
        steps_per_epoch=numbers.steps_per_epoch,
        total_steps=numbers.total_steps,
        publish_steps=numbers.publish_steps,
        per_device_batch_size=numbers.per_device_batch_size,
        accumulation_steps=numbers.accumulation_steps,
        processes=numbers.processes,
    )
    return _configured(prepared, job, _deepspeed(prepared, job))


def _deepspeed(prepared: Prepared, job: Job) -> dict[str, Any]:
    """What DeepSpeed is to be given for a job; nothing where the recipe does without it.

    Raises:
        UserError: it is not installed.
    """
    if prepared.recipe.launch.deepspeed is None:
        return {}
    deepspeed_config.check_installed()
    return deepspeed_config.configuration(prepared.recipe, job.stage, prepared.loaded.root, job)


def _configured(prepared: Prepared, job: Job, made: Mapping[str, Any]) -> Job:
    """The job with its DeepSpeed configuration, which is written now."""
    return replace(job, deepspeed=deepspeed_config.write(prepared.run / job.stage, made) if made else "")


def relaid(prepared: Prepared, job: Job) -> Job:
    """The job of a stage that has begun, with its batches laid out for the processes that there are now.

    Raises:
        UserError: its state can be read only by as many processes as wrote it, with the same DeepSpeed configuration.
    """
    folder = prepared.run / job.stage
    numbers = plan.arithmetic(prepared.recipe.stages[job.stage], 1, prepared.processes)
    layout = numbers.per_device_batch_size, numbers.accumulation_steps
    now = replace(job, processes=numbers.processes, per_device_batch_size=layout[0], accumulation_steps=layout[1])
    before, made = deepspeed_config.kept(folder, job.deepspeed), _deepspeed(prepared, now)
    if _saved(prepared, job.stage):
        deepspeed_config.check_resumes(folder, job.stage, (job.processes, before), (now.processes, made))
    return _configured(prepared, now, made)


def _saved(prepared: Prepared, stage: str) -> list[int]:
    """The steps at which there is state to resume from."""
    saved = [path.parent.name for path in (prepared.run / stage / "state").glob("checkpoint-*/complete.json")]
    return sorted(int(name.removeprefix("checkpoint-")) for name in saved)


def states(prepared: Prepared) -> dict[str, str]:
    """For every stage: `done`, `resumes at step 96`, `changed: …`, `to do`. Below one that is not done, none is."""
    run = prepared.run
    standings = Standings(prepared.recipe, run)
    found: dict[str, str] = {}
    for name, stage in prepared.recipe.stages.items():
        ref = parse_ref(stage.from_) if stage.from_ else None
        job = jobs.read(run / name)
        if ref is not None and found.get(ref.stage) != "done":
            found[name] = "to do" if job is None else f"again, after {ref.stage}"
        elif not prepared.is_seen(name):
            found[name] = "to do" if job is None else "unknown: its data is not here"
        else:
            found[name] = _state(prepared, name, job, standings)
    return found


def _state(prepared: Prepared, name: str, job: Job | None, standings: Standings) -> str:
    if job is None and not prepared.loaded.variant:
        return "to do"
    try:
        inputs = inputs_of(prepared, name, *start_of(prepared, standings, name))
    except UserError:
        return "to do"  # why it cannot start is said when its turn comes: probing again may change that
    key = plan.key(inputs)
    if job is None or job.key != key:
        twin = sharing.find(prepared.run, name, key) if prepared.loaded.variant else None
        if twin is not None and (other := jobs.read(twin)) is not None:
            whole = other.steps_done >= other.total_steps
            return f"{DONE_IN}{twin.parent.name}" if whole else f"goes on from {twin.parent.name}"
        return "to do" if job is None else f"changed: {plan.changed(job.inputs, inputs)}"
    if job.state == "done" and (job.steps_done >= job.total_steps or standings.end(name) is not None):
        return "done"
    if job.state == "stopped":
        return f"stopped by a gate at step {job.steps_done}"
    steps = _saved(prepared, job.stage)
    return f"resumes at step {steps[-1]}" if steps else "to do"
