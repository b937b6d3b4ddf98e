"""A source that is larger than a run may hold in memory: the bench of 5 GB, on a little of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "bench"))
import large_source


@pytest.mark.slow
def test_a_run_on_a_large_source_stays_within_its_memory(tmp_path: Path) -> None:
    rows = large_source.write_project(tmp_path, 0.02, steps=20)
    _, peaks = large_source.run(tmp_path)
    assert large_source.report(tmp_path, rows, 0, peaks, steps=20)
    # the parent holds neither texts nor ids; the others hold what torch takes
    assert set(peaks) == {"recipe run", "host", "trainer"}
    assert peaks["recipe run"] < 0.6
