"""Runs of a small project whose disk is full from one moment on; then there is room, and the same command goes on.

    python -m tests.faults.full_disk --folder build/full --times 3 --seed 1       # part of make faults

The disk is a file system in memory, in a mount namespace of the commands: that needs root. In each phase of a run it
shrinks to what is used, and a few pages. The command must say so in words, without a traceback, and leave nothing
running; with room it must come to what the undisturbed run came to.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"RECIPE_STORE": "off", "OMP_NUM_THREADS": "1"}

from tests.faults import phases
from tests.faults.campaign import ASKED, STAGES
from tests.faults.forked import Forked
from tests.faults.killing import Came, came, left_in
from tests.faults.phases import PHASES
from tests.tiny_project import RUN, alive, wait_until, write_project

PAGE_BYTES, ROOM_BYTES = 4096, 2**26
MOST_PAGES = 12
TRACES = ("Traceback", "INTERNALERROR", "fault of recipe-runner")
WORDS = ("no space left on the disk", "No space left on device")


@dataclass(frozen=True)
class Filled:
    """What became of a run whose disk was full."""

    code: int
    said: str
    """The line that says why."""
    wrong: str


def fill(forked: Forked, root: Path, phase: str, draw: random.Random, expected: Came) -> Filled:
    """Run, shrink the disk in this phase, make room, and run again."""
    write_project(root)
    (root / "results").mkdir()
    seen = forked.mount(root / "results", ROOM_BYTES)
    command = forked.start(root, ("run", "tiny.yaml"), root / "log-1")
    while alive(command) and phases.now(seen / RUN.name, STAGES, ASKED).phase != phase:
        time.sleep(0.001)
    _shrink(forked, root / "results", seen, draw.randrange(MOST_PAGES))
    code, said = forked.wait(), (root / "log-1").read_text(encoding="utf-8")
    wrong = _wrong(root, code, said, expected)
    forked.mount(root / "results", ROOM_BYTES, again=True)
    forked.start(root, ("run", "tiny.yaml"), root / "log-2")
    wrong = wrong or came(seen / RUN.name, forked.wait()).differs_from(expected)
    line = next((line for line in said.splitlines() if any(word in line for word in WORDS)), "")
    return Filled(code, line.replace(str(root), "PROJECT"), wrong)


def _shrink(forked: Forked, folder: Path, seen: Path, pages: int) -> None:
    """Leave so many pages; more where the run takes them in this moment."""
    while True:
        found = os.statvfs(seen)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        try:
            forked.mount(folder, used + pages * PAGE_BYTES, again=True)
        except OSError:
            continue
        return


def _wrong(root: Path, code: int, said: str, expected: Came) -> str:
    if code not in (2, 3, expected.exit_code):
        return f"it ended with {code}"
    if any(word in said for word in TRACES):
        return "a traceback"
    if code != expected.exit_code and not any(word in said for word in WORDS):
        return "it does not say why"
    try:
        wait_until(lambda: not left_in(root), timeout_s=15)
    except AssertionError:
        return "left running"
    return ""


def main() -> int:
    """Print two lines per run; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("build/full"))
    parser.add_argument("--times", type=int, default=3, help="in each phase")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder, draw, wrong = given.folder.resolve(), random.Random(given.seed), 0
    shutil.rmtree(folder, ignore_errors=True)
    forked = Forked("runner.train.preference")
    try:
        calm = folder / "undisturbed"
        write_project(calm)
        forked.start(calm, ("run", "tiny.yaml"), calm / "log")
        expected = came(calm / RUN, forked.wait())
        for number in range(given.times * len(PHASES)):
            phase = PHASES[number % len(PHASES)]
            filled = fill(forked, folder / str(number), phase, draw, expected)
            wrong += bool(filled.wrong)
            print(f"{phase:<19}{filled.code:>3}  {filled.wrong or 'identical'}\n    {filled.said}", flush=True)
    finally:
        forked.close()
    print(f"{given.times * len(PHASES)} full disks, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
