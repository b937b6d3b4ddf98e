"""What a run is killed by, and what it must have come to nevertheless."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner import checkpoints, verdicts
from runner.verdicts import Verdict
from tests.tiny_project import alive, descendants

Victim = Literal["everything", "the trainer or prober", "the command", "the host"]
VICTIMS: tuple[Victim, ...] = ("everything", "the trainer or prober", "the command", "the host")

_ABOUT_THE_PLACE = {"manifest.json", "adapter_config.json"}
"""Files of a checkpoint that name folders."""


@dataclass(frozen=True)
class Came:
    """What a run came to: SHA-256 of every file of every checkpoint, and every verdict of each."""

    exit_code: int
    files: Mapping[str, str]
    verdicts: Mapping[str, tuple[Verdict, ...]]

    def differs_from(self, other: Came) -> str:
        """The first difference in words, or nothing."""
        if self.exit_code != other.exit_code:
            return f"exit code {self.exit_code} instead of {other.exit_code}"
        for what, mine, theirs in (("file", self.files, other.files), ("verdicts", self.verdicts, other.verdicts)):
            for name in sorted(mine.keys() | theirs.keys()):
                if mine.get(name) != theirs.get(name):
                    return f"{what} of {name}"
        return ""


def came(run: Path, exit_code: int) -> Came:
    """Read what the run in this folder came to. Every manifest must say what its files are."""
    files: dict[str, str] = {}
    asked: dict[str, tuple[Verdict, ...]] = {}
    for stage in sorted(path.parent for path in run.glob("*/stage.json")):
        for step, folder in checkpoints.published(stage):
            manifest = checkpoints.read_manifest(folder)
            label = f"{stage.name}@{step}"
            digests = {name: checkpoints.sha256_file(folder / name) for name in manifest.files}
            assert digests == manifest.files, f"{label} is not what its manifest says"
            files |= {f"{label} {name}": sha for name, sha in digests.items() if name not in _ABOUT_THE_PLACE}
            if (path := checkpoints.verdict_path(folder)).exists():
                found = verdicts.read(path).verdicts
                asked[label] = tuple(sorted(found, key=lambda verdict: (verdict.suite, verdict.identity)))
    return Came(exit_code, files, asked)


def victims(command: int, who: Victim) -> list[int]:
    """The processes to kill. Where there is no such one yet or any more, the command itself."""
    host, jobs = below(command)
    chosen = {
        "everything": [command, *descendants(command)], "the command": [command], "the host": host,
        "the trainer or prober": jobs[-1:],
    }[who]  # fmt: skip
    return chosen or [command]


def below(command: int) -> tuple[list[int], list[int]]:
    """The host of a command, if it has one, and the trainers and probers of that, which run."""
    found = descendants(command)
    host = found[:1]
    return host, [pid for pid in found[1:] if host and _parent(pid) == host[0] and alive(pid)]


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to all of them at once; to those that are there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def kill(pids: Sequence[int]) -> None:
    """SIGKILL, all of them at once."""
    signal_all(pids, signal.SIGKILL)


def gone(pids: Sequence[int]) -> bool:
    """Whether none of them runs any more."""
    return not any(alive(pid) for pid in pids)


def left_in(root: Path) -> list[int]:
    """Processes whose working folder is in `root`: whatever a command there has left behind."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve().is_relative_to(root) and alive(int(process.name)):
                found.append(int(process.name))
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
