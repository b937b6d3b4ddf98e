"""Which checkpoints `--ckpt` means: folders of any trainer, runs, stages, globs."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from runner import checkpoints, loadable, recipe, spec
from runner.errors import BadCheckpoint, UserError, nearest
from runner.folder import RunRecord, read_run
from runner.standings import Checkpoint as RunCheckpoint
from runner.standings import Standings

if TYPE_CHECKING:
    from runner.probing.endpoint import Endpoint

_EXPECTED = "a folder with config.json or adapter_config.json"


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
    endpoint: Endpoint | None = None
    """The server that answers instead; then `path` is no folder."""

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


def served(endpoint: Endpoint, others: Sequence[Target]) -> Target:
    """The model on a server, named as the server names it."""
    label = _ascii(endpoint.model.strip("/"))
    if label in {other.label for other in others}:
        label = f"endpoint={label}"
    return Target(Path(f"{endpoint.url}/{endpoint.model}"), endpoint.model, label, endpoint=endpoint)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder looks like a checkpoint: it has a configuration, or the name of one and no test in it."""
    named = bool(loadable.NUMBERED.match(path.name)) and path.is_dir() and not any(path.glob("test_*.py"))
    return named or loadable.is_checkpoint(path)


def _expand(given: str, invocation: Path) -> list[tuple[Path, str]]:
    path = invocation / given
    if path.is_file():
        raise _file(path, given)
    if path.exists():
        if found := _inside(path, given):
            return found
        raise BadCheckpoint(
            f"--ckpt {given} is not a checkpoint and holds none",
            expected=_EXPECTED + ", a run, or a folder of checkpoint-N, ckpt-N, step_N, epoch_N or iter_N",
        )
    if glob.has_magic(given):
        matches = sorted(glob.glob(str(path), recursive=True), key=loadable.natural)  # noqa: PTH207 - takes absolute patterns
        folders = [Path(match) for match in matches if Path(match).is_dir()]
        # `out/*` means the checkpoints in `out`; where there is none, `out-*/` means those in each of the folders
        direct = [(folder, str(folder)) for folder in folders if is_checkpoint(folder)]
        if found := direct or [one for folder in folders for one in _inside(folder, str(folder))]:
            return found
        raise BadCheckpoint(f"--ckpt {given} matches no checkpoint", expected=_EXPECTED)
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = nearest(path.name, beside)
    raise BadCheckpoint(
        f"--ckpt {given}: no such folder",
        hint=f"did you mean {Path(given).with_name(close)}?" if close else "checkpoints are folders on this machine",
    )


def _file(path: Path, given: str) -> BadCheckpoint:
    """What to say of a file where a folder belongs."""
    hint: str | None = None
    if path.suffix == ".gguf":
        hint = f"start a server with it (llama-server -m {given}) and give its address with --probe-endpoint"
    elif path.suffix == ".jsonl":
        hint = "a verdict file is what checkpoints are compared with: --probe-baseline"
    elif is_checkpoint(path.parent):
        hint = f"give its folder: --ckpt {Path(given).parent}"
    return BadCheckpoint(f"--ckpt {given} is a file", expected=_EXPECTED, hint=hint)


def _inside(path: Path, given: str) -> list[tuple[Path, str]]:
    """The checkpoint at `path`, or all that a run folder, a stage folder or a trainer's output folder holds.

    A folder with weights is one checkpoint, the one that `from_pretrained` loads, even where a trainer saved its
    checkpoints below it; a configuration alone, which some trainers write there as they begin, is none yet.
    """
    if (path / "run.json").is_file():
        run = _read_run(path, path)
        return [(entry.path, str(entry.path)) for entry in run.standings.all_checkpoints()]
    if (path / "matrix.json").is_file():
        variants = sorted((run.parent for run in path.glob("*/run.json")), key=lambda run: loadable.natural(run.name))
        return [one for variant in variants for one in _inside(variant, str(variant))]
    if loadable.weights(path):
        return [(path, given)]
    if below := loadable.numbered(path):
        return [(entry, str(entry)) for entry in below]
    looks_so = is_checkpoint(path.resolve()) or loadable.is_checkpoint(path) or loadable.other_format(path)
    return [(path, given)] if looks_so else []


def _target(path: Path, shown: str, runs: dict[Path, Run], rootdir: Path) -> Target:
    problem = loadable.problem(path)
    home = next((parent for parent in list(path.parents)[:4] if (parent / "run.json").is_file()), None)
    match = loadable.NUMBERED.match(path.name)
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
    return _ascii(text)


def _ascii(text: str) -> str:
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
