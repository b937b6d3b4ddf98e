"""Which checkpoints `--ckpt` means: folders of any trainer, runs, stages, globs; and what plainly ails them."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from runner import checkpoints, recipe, spec
from runner.errors import BadCheckpoint, UserError, nearest
from runner.folder import RunRecord, read_run
from runner.standings import Checkpoint as RunCheckpoint
from runner.standings import Standings

_NUMBERED = re.compile(r"^(?:ckpt|checkpoint)-(\d+)$")
_EXPECTED = "a folder with config.json or adapter_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True, eq=False)
class Run:
    """The run that a checkpoint belongs to; read once, and equal to itself alone."""

    folder: Path
    root: Path
    """Where the recipe's relative paths start; where the run was moved to another machine, pytest's rootdir."""
    recipe: spec.Recipe
    record: RunRecord

    @cached_property
    def standings(self) -> Standings:
        """Where the run stands."""
        return Standings(self.recipe, self.folder, self.record.looks)


@dataclass(frozen=True)
class Target:
    """A checkpoint that is asked."""

    path: Path
    name: str
    """What verdicts call it: `qa@96` in a run, else the folder as given."""
    label: str
    """What test ids call it: unique in this session, ASCII."""
    run: Run | None = None
    at: RunCheckpoint | None = None
    """Its place in the run."""
    problem: str = ""
    """Why it cannot be loaded, where that can be seen without loading it."""
    is_baseline: bool = False
    """Asked only to be compared with."""

    def has_verdicts(self) -> bool:
        """Whether its run recorded what it was asked."""
        return self.at is not None and checkpoints.verdict_path(self.path).is_file()


def find(paths: Sequence[str], invocation: Path, rootdir: Path) -> list[Target]:
    """The checkpoints that `--ckpt` names, in that order, each once; within a folder by their step.

    Raises:
        UserError: a path is no checkpoint and holds none, or its run cannot be read.
    """
    runs: dict[Path, Run] = {}
    found: dict[Path, Target] = {}
    for given in paths:
        for path, shown in _expand(given, invocation):
            target = _target(path.resolve(), shown, runs, rootdir)
            found.setdefault(target.path, target)
    return _labelled(list(found.values()))


def is_checkpoint(path: Path) -> bool:
    """Whether a folder looks like a checkpoint or an adapter."""
    return (path / "config.json").is_file() or (path / "adapter_config.json").is_file()


def _expand(given: str, invocation: Path) -> list[tuple[Path, str]]:
    path = invocation / given
    if path.exists():
        return _inside(path, given)
    if glob.has_magic(given):
        matches = sorted(glob.glob(str(path), recursive=True), key=_natural)  # noqa: PTH207 - takes absolute patterns
        folders = [Path(match) for match in matches if Path(match).is_dir() and is_checkpoint(Path(match))]
        if folders:
            return [(match, str(match)) for match in folders]
        raise BadCheckpoint(f"--ckpt {given} matches no checkpoint", expected=_EXPECTED)
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = nearest(path.name, beside)
    raise BadCheckpoint(
        f"--ckpt {given}: no such folder",
        hint=f"did you mean {Path(given).with_name(close)}?" if close else "checkpoints are folders on this machine",
    )


def _inside(path: Path, given: str) -> list[tuple[Path, str]]:
    """The checkpoint at `path`, or all that a run folder, a stage folder or a trainer's output folder holds."""
    if is_checkpoint(path) or _NUMBERED.match(path.resolve().name):
        return [(path, given)]
    if (path / "run.json").is_file():
        run = _read_run(path, path)
        found = [(entry.path, str(entry.path)) for entry in run.standings.all_checkpoints()]
    elif path.is_dir():
        entries = [entry for entry in path.iterdir() if _NUMBERED.match(entry.name) and is_checkpoint(entry)]
        found = [(entry, str(entry)) for entry in sorted(entries, key=lambda entry: _natural(entry.name))]
    else:
        found = []
    if not found:
        raise BadCheckpoint(
            f"--ckpt {given} is not a checkpoint and holds none",
            expected=_EXPECTED + ", a run, or a folder of ckpt-N or checkpoint-N",
        )
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _target(path: Path, shown: str, runs: dict[Path, Run], rootdir: Path) -> Target:
    problem = _problem(path)
    home = next((parent for parent in list(path.parents)[:4] if (parent / "run.json").is_file()), None)
    match = _NUMBERED.match(path.name)
    if home is None or match is None:
        return Target(path, shown, path.name, problem=problem)
    if home not in runs:
        runs[home] = _read_run(home, rootdir)
    stage = path.parent.relative_to(home).as_posix()
    place = RunCheckpoint(stage, int(match[1]), path)
    if not problem and not (path / checkpoints.MANIFEST).is_file():
        problem = f"{checkpoints.MANIFEST} is missing: it was not published to its end"
    return Target(path, place.label, place.label, runs[home], place, problem)


def _read_run(home: Path, rootdir: Path) -> Run:
    record = read_run(home)
    root = Path(record.project_root)
    root = root if root.is_dir() else rootdir
    return Run(home, root, recipe.load(home / "recipe.yaml", root=root).spec, record)


def _problem(path: Path) -> str:
    """Why the checkpoint at `path` cannot be loaded, as far as its files show; empty where nothing is wrong."""
    if not is_checkpoint(path):
        return "config.json is missing"
    weights = [*path.glob("*.safetensors"), *path.glob("*.bin")]
    if not weights:
        return "no weights: there is no *.safetensors"
    if not (path / "adapter_config.json").is_file() and not any((path / name).is_file() for name in _TOKENIZERS):
        return "no tokenizer: there is no tokenizer.json"
    for name in ("config.json", "adapter_config.json"):
        if (path / name).is_file() and not isinstance(_json(path / name), dict):
            return f"{name} is damaged"
    for index in path.glob("*.safetensors.index.json"):
        try:
            names = set(_json(index)["weight_map"].values())
        except (KeyError, TypeError, AttributeError):
            return f"{index.name} is damaged"
        if missing := sorted(names - {file.name for file in weights}):
            return f"{missing[0]} is missing"
    return next((fault for file in weights if file.suffix == ".safetensors" and (fault := _damage(file))), "")


def _json(file: Path) -> Any:
    """What a file holds; None where that is no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _damage(file: Path) -> str:
    """What is wrong with a safetensors file by its header: 8 bytes of length, JSON with the offsets of every tensor."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            return f"{file.name} is cut short or damaged"
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{file.name} is damaged: its header cannot be read"
    end = 8 + length + max(ends, default=0)
    return "" if end == size else f"{file.name} is cut short: {size} of {end} bytes"


def _labelled(targets: Iterable[Target]) -> list[Target]:
    """The targets with labels that tell them apart: as much of the end of the path as that takes."""
    targets = list(targets)
    depth = {target.path: 0 for target in targets}
    while True:
        labels = {target.path: _label(target, depth[target.path]) for target in targets}
        twice = {label for label in labels.values() if list(labels.values()).count(label) > 1}
        if not twice:
            return [replace(target, label=labels[target.path]) for target in targets]
        for path, label in labels.items():
            depth[path] += label in twice


def _label(target: Target, depth: int) -> str:
    above = (target.run.folder, *target.run.folder.parents) if target.run else target.path.parents
    parts = [parent.name for parent in above[:depth]][::-1]
    text = "/".join([*(part for part in parts if part), target.name if target.run else target.path.name])
    return re.sub(r"[^A-Za-z0-9_.+=@/-]", lambda char: f"U+{ord(char[0]):04X}", text)


def find_baseline(given: str, targets: Sequence[Target], invocation: Path, rootdir: Path) -> Target:
    """The one checkpoint that `--probe-baseline` names, as one of `targets` where it is among them.

    Raises:
        UserError: it is none, or several.
    """
    found = find([given], invocation, rootdir)
    if len(found) != 1:
        raise UserError(f"--probe-baseline {given} is {len(found)} checkpoints", expected="one, or a verdict file")
    same = [target for target in targets if target.path == found[0].path]
    return same[0] if same else replace(found[0], is_baseline=True, label=f"baseline={found[0].label}")
