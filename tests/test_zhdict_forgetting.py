"""The shipped recipe zhdict_forgetting: its made-up facts, its variants, and that old and new are asked of each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runner.check import load_variants

ROOT = Path(__file__).parents[1]
DATA = ROOT / "recipes" / "data"


def test_the_script_builds_the_same_clans() -> None:
    built = subprocess.run([sys.executable, DATA / "build_clans.py"], capture_output=True, check=True)
    assert built.stdout == (DATA / "clans.tsv").read_bytes()


def test_every_variant_starts_from_the_same_base_and_is_asked_for_old_and_new() -> None:
    variants = load_variants(ROOT / "recipes" / "zhdict_forgetting.yaml", (), ROOT)
    first, *others = variants
    assert {"plain", "replay", "kl", "ewc", "lora"} <= {one.variant for one in variants}
    for one in others:
        assert one.spec.stages["base"] == first.spec.stages["base"]
        assert one.spec.stages["new"] != first.spec.stages["new"]
        assert one.spec.asked_at("new") == ("old", "new")
