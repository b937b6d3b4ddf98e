"""A little of `make soak`: what a run holds of its checkpoints does not grow with their number."""

from __future__ import annotations

import gc
from pathlib import Path

from runner.standings import open_run
from runner.verdicts import Verdict
from tests.recorded_run import write_run_folder
from tests.soak.checkpoints import compared


def test_of_many_checkpoints_the_verdicts_of_a_few_are_held(tmp_path: Path) -> None:
    run = open_run(write_run_folder(tmp_path / "p", 30, 20)).standings
    gc.collect()
    before = sum(isinstance(held, Verdict) for held in gc.get_objects())
    for checkpoint in run.checkpoints("qa"):
        assert run.decisions(checkpoint)
    assert run.end("qa") is None
    assert len(run.kept("qa")) == 30
    gc.collect()
    held = sum(isinstance(held, Verdict) for held in gc.get_objects()) - before
    in_a_file = 20 + 20 + 3
    assert in_a_file <= held < 12 * in_a_file  # of 30 files


def test_what_grows_is_seen_after_the_warm_up_and_what_only_warms_up_is_not() -> None:
    flat = [(at, 100 + max(0, 5 - at), 7) for at in range(100)]
    assert compared(flat, 100) == ((100, 7), (100, 7))
    growing = [(at, 100 + at, 7 + at // 50) for at in range(100)]
    assert compared(growing, 100) == ((129.5, 7), (189.5, 8))
