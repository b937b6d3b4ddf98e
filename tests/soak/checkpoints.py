"""Many checkpoints probed in one run: does the memory of its processes grow, or the number of their open files?

    python tests/soak/checkpoints.py                      # 200 checkpoints; `--checkpoints 40` for fewer

A real `recipe run` trains a tiny model and publishes every step; each checkpoint is probed and judged. Meanwhile its
processes are looked at: the parent, the host, the trainer, and every prober, which is a process of its own. What they
take after the warm-up is compared with what they take at the end. Exit code 1 where anything grew by more than GROWTH.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from runner import verdicts  # noqa: E402
from tests.tiny_project import leave_out_dpo, started, write_project  # noqa: E402

GROWTH = 0.05
"""Share by which memory or handles may have grown."""
WARM_UP = 0.2
"""Share of the checkpoints that is not looked at; the next and the last such share are compared."""
_EVERY_S = 0.1

Looks = Mapping[str, Sequence[tuple[int, int, int]]]
"""By process: how many checkpoints had verdicts when it was looked at, its bytes (RSS) and its handles."""


def main() -> int:
    """Print what every process took after the warm-up and at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=200)
    count = parser.parse_args().checkpoints
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.monotonic()
        seen = soak(Path(scratch), count)
        print(f"{count} checkpoints probed in one run, {time.monotonic() - begun:.0f} s")
    print(f"{'':8} {'memory MB':>20}  {'':>7} {'handles':>14}")
    worst = 0.0
    for process, looks in seen.items():
        early, late = compared(looks, count)
        growth = [late[0] / early[0] - 1, late[1] / early[1] - 1]
        worst = max(worst, *growth)
        sizes = f"{early[0] / 1e6:>9.1f} → {late[0] / 1e6:>8.1f}  {growth[0]:>+7.1%}"
        print(f"{process:8} {sizes} {early[1]:>6.0f} → {late[1]:>5.0f}  {growth[1]:>+.1%}")
    print(f"at most {worst:+.1%} (bar {GROWTH:.0%}): {'met' if worst <= GROWTH else 'MISSED'}")
    return int(worst > GROWTH)


def soak(root: Path, count: int) -> Looks:
    """Run it; gives what was seen.

    Raises:
        AssertionError: the run failed, or a checkpoint has no verdicts.
    """
    recipe = write_project(root)
    leave_out_dpo(recipe)
    text = recipe.read_text(encoding="utf-8")
    text = text.replace("num_train_epochs: 24", f"max_steps: {count}").replace("save_steps: [30]", "save_steps: 1")
    text = text.replace("stages: qa", "stages: base")[: text.index("  qa: {kind")] + text[text.index("\nprobes:") :]
    recipe.write_text(text.replace("stages: qa", "stages: base"), encoding="utf-8")
    run = root / "results" / "tiny"
    seen: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    with started(root, "run", recipe.name, RECIPE_STORE="off", OMP_NUM_THREADS="1") as process:
        while process.poll() is None:
            probed = len(list(run.glob("base/probes/ckpt-*.jsonl")))
            for name, one in _processes(process.pid):
                try:
                    with one.oneshot():
                        seen[name].append((probed, one.memory_info().rss, one.num_fds()))
                except psutil.NoSuchProcess:
                    continue
            time.sleep(_EVERY_S)
        screen = process.communicate()[0]
    assert process.returncode in (0, 1), screen  # the gate of its suite is red
    files = [verdicts.read(path) for path in run.glob("base/probes/ckpt-*.jsonl")]
    assert len(files) == count, screen
    assert {len(file.verdicts) for file in files} == {len(files[0].verdicts)}
    return seen


def _processes(pid: int) -> list[tuple[str, psutil.Process]]:
    """The processes of a run that are there now, by what they are."""
    try:
        parent = psutil.Process(pid)
        hosts = [child for child in parent.children() if "runner.host" in child.cmdline()]
        forked = sorted((child for host in hosts for child in host.children()), key=psutil.Process.create_time)
    except psutil.NoSuchProcess:
        return []
    # the trainer is there before the first checkpoint, and while there is another
    names = ["trainer", *["prober"] * len(forked)]
    return [("parent", parent), *(("host", host) for host in hosts), *zip(names, forked, strict=False)]


def compared(looks: Sequence[tuple[int, int, int]], count: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Medians over the checkpoints after the warm-up, and over the last: of the most that was seen at each."""
    by_checkpoint: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for probed, rss, handles in looks:
        by_checkpoint[probed].append((rss, handles))
    most = {at: (max(rss for rss, _ in found), max(fds for _, fds in found)) for at, found in by_checkpoint.items()}
    share = max(1, round(WARM_UP * count))
    sides = (range(share, 2 * share), range(count - share, count))
    early, late = ([most[at] for at in side if at in most] for side in sides)
    return _medians(early), _medians(late)


def _medians(found: Sequence[tuple[int, int]]) -> tuple[float, float]:
    assert found, "a process was never seen in that part of the run"
    return statistics.median(rss for rss, _ in found), statistics.median(handles for _, handles in found)


if __name__ == "__main__":
    sys.exit(main())
