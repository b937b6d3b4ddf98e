"""Old facts kept and new ones learned by every variant of zhdict_forgetting, over several seeds.

    python tests/bench/forgetting.py                     # seeds 1 2 3, in a temporary folder
    python tests/bench/forgetting.py --seeds 1 --out results/forgetting     # what is there is not run again

Bar: the best method keeps at least 95 % of the old facts and learns at least 95 % of the new ones, on every seed; plain
fine-tuning does not. Each run of the recipe on two quiet cores: at most 6 minutes. Intervals are Wilson's, over the
cases of all seeds together; seeds stand apart beside them, as cases of one seed share their weights.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from runner import verdicts
from runner.gate.chance import wilson
from runner.matrix import records

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "zhdict_forgetting.yaml"
BAR = 0.95


@dataclass(frozen=True)
class Counted:
    """One variant after one seed."""

    knew: int
    """Old facts that the base knew."""
    kept: int
    """Of those, how many the end of the variant knows."""
    new: int
    learned: int


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.out or temporary)
        found: dict[str, list[Counted]] = {}
        for seed in options.seeds:
            out = folder / str(seed)
            began = time.monotonic()
            _run(seed, out)
            print(f"seed {seed}: {time.monotonic() - began:.0f} s for the whole recipe", flush=True)
            for row in records.read(out)["variants"]:
                found.setdefault(row["variant"], []).append(_count(out / row["variant"]))
    _print_table(found, options.seeds)


def _run(seed: int, out: Path) -> None:
    command = [str(Path(sys.executable).with_name("recipe")), "run", str(RECIPE), "--set", f"seed={seed}"]
    done = subprocess.run(
        [*command, "--out", str(out.resolve())], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        sys.exit(f"seed {seed} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def _count(variant: Path) -> Counted:
    def passed(stage: str, suite: str) -> dict[tuple[str, str], bool]:
        (path,) = (variant / stage / "probes").glob("ckpt-*.jsonl")
        return {(row.probe, row.case_id): row.outcome == "pass" for row in verdicts.read(path).of(suite)}

    before, after, new = passed("base", "old"), passed("new", "old"), passed("new", "new")
    knew = [case for case, right in before.items() if right]
    return Counted(len(knew), sum(after[case] for case in knew), len(new), sum(new.values()))


def _print_table(found: dict[str, list[Counted]], seeds: list[int]) -> None:
    print(f"\n{'':10}{'old facts kept':34}new facts learned   (seeds {', '.join(map(str, seeds))})")
    worst: dict[str, float] = {}
    for variant, counted in found.items():
        kept = [(one.kept, one.knew) for one in counted]
        learned = [(one.learned, one.new) for one in counted]
        print(f"{variant:10}{_words(kept):34}{_words(learned)}")
        worst[variant] = min(right / of for right, of in kept + learned)
    plain = max(one.kept / one.knew for one in found["plain"])
    best = max(worst, key=lambda variant: worst[variant])
    print(f"\nbest: {best}, keeps and learns at least {worst[best]:.1%} on every seed; plain keeps at most {plain:.1%}")
    print("bar met" if worst[best] >= BAR > plain else "bar missed")


def _words(parts: list[tuple[int, int]]) -> str:
    right, of = (sum(numbers) for numbers in zip(*parts, strict=True))
    low, high = wilson(right, of)
    each = " ".join(f"{100 * part / whole:.0f}" for part, whole in parts)
    return f"{100 * right / of:5.1f} % [{100 * low:.1f}-{100 * high:.1f}] ({each})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", help="where the runs are kept; default: nowhere")
    return parser.parse_args()


if __name__ == "__main__":
    main()
