"""The model: made from a config or loaded, with the attention and the precision that can run here."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from runner.errors import BadCheckpoint, BadRecipe, first_line

_IMPOSSIBLE = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RuntimeError, StrictDataclassError)
"""What making a model of settings that do not fit together raises."""


@dataclass(frozen=True)
class Choice:
    """A choice made for the user, and why."""

    value: str
    why: str


def device() -> torch.device:
    """The accelerator of this process, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def choose_dtype(wanted: str) -> Choice:
    """The dtype to compute in.

    Raises:
        BadRecipe: float16 on a CPU, where nothing can be trained in it.
    """
    if wanted == "float16" and device().type == "cpu":
        raise BadRecipe("model.dtype: float16 cannot be trained on a CPU", hint="say auto, float32 or bfloat16")
    if wanted != "auto":
        return Choice(wanted, "asked for")
    if device().type == "cpu":
        return Choice("float32", "on a CPU")
    if torch.cuda.is_bf16_supported():
        return Choice("bfloat16", "the device has it")
    return Choice("float32", "the device has no bfloat16")


def choose_attention(wanted: str, dtype: str) -> Choice:
    """The attention implementation; asking by name for one that cannot run is an error, without a look at a hub."""
    missing = _why_no_flash(dtype)
    if wanted == "auto":
        return Choice("sdpa", missing) if missing else Choice("flash_attention_2", "flash-attn is installed")
    if wanted == "flash_attention_2" and missing:
        raise BadRecipe(
            f"attn_implementation: flash_attention_2 cannot run here: {missing}",
            hint="say auto (takes it where it can run) or sdpa",
        )
    return Choice(wanted, "asked for")


def _why_no_flash(dtype: str) -> str:
    if device().type != "cuda":
        return "no CUDA device"
    if importlib.util.find_spec("flash_attn") is None:
        return "flash-attn is not installed"
    if dtype == "float32":
        return "flash attention needs float16 or bfloat16"
    return ""


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer at a folder or hub id, with an EOS and a padding token.

    Raises:
        BadCheckpoint: there is none, or it has no EOS token.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise BadCheckpoint(f"no tokenizer could be loaded from {path}: {first_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise BadCheckpoint(f"the tokenizer at {path} has no eos_token", hint="set eos_token in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build(config: dict[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int, attention: str) -> PreTrainedModel:
    """A new model with weights drawn from `seed`, which is set here, before the first weight is drawn.

    Raises:
        BadRecipe: there is no such model type, or its configuration cannot have these settings.
    """
    kind, own = config["model_type"], {key: value for key, value in config.items() if key != "model_type"}
    try:
        known = AutoConfig.for_model(kind)
    except (ValueError, KeyError) as error:
        raise BadRecipe(f"model.config.model_type: transformers has no model type {kind!r}") from error
    unknown = sorted(key for key in own if not hasattr(known, key))
    if unknown:
        raise BadRecipe(
            f"model.config: {kind} has no setting {unknown[0]!r}",
            hint="the names are those of the model's transformers configuration",
        )
    # one entry more than the largest id, and not len(tokenizer): added tokens may leave gaps
    own["vocab_size"] = max(tokenizer.get_vocab().values()) + 1
    special = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    set_seed(seed)
    try:
        made = AutoConfig.for_model(kind, **{**own, **special})
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            made, attn_implementation=attention, dtype=torch.float32
        )
    except _IMPOSSIBLE as error:
        # a strict configuration says which field in its first line and why in the next
        said = " ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
        raise BadRecipe(f"model.config: no {kind} can be made of these settings: {said[:300]}") from error
    return model


def load(path: str | Path, attention: str, dtype: str) -> PreTrainedModel:
    """The weights at a folder or hub id.

    Raises:
        BadCheckpoint: they cannot be loaded.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path, attn_implementation=attention, dtype=getattr(torch, dtype)
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BadCheckpoint(f"no model could be loaded from {path}: {first_line(error)}") from error
    return model
