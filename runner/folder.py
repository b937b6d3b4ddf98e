"""The folder of a run: who it belongs to, who is writing it, what is moved aside.

`run.json` names the recipe a folder belongs to; `lock` is held (flock) by the process that writes, and freed by the
operating system when that process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

from runner import spec
from runner.atomic import publish_text
from runner.errors import FolderTaken, UserError, printable
from runner.refused import gave_out

FORMAT_VERSION = 3
BEFORE_A_RUN = ("nodes", "slurm")
"""What this project writes into a folder before it is that of a run."""
_LOOKERS_S = (0.01, 0.03, 0.1, 0.2)
"""How long to wait, again and again, for a lock that may be held only by who looks whether it is."""


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` says."""

    recipe: str
    recipe_path: str
    """Of the recipe file, relative to the project root."""
    project_root: str
    seed: int
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    git_commit: str | None
    data: Mapping[str, str]
    """Digest of every data set."""
    looks: int
    """At how many checkpoints of the run suites are tested for losses beyond chance; see `plan.looks`."""
    variant: str = ""
    """Which variant of the recipe's `matrix:` this is; empty where it has none."""
    recipe_sha256: str = ""
    """Digest of the resolved recipe; empty in files of formats 1 and 2."""
    rehearsal: bool = False
    """Whether it was cut down (`--scale`), and judges no model."""


def write_run(run: Path, record: RunRecord) -> None:
    """Publish `run.json`, whole or not at all."""
    row = {"format_version": FORMAT_VERSION, **asdict(record)}
    publish_text(run / "run.json", json.dumps(row, ensure_ascii=False, indent=1) + "\n")


def read_run(run: Path) -> RunRecord:
    """Read `run.json`.

    Raises:
        UserError: there is none, it is damaged, or a newer version wrote it.
    """
    path = run / "run.json"
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (version := row.pop("format_version")) > FORMAT_VERSION:
            raise UserError(f"{path} has format {version}, this version reads up to {FORMAT_VERSION}")
        if version == 1:  # told it suite by suite
            row["looks"] = max(row["looks"].values(), default=0)
        record = RunRecord(**row)
        for name in filter(None, (record.recipe, record.variant)):
            if not re.fullmatch(spec.NAME_PATTERN, name):  # it becomes part of names of files
                raise ValueError(f"{printable(name)[:100]} is no name")
        return record
    except FileNotFoundError as error:
        raise UserError(f"{run} is not a run folder: it has no run.json") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def tokenizer_place(model: spec.Model, root: Path, run: Path) -> str:
    """Where the first stage's tokenizer is: made by the run, or the folder or hub id that the recipe names."""
    if isinstance(model.tokenizer, spec.Tokenizer) or model.extend_vocabulary is not None:
        return str(run / "data" / "tokenizer")
    return given_tokenizer(model, root)


def given_tokenizer(model: spec.Model, root: Path) -> str:
    """The folder or hub id of the tokenizer that the recipe names; it trains none."""
    assert not isinstance(model.tokenizer, spec.Tokenizer)
    return folder_or_hub_id(model.tokenizer or model.path or "", root)


def folder_or_hub_id(name: str, root: Path) -> str:
    """The folder that `name` is from the project root; where there is none, the name itself, an id on the hub."""
    return str(root / name) if (root / name).is_dir() else name


def check_owner(run: Path, recipe: str, recipe_path: str, variant: str = "") -> None:
    """Refuse a folder that belongs to another recipe or another variant of it, or that holds something else.

    Raises:
        FolderTaken: it does, or what is written there would land outside of it.
    """
    if not run.exists():
        return
    if not run.is_dir():
        raise FolderTaken(f"{run} is a file, and a run needs a folder", hint="give another one with --out")
    check_inside(run)
    if not (run / "run.json").exists():
        # a run that ended while it was planned leaves its lock and these, and is simply started again
        ours = {"lock", *BEFORE_A_RUN, *({"events", "data", "recipe.yaml"} if (run / "lock").exists() else ())}
        others = [path.name for path in run.iterdir() if path.name not in ours and not path.name.startswith(".")]
        if others:
            raise FolderTaken(
                f"{run} is not empty and is not the folder of a run (it holds {sorted(others)[0]!r}, but no run.json)",
                hint="give another folder with --out; nothing was written",
            )
        return
    record = read_run(run)
    if (record.recipe, record.recipe_path, record.variant) != (recipe, recipe_path, variant):
        raise FolderTaken(
            f"{run} belongs to {_whose(record.recipe, record.recipe_path, record.variant)}",
            expected=f"the folder of {_whose(recipe, recipe_path, variant).removeprefix('the recipe ')}",
            hint="rename the recipe, or give another folder with --out; nothing was written",
        )


def check_inside(folder: Path) -> None:
    """Refuse a folder in which something leads outside: what is written, moved or deleted there would not be in it.

    It may come from a stranger. A link to something of the same folder is fine, and so is a folder that is reached by
    a link itself: that is the user's own wish. A pipe or a device would be opened as if it were a file.

    Raises:
        FolderTaken: with the first such thing.
    """
    whole, left = folder.resolve(), [folder]
    while left:
        try:
            entries = sorted(os.scandir(left.pop()), key=lambda entry: entry.name)
        except (FileNotFoundError, PermissionError):
            continue  # moved in this moment, or never there; or what would be done there fails, and says so
        for entry in entries:
            if entry.is_symlink():
                if not Path(os.path.realpath(entry.path)).is_relative_to(whole):
                    _refuse(folder, entry.path, f"a link to {Path(entry.path).readlink()}, outside of this folder")
            elif entry.is_dir():
                left.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                _refuse(folder, entry.path, "no file, no folder and no link")


def _refuse(folder: Path, path: str, what: str) -> NoReturn:
    raise FolderTaken(
        f"{path} is {what}",
        expected=f"files of its own in {folder}",
        hint="look whose folder this is; remove that, or put the whole folder where there is room: it may be a link",
    )


def _whose(recipe: str, path: str, variant: str) -> str:
    return (f"the variant {variant} of " if variant else "") + f"the recipe {recipe!r} of {path}"


@contextmanager
def writing(run: Path) -> Iterator[None]:
    """Hold the run's lock while its folder is written.

    Raises:
        FolderTaken: another process holds it, and the message says which; or nothing may be written there.
        OSError: the machine gave out, as a full disk does.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if gave_out(error):
            raise
        raise FolderTaken(f"{run} cannot be made: {error.strerror}", hint="give another one with --out") from error
    with ExitStack() as stack:
        holder = {"format_version": FORMAT_VERSION, "pid": os.getpid(), "host": socket.gethostname()}
        holder["started"] = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            # without a buffer: what could not be written would be tried once more as the file is closed
            lock = stack.enter_context((run / "lock").open("a+b", buffering=0))
            _hold(lock, run)
            lock.truncate(0)
            lock.write(json.dumps(holder).encode())
        except OSError as error:
            if gave_out(error):
                error.filename = error.filename or str(run / "lock")
                raise
            raise FolderTaken(
                f"{run} cannot be written: {error.strerror}",
                hint="change its permissions, or give another folder with --out",
            ) from error
        yield


def _hold(lock: FileIO, run: Path) -> None:
    """Take the lock. Who only looks whether it is held (`is_held`) holds it for a moment: that is waited for.

    Raises:
        FolderTaken: another process holds it.
        OSError: the file system has no locks.
    """
    for wait_s in (*_LOOKERS_S, None):
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if wait_s is None:
                lock.seek(0)
                raise FolderTaken(
                    f"{run} is being written by {_holder(lock.read().decode(errors='replace'))}",
                    hint="wait for it, stop it, or give another folder with --out",
                ) from error
            time.sleep(wait_s)
    return None


def _holder(text: str) -> str:
    try:
        row = json.loads(text)
        return f"process {row['pid']} on {row['host']}, since {row['started']}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return "another process"


class Superseded:
    """The folder `superseded/<n>` of one invocation, made when the first thing is moved into it."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._folder: Path | None = None
        # what the superseded things were made by; the run's own files say something newer by the time they are moved
        files = (run / name for name in ("recipe.yaml", "run.json"))
        self._before = {file.name: file.read_bytes() for file in files if file.exists()}

    def take(self, path: Path) -> Path:
        """Move `path` (in the run) there, and say where it is now."""
        target = self._room_for(path)
        path.replace(target)
        return target

    def copy(self, path: Path) -> Path:
        """Keep a copy of a file there, before it is replaced; one that was kept before stays in its own folder."""
        if self._folder is not None and (self._folder / path.relative_to(self._run)).exists():
            self._folder = None
        target = self._room_for(path)
        shutil.copy2(path, target)
        return target

    def _room_for(self, path: Path) -> Path:
        if self._folder is None:
            parent = self._run / "superseded"
            parent.mkdir(exist_ok=True)
            taken = [int(entry.name) for entry in parent.iterdir() if entry.name.isdigit()]
            self._folder = parent / str(max(taken, default=0) + 1)
            self._folder.mkdir()
            for name, text in self._before.items():
                (self._folder / name).write_bytes(text)
        target = self._folder / path.relative_to(self._run)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def is_held(run: Path) -> bool:
    """Whether some process holds the run's lock now; nothing is written, and `writing` waits for who only looks."""
    try:
        with (run / "lock").open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
