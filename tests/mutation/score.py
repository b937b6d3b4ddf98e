"""What `mutmut run` found: of the mutants of each group, how many some test noticed, and those that none did.

    python tests/mutation/score.py                 # the table; exit code 1 where a group is below the bar
    python tests/mutation/score.py --survivors     # besides, every survivor as a diff

A mutant is noticed where a test fails, or it never ends. One in `equivalent.txt` behaves as the original does, for the
reason given there: it counts as a survivor in the first score and is left out of the second.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

BAR = 0.85
GROUPS = {
    "gate": ("runner/gate/*.py",),
    "repetition": ("runner/repetition.py",),
    "masks": (
        "runner/data/tokens.py", "runner/data/cutting.py", "runner/data/conversations.py", "runner/train/packing.py",
        "runner/train/batches.py",
    ),
    "negatives": (
        "runner/data/rejecting.py", "runner/data/negatives.py", "runner/data/candidates.py",
        "runner/data/negative_files.py", "runner/data/pairs.py",
    ),
}  # fmt: skip
"""The modules that are mutated; `only_mutate` in pyproject.toml names the same."""
EQUIVALENT = Path(__file__).with_name("equivalent.txt")
_SURVIVED, _NO_TEST = 0, 33
"""mutmut's exit codes of a mutant; with another one it was noticed, None is one that was not tried."""


@dataclass(frozen=True)
class Mutant:
    """One of them."""

    group: str
    name: str
    noticed: bool
    change: str = ""
    """Of a survivor: its function, the line and what became of it."""


def main() -> int:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--survivors", action="store_true", help="show each, as equivalent.txt would name it")
    given = parser.parse_args()
    found, untried = mutants(Path("mutants"))
    equal = equivalents()
    low = False
    print(f"{'':12} {'mutants':>8} {'noticed':>8} {'score':>8} {'without equivalents':>20}")
    for group in GROUPS:
        of_group = [mutant for mutant in found if mutant.group == group]
        noticed = sum(mutant.noticed for mutant in of_group)
        same = sum(mutant.change in equal for mutant in of_group if not mutant.noticed)
        if of_group:
            score, fair = noticed / len(of_group), noticed / max(1, len(of_group) - same)
            low |= score < BAR
            print(f"{group:12} {len(of_group):>8,} {noticed:>8,} {score:>8.1%} {fair:>12.1%} ({same} of them)")
    if untried:
        print(f"{untried:,} mutants were not tried")
    print(f"bar {BAR:.0%}: {'MISSED' if low or untried or not found else 'met'}")
    if given.survivors:
        for mutant in found:
            if not mutant.noticed and mutant.change not in equal:
                print(f"\n# {mutant.name}\n{mutant.change}")
    return int(low or untried > 0 or not found)


def mutants(folder: Path) -> tuple[list[Mutant], int]:
    """Every mutant that was tried, and how many were not."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    found: list[Mutant] = []
    untried = 0
    for meta in sorted(folder.glob("runner/**/*.py.meta")):
        file = str(meta.relative_to(folder)).removesuffix(".meta")
        group = next((name for name, files in GROUPS.items() if any(fnmatch(file, one) for one in files)), None)
        codes: dict[str, int | None] = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        for name, code in codes.items() if group is not None else ():
            if code is None:
                untried += 1
                continue
            assert group is not None
            noticed = code not in (_SURVIVED, _NO_TEST)
            change = "" if noticed else _change(name, get_diff_for_mutant(name, path=Path(file)))
            found.append(Mutant(group, name, noticed, change))
    return found, untried


def equivalents() -> dict[str, str]:
    """By change: why it is none."""
    found, reason = {}, ""
    for block in EQUIVALENT.read_text(encoding="utf-8").split("\n\n"):
        lines = block.strip().splitlines()
        reason = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#")) or reason
        change = "\n".join(line for line in lines if not line.startswith("#"))
        if change:
            found[change] = reason
    return found


def _change(name: str, diff: str) -> str:
    """A mutant by its function and its lines: numbers of mutants move with every edit."""
    lines = [line for line in diff.splitlines() if line[:1] in "+-" and not line.startswith(("+++", "---"))]
    stripped = [f"{line[0]} {line[1:].strip()}" for line in lines]
    return "\n".join([name.rpartition("__mutmut_")[0].replace("x_", "", 1), *stripped])


if __name__ == "__main__":
    sys.exit(main())
