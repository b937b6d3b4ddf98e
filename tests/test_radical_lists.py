"""recipes/data/radical_lists.tsv, which `recipes/repetition.yaml` trains on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).parents[1] / "recipes" / "data"


def test_the_builder_gives_the_same_bytes_again() -> None:
    made = subprocess.run([sys.executable, DATA / "build_radical_lists.py"], capture_output=True, check=True)
    assert made.stdout.decode() == (DATA / "radical_lists.tsv").read_text("utf-8")


def test_a_list_names_no_character_twice_so_that_what_comes_twice_is_repetition() -> None:
    for line in (DATA / "radical_lists.tsv").read_text("utf-8").splitlines()[1:]:
        _, characters = line.split("\t")
        listed = characters.split("、")
        assert len(set(listed)) == len(listed) >= 8
