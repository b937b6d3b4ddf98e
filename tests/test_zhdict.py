"""The dictionary that the demonstration trains on: complete, and what its script builds."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from runner import spec
from runner.data import sources

FOLDER = Path(__file__).parent.parent / "recipes" / "data"
UNICODE = Path("/usr/share/unicode")


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, str]]:
    table = sources.read(spec.Data(path="zhdict.tsv"), "chars", FOLDER)
    return {row.values["char"]: dict(row.values) for row in table.rows}


def test_it_has_every_character_of_the_table_once_in_three_levels(rows: dict[str, dict[str, str]]) -> None:
    assert len(rows) == 8105
    assert Counter(row["level"] for row in rows.values()) == {"1": 3500, "2": 3000, "3": 1605}


def test_every_value_is_a_single_plausible_one(rows: dict[str, dict[str, str]]) -> None:
    for row in rows.values():
        assert len(row["char"]) == len(row["radical"]) == 1
        assert 1 <= int(row["strokes"]) <= 36
        assert row["pinyin"].isalpha()


def test_simplified_radicals_stay_simplified(rows: dict[str, dict[str, str]]) -> None:
    assert rows["语"] == {"char": "语", "radical": "讠", "strokes": "9", "pinyin": "yǔ", "level": "1"}
    assert rows["鱼"]["radical"] == "鱼"


def test_the_readme_keeps_the_notice_and_names_the_version() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert "version 15.0.0" in readme
    assert "COPYRIGHT AND PERMISSION NOTICE" in readme
    assert "Permission is hereby granted, free of charge" in readme


def test_the_script_builds_the_same_bytes() -> None:
    radicals = UNICODE / "CJKRadicals.txt"
    if not radicals.is_file() or "15.0.0" not in radicals.read_text("utf-8"):
        pytest.skip("needs Debian's unicode-data 15.0.0")
    built = subprocess.run([sys.executable, FOLDER / "build_zhdict.py"], capture_output=True, check=True)
    assert built.stdout == (FOLDER / "zhdict.tsv").read_bytes()
