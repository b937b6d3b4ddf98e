"""A reader beside a run: it lists and reads all the time, and notes whatever it should never have seen."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from rich.console import Console
from safetensors import safe_open

from runner import checkpoints, listing, report, verdicts, verifying
from runner.comparing import compare, find
from runner.errors import UserError

_PAUSE_S = 0.02
_READ_EVERY = 20
"""Looks; a report takes longer than all else."""


class Watcher:
    """A context manager; a thread of this process looks while it is entered.

    A checkpoint is looked at as a prober or the next stage would find it: by its manifest. Every file must be there and
    be what the manifest says, and its weights must load.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self.looks = 0
        """How often everything was listed."""
        self.loaded = 0
        """How many checkpoints were loaded."""
        self.read = 0
        """How often it was shown, compared or reported."""
        self.faults: list[str] = []
        """What was seen that must never be."""
        self._ends = Event()
        self._thread = Thread(target=self._go, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _go(self) -> None:
        while not self._ends.wait(_PAUSE_S):
            self._guarded(self._look)
            self.looks += 1
            if self.looks % _READ_EVERY == 0 and (self._run / "run.json").exists():
                self._guarded(self._read)

    def _guarded(self, look: Callable[[], None]) -> None:
        try:
            look()
        except Exception:  # noqa: BLE001 - whatever a reader meets beside a writer is what is looked for
            self.faults.append(traceback.format_exc())

    def _look(self) -> None:
        if not self._run.is_dir():
            return
        for found in listing.listed(self._run.parent):
            if found.fault and "has no recipe.yaml: nothing of the run was begun" not in found.state:
                self.faults.append(f"listed as {found.state}")
        for stage in [path for path in self._run.iterdir() if path.is_dir()]:
            for step, folder in checkpoints.published(stage):
                self._load(f"{stage.name}@{step}", folder)
        for path in self._run.glob("*/probes/*.jsonl"):
            verdicts.read(path)

    def _read(self) -> None:
        """What `recipe show`, `compare`, `report` and `verify` read. They may say that there is nothing, no more."""
        for read in (
            lambda: listing.show(self._run, Console(file=io.StringIO())),
            lambda: compare(find(str(self._run), self._run), find(str(self._run), self._run)),
            lambda: report.markdown([self._run]),
            self._verify,
        ):
            try:
                read()
                self.read += 1
            except UserError as error:
                if any(word in str(error) for word in ("damaged", "readable")):
                    self.faults.append(str(error))

    def _verify(self) -> None:
        found = verifying.verify(self._run)
        self.faults += [f"verified: {one.path}: {one.found}" for one in found.damages]

    def _load(self, label: str, folder: Path) -> None:
        manifest = checkpoints.read_manifest(folder)
        files = {name: checkpoints.sha256_file(folder / name) for name in manifest.files}
        if files != manifest.files:
            self.faults.append(f"{label} was listed, and is not what its manifest says")
        with safe_open(folder / "model.safetensors", "np") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                weights.get_tensor(name)
        self.loaded += 1
