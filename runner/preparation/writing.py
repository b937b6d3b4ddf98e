"""What is written into a run before its stages: the splits, the tokenizer, and what `run.json` says."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import plan, spec, underway
from runner.atomic import publish_text
from runner.checkpoints import sha256_file
from runner.data import datasets, seen, vocabulary
from runner.data.token_store import TOKENS
from runner.data.tokenizer import save_tokenizer
from runner.folder import RunRecord, Superseded, given_tokenizer
from runner.gpus import visible_gpus
from runner.preparation.prepared import PREFERENCE, Prepared
from runner.recipe import Loaded, dump

_LIBRARIES = ("recipe-runner", "torch", "transformers", "trl", "tokenizers", "safetensors", "pytest")


def write_data(prepared: Prepared, superseded: Superseded) -> None:
    """Write the splits and the tokenizer into the run; what changed is moved aside, what is current is left."""
    prepared.clean_tokens()
    if prepared.data_is_current:
        return
    with underway.work("writing the data of the run"):
        _write(prepared, superseded)


def _write(prepared: Prepared, superseded: Superseded) -> None:
    tokenizer, run = prepared.tokenizer, prepared.run
    # the manifest first: without it the data is not current, should this process end in between
    for path in sorted((run / "data").glob("*"), key=lambda path: path.name != "manifest.json"):
        if path.name != TOKENS:
            superseded.take(path)
    datasets.write_splits(prepared.data, run / "data")
    for ref in sorted({ref for stage in prepared.recipe.stages for ref in prepared.recipe.reads(stage)}):
        seen.write(seen.gather(prepared.data.get(ref)), run / "data" / "seen")
    if isinstance(prepared.recipe.model.tokenizer, spec.Tokenizer):
        save_tokenizer(tokenizer, run / "data" / "tokenizer", prepared.chat)
    if prepared.extended is not None:
        vocabulary.save(prepared.extended, given_tokenizer(prepared.recipe.model, prepared.loaded.root), run / "data")
    everything = sorted(path for path in (run / "data").rglob("*") if path.is_file())
    files = [path for path in everything if path.relative_to(run / "data").parts[0] != TOKENS]
    digests = {str(path.relative_to(run / "data")): sha256_file(path) for path in files}
    manifest = {"format_version": spec.FORMAT_VERSION, "files": digests, "negatives": _negative_counts(prepared)}
    manifest["rows"] = {account.ref: account.record() for account in prepared.accounts}
    publish_text(run / "data" / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


def _negative_counts(prepared: Prepared) -> dict[str, Any]:
    """What became of the negatives of every data set with pairs that a stage takes."""
    stages = [stage for stage in prepared.recipe.stages.values() if isinstance(stage, PREFERENCE)]
    refs = sorted({ref for stage in stages for ref in stage.data})
    return {ref: prepared.data.get(ref).preferences().record() for ref in refs}


def run_record(prepared: Prepared, looks: int) -> RunRecord:
    """What `run.json` will say."""
    loaded = prepared.loaded
    return RunRecord(
        recipe=loaded.spec.recipe,
        recipe_path=os.path.relpath(loaded.path, loaded.root),
        project_root=str(loaded.root),
        seed=loaded.spec.seed,
        versions={"python": platform.python_version()} | {name: plan.library_version(name) for name in _LIBRARIES},
        hardware={"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": len(visible_gpus())},
        git_commit=_git_commit(loaded.root),
        data=prepared.digests,
        looks=looks,
        variant=loaded.variant,
        recipe_sha256=recipe_digest(loaded),
        rehearsal=loaded.rehearsal,
    )


def recipe_digest(loaded: Loaded) -> str:
    """SHA-256 of a resolved recipe without where it is trained, which changes nothing that it learns."""
    anywhere = replace(loaded, values={key: value for key, value in loaded.values.items() if key != "launch"})
    return hashlib.sha256(dump(anywhere).encode()).hexdigest()


def _git_commit(root: Path) -> str | None:
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return asked.stdout.strip() or None
