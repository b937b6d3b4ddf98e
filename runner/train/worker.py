"""The trainer process: trains one stage of a run as its job file says, alone or with others.

Started as `python -m runner.train.worker RUN STAGE`, by torchrun for several of them, or forked by `runner.host`. It
reads `recipe.yaml`, `run.json` and `<stage>/stage.json` of the run, and writes events, checkpoints and state; nothing
else passes between it and its parent.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from runner import checkpoints, deepspeed_config, diverging, events, jobs, model, recipe, spec
from runner.data import candidates, chat, datasets, preferred, samples
from runner.data.conversations import Conversations
from runner.data.epochs import stage_epochs
from runner.data.penalty_rows import penalty_epochs
from runner.data.token_store import TOKENS, Kept
from runner.data.tokenizer import load_tokenizer
from runner.errors import EXIT_INTERRUPTED, EXIT_TRAINING_FAILED, UserError, first_line
from runner.events import Journal
from runner.folder import read_run
from runner.recipe import Loaded
from runner.train import causal, contrast, kernels, origins, processes, resuming, starting, stopping, tracking, zero
from runner.train.arguments import Setup, blamed, on_cpu
from runner.train.causal import CausalTrainer
from runner.train.contrast import ContrastTrainer
from runner.train.finite import NotFinite
from runner.train.origins import Origins
from runner.train.publishing import Publishing, newest_state
from runner.train.starting import Start

if TYPE_CHECKING:
    from runner.train.preference import PreferenceTrainer


def main(arguments: Sequence[str]) -> int:
    """Train the stage; 0 when its last step is done, 130 when a signal ended it and its state is saved, 3 when a loss
    was no number, `diverging.EXIT_AGAIN` when it is to go on without a batch that led to one."""
    run, name = Path(arguments[0]), arguments[1]
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    record = read_run(run)
    loaded = recipe.load(run / "recipe.yaml", root=Path(record.project_root))
    job = jobs.read(run / name)
    if job is None:
        raise UserError(f"{run / name} has no stage.json", hint="recipe run writes it")
    stage = loaded.spec.stages[name]
    limit_s = float(stage.trainer_args.get("ddp_timeout", processes.TIMEOUT_S))
    with processes.together(on_cpu(stage), limit_s, stage.trainer_args.get("ddp_backend")):
        journal = Journal(run / "events" / f"train-{name}.jsonl") if processes.is_first() else None
        try:
            _check_number(job)
            with zero.ready(deepspeed_config.kept(run / name, job.deepspeed), on_cpu(stage)) as deepspeed:
                return _train(loaded, run, job, journal, deepspeed)
        except UserError as error:
            # most are found by all of them; the first one's words are enough
            said = error.screen() if processes.is_first() else f"process {processes.rank()}: {first_line(error)}"
            print(said, file=sys.stderr)
            return error.exit_code
        finally:
            if journal is not None:
                journal.close()


def _check_number(job: jobs.Job) -> None:
    """Whether as many processes have met as the job is planned for.

    Raises:
        UserError: they are more or fewer.
    """
    if (found := processes.count()) != job.processes:
        raise UserError(
            f"stage {job.stage} is planned for {job.processes} processes, and {found} came to train it",
            hint="recipe run --processes N plans it for N, and starts them",
        )


def _train(loaded: Loaded, run: Path, job: jobs.Job, journal: Journal | None, deepspeed: Mapping[str, Any]) -> int:
    stage, folder = loaded.spec.stages[job.stage], run / job.stage
    dtype = model.choose_dtype(loaded.spec.model.dtype).value
    zero.check(loaded, deepspeed, dtype)
    kind = starting.model_type(Start(loaded, run, job, "", dtype, deepspeed))
    attention = model.choose_attention(loaded.spec.model.attn_implementation, dtype, kind)
    trackers = loaded.spec.report_to
    name = _name_for_trackers(run, loaded, job)
    start = Start(loaded, run, job, attention.value, dtype, deepspeed)
    fast = kernels.choose(loaded.spec.launch, stage, kind)
    setup = Setup(job, folder / "state", loaded.spec.seed, dtype, trackers, name, deepspeed, fast)
    starting.check_all(loaded)
    checked = checkpoints.checking(start.place) if start.place and processes.is_first() else nullcontext()
    with blamed(stage), checked:
        trainer, notes, origins_of = _build(start, setup)
    faults = diverging.read(folder)
    trainer.left_out = diverging.left_out(faults)
    notes = (*notes, *zero.notes(deepspeed), *fast.notes(loaded.spec.launch), *diverging.note(faults))
    publishing = _publishing(start, trainer, journal, f"{attention.value} ({attention.why})", notes)
    trainer.add_callback(publishing)
    if trackers and processes.is_first():
        tracking.attach(trainer, run, job.stage)
    trainer.remove_callback(transformers.PrinterCallback)  # events are read, prints are not
    resume_from = _resumed(folder)
    if processes.rank():
        transformers.set_seed(loaded.spec.seed + processes.rank())  # each draws its own dropout
    with blamed(stage):
        try:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        except NotFinite as fault:
            # what is published in the background is completed first
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            return _diverged(start, fault, faults, journal, origins_of)
    return EXIT_INTERRUPTED if publishing.interrupted else 0


def _publishing(
    start: Start,
    trainer: CausalTrainer | PreferenceTrainer | ContrastTrainer,
    journal: Journal | None,
    attention: str,
    notes: tuple[str, ...],
) -> Publishing:
    probing, is_tracked = start.loaded.spec.launch.probing, bool(start.loaded.spec.report_to)
    return Publishing(
        run=start.run,
        recipe=start.loaded.spec.recipe,
        kind=start.stage.kind,
        job=start.job,
        tokens_in_step=lambda step: (0, 0) if step + 1 in trainer.left_out else trainer.tokens_in_step(step),
        journal=journal,
        attention=attention,
        notes=notes,
        settings=starting.published_settings(start),
        waits=probing == "between",
        waits_at_the_end=is_tracked and probing != "elsewhere",
    )


def _resumed(folder: Path) -> Path | None:
    """The state of the stage to go on from, looked at by the first process before the others."""
    with processes.first_alone():
        if processes.is_first():
            _drop_stale_decisions(folder)
        found = newest_state(folder)
        if found is not None and processes.is_first():
            resuming.check(found, folder)
    return found


def _diverged(
    start: Start, fault: NotFinite, faults: Sequence[diverging.Fault], journal: Journal | None, origins_of: Origins
) -> int:
    """Decide and record what becomes of the stage; the exit code, which is that of all its processes."""
    job, folder = start.job, start.run / start.job.stage
    processes.wait_for_all()  # what the first one had in the background is there
    code = EXIT_TRAINING_FAILED
    if journal is not None:
        saved = newest_state(folder)
        back_to = int(saved.name.rpartition("-")[2]) if saved is not None else 0
        wanted = start.stage.on_nan == "rollback"
        decided = diverging.decide(faults, fault.step, fault.what, back_to) if wanted else None
        if decided is not None:
            diverging.write(folder, (*faults, decided))
            code = diverging.EXIT_AGAIN
        rows = list(dict.fromkeys(origins_of(fault.step - 1)))
        published = [f"{job.stage}@{step}" for step, _ in checkpoints.published(folder)]
        told = events.NotFinite(
            job.stage,
            fault.step,
            fault.what,
            tuple(rows[: diverging.SHOWN_ROWS]),
            len(rows[diverging.SHOWN_ROWS :]),
            published[-1] if published else "",
            job.start.label if job.start is not None else start.loaded.spec.model.path or "",
            back_to,
            (decided.first, decided.step) if decided is not None else (),
            wanted and decided is None,
        )
        journal.write(told)
        print(diverging.rolled_back(told) if told.left_out else diverging.words(told), file=sys.stderr)
    else:
        print(f"process {processes.rank()}: {fault}", file=sys.stderr)
    return processes.told(code)[0]


def _build(
    start: Start, setup: Setup
) -> tuple[CausalTrainer | PreferenceTrainer | ContrastTrainer, tuple[str, ...], Origins]:
    """The trainer, what is worth a word about its network, and where the rows of each step come from."""
    stage, loaded, seed = start.stage, start.loaded, start.loaded.spec.seed
    tokenizer, fast = model.load_tokenizer(start.tokenizer_place), load_tokenizer(start.tokenizer_place)
    template = chat.of(loaded.spec.model, loaded.root)
    tokenizer.chat_template = template.source if template else None  # what checkpoints carry, and probes render with
    data = datasets.build(loaded.spec, loaded.root, stage.data)
    sets = [data.get(ref) for ref in stage.data]
    # dropout, and whatever else draws while training, starts from the seed too
    transformers.set_seed(seed)
    network, notes = starting.network(start, tokenizer)
    if setup.kernels:
        setup.kernels.patch(network, stage, shards_weights=zero.is_divided(setup.deepspeed))
    if template:
        stopping.stop_at(network, Conversations(template, fast).stop_id)
    if isinstance(stage, (spec.Dpo, spec.Contrast)):
        said = samples.read(start.run, data, stage.data, setup.job.inputs)
        found = preferred.of(sets, said)
        pairs, encoded = preferred.encoded(found, fast, stage.max_length, template)
        named = (sets, found, seed, stage.global_batch_size)
        if isinstance(stage, spec.Contrast):
            rows = candidates.gather(pairs, encoded)
            return contrast.build(stage, setup, network, tokenizer, rows), notes, origins.of_prompts(*named)
        from runner.train import preference  # TRL, which most stages do without

        reference = starting.reference(start, tokenizer, network)
        built = preference.build(stage, setup, network, reference, tokenizer, encoded)
        return built, notes, origins.of_pairs(*named)
    kept = Kept(start.run / "data" / TOKENS, read_run(start.run).data)
    epochs = stage_epochs(loaded.spec, setup.job.stage, data, fast, template, kept)
    rows_of_penalties = penalty_epochs(loaded.spec, setup.job.stage, data, fast, template, kept)
    made = causal.build(stage, setup, network, tokenizer, epochs, rows_of_penalties)
    return made, notes, origins.of_epochs(epochs, stage.global_batch_size)


def _name_for_trackers(run: Path, loaded: Loaded, job: jobs.Job) -> str:
    """`zhdict_dpo/qa`, of a variant `zhdict_forgetting/replay/qa`."""
    variant = read_run(run).variant
    return "/".join(part for part in (loaded.spec.recipe, variant, job.stage) if part)


def _drop_stale_decisions(stage_folder: Path) -> None:
    """Decisions answer a waiting trainer; those for steps that will be taken again are asked for again."""
    for decision in (stage_folder / "state").glob("decision-*.json"):
        decision.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
