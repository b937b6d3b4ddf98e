"""Checkpoints: publishing them whole, naming them, finding them.

A checkpoint of a run is `<run>/<stage>/ckpt-N`: loadable weights and tokenizer, and `manifest.json`, which is written
last. A folder without a manifest is not a checkpoint of a run; a folder with one is never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from runner import loadable
from runner.atomic import publish_text, settle
from runner.errors import BadCheckpoint, Problem

FORMAT_VERSION = 3
"""Since 3 a manifest has a digest of itself."""
MANIFEST = loadable.MANIFEST
_STEP = re.compile(r"^ckpt-(\d+)$")
_LEFT_OUT = re.compile(
    r"^(optimizer|scheduler|scaler|rng_state.*|training_args|trainer_state|complete)\.(pt|pth|bin|json)$|^README\.md$|^global_step"
    r"|^latest$|^zero_to_(fp32|torch)\.py$"  # of DeepSpeed, whose weights are whole in model.safetensors
)
"""What a trainer's state folder holds beside the loadable checkpoint."""
RESTORE = "restore it from a copy, or move the folder of its stage away: recipe run then trains it again"
"""What to do about a checkpoint that is damaged."""
_SAYS_NOTHING = {"base_model_name_or_path", "inference_mode", "peft_version", "revision"}
"""Settings of an adapter that change nothing about what it computes; the base counts by its weights."""


@dataclass(frozen=True)
class Parent:
    """The checkpoint a stage started from."""

    label: str
    path: str
    """Relative to the stage's folder where it is in the same run."""
    weights_sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says about a checkpoint of a run."""

    recipe: str
    stage: str
    kind: str
    step: int
    epoch: float
    stage_key: str
    """Digest of everything the stage was trained with."""
    parent: Parent | None
    weights_sha256: str
    files: dict[str, str]
    """SHA-256 of every file."""
    tokens: int
    """Real tokens the stage had trained on."""
    versions: dict[str, str]
    base: str | None = None
    """Of an adapter: its base, as a path from the checkpoint's folder, or as an id on the hub."""

    @property
    def label(self) -> str:
        """How people and test ids name it: `qa@96`."""
        return f"{self.stage}@{self.step}"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _sha256_unchanged(path: Path, _version: tuple[int, int, int]) -> str:
    return sha256_file(path)


def _sha256_once(path: Path) -> str:
    """The same of a file of a base model, which is read once per process: many adapters stand on it."""
    found = path.stat()
    return _sha256_unchanged(path, (found.st_ino, found.st_size, found.st_mtime_ns))


def weights_sha256(folder: Path) -> str:
    """One digest for the weights in `folder`: of its safetensors files in the order of names; of its `*.bin` files
    where another trainer wrote those. That of an adapter covers its base (a name on a hub stands for itself) and the
    settings that say how it is added."""
    return _weights_sha256(folder, sha256_file)


def _weights_sha256(folder: Path, digest: Callable[[Path], str]) -> str:
    own = _files_sha256(folder, digest)
    if not loadable.is_adapter(folder):
        return own
    base = loadable.base_of(folder)
    of_base = _base_sha256(base) if isinstance(base, Path) else base
    said = loadable.adapter_settings(folder)
    settings = {name: _ordered(value) for name, value in said.items() if name not in _SAYS_NOTHING}
    row = json.dumps([of_base, settings, own], sort_keys=True)
    return hashlib.sha256(row.encode()).hexdigest()


def _base_sha256(base: Path) -> str:
    """Of a checkpoint of a run its manifest has it."""
    if (base / MANIFEST).is_file():
        return read_manifest(base).weights_sha256
    return _files_sha256(base, _sha256_once)


def _ordered(value: Any) -> Any:
    """PEFT writes sets in any order."""
    return sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


def _files_sha256(folder: Path, digest: Callable[[Path], str]) -> str:
    files = sorted(folder.glob("*.safetensors")) or [file for file in loadable.weights(folder) if file.is_file()]
    if not files:
        raise BadCheckpoint(f"no *.safetensors in {folder}", hint="a checkpoint holds its weights as safetensors")
    if len(files) == 1:
        return digest(files[0])
    return hashlib.sha256("".join(digest(file) for file in files).encode()).hexdigest()


def publish(source: Path, target: Path, **about: Any) -> Manifest:
    """Publish the loadable part of a trainer's state folder as a checkpoint, whole or not at all.

    Files are hard-linked where the file system allows (the state folder is only ever deleted, never rewritten), so a
    checkpoint's weights are written to disk once. `about` are the fields of Manifest besides files and weights_sha256.
    A checkpoint that is already there is left untouched and its manifest returned.

    Raises:
        BadCheckpoint: a folder without a manifest is in the way.
        OSError: it cannot be written; nothing is left of it then.
    """
    if (target / MANIFEST).exists():
        return read_manifest(target)
    if target.exists():
        raise BadCheckpoint(
            f"{target} is in the way of a checkpoint: it has no {MANIFEST}",
            hint="move it away, and run the same command again: it goes on where it was",
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        manifest = _gather(source, temporary, target, about)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # what it took up may be what is missing
        raise
    return manifest


def _gather(source: Path, temporary: Path, target: Path, about: Mapping[str, Any]) -> Manifest:
    """Put what is published into `temporary`, the manifest last."""
    digests: dict[str, str] = {}
    for file in sorted(source.iterdir()):
        if _LEFT_OUT.match(file.name) or not file.is_file():
            continue
        try:
            os.link(file, temporary / file.name)
        except OSError:
            shutil.copy2(file, temporary / file.name)
        digests[file.name] = sha256_file(file)
    settle(temporary / name for name in digests)
    base = loadable.base_of(temporary) if loadable.is_adapter(temporary) else None
    from_here = os.path.relpath(base, target.resolve()) if isinstance(base, Path) else base
    weights = _weights_sha256(temporary, lambda file: digests[file.name])  # large files are read once
    manifest = Manifest(**about, weights_sha256=weights, files=digests, base=from_here)
    row: dict[str, Any] = {"format_version": FORMAT_VERSION, **asdict(manifest)}
    row["sha256"] = _row_sha256(row)
    publish_text(temporary / MANIFEST, json.dumps(row, ensure_ascii=False, indent=1) + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint of a run.

    Raises:
        BadCheckpoint: there is none, it is damaged, or a newer version wrote it.
    """
    path = folder / MANIFEST
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (version := row.pop("format_version")) > FORMAT_VERSION:
            raise BadCheckpoint(f"{path} has format {version}, this version reads up to {FORMAT_VERSION}")
        own = row.pop("sha256", None)
        if own is not None and own != _row_sha256({"format_version": version, **row}):
            raise BadCheckpoint(f"{path} is damaged: it is not what was written", hint=RESTORE)
        parent = row.pop("parent")
        if other := next((name for name in row["files"] if Path(name).name != name), None):
            raise ValueError(f"{other} is no file of the checkpoint")
        return Manifest(**row, parent=Parent(**parent) if parent else None)
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{folder} has no {MANIFEST}", hint="it is not a published checkpoint of a run") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{path} is not a readable manifest ({type(error).__name__}: {error})") from error


def _row_sha256(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(row), sort_keys=True).encode()).hexdigest()


# --- whether it is what was published ---


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written."""

    path: Path
    found: str
    """What is wrong with it."""
    expected: str = ""


def damage(folder: Path, digest: Callable[[Path], str] = sha256_file) -> list[Damage]:
    """What of a checkpoint of a run is not what was published: every file is read and its digest compared. Of an
    adapter its base too, as far as this project wrote it, or digested it. A folder without a manifest has none.

    Args:
        folder: of the checkpoint.
        digest: of a file of it; those of a base are computed once per process.

    Raises:
        BadCheckpoint: its manifest cannot be read.
    """
    if not (folder / MANIFEST).is_file():
        return []
    manifest = read_manifest(folder)
    found = [one for name, sha in manifest.files.items() if (one := _file_damage(folder / name, sha, digest))]
    others = {file.name for file in loadable.files(folder)} - {MANIFEST, *manifest.files}
    found += [Damage(folder / name, "is not in the manifest, and loading may read it") for name in sorted(others)]
    if not found and loadable.is_adapter(folder) and isinstance(base := loadable.base_of(folder), Path):
        found += damage(base, _sha256_once)
        if not (base / MANIFEST).is_file() and _weights_sha256(folder, digest) != manifest.weights_sha256:
            found.append(Damage(base, "does not hold the weights that the adapter was trained on"))
    return found


def _file_damage(path: Path, expected: str, digest: Callable[[Path], str]) -> Damage | None:
    if not path.is_file():  # nor is a pipe one, of which a digest would never end
        return Damage(path, "is missing", f"SHA-256 {expected}")
    actual = digest(path)
    return None if actual == expected else Damage(path, f"has SHA-256 {actual}", expected)


def check(folder: Path) -> None:
    """Refuse a checkpoint that is not what was published.

    Raises:
        BadCheckpoint: it is not; with every file that is not.
    """
    if found := damage(folder):
        raise BadCheckpoint(
            Problem(f"{one.path} is damaged: it {one.found}", expected=one.expected or None, hint=RESTORE)
            for one in found
        )


@contextmanager
def checking(folder: Path | str) -> Iterator[None]:
    """The same, while what is inside reads it: digests are computed beside it. Whatever that came to, it is not used
    where this raises. An id on a hub is not checked.

    Raises:
        BadCheckpoint: it is not what was published.
    """
    if not (Path(folder) / MANIFEST).is_file():
        yield
        return
    with ThreadPoolExecutor(1, "digests") as beside:
        checked = beside.submit(check, Path(folder))
        try:
            yield
        finally:
            checked.result()  # comes before what reading a damaged file raised


def published(stage_folder: Path) -> Iterator[tuple[int, Path]]:
    """The complete checkpoints of a stage as (step, folder), first to last."""
    try:
        folders = list(stage_folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # it has not begun, or is moved aside in this moment
        return
    found = ((_STEP.match(folder.name), folder) for folder in folders)
    steps = sorted((int(match[1]), folder) for match, folder in found if match and (folder / MANIFEST).exists())
    yield from steps


def remove_unfinished(stage_folder: Path) -> None:
    """Delete what a killed trainer left half published."""
    for folder in stage_folder.glob(".ckpt-*"):
        shutil.rmtree(folder)


def verdict_path(checkpoint: Path) -> Path:
    """Where a run keeps the verdicts of `checkpoint`: `<stage>/probes/ckpt-N.jsonl`."""
    return checkpoint.parent / "probes" / f"{checkpoint.name}.jsonl"
