"""The fingerprint of what answers: one digest of everything on this machine that decides a local checkpoint's reply."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from runner import loadable
from runner.checkpoints import MANIFEST, sha256_file

_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "flash-attn", "kernels")
"""What computes the reply, or chooses how; their versions are read without importing them."""
_NOT_LOADED = re.compile(
    r"^(optimizer|scheduler|scaler|rng_state.*|training_args|trainer_state)\.(pt|pth|bin|json)$"
    rf"|^{re.escape(MANIFEST)}$|^events\.out\.tfevents|\.(md|log|jsonl|html|png)$|^\."
)
"""Files beside a checkpoint that no model or tokenizer is loaded from; everything else counts."""
_NOT_LOADED_FOLDER = re.compile(
    r"^(global_step.*|runs|logs|wandb|__pycache__|(pytorch_model_fsdp|optimizer)_\d+|\..*)$"
)


def fingerprint(path: Path, settings: Mapping[str, object], *, sha256: Callable[[Path], str] = sha256_file) -> str:
    """A digest of the checkpoint at `path` and of the way it is asked: equal digests give equal replies.

    It covers every file of the folder that could be loaded (weights, adapter, configurations, tokenizer, chat template,
    code), those of an adapter's base model, the engine's own source, the versions of the libraries and the kind of
    device. Trainer state, the manifest and logs are left out. The folder's name does not count.

    Args:
        settings: how it is asked, such as dtype, engine and whether prompts go through a chat template.
        sha256: of a file; the store remembers it.

    Returns:
        Hex digits; empty where a base model or a file cannot be found, and no reply may be taken from a store.
    """
    try:
        files = {name: sha256(file) for name, file in _files(path)}
        base = base_model(path)
        base_files = {name: sha256(file) for name, file in _files(base)} if base else {}
    except (OSError, ValueError):
        return ""
    if base is not None and not base_files:
        return ""
    row = {
        "files": files, "base": base_files, "settings": dict(settings), "device": _device(),
        "source": _engine_source(), "libraries": _versions(),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


def base_model(path: Path) -> Path | None:
    """The folder of the base model of the adapter at `path`, or None where `path` is no adapter.

    Looked for where the engine looks: beside the adapter, from the working folder, then in the local cache of the hub.

    Raises:
        ValueError: adapter_config.json is damaged or names no base.
        FileNotFoundError: the base is not on this machine.
    """
    config = path / "adapter_config.json"
    if not config.is_file():
        return None
    row = json.loads(config.read_text(encoding="utf-8"))
    name = row.get("base_model_name_or_path") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError(f"{config} names no base model")
    if isinstance(found_here := loadable.base_of(path), Path):
        return found_here
    from huggingface_hub import try_to_load_from_cache  # not needed, and not free, for a folder

    found = try_to_load_from_cache(name, "config.json")  # ValueError: no hub id
    if not isinstance(found, str):
        raise FileNotFoundError(name)
    return Path(found).parent  # the snapshot of a commit


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file that could be loaded, by its path in the folder; checkpoints inside it are models of their own."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            own = (entry / "config.json").is_file() or (entry / "adapter_config.json").is_file()
            if not own and not _NOT_LOADED_FOLDER.match(entry.name):
                yield from ((f"{entry.name}/{name}", file) for name, file in _files(entry))
        elif not _NOT_LOADED.search(entry.name):
            yield entry.name, entry


@cache
def _engine_source() -> str:
    """A digest of the engine's modules: an engine that was changed may answer otherwise, and nobody has to think of
    raising a number."""
    here = Path(__file__).parent
    modules = [*here.glob("engine*.py"), *here.glob("engine*/**/*.py")]
    return hashlib.sha256("".join(sha256_file(module) for module in sorted(modules)).encode()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    return {name: version for name in _LIBRARIES if (version := _version(name))}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _device() -> list[str]:
    """The kinds of accelerator that can be seen, as far as that is known without torch. `auto` computes in another
    dtype where there is one, and its kernels give other replies."""
    hidden = {os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")}
    found = {"none visible"} if hidden & {"", "-1"} else set()
    for about in Path("/proc/driver/nvidia/gpus").glob("*/information"):
        found.update(line for line in about.read_text(encoding="utf-8").splitlines() if line.startswith("Model"))
    found.update(name for name in ("/dev/kfd", "/dev/dxg") if Path(name).exists())  # AMD, and any below WSL
    return sorted({*found, platform.machine()})
