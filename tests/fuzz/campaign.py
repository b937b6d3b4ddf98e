"""Random input until the time is over: `python -m tests.fuzz.campaign recipe --minutes 15 --seed 1`.

Every input must be taken, or refused with a `UserError` whose screen can be shown, within LIMIT_S seconds of processor
time and MEMORY_BYTES of memory. What is not is kept in a folder, and asked once more by
`python -m tests.fuzz.campaign recipe --again build/fuzz/recipe-…`. An input that ends the process is left in `now`.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from huggingface_hub import constants

from runner.errors import UserError
from tests.fuzz import readers, recipes

Files = Mapping[str, bytes]
"""An input: the files of a project, by their path in it."""

TARGETS: Mapping[str, tuple[Callable[[random.Random], Files], Callable[[Path], None]]] = {
    "recipe": (recipes.written, recipes.ask),
    "readers": (readers.written, readers.ask),
}
"""By name: what makes an input, and what asks it in its folder."""
LIMIT_S = 2.0
"""Of processor time: on a busy machine a clock on the wall would make hangs."""
MEMORY_BYTES = 1 << 30
"""Of addresses, beyond what the process has when it begins."""
_STUCK_S = 120.0
"""On the wall, for what waits without computing, or computes where no signal gets through; ends the process."""
_WARM_UP = 500
"""Inputs after which memory is compared: caches are full."""


class TooLongError(BaseException):
    """Nothing between an input and here may catch it."""


@dataclass
class Tally:
    """What became of the inputs."""

    asked: int = 0
    taken: int = 0
    """The others were refused in words."""
    slowest_s: float = 0.0
    found: Counter[str] = field(default_factory=Counter)
    """What is not as it must be: the error, and the place in this project that it came from."""
    rss_bytes: list[int] = field(default_factory=list)
    """Of the process, after every _WARM_UP inputs."""

    @property
    def growth(self) -> float:
        """Memory at the end against that after the warm-up, as a share."""
        return self.rss_bytes[-1] / self.rss_bytes[0] - 1 if self.rss_bytes else 0.0


def ask(target: str, folder: Path, tally: Tally) -> str | None:
    """Ask the input in a folder; gives the traceback of what must not be, or None."""
    tally.asked += 1
    before = time.process_time()
    try:
        with _inside(folder), _within(LIMIT_S):
            TARGETS[target][1](folder)
        tally.taken += 1
    except UserError as error:
        error.screen().encode("utf-8", "surrogatepass")
    except (Exception, TooLongError) as error:  # noqa: BLE001 - any other is what is looked for
        tally.found[_signature(error)] += 1
        return traceback.format_exc()
    finally:
        tally.slowest_s = max(tally.slowest_s, time.process_time() - before)
    return None


def run(target: str, seed: int, folder: Path, enough: Callable[[Tally], bool]) -> Tally:
    """Make and ask inputs until it is enough. The first that breaks in its way is kept, with its traceback."""
    tally = Tally()
    now = folder / "now"
    while not enough(tally):
        _write(now, TARGETS[target][0](random.Random(f"{target}:{seed}:{tally.asked}")))
        known = len(tally.found)
        broken = ask(target, now, tally)
        if broken is not None and len(tally.found) > known:
            kept = folder / f"{target}-{seed}-{tally.asked - 1}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(now, kept)
            (kept / "traceback").write_text(broken, encoding="utf-8", errors="backslashreplace")
        if not tally.asked % _WARM_UP:
            tally.rss_bytes.append(psutil.Process().memory_info().rss)
    shutil.rmtree(now, ignore_errors=True)
    return tally


def _write(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _signature(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/runner/" in frame.filename]
    place = f"{frames[-1].filename.rpartition('/runner/')[2]}:{frames[-1].lineno}" if frames else "elsewhere"
    return f"{type(error).__name__} at {place}"


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise TooLongError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _main() -> int:
    constants.HF_HUB_OFFLINE = True  # an input that names a hub asks none
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--again", type=Path, metavar="FOLDER", help="ask an input that was kept, once")
    given = parser.parse_args()
    if given.again is not None:
        broken = ask(given.target, given.again.resolve(), Tally())
        print(broken or "as it must be")
        return int(broken is not None)
    limit = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    ends = time.monotonic() + 60 * given.minutes

    def enough(tally: Tally) -> bool:
        faulthandler.dump_traceback_later(_STUCK_S, exit=True)
        return time.monotonic() >= ends

    tally = run(given.target, given.seed, given.out.resolve(), enough)
    print(
        f"{given.target}, seed {given.seed}: {tally.asked:,} inputs in {given.minutes:g} min, {tally.taken:,} taken, "
        f"slowest {tally.slowest_s:.2f} s, memory {tally.growth:+.1%}, {tally.found.total()} not as they must be"
    )
    for what, times in tally.found.most_common():
        print(f"{times:8,} × {what}")
    return int(bool(tally.found))


if __name__ == "__main__":
    sys.exit(_main())
