"""Flip single bits of a published checkpoint, and have each one found before the checkpoint answers.

    python tests/bench/bit_flips.py --flips 200
    python tests/bench/bit_flips.py --flips 0 --checkpoint results/zhdict_dpo/qa/ckpt-96

Each flip is of a file in turn, at a bit drawn with the seed; then the engine is to load the folder. Beside it, how long
the digests take: loading with and without a manifest.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from runner import checkpoints
from runner.errors import BadCheckpoint
from runner.probing.engine import Engine
from tests.in_process import prepare, train
from tests.tiny_project import write_project


def flipped(path: Path, bit: int) -> bytes:
    """Flip a bit of a file; gives what it held."""
    whole = path.read_bytes()
    content = bytearray(whole)
    content[bit // 8] ^= 1 << bit % 8
    path.unlink()  # its state has another name of it
    path.write_bytes(content)
    return whole


def is_refused(folder: Path, name: str) -> bool:
    """Whether the engine refuses the checkpoint, and names the file."""
    try:
        Engine(folder).close()
    except BadCheckpoint as error:
        return name in str(error)
    return False


def seconds(folder: Path, times: int = 5) -> float:
    """Of loading it, at best."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        Engine(folder).close()
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> int:
    """Print what was found; 1 where a flip was not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="one to time; by default a tiny one is trained")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flips-") as work:
        folder = Path(work, "ckpt-1")
        if given.checkpoint is None:
            recipe = write_project(Path(work, "p"))
            short = ("stages.base.max_steps=1", "stages.base.save_strategy=no")
            shutil.copytree(train(prepare(recipe, Path(work, "run"), *short), "base"), folder)
        else:
            shutil.copytree(given.checkpoint, folder)
        draw, files = random.Random(given.seed), sorted(folder.iterdir())
        missed = []
        for number in range(given.flips):
            file = files[number % len(files)]
            bit = draw.randrange(8 * file.stat().st_size)
            whole = flipped(file, bit)
            if not is_refused(folder, file.name):
                missed.append(f"{file.name} bit {bit}")
            file.write_bytes(whole)
        checkpoints.check(folder)
        print(f"bar: {given.flips} bits flipped in {len(files)} files, found before use: {given.flips - len(missed)}")
        print("\n".join(missed))
        size = sum(file.stat().st_size for file in files)
        checked = seconds(folder)
        (folder / checkpoints.MANIFEST).unlink()
        print(f"{size / 1e6:,.1f} MB: loaded in {seconds(folder):.3f} s, with digests {checked:.3f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
