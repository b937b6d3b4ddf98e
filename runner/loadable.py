"""What the folder of a checkpoint holds, whoever wrote it, and what plainly ails it: by its files, loading nothing."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import foreign_code
from runner.errors import BadCheckpoint, Where

NUMBERED = re.compile(r"^(?:ckpt|checkpoint|step|epoch|iter)[-_](\d+)$")
"""Names of numbered checkpoints: of this project, transformers' Trainer and what stands on it (`checkpoint-N`),
torchtune (`epoch_N`), and scripts of one's own."""
ADAPTER = "adapter_config.json"
MANIFEST = "manifest.json"
"""What a run says about a checkpoint that it published."""
BASE = "base"
"""Folder of a stage whose adapters stand on weights that lie in no checkpoint."""
TRAINER_STATE = "trainer_state.json"
TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip
"""Files of which a tokenizer has at least one."""
_NOT_LOADED = re.compile(
    r"^\.|\.(?:pt|pth|distcp|md|gguf)$|^(?:optimizer|scheduler|scaler|training_args)\.bin$|_results\.json$|^events\.out\.|\.(?:log|jsonl)$"
)
"""What a trainer keeps beside the files that loading reads."""


MAX_JSON_BYTES = 64_000_000
"""Of a JSON file: an index of weights has a line for each tensor, a trainer's state one for each logged step."""
_MAX_HEADER_BYTES = 100_000_000
"""As in the safetensors library."""


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `checkpoint-9` before `checkpoint-10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder has a model's or an adapter's configuration."""
    return (folder / "config.json").is_file() or (folder / ADAPTER).is_file()


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return (folder / ADAPTER).is_file()


def adapter_settings(folder: Path) -> Mapping[str, Any]:
    """What adapter_config.json says; empty where it is missing or damaged."""
    found = _json(folder / ADAPTER)
    return found if isinstance(found, dict) else {}


def base_of(folder: Path) -> Path | str:
    """The base of the adapter in `folder`: a folder that is there, else the name that adapter_config.json gives, of a
    folder that is not there or on a hub; empty where it gives none.

    The manifest of a run's checkpoint says where the base lies from the checkpoint, and is asked first: a run that was
    moved as a whole, or copied beside the old one, has its own. adapter_config.json holds an absolute path, because
    PEFT reads it from the working folder.
    """
    manifest, named = _json(folder / MANIFEST), adapter_settings(folder).get("base_model_name_or_path")
    from_here = manifest.get("base") if isinstance(manifest, dict) else None
    places = [folder / name for name in (from_here, named) if isinstance(name, str) and name]
    places += [Path(named)] if isinstance(named, str) and named else []
    found = next((place for place in places if place.is_dir()), None)
    return found.resolve() if found else named if isinstance(named, str) else ""


def numbered(folder: Path) -> list[Path]:
    """The folders in `folder` whose name says that they are checkpoints, in the order of their numbers."""
    found = [entry for entry in folder.iterdir() if NUMBERED.match(entry.name) and entry.is_dir()]
    return sorted(found, key=lambda entry: natural(entry.name))


def files(folder: Path) -> list[Path]:
    """The files that loading `folder` may read, by name; without optimizer states and logs."""
    return sorted(entry for entry in folder.iterdir() if not _NOT_LOADED.search(entry.name) and entry.is_file())


def weights(folder: Path) -> list[Path]:
    """The files that hold the weights, as transformers and PEFT look for them; those an index names may be missing."""
    place = _place(folder)
    if place is None or place.suffix != ".json":
        return [place] if place else []
    return sorted({folder / shard for shard in _shard_of(place).values()})


def refused(place: Path | str) -> str:
    """Why the weights of a folder are not read, though they may be whole: they are a pickle. Empty where they may be,
    and of an id on a hub, which transformers is told."""
    folder = Path(place)
    return foreign_code.refused(folder, weights(folder)) if folder.is_dir() else ""


def check_readable(place: Path | str) -> None:
    """Whether the weights of a folder may be read, for who came to it without a look at all of `problem`.

    Raises:
        BadCheckpoint: they are a pickle.
    """
    if fault := refused(place):
        said, _, hint = fault.partition("\n    hint: ")
        raise BadCheckpoint(said, where=Where(str(place)), expected="*.safetensors", hint=hint)


def problem(folder: Path) -> str:
    """Why `folder` cannot be loaded, as far as its files show, and on a second line what to do; empty where nothing is
    wrong. A base model that an adapter names is not looked for."""
    try:
        names = {entry.name for entry in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return "the folder is gone"
    for name in sorted({"config.json", ADAPTER} & names):
        if (size := (folder / name).stat().st_size) > MAX_JSON_BYTES:
            return f"{name} has {size:,} bytes, and no configuration has more than {MAX_JSON_BYTES:,}"
        if not isinstance(_json(folder / name), dict):
            return f"{name} is damaged"
    place = _place(folder)
    if place is not None and place.suffix == ".json" and (fault := _wrong_index(place)):
        return fault
    found = weights(folder)
    if not found and (fault := other_format(folder)):
        return fault
    if not is_checkpoint(folder):
        return "config.json is missing" if names else "the folder is empty"
    if not found:
        return "no weights: there is no *.safetensors" + _unread(folder)
    if fault := next((fault for file in found if (fault := _damage(file))), "") or refused(folder):
        return fault
    if ADAPTER not in names and not names & set(TOKENIZERS):
        return (
            "no tokenizer: there is no tokenizer.json\n    hint: Trainer saves one only where it was given "
            "processing_class=tokenizer; for this checkpoint, save the tokenizer it was trained with there: "
            f"AutoTokenizer.from_pretrained(BASE).save_pretrained({str(folder)!r})"
        )
    return ""


def is_half_written(folder: Path) -> bool:
    """Whether a JSON file of `folder` breaks off: it is still being written, or was never written to its end."""
    return any(not _tail(file).rstrip().endswith((b"}", b"]")) for file in files(folder) if file.suffix == ".json")


def is_closed(folder: Path) -> bool:
    """Whether a transformers Trainer has written this checkpoint to its end: `trainer_state.json` comes after the
    weights, the tokenizer and the optimizer's state, under DeepSpeed too (`Trainer._save_checkpoint`)."""
    state = folder / TRAINER_STATE
    try:
        written = state.stat().st_mtime_ns
        before = [file.stat().st_mtime_ns for file in files(folder) if file != state]
    except FileNotFoundError:
        return False
    # one that is older than a weight file is left from an earlier checkpoint of the same name
    return isinstance(_json(state), dict) and written >= max(before, default=0)


def archive_damage(path: Path) -> str:
    """What is wrong with a file of torch.save by the checksums (CRC-32) that it holds of each of its parts."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, EOFError, RuntimeError) as error:
        return f"cannot be read: {str(error) or type(error).__name__}"
    return f"is damaged in {bad}" if bad is not None else ""


def loss(folder: Path) -> float | None:
    """The training loss that transformers' Trainer had logged last, where it saved one."""
    state = _json(folder / TRAINER_STATE)
    history = state.get("log_history") if isinstance(state, dict) else None
    rows = history if isinstance(history, list) else []
    losses = [row["loss"] for row in rows if isinstance(row, dict) and isinstance(row.get("loss"), (int, float))]
    return float(losses[-1]) if losses else None


def _tail(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - 64, 0))
        return stream.read()


def _json(file: Path) -> Any:
    """What a file holds; None where that is no JSON, more than any such file holds, or the file is gone."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.stat().st_size <= MAX_JSON_BYTES else None
    except (ValueError, OSError, RecursionError):
        return None


def other_format(folder: Path) -> str:
    """What a folder holds in place of weights that transformers reads, and what to do; empty where that is nothing of
    these: DeepSpeed's shards, FSDP's, GGUF."""
    here, names = shlex.quote(str(folder)), {entry.name for entry in folder.iterdir()}
    shards = sorted(name for name in names if name.startswith("global_step") and (folder / name).is_dir())
    if shards:
        merge = f"python {here}/zero_to_fp32.py {here} {here}"
        return f"no weights but the shards of DeepSpeed in {shards[-1]}\n    hint: merge them: {merge}"
    if "pytorch_model_fsdp_0" in names:
        merge = f"accelerate merge-weights {here}/pytorch_model_fsdp_0 {here}"
        return f"no weights but the shards of FSDP in pytorch_model_fsdp_0\n    hint: merge them: {merge}"
    if any(name.endswith(".gguf") for name in names):
        return "no weights but a GGUF file\n    hint: start llama-server with it and give --probe-endpoint URL"
    return ""


def _unread(folder: Path) -> str:
    """Weights of other names, which nothing would load."""
    others = [file.name for file in files(folder) if file.suffix in (".safetensors", ".bin")]
    return f"\n    hint: {others[0]} is there, and would be read as model.safetensors" if others else ""


def _place(folder: Path) -> Path | None:
    """The one file of weights, or the index of several, that loading would take."""
    stems = ["adapter_model"] if (folder / ADAPTER).is_file() else ["model", "pytorch_model"]
    names = [f"{stem}{suffix}" for suffix in (".safetensors", ".bin") for stem in stems]
    places = (folder / place for name in names for place in (name, f"{name}.index.json"))
    return next((place for place in places if place.is_file()), None)


def _shard_of(index: Path) -> Mapping[str, str]:
    """The file that holds each tensor; empty where the index is damaged."""
    whole = _json(index)
    found = whole.get("weight_map") if isinstance(whole, dict) else None
    return found if isinstance(found, dict) and all(isinstance(shard, str) for shard in found.values()) else {}


def _wrong_index(index: Path) -> str:
    """What is wrong with the index of sharded weights."""
    if not (shard_of := _shard_of(index)):
        return f"{index.name} is damaged"
    for shard in sorted(set(shard_of.values())):
        if Path(shard).name != shard:
            return f"{index.name} names {shard}, which is not in its folder"
        file = index.with_name(shard)
        if not file.is_file():
            return f"{shard} is missing: {index.name} names it"
        tensors = _tensors(file) if file.suffix == ".safetensors" else None
        lost = [name for name, place in shard_of.items() if place == shard and tensors and name not in tensors]
        if lost:
            return f"{index.name} is wrong: {lost[0]} is not in {shard}"
    return ""


def _tensors(file: Path) -> Mapping[str, Any] | None:
    """The header of a safetensors file: 8 bytes of length, then JSON with type, shape and offsets of every tensor; None
    where it cannot be read (https://github.com/huggingface/safetensors#format)."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            return None
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            return None
    return header if isinstance(header, dict) else None


def _damage(file: Path) -> str:
    """What is wrong with a file of weights by its size and its header."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return f"{file.name} is missing"
    if not size:
        return f"{file.name} is empty: 0 bytes"
    if file.suffix != ".safetensors":
        with file.open("rb") as stream:
            is_archive = stream.read(2) == b"PK"  # torch.save's, since 1.6
        return f"{file.name} is cut short or damaged" if is_archive and not zipfile.is_zipfile(file) else ""
    header = _tensors(file)
    if header is None:
        return f"{file.name} is cut short or damaged"
    try:
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        with file.open("rb") as stream:
            end = 8 + int.from_bytes(stream.read(8), "little") + max(ends, default=0)
    except (KeyError, TypeError, IndexError):
        return f"{file.name} is damaged: its header cannot be read"
    return "" if end == size else f"{file.name} is cut short: {size} of {end} bytes"
