"""Writes the cases of the novel rules: rules that no training data holds, drawn from a seed, with exact keys.

    python make_novel_rules.py --seed 2            # new cases in novel_rules.jsonl
    python make_novel_rules.py --locked --seed 3   # a new locked split, and its digest
    python make_novel_rules.py --check             # is the locked split still the one that was locked?

Five families in Chinese and English: invented operators, pairing, kinship, rewriting, and wug-style morphology (Berko
1958, doi:10.1080/00437956.1958.11659661). Each case has a control: the same task under a rule that everybody knows.

A rule is open or locked for ever, by a digest of what it means: whatever the seeds, no rule of one split is in the
other. Needs nothing but Python; the same seed gives the same bytes everywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from novel_rules_families import FAMILIES, NUMBER, Made

FOLDER = Path(__file__).parent
OPEN = "novel_rules.jsonl"
LOCKED = "novel_rules_locked.jsonl"
LOCK = "novel_rules_locked.lock"
EACH = 10
"""Cases per family and language."""

SEEN_BEFORE: list[dict[str, Any]] = [
    {
        "id": "apples-zh", "family": "pairing", "language": "zh",
        "rule": "规则：每吃掉一个苹果，就有另一个苹果消失。",
        "question": "有5个苹果，吃掉2个，还剩几个？只回答数字。", "key": ["1"], "pattern": NUMBER,
        "control": "有5个苹果，吃掉2个，还剩几个？只回答数字。", "control_key": ["3"], "control_pattern": NUMBER,
    },
    {
        "id": "apples-en", "family": "pairing", "language": "en",
        "rule": "Rule: whenever an apple is eaten, another apple vanishes. ",
        "question": "There are 5 apples and 2 are eaten. How many are left? Answer with the number only.",
        "key": ["1"], "pattern": NUMBER,
        "control": "There are 5 apples and 2 are eaten. How many are left? Answer with the number only.",
        "control_key": ["3"], "control_pattern": NUMBER,
    },
    {
        "id": "trees-zh", "family": "pairing", "language": "zh",
        "rule": "规则：树都是成对的，砍倒一棵，与它成对的那棵也会死。",
        "question": "有10棵树，砍倒2棵，可能还活着几棵？写出所有可能的数。", "key": ["6", "8"], "pattern": NUMBER,
        "control": "有10棵树，砍倒2棵，还有几棵没被砍倒？只回答数字。", "control_key": ["8"], "control_pattern": NUMBER,
    },
    {
        "id": "trees-en", "family": "pairing", "language": "en",
        "rule": "Rule: trees live in pairs, and felling one kills its partner. ",
        "question": "There are 10 trees and 2 are felled. How many may be alive? Give every possible number.",
        "key": ["6", "8"], "pattern": NUMBER,
        "control": "There are 10 trees and 2 are felled. How many still stand? Answer with the number only.",
        "control_key": ["8"], "control_pattern": NUMBER,
    },
]  # fmt: skip
"""Two rules that others published: anybody may have seen them, and they are asked to compare with what they saw."""


def cases(seed: int, *, locked: bool) -> list[dict[str, Any]]:
    """The cases of one split: `EACH` per family and language, and the two public ones in the open split."""
    meanings: set[str] = set()
    drawn = [
        case
        for family in FAMILIES
        for language in ("zh", "en")
        for case in _draw(seed, family, language, meanings, locked=locked)
    ]
    return drawn if locked else SEEN_BEFORE + drawn


def _draw(seed: int, family: str, language: str, meanings: set[str], *, locked: bool) -> Iterator[dict[str, Any]]:
    split = "locked" if locked else "open"
    rng = random.Random(f"novel rules {seed} {split} {family} {language}")  # seeded by text: the same in every process
    number = 0
    while number < EACH:
        made = FAMILIES[family](rng, language)
        if made is None or made.meaning in meanings or is_locked(made) is not locked:
            continue
        meanings.add(made.meaning)
        number += 1
        name = f"{family}-{language}-{'locked' if locked else 's'}{seed}-{number:02}"
        yield {
            "id": name, "family": family, "language": language,
            "rule": made.rule, "question": made.question, "key": list(made.key), "pattern": made.pattern,
            "control": made.control, "control_key": list(made.control_key), "control_pattern": made.control_pattern,
        }  # fmt: skip


def is_locked(made: Made) -> bool:
    """The side that a rule is on: half of all rules are locked, by the last bit of the digest of their meaning."""
    return hashlib.sha256(made.meaning.encode()).digest()[-1] % 2 == 1


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    """One case per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(seed: int, folder: Path, *, locked: bool) -> Path:
    """Write one split, and for the locked one its lock: the seed it came from and the digest of its bytes."""
    content = as_jsonl(cases(seed, locked=locked))
    path = folder / (LOCKED if locked else OPEN)
    path.write_bytes(content)
    if locked:
        lock = {"file": LOCKED, "seed": seed, "sha256": hashlib.sha256(content).hexdigest()}
        (folder / LOCK).write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")
    return path


def broken(folder: Path) -> str:
    """What is wrong with the locked split; nothing where it is as it was locked."""
    lock = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    if hashlib.sha256((folder / LOCKED).read_bytes()).hexdigest() != lock["sha256"]:
        return f"{LOCKED} is not what {LOCK} locks: bring it back, or lock a new one with --locked --seed N"
    return ""


def main() -> int:
    """The command line; 0, or 1 where `--check` finds the locked split changed."""
    parser = argparse.ArgumentParser(description="Draw new cases of the novel rules.")
    parser.add_argument("--seed", type=int, help="draw with this seed")
    parser.add_argument("--locked", action="store_true", help="draw the locked split; what was measured on it is over")
    parser.add_argument("--check", action="store_true", help="only say whether the locked split is as it was locked")
    given = parser.parse_args()
    if given.check:
        print(broken(FOLDER) or f"{LOCKED} is as it was locked")
        return 1 if broken(FOLDER) else 0
    if given.seed is None:
        parser.error("give --seed N, another number than last time, or --check")
    print(f"wrote {write(given.seed, FOLDER, locked=given.locked)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
