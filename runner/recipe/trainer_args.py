"""Names of transformers' and TRL's training arguments, read from their source: importing it would import torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from runner import spec

_SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "transformers": (("transformers", "training_args.py"),),
    "trl": (
        ("transformers", "training_args.py"),
        ("trl", "trainer/base_config.py"),
        ("trl", "trainer/_base_config.py"),
        ("trl", "trainer/dpo_config.py"),
    ),
}
_CLASSES = {"TrainingArguments", "_BaseConfig", "BaseConfig", "DPOConfig"}

UNDER = ", under trainer_args"
"""Ends the new name of what stays a training argument."""

RENAMED: Mapping[str, str] = {
    "adafactor": "optim: adafactor, under trainer_args",
    "batch_size": "global_batch_size",
    "block_size": "max_length",
    "cutoff_len": "max_length",
    "do_eval": "a suite under probes:",
    "do_train": "nothing: a stage trains",
    "epochs": "num_train_epochs",
    "eval_steps": "save_steps (every checkpoint is probed)",
    "eval_strategy": "save_strategy (every checkpoint is probed)",
    "evaluation_strategy": "save_strategy (every checkpoint is probed)",
    "fp16": "model.dtype: float16",
    "bf16": "model.dtype: bfloat16",
    "gradient_accumulation_steps": "global_batch_size (accumulation is derived from it and micro_batch_size)",
    "gradient_checkpointing": "activation_checkpointing, under trainer_args",
    "group_by_length": "nothing: the rows of every epoch are shuffled with the seed",
    "learning_rate_scheduler": "lr_scheduler_type",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "logging_dir": "nothing: the run's folder holds what is logged",
    "max_prompt_length": "max_length",
    "max_seq_len": "max_length",
    "max_seq_length": "max_length",
    "model_max_length": "max_length",
    "model_name": "model.path",
    "model_name_or_path": "model.path",
    "n_epochs": "num_train_epochs",
    "neftune_noise_alpha": "nothing: noise on the embeddings belongs to pretrain and sft",
    "no_cuda": "use_cpu, under trainer_args",
    "num_epochs": "num_train_epochs",
    "num_train_steps": "max_steps",
    "optimizer": "optim, under trainer_args",
    "output_dir": "`recipe run --out DIR`",
    "overwrite_output_dir": "nothing: what a run replaces is moved to superseded/",
    "per_device_batch_size": "micro_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "per_gpu_train_batch_size": "micro_batch_size",
    "ref_model": "nothing: the reference is the checkpoint the stage starts from",
    "rpo_alpha": "loss_type: [sigmoid, sft] with loss_weights: [1, alpha]",
    "schedule": "lr_scheduler_type",
    "seed": "seed, at the top of the recipe",
    "sequence_len": "max_length",
    "tokenizer": "model.tokenizer",
    "torch_dtype": "model.dtype",
    "train_batch_size": "global_batch_size",
    "torch_compile": "launch.compile",
    "use_liger_kernel": "launch.liger",
    "warmup_ratio": "warmup_steps (below 1 it is a share of all steps)",
}
"""Old or foreign name of a stage's key → what is written now."""

OWNED: Mapping[str, str] = {
    **{name: new for name, new in RENAMED.items() if not new.endswith(UNDER)},
    "accelerator_config": "nothing: which rows make a step is the run's to say",
    "average_tokens_across_devices": "nothing: a step's loss is a mean over all of its tokens, wherever they are",
    "auto_find_batch_size": "global_batch_size, which is a promise",
    "data_seed": "seed, at the top of the recipe",
    "dataloader_drop_last": "nothing: every row is trained on in every epoch",
    "dataloader_in_order": "nothing: rows come in the order the seed gives",
    "dataloader_persistent_workers": "nothing: rows are drawn anew for every epoch, which such workers do not see",
    "deepspeed": "launch.deepspeed, at the top of the recipe",
    "disable_tqdm": "nothing: the console shows where training is",
    "do_predict": "a suite under probes:",
    "eval_on_start": "nothing: the checkpoint a stage starts from is probed",
    "fsdp": "launch.deepspeed: zero3, at the top of the recipe",
    "full_determinism": "seed, at the top of the recipe",
    "ignore_data_skip": "nothing: an interrupted stage goes on where it was",
    "length_column_name": "nothing: the rows of every epoch are shuffled with the seed",
    "load_best_model_at_end": "from: STAGE@best in the stage below",
    "local_rank": "nothing: processes are started by the run",
    "logging_first_step": "logging_steps",
    "logging_strategy": "logging_steps",
    "metric_for_best_model": "best: SUITE, at the top of the recipe",
    "model_init_kwargs": "model:, at the top of the recipe",
    "per_device_eval_batch_size": "a suite under probes:",
    "push_to_hub": "nothing: a checkpoint is published into the run's folder",
    "remove_unused_columns": "nothing: token ids and labels are the run's own",
    "report_to": "report_to, at the top of the recipe",
    "resume_from_checkpoint": "nothing: the same command resumes",
    "save_only_model": "nothing: a checkpoint holds what loading it needs",
    "save_total_limit": "nothing: checkpoints are all kept",
    "sync_ref_model": "nothing: the reference is the checkpoint the stage starts from",
    "train_sampling_strategy": "nothing: the rows of every epoch are shuffled with the seed",
}
"""Training argument that the recipe itself decides → what to write instead."""


def instead(new: str, words: str = "write") -> str:
    """The hint that gives a new name of RENAMED or OWNED."""
    return f"remove it; {new.partition(': ')[2]}" if new.startswith("nothing") else f"{words} {new}"


def stage_keys(kind: str) -> tuple[str, ...]:
    """The keys a stage of this kind may have, as they are written."""
    models: Mapping[str, type[spec.Stage]] = {
        "pretrain": spec.Pretrain,
        "sft": spec.Sft,
        "lora": spec.Sft,
        "dpo": spec.Dpo,
        "contrast": spec.Contrast,
    }
    model = models.get(kind, spec.Stage)
    return tuple(info.alias or name for name, info in model.model_fields.items())


@lru_cache
def argument_types(kind: str) -> Mapping[str, str]:
    """Argument → its annotation as written, for a stage of this kind; empty where the library is not installed."""
    found: dict[str, str] = {}
    for package, name in _SOURCES["trl" if kind == "dpo" else "transformers"]:
        located = find_spec(package)
        for folder in (located.submodule_search_locations or ()) if located else ():
            path = Path(folder) / name
            if path.is_file():
                found |= _fields(path)
    return found


def _fields(path: Path) -> dict[str, str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        item.target.id: ast.unparse(item.annotation)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }


_SIMPLE = {"bool": "true or false", "int": "a whole number", "float": "a number"}


def expected_type(annotation: str, value: object) -> str | None:
    """What was expected, where `value` cannot be right for a plain bool, int or float argument; else None."""
    names = {name.strip() for name in annotation.split("|")} - {"None"}
    if not names or not names <= set(_SIMPLE):
        return None
    if value is None:
        return None if "None" in annotation else " or ".join(_SIMPLE[name] for name in sorted(names))
    right = (
        (isinstance(value, bool) and "bool" in names)
        or (isinstance(value, int) and not isinstance(value, bool) and names & {"int", "float"})
        or (isinstance(value, float) and "float" in names)
    )
    return None if right else " or ".join(_SIMPLE[name] for name in sorted(names))
