"""Kill runs of a recipe with SIGKILL at random moments, run each again, and compare with the undisturbed run.

    python tests/faults/kills.py recipes/zhdict_dpo.yaml --kills 20

Each kill is of a run of its own, at a moment drawn from its own part of the undisturbed run's time; in turn everything
is killed at once, or only the trainer (or prober), the command, or the host. Nothing may be left running, and the same
command again must come to the same bytes of every checkpoint, the same verdicts and the same exit code.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.killing import VICTIMS, Came, Victim, came, gone, kill, victims
from tests.tiny_project import descendants


def command(recipe: str, sets: list[str], out: Path) -> list[str]:
    """`recipe run` into `out`."""
    chosen = [argument for assignment in sets for argument in ("--set", assignment)]
    return [str(Path(sys.executable).with_name("recipe")), "run", recipe, *chosen, "--out", str(out)]


def start(argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    """The command in a session of its own; replies come from no store."""
    environment = {**os.environ, "RECIPE_STORE": "off"}
    with log.open("ab") as out:
        return subprocess.Popen(argv, stdout=out, stderr=out, env=environment, start_new_session=True)


def undisturbed(argv: list[str], out: Path, log: Path) -> tuple[Came, float]:
    """What the run comes to, and how long it takes."""
    began = time.monotonic()
    code = start(argv, log).wait()
    if code not in (0, 1):
        raise SystemExit(f"the undisturbed run ended with {code}; see {log}")
    return came(out, code), time.monotonic() - began


def disturbed(argv: list[str], out: Path, log: Path, after_s: float, who: Victim) -> tuple[Came, str]:
    """The same of a run that is killed so many seconds after it began, and run again; and where it was."""
    process = start(argv, log)
    try:
        process.wait(after_s)
        shutil.rmtree(out)  # it was faster than the undisturbed one, and had ended: that is no kill
        return disturbed(argv, out, log, after_s * 0.9, who)
    except subprocess.TimeoutExpired:
        place = where(out)
        below = descendants(process.pid)
        kill(victims(process.pid, who))
        process.wait(60)
        limit = time.monotonic() + 10
        while not gone(below):
            if time.monotonic() > limit:
                raise SystemExit(f"left running after {who} was killed: {below}") from None
            time.sleep(0.01)
    return came(out, start(argv, log).wait()), place


def where(out: Path) -> str:
    """The last thing that the run's journals say, for the report."""
    journals = sorted(out.glob("events/*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    if not journals:
        return "before its first event"
    return f"{journals[-1].stem}, {len(journals[-1].read_bytes().splitlines())} events"


def main() -> int:
    """Print a line per kill and the bar; 1 where one differed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs that differed")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    expected, wall_s = undisturbed(
        command(given.recipe, given.sets, folder / "undisturbed"), folder / "undisturbed", folder / "undisturbed.log"
    )
    print(f"undisturbed: {wall_s:.0f} s, {len(expected.files)} files of checkpoints, exit code {expected.exit_code}")
    same = 0
    for number in range(given.kills):
        out, log = folder / str(number), folder / f"{number}.log"
        after_s = wall_s * (number + draw.random()) / given.kills
        who = VICTIMS[number % len(VICTIMS)]
        found, place = disturbed(command(given.recipe, given.sets, out), out, log, after_s, who)
        difference = found.differs_from(expected)
        same += not difference
        print(f"{number + 1:>3}  {after_s:6.1f} s  {who:<22}{place:<34}{difference or 'identical'}", flush=True)
        if not (difference and given.keep):
            shutil.rmtree(out)
    if same == given.kills:
        shutil.rmtree(folder)
    print(f"bar: killed at {given.kills} random moments, run again, identical to the undisturbed run: {same}")
    return 0 if same == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
