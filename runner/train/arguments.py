"""From a stage of the recipe to the arguments of transformers' and TRL's trainers: every number stands in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runner import spec
from runner.jobs import Job


@dataclass(frozen=True)
class Setup:
    """What a stage is trained with, besides its own settings."""

    job: Job
    state_folder: Path
    """Where the trainer keeps what it needs to resume."""
    seed: int
    dtype: str


def trainer_arguments(stage: spec.Stage, setup: Setup) -> dict[str, Any]:
    """Keyword arguments for TrainingArguments or one of its children.

    Saving is ours (`save_strategy: no`, see `publishing`); the order of the data is ours too, so the sampler is
    sequential.
    """
    job, on_cpu = setup.job, not torch.cuda.is_available()
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
        "adam_beta1": stage.adam_beta1,
        "adam_beta2": stage.adam_beta2,
        "logging_steps": stage.logging_steps,
        "logging_nan_inf_filter": False,  # a NaN loss is to be seen
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "bf16": setup.dtype == "bfloat16",
        "fp16": setup.dtype == "float16",
    }
    return {**ours, **stage.trainer_args}
