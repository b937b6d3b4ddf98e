"""The state that a trainer saves and resumes from, `STAGE/state/checkpoint-N`: that it is whole, and what it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from runner import checkpoints, loadable
from runner.atomic import publish_text

FORMAT_VERSION = 2
"""Since 2 `complete.json` has the digests of the weights."""
COMPLETE = "complete.json"
"""Written last. A state without it is of a trainer that was killed, or of one that is writing it now."""


def mark(saved: Path, published: Path) -> None:
    """Say that a state is whole, with the SHA-256 of its weights.

    What torch saves holds checksums of its own. Safetensors hold none: a bit that flipped there would be trained on.

    Args:
        saved: the folder.
        published: the checkpoint that was made of it, if one was: its digests are taken of the files that both share.
    """
    known = checkpoints.read_manifest(published).files if (published / checkpoints.MANIFEST).is_file() else {}
    files: dict[str, str] = {}
    for path in saved.glob("*.safetensors"):
        # one that was there before may have been trained a little otherwise: its files are its own
        shared = path.name in known and path.samefile(published / path.name)
        files[path.name] = known[path.name] if shared else checkpoints.sha256_file(path)
    publish_text(saved / COMPLETE, json.dumps({"format_version": FORMAT_VERSION, "files": files}, sort_keys=True))


def is_whole(saved: Path) -> bool:
    """Whether it was written to its end."""
    return (saved / COMPLETE).exists()


def has_digests(saved: Path) -> bool:
    """Whether it notes what its weights are; states of version 1 do not."""
    return bool(_digests(saved))


def damage(saved: Path) -> Iterator[tuple[Path, str]]:
    """The files of a whole state that are not what was saved, and what is wrong with each.

    Weights must have their digests, where the state is not of a version that noted none; what torch saved (optimizer,
    schedule, random numbers) has checksums of its own; what is JSON must be readable.
    """
    for name, digest in sorted(_digests(saved).items()):
        path = saved / name
        if not path.is_file() or checkpoints.sha256_file(path) != digest:
            yield path, "it is not what was saved"
    for path in sorted(file for file in saved.rglob("*") if file.is_file()):
        if path.suffix in (".pt", ".pth", ".bin"):
            if words := loadable.archive_damage(path):
                yield path, words
        elif path.suffix == ".json":
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                yield path, f"cannot be read: {error}"


def _digests(saved: Path) -> Mapping[str, str]:
    try:
        files = json.loads((saved / COMPLETE).read_text(encoding="utf-8")).get("files", {})
    except (ValueError, AttributeError):
        return {}  # which is told of every file of JSON
    named = isinstance(files, dict) and all(Path(name).name == name for name in files)
    return files if named else {}
