"""What pytest costs above generation: time per case, a whole process of ten thousand cases, and memory.

    python tests/bench/pytest_cost.py                  # 10,000 cases, as the bars say
    python tests/bench/pytest_cost.py --cases 2000

A real checkpoint of a few thousand parameters is asked by one probe, in a process of its own: once about one case,
which is what starting costs, and once about all of them. Generation is measured by the engine itself and read from the
verdict file. Memory is the peak of the large process above that of the small one, which holds the same model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from runner import verdicts  # noqa: E402
from tests.tiny import make_checkpoint  # noqa: E402

PROBE = """\
from runner import probe

@probe(cases="cases.jsonl", prompt="汉字`{{ char }}`的部首是什么？ {{ number }}", max_new_tokens=4)
def test_answer(case, reply, record):
    record(length=len(reply))
    assert case.number % 10 or not case.number
"""
BARS = {"a case": 1.5, "whole process": 15.0, "memory": 500.0}


@dataclass(frozen=True)
class Taken:
    """One process of pytest."""

    wall_s: float
    generation_s: float
    peak_mb: float


def main() -> None:
    """Print every figure beside its bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_checkpoint(folder / "checkpoint-10")
        small, large = _ask(folder, 1), _ask(folder, options.cases)
    above_s = large.wall_s - large.generation_s
    a_case_ms = 1000 * (above_s - small.wall_s + small.generation_s) / max(options.cases - 1, 1)
    print(f"{options.cases} cases: {large.wall_s:.1f} s, of which generation {large.generation_s:.1f} s")
    print(f"one case:    {small.wall_s:.1f} s")
    print(f"above generation, a case        {a_case_ms:8.2f} ms (bar {BARS['a case']} ms)")
    print(f"above generation, whole process {above_s:8.1f} s  (bar {BARS['whole process']} s for 10,000)")
    print(f"memory above the model          {large.peak_mb - small.peak_mb:8.0f} MB (bar {BARS['memory']:g} MB)")


def _ask(folder: Path, cases: int) -> Taken:
    rows = ({"id": f"c{number}", "char": "心水木"[number % 3], "number": number} for number in range(cases))
    written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "cases.jsonl").write_text(written, encoding="utf-8")
    (folder / "test_cost.py").write_text(PROBE, encoding="utf-8")
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--tb=no -q'\n", encoding="utf-8")
    argv = [sys.executable, "-m", "pytest", "test_cost.py", "--ckpt", "checkpoint-10", "--probe-verdicts", "v.jsonl"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RECIPE_STORE": "off"}
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {process.returncode}")
    file = verdicts.read(folder / "v.jsonl")
    assert len(file.verdicts) == cases
    kilobyte = 1 if sys.platform != "darwin" else 1 / 1024  # ru_maxrss is in bytes there
    return Taken(wall_s, sum(asked.generation_s for asked in file.suites), usage.ru_maxrss * kilobyte / 1024)


if __name__ == "__main__":
    main()
