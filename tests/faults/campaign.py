"""Runs of a small project, disturbed at random moments of every phase, run again, compared with the undisturbed one.

    python -m tests.faults.campaign --folder build/faults --kills 112 --seed 1     # make faults
    python -m tests.faults.campaign --folder build/faults --kills 112 --seed 1 --resume
    python -m tests.faults.campaign --folder build/faults --docs docs/faults.md     # only the table

Each run is of its own. It is waited for until its files say that it is in the phase aimed at, and then for a random
time within it; all of its processes are halted, its phase is read once more from its files, it gets its signal, and
goes on. Meanwhile a reader lists and loads what is there. Nothing may be left running, the reader may see no half
checkpoint, and the same command again must come to the same bytes of every checkpoint, the same verdicts and the same
exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ |= {"RECIPE_STORE": "off", "OMP_NUM_THREADS": "1"}

from tests.faults import phases
from tests.faults.forked import Forked
from tests.faults.killing import VICTIMS, Came, Victim, below, came, gone, left_in, signal_all
from tests.faults.looking import Watcher
from tests.faults.phases import ENDED, PHASES, Moment
from tests.faults.table import MARKS, markdown
from tests.tiny_project import RUN, alive, descendants, wait_until, write_project

STAGES, ASKED = ("base", "qa", "prefer"), ("qa", "prefer")
COMMAND = ("run", "tiny.yaml")
LOOK_EVERY_S = 0.001
ORPHANS_S = 15.0
"""How long a process may take to end after the command has: the system kills it, and has only to get round to it."""
TRIES = 8
"""How often a run is begun anew that slipped through the moment that was aimed at."""
KILLS: Mapping[str, Victim] = {f"SIGKILL {who}": who for who in VICTIMS}
SIGNALS = (*KILLS, "SIGTERM", "SIGINT", "SIGINT twice")
AGAIN_WITHIN_S = 0.3
"""The second Ctrl-C comes at most so long after the first."""


@dataclass(frozen=True)
class Aim:
    """What is to be done to a run."""

    number: int
    phase: str
    signal: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    aim: Aim
    hit: Moment
    """The phase that it was in, by its files."""
    code: int
    """What the disturbed command ended with."""
    wrong: str
    """What was not as it must be; empty where all was."""
    looks: int
    loaded: int
    seconds: float


def aims(kills: int, seed: int) -> list[Aim]:
    """Every signal in every phase, in turn, in an order that is drawn with the seed."""
    cells = [(phase, name) for name in SIGNALS for phase in PHASES]
    draw = random.Random(seed)
    found: list[Aim] = []
    while len(found) < kills:
        round_of = draw.sample(cells, len(cells))
        found += [Aim(len(found) + at, *cell, draw.randrange(2**32)) for at, cell in enumerate(round_of)]
    return found[:kills]


class Campaign:
    """Runs in `folder`, all of which are started through `forked`."""

    def __init__(self, folder: Path, forked: Forked) -> None:
        self._folder, self._forked = folder, forked
        self.durations: dict[Moment, float] = {}
        """How long each moment lasts in the undisturbed run."""
        self.seconds = 0.0
        """How long that takes in all."""

    # --- undisturbed ---

    def undisturbed(self) -> Came:
        """What the run comes to; how long it is in which phase is noted.

        It runs twice: the first one reads files that no later one waits for, and both must come to the same.
        """
        first = self._measured()
        if difference := self._measured().differs_from(first):
            raise SystemExit(f"two undisturbed runs differ: {difference}")
        return first

    def _measured(self) -> Came:
        root = self._project("undisturbed")
        began = time.monotonic()
        command = self._start(root)
        last, since = self._now(root), began
        durations: dict[Moment, float] = {}
        while alive(command):
            moment, at = self._now(root), time.monotonic()
            if moment != last:
                durations[last] = durations.get(last, 0.0) + at - since
                last, since = moment, at
            time.sleep(LOOK_EVERY_S)
        durations[last] = durations.get(last, 0.0) + time.monotonic() - since
        self.seconds = time.monotonic() - began
        durations.pop(Moment(ENDED), None)
        self.durations |= durations  # of the first run stays what the second was too quick for
        return came(root / RUN, self._ended(root, {0, 1}))

    # --- disturbed ---

    def disturb(self, aim: Aim, expected: Came) -> Outcome:
        """Disturb a run, and run it again."""
        draw, began = random.Random(aim.seed), time.monotonic()
        root = self._project(f"{aim.number:03}")
        for _ in range(TRIES):
            with Watcher(root / RUN) as watcher:
                struck = self._strike(root, aim, draw)
                if struck is not None:
                    self._start(root)
                    again = self._forked.wait()
            if struck is not None:
                break
            root = self._project(root.name)
        else:
            return Outcome(aim, Moment("missed"), 0, "", 0, 0, round(time.monotonic() - began, 1))
        hit, code, wrong = struck
        if code not in _allowed(aim, hit, expected.exit_code):
            wrong = wrong or f"the disturbed command ended with {code}"
        faults = "; ".join(watcher.faults)
        wrong = wrong or faults or self._left(root) or came(root / RUN, again).differs_from(expected)
        if not wrong:
            shutil.rmtree(root)
        return Outcome(aim, hit, code, wrong, watcher.looks, watcher.loaded, round(time.monotonic() - began, 1))

    def _strike(self, root: Path, aim: Aim, draw: random.Random) -> tuple[Moment, int, str] | None:
        """Start a run and hit it: where, its exit code, what was wrong; None where it slipped through."""
        places = sorted(moment for moment in self.durations if moment.phase == aim.phase)
        wanted = draw.choice(places or sorted(self.durations))
        command = self._start(root)
        known = self._wait_for(root, command, wanted)
        time.sleep(draw.uniform(0, self.durations[wanted] * 0.8))
        signal_all(known, signal.SIGSTOP)
        running = [command, *descendants(command)]
        signal_all(running, signal.SIGSTOP)
        if not alive(command):
            self._forked.wait()
            return None
        hit = self._now(root)
        self._deliver(aim, command)
        signal_all(running, signal.SIGCONT)
        if aim.signal == "SIGINT twice":
            time.sleep(draw.uniform(0, AGAIN_WITHIN_S))
            signal_all([command], signal.SIGINT)
        code = self._forked.wait()
        return hit, code, self._left(root, running)

    def _deliver(self, aim: Aim, command: int) -> None:
        if aim.signal not in KILLS:
            signal_all([command], signal.SIGTERM if aim.signal == "SIGTERM" else signal.SIGINT)
            return
        host, jobs = below(command)
        everything = [command, *descendants(command)]
        chosen = {"everything": everything, "the command": [command], "the host": host}
        signal_all(chosen.get(KILLS[aim.signal], jobs[-1:]) or [command], signal.SIGKILL)

    def _wait_for(self, root: Path, command: int, wanted: Moment) -> list[int]:
        """Until the run is at this moment, or has ended; gives the processes that it had a little before."""
        known, refreshed = [command], 0.0
        while alive(command) and self._now(root) != wanted:
            if time.monotonic() - refreshed > 0.1:
                known, refreshed = [command, *descendants(command)], time.monotonic()
            time.sleep(LOOK_EVERY_S)
        return known

    def _left(self, root: Path, known: list[int] | None = None) -> str:
        """What still runs when it should not; it is killed."""
        try:
            wait_until(lambda: gone(known or []) and not left_in(root), timeout_s=ORPHANS_S)
        except AssertionError:
            left = sorted({*left_in(root), *(pid for pid in known or () if alive(pid))})
            signal_all(left, signal.SIGKILL)
            return f"left running: {len(left)} processes"
        return ""

    # --- the command ---

    def _project(self, name: str) -> Path:
        root = self._folder / name
        shutil.rmtree(root, ignore_errors=True)
        write_project(root)
        return root

    def _start(self, root: Path) -> int:
        return self._forked.start(root, COMMAND, root / "log")

    def _ended(self, root: Path, codes: set[int]) -> int:
        code = self._forked.wait()
        if code not in codes:
            raise SystemExit(f"the undisturbed run ended with {code}; see {root / 'log'}")
        return code

    def _now(self, root: Path) -> Moment:
        return phases.now(root / RUN, STAGES, ASKED)


def _allowed(aim: Aim, hit: Moment, expected: int) -> set[int]:
    """Exit codes that a disturbed command may end with. Whoever is hit once nothing depends on him any more changes
    nothing: then it is that of the run."""
    if aim.signal in KILLS:
        who = KILLS[aim.signal]
        if who in ("everything", "the command"):
            return {-signal.SIGKILL}
        # without a host, or without a child of it, the command itself was hit
        return {3, expected, -signal.SIGKILL}
    # before it listens, and once its last stage is done, a signal simply ends it
    outside = {-signal.SIGTERM} if hit.phase in ("data preparation", "report", ENDED) else set()
    return {130, expected} | (outside if aim.signal == "SIGTERM" else set())


# --- the whole ---


def main() -> int:
    """Print a line per kill and the table; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("build/faults"))
    parser.add_argument("--kills", type=int, default=112, help="56 are every signal in every phase once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="leave out what kills.jsonl in the folder has")
    parser.add_argument("--docs", type=Path, help="only put the table of kills.jsonl in there")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    record = given.folder.resolve() / "kills.jsonl"
    if given.docs:
        return _tell(record, given.docs)
    if not given.resume:
        record.unlink(missing_ok=True)
    done = {row["aim"]["number"] for row in read(record)}
    left = [aim for aim in aims(given.kills, given.seed) if aim.number not in done]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    temporary = given.folder.resolve() / "tmp"  # what a killed run leaves there
    temporary.mkdir(exist_ok=True)
    forked = Forked("runner.train.preference", environment={"TMPDIR": str(temporary)})
    try:
        _go_on(Campaign(given.folder.resolve(), forked), left, record)
    finally:
        forked.close()
        shutil.rmtree(temporary, ignore_errors=True)
    return _tell(record, None)


def _go_on(campaign: Campaign, left: list[Aim], record: Path) -> None:
    expected = campaign.undisturbed()
    print(f"undisturbed: {campaign.seconds:.1f} s, {len(expected.files)} files, exit code {expected.exit_code}")
    for moment, seconds in campaign.durations.items():
        print(f"  {seconds:6.3f} s  {moment.phase}{' of ' * bool(moment.place)}{moment.place}")
    for aim in left:
        outcome = campaign.disturb(aim, expected)
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
        place = f"{outcome.hit.phase} {outcome.hit.place}"
        print(
            f"{aim.number + 1:>4}  {aim.phase:<19}{aim.signal:<31}hit: {place:<28}{outcome.code:>4}"
            f"{outcome.seconds:6.1f} s  {outcome.wrong or 'identical'}",
            flush=True,
        )


def read(record: Path) -> list[dict[str, object]]:
    """The outcomes so far."""
    if not record.exists():
        return []
    return [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]


def _tell(record: Path, docs: Path | None) -> int:
    rows = read(record)
    text = markdown(rows, PHASES, SIGNALS)
    record.with_name("table.md").write_text(text, encoding="utf-8")
    print(text)
    if docs is not None:
        before, _, rest = docs.read_text(encoding="utf-8").partition(MARKS[0])
        docs.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")
    return 1 if not rows or any(row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
