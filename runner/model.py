"""The model: made from a config or loaded, with the attention and the precision that can run here; adapters merged."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from runner import foreign_code, loadable
from runner.data.vocabulary import Term
from runner.errors import BadCheckpoint, BadRecipe, Where, first_line
from runner.foreign_code import reworded
from runner.spec import embedding_rows

IMPOSSIBLE = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RuntimeError, StrictDataclassError)
"""What making a model of settings that do not fit together raises."""
GENERATION = "generation_config.json"
"""How replies end; beside an adapter too, which may have learned another end than its base."""
_DROPOUT = re.compile(r"(?:^|_)(?:dropout(?:_prob|_rate)?|pdrop)$")
_OF_A_HEAD = re.compile(r"classifier|summary|layerdrop")
"""Dropouts of heads that a language model does not have."""


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


def choose_attention(wanted: str, dtype: str, kind: str = "") -> Choice:
    """The attention implementation; asking by name for one that cannot run is an error, without a look at a hub.

    Args:
        wanted: what the recipe says.
        dtype: that is computed in.
        kind: transformers' name for the type of model (`model_type`), of which some have no other than eager; empty
            where it is not known.
    """
    missing = _why_no_flash(dtype)
    if wanted == "auto" and not missing and _has(kind, "_supports_flash_attn"):
        return Choice("flash_attention_2", "flash-attn is installed")
    if wanted == "auto" and not _has(kind, "_supports_sdpa"):
        return Choice("eager", f"{kind} has no other")
    if wanted == "auto":
        return Choice("sdpa", missing or f"{kind} has no flash attention")
    if wanted == "flash_attention_2" and missing:
        raise BadRecipe(
            f"model.attn_implementation: flash_attention_2 cannot run here: {missing}",
            hint="say auto (takes it where it can run) or sdpa",
        )
    return Choice(wanted, "asked for")


def _has(kind: str, attention: str) -> bool:
    """Whether transformers' code for a type of model says that it has an attention; of an unknown type it may."""
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return True
    return bool(getattr(MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[kind]], attention, True))


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
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadCheckpoint(f"no tokenizer could be loaded from {path}: {reworded(first_line(error))}") from error
    if tokenizer.eos_token_id is None:
        raise BadCheckpoint(f"the tokenizer at {path} has no eos_token", hint="set eos_token in tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build(
    config: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    attention: str,
    dropout: float | None = None,
) -> PreTrainedModel:
    """A new model with weights drawn from `seed`, which is set here, before the first weight is drawn.

    Args:
        config: transformers' settings, with `model_type`.
        tokenizer: says `vocab_size` and the special tokens' ids.
        seed: of the weights.
        attention: the implementation.
        dropout: see `set_dropout`.

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
    # one entry more than the largest id, and not len(tokenizer): added tokens may leave gaps; a configuration may ask
    # for more, so that the size is a round one
    own["vocab_size"] = embedding_rows(config, max(tokenizer.get_vocab().values()) + 1)
    special = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    set_seed(seed)
    try:
        made = AutoConfig.for_model(kind, **{**own, **special})
        set_dropout(made, dropout)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            made, attn_implementation=attention, dtype=torch.float32
        )
    except IMPOSSIBLE as error:
        # a strict configuration says which field in its first line and why in the next
        said = " ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
        raise BadRecipe(f"model.config: no {kind} can be made of these settings: {said[:300]}") from error
    return model


def load(path: str | Path, attention: str, dtype: str, dropout: float | None = None, **how: Any) -> PreTrainedModel:
    """The weights at a folder or hub id; an adapter is merged into its base.

    Args:
        path: where they are.
        attention: the implementation.
        dtype: to hold them in.
        dropout: see `set_dropout`.
        how: more arguments of `from_pretrained`.

    Raises:
        BadCheckpoint: they cannot be loaded.
        BadRecipe: see `set_dropout`.
    """
    if loadable.is_adapter(Path(path)):
        return _merged(Path(path), load(base_of(Path(path)), attention, dtype, dropout, **how))
    loadable.check_readable(path)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        set_dropout(config, dropout)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            attn_implementation=attention,
            dtype=getattr(torch, dtype),
            **foreign_code.arguments(path),
            **how,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BadCheckpoint(f"no model could be loaded from {path}: {reworded(first_line(error))}") from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise BadCheckpoint(f"{path} is an adapter on a hub", hint="download it, and give its folder")
    return model


def extend(model: PreTrainedModel, terms: Sequence[Term]) -> None:
    """Give every new token the mean of the embeddings of the tokens that its text was written with before; and, where
    the output layer has weights of its own, the mean of their rows there.

    The embeddings of many checkpoints have more rows than their tokenizer has tokens; they grow only beyond those.
    """
    first: Any = model.get_input_embeddings()
    rows = first.weight.shape[0]  # (V, D)
    if (needed := max(term.id for term in terms) + 1) > rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
    first, last = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[no-untyped-call]
    kept = (first.weight, getattr(last, "weight", None), getattr(last, "bias", None))
    tensors: dict[int, torch.Tensor] = {id(found): found for found in kept if found is not None}  # tied ones once
    with torch.no_grad():
        for tensor in tensors.values():
            before = tensor.clone()  # (V, D), or (V,)
            for term in terms:
                tensor[term.id] = before[list(term.pieces)].mean(dim=0)


def base_of(adapter: Path) -> Path | str:
    """The base of the adapter in a folder: a folder, or an id on the hub.

    Raises:
        BadCheckpoint: it names none.
    """
    if base := loadable.base_of(adapter):
        return base
    raise BadCheckpoint(
        "the adapter does not say what its base is",
        where=Where(str(adapter / loadable.ADAPTER)),
        expected="base_model_name_or_path: the folder of the model it was trained on",
    )


def _merged(adapter: Path, base: PreTrainedModel) -> PreTrainedModel:
    from peft import PeftModel

    loadable.check_readable(adapter)
    try:
        merged: PreTrainedModel = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
        merged.requires_grad_(True)  # PEFT froze the base, and it stays frozen when the adapter is gone
        if (adapter / GENERATION).is_file():
            merged.generation_config = GenerationConfig.from_pretrained(adapter)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"the adapter {adapter} could not be merged into its base: {first_line(error)}") from error
    return merged


def dropouts(config: PreTrainedConfig) -> Mapping[str, float]:
    """Every dropout that a configuration of a language model knows, with its value."""
    own = config.get_text_config(decoder=True).to_dict()
    return {
        name: value
        for name, value in own.items()
        if _DROPOUT.search(name) and not _OF_A_HEAD.search(name) and isinstance(value, (int, float))
    }


def set_dropout(config: PreTrainedConfig, dropout: float | None) -> None:
    """Give every dropout of a configuration this value; None leaves them.

    Raises:
        BadRecipe: the configuration knows none that could be raised above 0.
    """
    if dropout is None:
        return
    known = dropouts(config)
    if not known and dropout:
        raise BadRecipe(
            f"dropout: a {config.model_type} has none",
            expected="a model whose configuration has a setting such as attention_dropout",
            hint="remove it; lora.dropout is another one, of the adapter's input",
        )
    own = config.get_text_config(decoder=True)
    for name in known:
        setattr(own, name, float(dropout))
