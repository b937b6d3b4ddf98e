"""Adapters: where an adapter's base is, and whether several of one base can be asked in one batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner import loadable
from runner.errors import BadCheckpoint, Where, first_line

_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "chat_template.jinja")
_MORE_TOKENIZER = ("tokenizer_config.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json")
_CHANGES_MORE = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
)
"""Settings with which PEFT cannot answer for several adapters at once, or changes weights that all would share."""


def why_apart(folders: Sequence[Path]) -> str:
    """Why these adapters cannot be asked in one batch; empty where they can."""
    bases, tokenizers = set(), set()
    for folder in folders:
        config = adapter_config(folder)
        if config.get("peft_type") != "LORA":
            return f"{folder.name} is {config.get('peft_type')}, not LoRA"
        if more := [name for name in _CHANGES_MORE if config.get(name)]:
            return f"{folder.name} has {more[0]}"
        if config.get("bias", "none") != "none":
            return f"{folder.name} trains biases"
        base = base_of(folder)
        bases.add(str(base))
        home = folder if has_tokenizer(folder) else Path(base)
        tokenizers.add(tuple(_digest(home / name) for name in _TOKENIZER))
    if len(bases) > 1:
        return "their bases differ"
    return "their tokenizers differ" if len(tokenizers) > 1 else ""


def adapter_config(folder: Path) -> dict[str, Any]:
    """What adapter_config.json says.

    Raises:
        BadCheckpoint: it is missing or damaged.
    """
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise BadCheckpoint(
            f"adapter_config.json cannot be read: {first_line(error)}",
            where=Where(str(folder)),
            expected="a PEFT adapter: adapter_config.json beside adapter_model.safetensors",
        ) from error
    return config


def base_of(folder: Path) -> Path | str:
    """The base of the adapter at `folder` (see `loadable.base_of`): a folder, else a hub id.

    Raises:
        BadCheckpoint: it names none, or a folder that is not there.
    """
    named = adapter_config(folder).get("base_model_name_or_path")
    found = loadable.base_of(folder)
    if not named:
        raise BadCheckpoint(
            "the adapter does not say what its base is",
            where=Where(str(folder / "adapter_config.json")),
            expected="base_model_name_or_path: the folder of the model it was trained on",
        )
    if isinstance(found, Path):
        return found
    if Path(named).is_absolute() or named.startswith(".") or named.count("/") > 1:
        raise BadCheckpoint(
            f"the adapter's base {named} is not there",
            where=Where(str(folder / "adapter_config.json")),
            expected="base_model_name_or_path: a folder, from here or from the adapter's own, or a hub id",
            hint="move the base there, or write where it is into adapter_config.json",
        )
    return str(named)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of its own; an adapter's often does not, and its base's serves."""
    return any((folder / name).is_file() for name in (*_TOKENIZER, *_MORE_TOKENIZER))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
