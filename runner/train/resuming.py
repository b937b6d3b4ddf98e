"""Whether the state that a stage resumes from is what was saved, before a step is taken from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner import checkpoints, saving
from runner.errors import BadCheckpoint, Problem


def check(saved: Path, stage_folder: Path) -> None:
    """Refuse a damaged state; `saving.damage` says what is looked at. Of a version that noted no digests, weights are
    those of the checkpoint that was published of it, where one was, and must have its digests.

    Args:
        saved: `STAGE/state/checkpoint-N`.
        stage_folder: of the stage.

    Raises:
        BadCheckpoint: a file of it is damaged, with every such file.
    """
    found = dict(saving.damage(saved))
    found |= {path: words for path, words in _unlike_the_published(saved, stage_folder) if path not in found}
    if found:
        hint = f"remove {stage_folder.name}/state: the same command then trains the stage again from its start"
        raise BadCheckpoint(Problem(f"{path} is damaged: {words}", hint=hint) for path, words in found.items())


def _unlike_the_published(saved: Path, stage_folder: Path) -> Iterator[tuple[Path, str]]:
    published = stage_folder / f"ckpt-{saved.name.rpartition('-')[2]}"
    if saving.has_digests(saved) or not (published / checkpoints.MANIFEST).is_file():
        return
    for name, digest in checkpoints.read_manifest(published).files.items():
        path = saved / name
        # a setting that only training has is put back in what is published
        if path.suffix == ".safetensors" and (not path.is_file() or checkpoints.sha256_file(path) != digest):
            yield path, f"it is not what {published.name} was made of"
