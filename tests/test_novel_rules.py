"""The cases of the novel rules: right by an independent reading, distinct, balanced, the same everywhere, locked."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runner import answers
from tests.rule_reader import control_answers, rule_answers

DATA = Path(__file__).parents[1] / "probes" / "data"
FILES = ["make_novel_rules.py", "novel_rules_families.py", "novel_rules.jsonl", "novel_rules_locked.jsonl"]
SPLITS = [(seed, locked) for seed in (1, 2, 3, 36) for locked in (False, True)]


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DATA))
    try:
        yield importlib.import_module("make_novel_rules")
    finally:
        sys.path.remove(str(DATA))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The data with its generator, as a project of its own has it."""
    for name in [*FILES, "novel_rules_locked.lock"]:
        shutil.copy(DATA / name, tmp_path / name)
    return tmp_path


def shipped(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def make(folder: Path, *arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", folder / "make_novel_rules.py", *arguments],
        capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )  # fmt: skip


@pytest.mark.parametrize(("seed", "locked"), SPLITS)
def test_every_key_is_the_one_answer_that_rule_and_question_allow(
    generator: ModuleType, seed: int, locked: bool
) -> None:
    wrong = [
        (case["id"], case["key"], case["control_key"])
        for case in generator.cases(seed, locked=locked)
        if rule_answers(case) != {tuple(sorted(case["key"]))}
        or control_answers(case) != {tuple(sorted(case["control_key"]))}
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ["novel_rules.jsonl", "novel_rules_locked.jsonl"])
def test_every_key_that_ships_is_right_too(name: str) -> None:
    for case in shipped(name):
        assert rule_answers(case) == {tuple(sorted(case["key"]))}, case["id"]
        assert control_answers(case) == {tuple(sorted(case["control_key"]))}, case["id"]


@pytest.mark.parametrize(("seed", "locked"), SPLITS)
def test_cases_are_distinct_and_balanced_over_families_and_languages(
    generator: ModuleType, seed: int, locked: bool
) -> None:
    cases = generator.cases(seed, locked=locked)
    assert len({case["id"] for case in cases}) == len(cases)
    assert len({case["rule"] + case["question"] for case in cases}) == len(cases)
    assert all(case["id"].isascii() for case in cases)
    drawn = Counter((case["family"], case["language"]) for case in cases[0 if locked else 4 :])
    assert set(drawn.values()) == {generator.EACH}
    assert sorted(drawn) == sorted((family, language) for family in generator.FAMILIES for language in ("en", "zh"))


def test_reciting_never_gives_the_key(generator: ModuleType) -> None:
    for seed, locked in SPLITS:
        for case in generator.cases(seed, locked=locked):
            said = " ".join(case["control_key"])
            assert not answers.says(said, case["key"], case["pattern"]), case["id"]


def test_a_reply_that_reasons_first_and_ends_with_the_key_is_right() -> None:
    for case in shipped("novel_rules.jsonl"):
        zh = case["language"] == "zh"
        said = f"{case['question']} " + ("按规则，答案是：“{}”。" if zh else "By the rule, the answer is **{}**.")
        key = (" 或 " if zh else " or ").join(case["key"])
        assert answers.says(said.format(key), case["key"], case["pattern"]), case["id"]
        assert answers.says(" ".join(case["control_key"]), case["control_key"], case["control_pattern"])
        assert not answers.says("", case["key"], case["pattern"])


def test_the_two_of_others_have_the_keys_they_published(generator: ModuleType) -> None:
    keys = {case["id"]: case["key"] for case in shipped("novel_rules.jsonl")[:4]}
    assert keys == {"apples-zh": ["1"], "apples-en": ["1"], "trees-zh": ["6", "8"], "trees-en": ["6", "8"]}


def test_the_open_cases_are_those_of_seed_1(generator: ModuleType) -> None:
    assert (DATA / "novel_rules.jsonl").read_bytes() == generator.as_jsonl(generator.cases(1, locked=False))


def test_the_locked_cases_are_those_that_were_locked(generator: ModuleType) -> None:
    """Red here, and nobody wanted a new locked split? Bring the file back: `git checkout probes/data`."""
    lock = json.loads((DATA / "novel_rules_locked.lock").read_text(encoding="utf-8"))
    assert hashlib.sha256((DATA / lock["file"]).read_bytes()).hexdigest() == lock["sha256"]
    assert generator.broken(DATA) == ""


def test_no_rule_of_the_locked_split_is_ever_drawn_for_the_open_one(generator: ModuleType) -> None:
    sides: dict[bool, set[str]] = {False: set(), True: set()}
    for locked in sides:
        for seed in range(40, 60):
            sides[locked] |= {case["rule"] for case in generator.cases(seed, locked=locked)}
    assert len(sides[False]) > 500
    assert sides[False] & sides[True] == set()


def test_a_seed_gives_the_same_bytes_in_every_process(copied: Path) -> None:
    digests = set()
    for hash_seed in ("0", "1", "random"):
        assert make(copied, "--seed", "7", hash_seed=hash_seed).returncode == 0
        digests.add(hashlib.sha256((copied / "novel_rules.jsonl").read_bytes()).hexdigest())
    assert len(digests) == 1
    assert (copied / "novel_rules.jsonl").read_bytes() != (DATA / "novel_rules.jsonl").read_bytes()


def test_new_open_cases_leave_the_locked_ones_alone(copied: Path) -> None:
    ran = make(copied, "--seed", "2")
    assert (ran.returncode, ran.stdout) == (0, f"wrote {copied / 'novel_rules.jsonl'}\n")
    assert (copied / "novel_rules_locked.jsonl").read_bytes() == (DATA / "novel_rules_locked.jsonl").read_bytes()
    ran = make(copied, "--check")
    assert (ran.returncode, ran.stdout) == (0, "novel_rules_locked.jsonl is as it was locked\n")


def test_a_locked_case_that_was_touched_is_found_and_a_new_split_is_locked_anew(copied: Path) -> None:
    locked = copied / "novel_rules_locked.jsonl"
    locked.write_text(locked.read_text(encoding="utf-8").replace('"key": ["', '"key": ["1', 1), encoding="utf-8")
    ran = make(copied, "--check")
    assert (ran.returncode, ran.stdout) == (
        1,
        "novel_rules_locked.jsonl is not what novel_rules_locked.lock locks: bring it back, or lock a new one with "
        "--locked --seed N\n",
    )
    assert make(copied, "--locked", "--seed", "9").returncode == 0
    assert make(copied, "--check").returncode == 0


def test_without_a_seed_nothing_is_drawn(copied: Path) -> None:
    ran = make(copied, "--locked")
    assert ran.returncode == 2
    assert ran.stderr.endswith("error: give --seed N, another number than last time, or --check\n")
    assert (copied / "novel_rules_locked.jsonl").read_bytes() == (DATA / "novel_rules_locked.jsonl").read_bytes()
