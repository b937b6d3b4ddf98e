"""What a run has beside its checkpoints: its recipe, stages, states, events and data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runner import checkpoints, diverging, events, jobs, plan, recipe, saving
from runner.checkpoints import MANIFEST
from runner.data.token_store import TOKENS
from runner.errors import BadData, UserError, first_line
from runner.folder import is_held, read_run
from runner.preparation import Prepared, recipe_digest
from runner.verifying.findings import Finding, looked, reason


def of_run(run: Path) -> Iterator[Finding]:
    """Whether its files are what was written, and say the same."""
    try:
        record = read_run(run)
    except UserError as error:
        yield Finding(
            run / "run.json",
            reason(error, run / "run.json"),
            "restore it from a copy: nothing reads the run without it",
        )
        return
    if is_held(run):
        yield Finding(run, "is being written now: what is not there yet may come", is_damage=False)
    yield from _of_recipe(run, Path(record.project_root), record.recipe_sha256, record.data)
    for stage in sorted(path.parent for path in run.glob("*/stage.json")):
        yield from looked(_of_stage, stage)
    for journal in sorted((run / "events").glob("*.jsonl")):
        yield from _of_lines(journal)
    yield from _of_data(run / "data")
    for store in sorted((run / "data" / TOKENS).glob("[!.]*")):
        if words := _store_damage(store):
            yield Finding(store, words, "remove it: recipe run makes it again")


def _of_recipe(run: Path, root: Path, digest: str, data: Any) -> Iterator[Finding]:
    path = run / "recipe.yaml"
    if not path.is_file():
        yield Finding(path, "is missing", "recipe run writes it again")
        return
    try:
        loaded = recipe.load(path, root=root)
    except UserError as error:
        yield Finding(path, reason(error, path), "recipe run writes it again")
        return
    if digest and recipe_digest(loaded) != digest:
        yield Finding(path, "is not the recipe that run.json has the digest of", "recipe run writes it again", digest)
    try:
        now = Prepared(loaded, run).digests
    except (BadData, OSError, UserError) as error:
        yield Finding(path, f"names data that cannot be read now: {first_line(error)}", is_damage=False)
        return
    for name in sorted(name for name in data if name in now and now[name] != data[name]):
        what = "the tokenizer" if name == "tokenizer" else f"data {name}"
        told = f"{what} is not what the run was made with: recipe run trains what depends on it again"
        yield Finding(run / "run.json", told, is_damage=False)


def _of_stage(stage: Path) -> Iterator[Finding]:
    again = f"move {stage.name} away: recipe run then trains it again"
    try:
        job = jobs.read(stage)
        diverging.read(stage)
    except UserError as error:
        yield Finding(stage, reason(error, stage), again)
        return
    assert job is not None
    if plan.key(job.inputs) != job.key:
        yield Finding(
            stage / "stage.json", "is damaged: its key is not that of its inputs", again, plan.key(job.inputs)
        )
    for entry in sorted(stage.glob("ckpt-*")):
        if not (entry / MANIFEST).is_file():
            yield Finding(entry, f"has no {MANIFEST}, and is no checkpoint of the run", "move it away")
    for step, folder in checkpoints.published(stage):
        if job.state == "done" and step > job.steps_done:
            yield Finding(folder, f"is of a step that the stage, which is done, has not taken: {job.steps_done}", again)
    for saved in sorted((stage / "state").glob("checkpoint-*")):
        from_its_start = f"remove {stage.name}/state: recipe run then trains the stage from its start"
        for path, words in saving.damage(saved) if saving.is_whole(saved) else ():
            yield Finding(path, words.removeprefix("it "), from_its_start)


def _of_data(folder: Path) -> Iterator[Finding]:
    """What the run wrote for its probes and its tokenizer, by the digests in the folder's own manifest."""
    again = f"remove {folder.name}/{MANIFEST}: recipe run then writes the folder again"
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return  # a run that ended before it was planned has none
    try:
        files: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # which is told of every file of JSON
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            yield Finding(path, "is missing", again, f"SHA-256 {digest}")
        elif (actual := checkpoints.sha256_file(path)) != digest:
            yield Finding(path, f"has SHA-256 {actual}", again, digest)


def _store_damage(store: Path) -> str:
    """What is wrong with kept token ids, by their sizes."""
    try:
        ids = json.loads((store / "about.json").read_text(encoding="utf-8"))["ids"]
        offsets = np.load(store / "offsets.npy", mmap_mode="r")
        held = (store / "ids.i32").stat().st_size
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        return f"cannot be read: {first_line(error)}"
    whole = held == 4 * ids and len(offsets) and int(offsets[-1]) == ids and bool((np.diff(offsets) >= 0).all())
    return "" if whole else "does not hold as many token ids as it says"


# --- files of lines, and files of JSON ---


def _of_lines(path: Path) -> Iterator[Finding]:
    """Events that cannot be read. Half a line is left where a writer was killed, and is no damage."""
    hint, version = "nothing is decided by it: what can be read of it is used", events.FORMAT_VERSION
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line and number == len(lines):
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            half = _is_half(line, error)
            what = "is half a line, left by a writer that was killed" if half else f"cannot be read: {error}"
            yield Finding(path, f"line {number} {what}", hint, is_damage=not half)
            continue
        newer = isinstance(row, dict) and row.get("format_version", 0) > version
        if not isinstance(row, dict) or newer:
            what = (
                f"has format {row['format_version']}, this version reads up to {version}" if newer else "is no record"
            )
            yield Finding(path, f"line {number} {what}", hint)


def _is_half(line: bytes, error: Exception) -> bool:
    """Whether it is how a record begins, and nothing is wrong but that it ends too early."""
    if not line.startswith(b'{"format_version"') or not isinstance(error, json.JSONDecodeError):
        return isinstance(error, UnicodeDecodeError) and error.end == len(line) and "unexpected end" in error.reason
    return error.pos >= len(error.doc) or error.msg.startswith("Unterminated string")


def of_json(files: Iterable[Path], folder: Path) -> Iterator[Finding]:
    """Files of JSON of which nothing else is known.

    Args:
        files: those of the folder that have no digests.
        folder: what is looked at.
    """
    for path in files:
        above = path.relative_to(folder).parts[:-1]
        is_known = (
            ("data" in above and path.name != MANIFEST)  # which has digests of them
            or "state" in above[:-1]  # of which `saving` knows more
            or path.name in ("run.json", "stage.json", diverging.FILE)
        )
        if is_known or path.suffix != ".json":
            continue
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            yield Finding(path, f"cannot be read: {first_line(error)}", "remove it: recipe run writes it again")
