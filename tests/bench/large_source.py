"""A jsonl source larger than memory should have to hold: `recipe run` on it, and the peak memory of every process.

    python tests/bench/large_source.py --gb 5            # writes 5 GB of text, and about as much of token ids
    python tests/bench/large_source.py --gb 0.1 --folder /somewhere/with/room

The source is tokenised whole and counted, then 200 steps are trained; every process of the run is looked at all the
while (`VmHWM` in /proc, which is the most it ever held, mapped files included). The bar is 3 GB for each of them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

BAR_GB = 3.0
STEPS = 200
_RECIPE = """\
recipe: large
model:
  config: {{model_type: qwen3, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2,
           head_dim: 32, intermediate_size: 128, max_position_embeddings: 1024, tie_word_embeddings: true}}
  tokenizer: {{train: bpe, from_data: sample, vocab_size: 2000}}
data:
  large: {{path: large.jsonl}}
  sample: {{path: large.jsonl, take: 2000}}
stages:
  base: {{kind: pretrain, data: large, max_steps: {steps}, global_batch_size: 8, max_length: 256, save_strategy: "no",
         packing: {packing}}}
"""


def main() -> None:
    """Write the source and the recipe, run it, print the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=5.0, help="size of the source")
    parser.add_argument("--packing", default="wrapped", choices=["wrapped", "true", "false"])
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        root = Path(scratch)
        began = time.monotonic()
        rows = write_project(root, options.gb, options.packing)
        print(f"{options.gb:g} GB, {rows:,} rows, written in {time.monotonic() - began:.0f} s", flush=True)
        wall_s, peaks = run(root)
        report(root, rows, wall_s, peaks)


def write_project(root: Path, gb: float, packing: str = "wrapped", steps: int = STEPS) -> int:
    """A source of so many gigabytes (10^9 bytes) and a recipe that trains on it; gives the number of rows."""
    (root / "pyproject.toml").touch()
    (root / "large.yaml").write_text(_RECIPE.format(steps=steps, packing=packing), encoding="utf-8")
    written = rows = 0
    with (root / "large.jsonl").open("w", encoding="utf-8") as file:
        for text in _texts():
            line = json.dumps({"id": rows, "text": text}) + "\n"
            file.write(line)
            rows, written = rows + 1, written + len(line)
            if written >= gb * 1e9:
                break
    return rows


def _texts() -> Iterator[str]:
    """Endless documents of some two thousand characters, no two alike, their words as frequent as those of a language
    (Zipf: the n-th most frequent word is 1/n as frequent as the first)."""
    generator = random.Random(36)
    syllables = [first + second for first in "bcdfghjklmnprstvwz" for second in ("a", "e", "i", "o", "u", "ai", "en")]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 4))) for _ in range(30_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    sentences = [" ".join(generator.choices(words, weights, k=12)) + "." for _ in range(20_000)]
    while True:
        yield " ".join(generator.choices(sentences, k=generator.randint(5, 40)))


def run(root: Path) -> tuple[float, dict[str, float]]:
    """`recipe run`; its wall time in seconds, and the peak memory of each of its processes in GB, by what it is."""
    command = [str(Path(sys.executable).with_name("recipe")), "run", "large.yaml"]
    began, peaks = time.monotonic(), dict[str, float]()
    with (root / "run.log").open("w") as log:
        process = subprocess.Popen(command, cwd=root, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            for name, gb in memory_below(process.pid).items():
                peaks[name] = max(peaks.get(name, 0.0), gb)
            time.sleep(0.2)
    if process.returncode != 0:
        sys.exit(f"recipe run ended with {process.returncode}:\n{(root / 'run.log').read_text()}")
    return time.monotonic() - began, peaks


def memory_below(pid: int) -> dict[str, float]:
    """The most memory that each process below `pid`, and itself, ever held, in GB."""
    found, parents = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        number = int(status.parent.name)
        parents[number] = int(re.search(r"^PPid:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
        if held := re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE):
            found[number] = int(held[1]) * 1024 / 1e9
    below = {pid: "recipe run"}
    while new := {child for child, parent in parents.items() if parent in below and child not in below}:
        below |= {child: _name(below[parents[child]]) for child in new}
    peaks: dict[str, float] = {}
    for number, name in below.items():
        peaks[name] = max(peaks.get(name, 0.0), found.get(number, 0.0))
    return peaks


def _name(parent: str) -> str:
    return {"recipe run": "host", "host": "trainer"}.get(parent, parent)


def report(root: Path, rows: int, wall_s: float, peaks: dict[str, float], steps: int = STEPS) -> bool:
    """Print what was measured; gives whether the bar is met."""
    (events,) = root.glob("results/large/events/train-base.jsonl")
    finished = [json.loads(line) for line in events.read_text().splitlines()][-1]
    ids = sum(path.stat().st_size for path in root.glob("results/large/data/tokens/*/ids.i32")) // 4
    print(f"run: {wall_s:,.0f} s in all; {ids:,} token ids of {rows:,} rows; {finished['step']} steps")
    for name, gb in peaks.items():
        print(f"  {name:<12} {gb:5.2f} GB at its peak")
    met = max(peaks.values()) <= BAR_GB and finished["step"] == steps
    print(f"bar: {max(peaks.values()):.2f} GB of {BAR_GB} GB: {'met' if met else 'MISSED'}")
    return met


if __name__ == "__main__":
    main()
