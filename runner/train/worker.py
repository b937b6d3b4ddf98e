"""The trainer process: trains one stage of a run as its job file says.

Started as `python -m runner.train.worker RUN STAGE` or forked by `runner.host`. It reads `recipe.yaml`, `run.json` and
`<stage>/stage.json` of the run, and writes events, checkpoints and state; nothing else passes between it and its
parent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from runner import jobs, model, recipe, spec
from runner.data import datasets
from runner.data.epochs import Epochs
from runner.data.tokens import encode_pairs, load_tokenizer
from runner.errors import EXIT_INTERRUPTED, UserError
from runner.events import Journal
from runner.folder import folder_or_hub_id, read_run, tokenizer_place
from runner.recipe import Loaded
from runner.train import causal
from runner.train.arguments import Setup, blamed
from runner.train.causal import CausalTrainer
from runner.train.publishing import Publishing, newest_state

if TYPE_CHECKING:
    from runner.train.preference import PreferenceTrainer


def main(arguments: Sequence[str]) -> int:
    """Train the stage; 0 when its last step is done, 130 when a signal ended it and its state is saved."""
    run, name = Path(arguments[0]), arguments[1]
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    record = read_run(run)
    loaded = recipe.load(run / "recipe.yaml", root=Path(record.project_root))
    job = jobs.read(run / name)
    if job is None:
        raise UserError(f"{run / name} has no stage.json", hint="recipe run writes it")
    journal = Journal(run / "events" / f"train-{name}.jsonl")
    try:
        publishing = _train(loaded, run, job, journal)
    except UserError as error:
        print(error.screen(), file=sys.stderr)
        return error.exit_code
    finally:
        journal.close()
    return EXIT_INTERRUPTED if publishing.interrupted else 0


def _train(loaded: Loaded, run: Path, job: jobs.Job, journal: Journal) -> Publishing:
    stage, folder = loaded.spec.stages[job.stage], run / job.stage
    dtype = model.choose_dtype(loaded.spec.model.dtype).value
    attention = model.choose_attention(loaded.spec.model.attn_implementation, dtype)
    setup = Setup(job, folder / "state", loaded.spec.seed, dtype)
    with blamed(stage):
        trainer = _build(loaded, run, setup, attention.value)
    publishing = Publishing(
        run=run,
        recipe=loaded.spec.recipe,
        kind=stage.kind,
        job=job,
        tokens_in_step=trainer.tokens_in_step,
        journal=journal,
        attention=f"{attention.value} ({attention.why})",
    )
    trainer.add_callback(publishing)
    trainer.remove_callback(transformers.PrinterCallback)  # events are read, prints are not
    _drop_stale_decisions(folder)
    resume_from = newest_state(folder)
    with blamed(stage):
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return publishing


def _build(loaded: Loaded, run: Path, setup: Setup, attention: str) -> CausalTrainer | PreferenceTrainer:
    stage, seed = loaded.spec.stages[setup.job.stage], loaded.spec.seed
    place = _tokenizer_place(loaded, run, setup.job)
    tokenizer, fast = model.load_tokenizer(place), load_tokenizer(place)
    data = datasets.build(loaded.spec, loaded.root, stage.data)
    sets = [data.get(ref) for ref in stage.data]
    # dropout, and whatever else draws while training, starts from the seed too
    transformers.set_seed(seed)
    network = _start_model(loaded, run, setup.job, tokenizer, attention)
    if isinstance(stage, spec.Dpo):
        from runner.train import preference  # TRL, which most stages do without

        reference = _start_model(loaded, run, setup.job, tokenizer, attention)
        pairs = encode_pairs(fast, [pair for found in sets for pair in found.pairs()], stage.max_length)
        return preference.build(stage, setup, network, reference, tokenizer, pairs)
    epochs = Epochs(sets, fast, seed, stage.max_length, whole=isinstance(stage, spec.Pretrain))
    return causal.build(stage, setup, network, tokenizer, epochs)


def _start_model(
    loaded: Loaded, run: Path, job: jobs.Job, tokenizer: PreTrainedTokenizerBase, attention: str
) -> PreTrainedModel:
    first = loaded.spec.model
    if job.start is None and first.config is not None:
        return model.build(first.config, tokenizer, loaded.spec.seed, attention)
    if job.start is None:
        # weights train in float32, computing in bfloat16 where the device has it: Trainer's bf16 option
        return model.load(folder_or_hub_id(first.path or "", loaded.root), attention, "float32")
    return model.load(run / job.stage / job.start.path, attention, "float32")


def _tokenizer_place(loaded: Loaded, run: Path, job: jobs.Job) -> str:
    """A stage that starts from a checkpoint has that checkpoint's tokenizer; the first one has the recipe's."""
    if job.start is not None:
        return str(run / job.stage / job.start.path)
    return tokenizer_place(loaded.spec.model, loaded.root, run)


def _drop_stale_decisions(stage_folder: Path) -> None:
    """Decisions answer a waiting trainer; those for steps that will be taken again are asked for again."""
    for decision in (stage_folder / "state").glob("decision-*.json"):
        decision.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
