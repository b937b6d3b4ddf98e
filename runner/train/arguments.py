"""From a stage of the recipe to the arguments of transformers' and TRL's trainers: every number stands in one place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler

from runner import spec
from runner.errors import BadRecipe, first_line
from runner.jobs import Job
from runner.train import processes
from runner.train.kernels import Kernels

Arguments = TypeVar("Arguments", bound=TrainingArguments)


@dataclass(frozen=True)
class Setup:
    """What a stage is trained with, besides its own settings."""

    job: Job
    state_folder: Path
    """Where the trainer keeps what it needs to resume."""
    seed: int
    dtype: str
    report_to: tuple[str, ...] = ()
    """Trackers, by the names that transformers has for them."""
    run_name: str | None = None
    """What trackers call the stage."""
    deepspeed: Mapping[str, Any] = field(default_factory=dict)
    """What DeepSpeed is given (see `zero.ready`); empty without."""
    kernels: Kernels | None = None
    """Which make it fast; None leaves the trainer's own."""


def on_cpu(stage: spec.Stage) -> bool:
    """Whether a stage is trained on CPUs."""
    return not torch.cuda.is_available() or bool(stage.trainer_args.get("use_cpu"))


def trainer_arguments(stage: spec.Stage, setup: Setup) -> dict[str, Any]:
    """Keyword arguments for TrainingArguments or one of its children.

    Saving is ours (`save_strategy: no`, see `publishing`); the order of the data is ours too, so the sampler is
    sequential.
    """
    job, cpu = setup.job, on_cpu(stage)
    ours: dict[str, Any] = {
        "output_dir": str(setup.state_folder),
        "seed": setup.seed,
        "data_seed": setup.seed,
        "max_steps": job.total_steps,
        "per_device_train_batch_size": job.per_device_batch_size,
        "gradient_accumulation_steps": job.accumulation_steps,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.lr_scheduler_type,
        "warmup_steps": stage.warmup_steps,
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "neftune_noise_alpha": stage.neftune_noise_alpha if isinstance(stage, spec.Causal) else None,
        "adam_beta1": stage.adam_beta1,
        "adam_beta2": stage.adam_beta2,
        "logging_steps": stage.logging_steps,
        "logging_nan_inf_filter": False,  # a NaN loss is to be seen
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "report_to": list(setup.report_to) or "none",
        "run_name": setup.run_name,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "bf16": setup.dtype == "bfloat16",
        "fp16": setup.dtype == "float16",
        "average_tokens_across_devices": False,  # the trainers divide by what all processes have
    }
    if setup.deepspeed:
        ours["deepspeed"] = dict(setup.deepspeed)
    if processes.count() > 1:
        ours["ddp_backend"] = "gloo" if cpu else "nccl"
        ours["ddp_broadcast_buffers"] = False  # of a language model they are constants
    fast = setup.kernels.arguments if setup.kernels else {}
    return {**ours, **fast, **stage.trainer_args}


_IMPOSSIBLE = (ValueError, TypeError, KeyError, AttributeError, ImportError, NotImplementedError)
"""What the libraries raise for an argument that cannot be."""


def checked(
    make: Callable[..., Arguments], stage: spec.Stage, model: PreTrainedModel, values: dict[str, Any]
) -> Arguments:
    """The trainer's arguments, of which it is known that an optimizer and a schedule can be made.

    Raises:
        BadRecipe: a value in the recipe is impossible, naming its key where the library does.
    """
    try:
        made = make(**values)
        Trainer.get_optimizer_cls_and_kwargs(made, model)
        get_scheduler(
            made.lr_scheduler_type,
            optimizer=torch.optim.SGD([torch.zeros(1)]),
            num_warmup_steps=made.get_warmup_steps(made.max_steps),
            num_training_steps=made.max_steps,
            scheduler_specific_kwargs=made.lr_scheduler_kwargs,  # type: ignore[arg-type]  # a string was parsed
        )
    except _IMPOSSIBLE as error:
        raise _impossible(
            _named(stage, error) or [*stage.trainer_args] or ["lr_scheduler_type"], stage, error
        ) from error
    return made


@contextmanager
def blamed(stage: spec.Stage) -> Iterator[None]:
    """What the trainers refuse only while they are made or train, where they name an argument that the recipe gives.

    Raises:
        BadRecipe: instead of their own error, which stays what it is where it names none.
    """
    try:
        yield
    except _IMPOSSIBLE as error:
        if not (named := _named(stage, error)):
            raise
        raise _impossible(named, stage, error) from error


def _named(stage: spec.Stage, error: Exception) -> list[str]:
    return [key for key in stage.trainer_args if re.search(rf"\b{re.escape(key)}\b", str(error))]


def _impossible(keys: list[str], stage: spec.Stage, error: Exception) -> BadRecipe:
    names = " or ".join(f"trainer_args.{key}" if key in stage.trainer_args else key for key in keys)
    return BadRecipe(
        f"{names} cannot be as it is written: {first_line(error)}",
        hint="keys and values are those of transformers' TrainingArguments, for dpo of TRL's DPOConfig",
    )
