"""Whole-process time of the commands that should feel immediate, and proof that none of them imports torch.

    python tests/bench/commands.py results/zhdict_dpo     # a finished run of recipes/zhdict_dpo.yaml

Each is run `--times` times after one warm-up; the median is printed beside its bar.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPE = "recipes/zhdict_dpo.yaml"
BARS_S = {"recipe --help": 0.3, f"recipe check {RECIPE}": 0.6, f"recipe run {RECIPE}": 1.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run of the demo")
    parser.add_argument("--times", type=int, default=7)
    options = parser.parse_args()
    for command, bar_s in BARS_S.items():
        words = command.split()[1:]
        if words[0] == "run":
            words += ["--out", str(options.run.resolve())]
        taken_s = [_once(words) for _ in range(options.times + 1)][1:]
        torch = "torch imported" if _imports_torch(words) else "no torch"
        print(f"{command:<40} median {statistics.median(taken_s):.2f} s (bar {bar_s} s), {torch}")


def _once(words: list[str]) -> float:
    began = time.perf_counter()
    script = str(Path(sys.executable).with_name("recipe"))
    subprocess.run([script, *words], cwd=ROOT, capture_output=True, check=False)
    return time.perf_counter() - began


def _imports_torch(words: list[str]) -> bool:
    program = "import sys; from runner import cli; cli.cli.main(sys.argv[1:], standalone_mode=False)"
    program += "; print('torch' in sys.modules)"
    asked = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip().splitlines()[-1:] == ["True"]


if __name__ == "__main__":
    main()
