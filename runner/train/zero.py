"""DeepSpeed in a trainer: made ready before anything of it is used, and weights divided while they are loaded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

from runner import deepspeed_config
from runner.errors import BadRecipe, UserError
from runner.recipe import Loaded


@contextmanager
def ready(config: Mapping[str, Any], on_cpu: bool) -> Iterator[dict[str, Any]]:
    """DeepSpeed among the processes that have met; gives what transformers is to hand it.

    Args:
        config: as the stage's folder has it; nothing happens where it is empty.
        on_cpu: whether it computes on the CPU.

    Raises:
        UserError: DeepSpeed cannot be imported.
    """
    if not config:
        yield {}
        return
    alone, backend = not distributed.is_initialized(), "gloo" if on_cpu else "nccl"
    if alone:  # it divides nothing, but has to be told so
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    # torch's new names of what DeepSpeed calls at each layer of each step
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    os.environ.setdefault("DS_ACCELERATOR", "cpu" if on_cpu else "cuda")
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(f"DeepSpeed cannot be imported: {error}") from error
    if on_cpu:
        # an operator for generating text on several CPUs, which a compiler would take half a minute for
        deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(backend, verbose=False)
    try:
        yield _on_this_machine(config, on_cpu)
    finally:
        if alone:
            distributed.destroy_process_group()


def check(loaded: Loaded, config: Mapping[str, Any], dtype: str) -> None:
    """Whether every stage goes with DeepSpeed in the precision that the device at hand has chosen.

    Args:
        loaded: the recipe.
        config: what DeepSpeed is given.
        dtype: that is computed in.

    Raises:
        BadRecipe: one does not.
    """
    if not config:
        return
    model = loaded.spec.model.model_copy(update={"dtype": dtype})
    chosen = loaded.spec.model_copy(update={"model": model})
    stage = config["zero_optimization"]["stage"]
    if problems := list(deepspeed_config.refused(chosen, stage, lambda path: loaded.mark(*path))):
        raise BadRecipe(problems)


def notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What DeepSpeed does, in words."""
    if not config:
        return ()
    zero = config["zero_optimization"]
    divided = {1: "optimizer states", 2: "gradients and optimizer states", 3: "weights, gradients and optimizer states"}
    held = ", in the host's memory" if "offload_optimizer" in zero else ""
    return (f"DeepSpeed ZeRO-{zero['stage']}: {divided[zero['stage']]} are divided among the processes{held}",)


def _on_this_machine(config: Mapping[str, Any], on_cpu: bool) -> dict[str, Any]:
    """On a CPU torch's AdamW takes the steps of what is offloaded: DeepSpeed's own needs a compiler first."""
    return {**config, "zero_force_ds_cpu_optimizer": False} if on_cpu else dict(config)


@contextmanager
def divided(config: Mapping[str, Any], dtype: str) -> Iterator[None]:
    """Weights that transformers loads inside are divided among the processes as they come, where ZeRO-3 is to train
    them: no process has room for all of them. Elsewhere nothing happens.

    Args:
        config: what DeepSpeed is given.
        dtype: that is computed in.
    """
    if not is_divided(config):
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    precision = {"bf16": {"enabled": dtype == "bfloat16"}, "fp16": {"enabled": dtype == "float16"}}
    numbers = {key: value for key, value in config["zero_optimization"].items() if value != "auto"}
    told = HfDeepSpeedConfig({**config, **precision, "zero_optimization": numbers})  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        del told
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


def is_divided(config: Mapping[str, Any]) -> bool:
    """Whether the weights themselves are divided: ZeRO-3."""
    return bool(config) and config["zero_optimization"]["stage"] == 3


def whole(parameter: torch.nn.Parameter) -> int:
    """Numbers of a parameter, of one that is divided those that all processes have."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
