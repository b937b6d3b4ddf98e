"""A small model of the same kind: the `model:` block of a rehearsal (`--scale tiny`)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import loadable, spec
from runner.recipe.model_configs import causal_types, settings_of

LAYERS, WIDTH, HEADS, HEAD_DIM, VOCABULARY = 2, 64, 4, 16, 1024
DEFAULT_TYPE = "qwen3"
"""What a model is taken for that is not here and whose name does not say."""

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads")
_FEED_FORWARD = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff")
_OTHERS = {
    "word_embed_proj_dim": WIDTH, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "moe_intermediate_size": WIDTH,
    "shared_expert_intermediate_size": WIDTH, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 16,
}  # fmt: skip
"""Sizes of mixtures of experts and of latent attention."""
_LEFT_OUT = ("vocab_size", "layer_types", "max_window_layers", "mlp_only_layers", "rope_scaling")
"""Settings that speak of layers or positions which a small model has not."""
_KEPT = ("tie_word_embeddings", "hidden_act", "hidden_activation", "activation_function")
"""What is taken over from a `config.json` besides its sizes."""


@dataclass(frozen=True)
class Small:
    """The small model's block, and what there is to say of it."""

    block: dict[str, Any]
    notes: tuple[str, ...]
    is_guess: bool
    """Whether not even its type is known, so that the names of its modules are not."""
    layers: int | None
    """Of the model that it stands for, where that is known."""


def small(recipe: spec.Recipe, root: Path, texts: Sequence[str], *, converses: bool) -> Small:
    """The model of a recipe, cut down: made from nothing, with a tokenizer trained on the rows at hand.

    Args:
        recipe: the whole recipe.
        root: where relative paths start.
        texts: the data sets that a tokenizer is trained on, where the recipe's own is not taken.
        converses: whether conversations are trained on, which need a chat template.
    """
    model, notes, is_guess = recipe.model, [], False
    if model.config is not None:
        before: Mapping[str, Any] = model.config
        config = cut(before)
        if _words(config) != _words(before):
            notes.append(f"model: {_words(config)} instead of {_words(before)}")
    else:
        assert model.path is not None
        before, how = _found(model.path, root)
        config = cut({name: before[name] for name in before if name in ("model_type", *_KEPT) or _is_size(name)})
        is_guess = how == _GUESSED
        notes.append(f"model: a new {config['model_type']} of {_words(config)} instead of {model.path}, {how}")
    block: dict[str, Any] = {"config": config}
    block["tokenizer"], note = _tokenizer(model, texts)
    notes += [note] if note else []
    if model.chat_template is not None:
        block["chat_template"] = model.chat_template
    elif converses and not isinstance(model.tokenizer, spec.Tokenizer):
        block["chat_template"] = "chatml"
        notes.append("model: chat template chatml instead of the tokenizer's own")
    if model.attn_implementation in ("eager", "sdpa"):
        block["attn_implementation"] = model.attn_implementation
    if model.extend_vocabulary is not None:
        notes.append("model: extend_vocabulary is left out, as the tokenizer is a new one")
    return Small(block, tuple(notes), is_guess, _value(before, _LAYERS))


def cut(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its type and its proportions, and few layers of a small width."""
    kind = config["model_type"]
    settings = settings_of(kind)
    known = settings.types if settings is not None else {}
    made = {name: value for name, value in config.items() if name not in _LEFT_OUT}

    def put(names: Sequence[str], value: int) -> None:
        name = next((name for name in names if name in config), next((name for name in names if name in known), None))
        if name is not None:
            made[name] = value

    put(_LAYERS, min(_value(config, _LAYERS) or LAYERS, LAYERS))
    width, heads = _value(config, _WIDTH), _value(config, _HEADS)
    if width is not None and width <= WIDTH:
        return made
    few = min(heads or HEADS, HEADS)
    kv_heads, feed_forward = _value(config, _KV_HEADS), _value(config, _FEED_FORWARD)
    put(_WIDTH, WIDTH)
    put(_HEADS, few)
    put(_KV_HEADS, max(few * kv_heads // heads, 1) if kv_heads and heads else few)
    put(("head_dim",), HEAD_DIM)
    wide = WIDTH * feed_forward // width // 8 * 8 if feed_forward and width else 3 * WIDTH
    put(_FEED_FORWARD, max(wide, 8))
    for name, value in _OTHERS.items():
        if name in config or name in known:
            put((name,), value)
    return made


def in_few_layers(pattern: str, layers: int | None) -> str:
    """A pattern of names of parameters, with the numbers of the small model's layers."""
    last = LAYERS - 1

    def moved(number: re.Match[str]) -> str:
        found = int(number[0])
        return str(min(found * LAYERS // layers if layers else found, last))

    return re.sub(r"(?<=\.)\d+(?=\.)", moved, pattern)


def _value(config: Mapping[str, Any], names: Sequence[str]) -> int | None:
    found = next((config[name] for name in names if name in config), None)
    return found if isinstance(found, int) and found > 0 else None


def _is_size(name: str) -> bool:
    return name in (*_LAYERS, *_WIDTH, *_HEADS, *_KV_HEADS, *_FEED_FORWARD)


def _words(config: Mapping[str, Any]) -> str:
    layers, width = _value(config, _LAYERS), _value(config, _WIDTH)
    return f"{layers or 'many'} layer{'s' if layers != 1 else ''} of width {width or 'as is usual'}"


def _tokenizer(model: spec.Model, texts: Sequence[str]) -> tuple[dict[str, Any], str]:
    """How a tokenizer is trained, and what there is to say of it."""
    own = model.tokenizer
    if isinstance(own, spec.Tokenizer):
        made = own.model_dump(mode="json", exclude_none=True)
        if own.vocab_size is None or own.vocab_size <= VOCABULARY:
            return made, ""
        note = f"tokenizer: {VOCABULARY:,} tokens instead of {own.vocab_size:,}"
        return {**made, "vocab_size": VOCABULARY}, note
    made = {"train": "bpe", "vocab_size": VOCABULARY, "from_data": list(texts)}
    return made, f"tokenizer: bpe of {VOCABULARY:,} tokens, trained on the rows at hand, instead of {own or model.path}"


# --- a model at a path or on a hub ---

_GUESSED = f"which is not here and whose name tells no type: {DEFAULT_TYPE} is taken"


def _found(path: str, root: Path) -> tuple[Mapping[str, Any], str]:
    """The configuration of a checkpoint, and how it is known; nothing but the default where it is not."""
    if base := loadable.base_of(root / path):
        return _found(str(base), root)
    for file in (root / path / "config.json", *_cached(path)):
        config = _read(file)
        if config is not None and config.get("model_type") in causal_types():
            return config, "in its proportions"
    bare = re.sub(r"[^a-z0-9]", "", path.rstrip("/").rpartition("/")[2].lower())
    named = [kind for kind in causal_types() if bare.startswith(re.sub(r"[^a-z0-9]", "", kind))]
    if named:
        return {"model_type": max(named, key=len)}, "which is not here: its type is told by its name"
    return {"model_type": DEFAULT_TYPE}, _GUESSED


def _cached(hub_id: str) -> list[Path]:
    """Where a hub's cache on this machine has its configuration."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    folder = cache / f"models--{hub_id.replace('/', '--')}" / "snapshots"
    return sorted(folder.glob("*/config.json"))


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
