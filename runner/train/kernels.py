"""What makes training fast on the device at hand: Liger's kernels, torch.compile, AdamW in one kernel; on or off, why.

None of it changes what is learned, but for rounding.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from runner import spec
from runner.errors import BadRecipe
from runner.model import device

_COMPILERS = ("c++", "g++", "clang++")
_FUSED, _PLAIN = "adamw_torch_fused", "adamw_torch"


@dataclass(frozen=True)
class Kernel:
    """One of them."""

    name: str
    is_on: bool
    why: str
    """It is off; empty where it is on."""


@dataclass(frozen=True)
class Kernels:
    """What a stage is trained with."""

    liger: Kernel
    compile: Kernel
    fused: Kernel
    arguments: Mapping[str, Any]
    """What transformers' Trainer is told."""

    @property
    def words(self) -> str:
        """`on: fused AdamW; off: Liger (liger-kernel is not installed), torch.compile (not asked for)`."""
        every = (self.fused, self.liger, self.compile)
        on = ", ".join(one.name for one in every if one.is_on)
        off = ", ".join(f"{one.name} ({one.why})" for one in every if not one.is_on)
        return "; ".join(f"{word}: {names}" for word, names in (("on", on), ("off", off)) if names)

    def notes(self, launch: spec.Launch) -> tuple[str, ...]:
        """These words, where there is something to choose from: on a GPU, or because the recipe chose."""
        plain = spec.Launch()
        same = all(getattr(launch, name) == getattr(plain, name) for name in ("liger", "compile", "fused_optimizer"))
        return () if same and device().type == "cpu" else (self.words,)

    def patch(self, network: Any, stage: spec.Stage, *, shards_weights: bool = False) -> None:
        """Put Liger's kernels in the place of a network's own layers, where they are on.

        The one that takes the loss together with the output layer makes no logits, which only a plain loss can do
        without, and reads the layer's weights by itself, which must be whole.

        Args:
            network: the model, or an adapter on it.
            stage: what the recipe says.
            shards_weights: each process has only a part of them (ZeRO-3).
        """
        if not self.liger.is_on:
            return
        from transformers.integrations.liger import apply_liger_kernel

        whole_loss = _needs_no_logits(stage) and not shards_weights
        settings = {"fused_linear_cross_entropy": whole_loss, "cross_entropy": False}
        apply_liger_kernel(network, settings)  # type: ignore[no-untyped-call]


def choose(launch: spec.Launch, stage: spec.Stage, model_type: str) -> Kernels:
    """What can run here and is wanted.

    Args:
        launch: what the recipe says.
        stage: the stage, whose `trainer_args.optim` comes first.
        model_type: of the model's configuration.

    Raises:
        BadRecipe: what is asked for by name cannot run here.
    """
    liger = _chosen("Liger", "launch.liger", launch.liger, _why_no_liger(model_type))
    compiled = _chosen("torch.compile", "launch.compile", launch.compile or None, _why_no_compile())
    optim = stage.trainer_args.get("optim")
    taken = f"trainer_args.optim is {optim}" if optim not in (None, _FUSED) else ""
    fused = _chosen("fused AdamW", "launch.fused_optimizer", launch.fused_optimizer, taken)
    arguments: dict[str, Any] = {} if optim else {"optim": _FUSED if fused.is_on else _PLAIN}
    if compiled.is_on:
        arguments["torch_compile"] = True
    return Kernels(liger, compiled, fused, arguments)


def _chosen(name: str, key: str, wanted: str | bool | None, missing: str) -> Kernel:
    if wanted is True and missing:
        raise BadRecipe(f"{key}: {name} cannot be had here: {missing}", hint=f"remove {key}, or say false")
    if wanted is None:
        return Kernel(name, is_on=False, why="not asked for")
    if wanted is False:
        return Kernel(name, is_on=False, why="turned off")
    return Kernel(name, is_on=not missing, why=missing)


def _why_no_liger(model_type: str) -> str:
    if device().type != "cuda":
        return "no CUDA device"
    if find_spec("liger_kernel") is None:
        return "liger-kernel is not installed"
    known = import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    return "" if model_type in known else f"it does not know {model_type}"


def _why_no_compile() -> str:
    if device().type == "cuda":
        return "" if find_spec("triton") else "triton is not installed"
    return "" if any(map(shutil.which, _COMPILERS)) else f"no C++ compiler is installed ({', '.join(_COMPILERS)})"


def _needs_no_logits(stage: spec.Stage) -> bool:
    """Whether the loss of a stage is cross-entropy alone, every token of it with the same weight."""
    if not isinstance(stage, spec.Causal) or stage.kl or stage.ewc:
        return False
    return not isinstance(stage, spec.Sft) or not stage.prompt_loss_weight
