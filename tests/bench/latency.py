"""From a checkpoint that a run publishes until its verdicts are there, above what generation takes.

    python tests/bench/latency.py                      # 200 and 1,000 cases at each of 4 checkpoints

A real `recipe run` in a project of its own trains a tiny model and probes every checkpoint. When a checkpoint was
published, its trainer says (`events/train-STAGE.jsonl`); when its verdicts were there, the time of the verdict file
does; how long generation took stands in it. The first checkpoint is shown apart: it may wait for imports.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from runner import checkpoints, verdicts  # noqa: E402
from tests.tiny_project import events, leave_out_dpo, write_project  # noqa: E402

PROBES = """\
from runner import probe

ROWS = [{{"id": f"c{{n}}", "n": n}} for n in range({cases})]

@probe(cases=ROWS, prompt="what is {{{{ n }}}}?", max_new_tokens=8, gate={{"min_pass_rate": 0.1}})
def test_said(case, reply, record):
    record(length=len(reply))
    assert case.n % 10
"""
BAR_S, BAR_S_A_CASE = 1.5, 0.0015


def main() -> None:
    """Print what every checkpoint took, and the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=[200, 1000])
    options = parser.parse_args()
    for cases in options.cases:
        with tempfile.TemporaryDirectory() as scratch:
            taken_s = _latencies(Path(scratch), cases)
        bar_s = BAR_S + BAR_S_A_CASE * cases
        first_s, *later_s = taken_s
        print(
            f"{cases:>6} cases: first {first_s:.2f} s, then median {statistics.median(later_s):.2f} s, at most "
            f"{max(later_s):.2f} s above generation (bar {bar_s:.2f} s): {'met' if max(taken_s) <= bar_s else 'MISSED'}"
        )


def _latencies(root: Path, cases: int) -> list[float]:
    """Seconds from publication to verdicts without those of generation, checkpoint by checkpoint."""
    recipe = write_project(root)
    leave_out_dpo(recipe)
    text = recipe.read_text(encoding="utf-8")
    text = text[: text.index("\nprobes:")] + "\nprobes:\n  said: {file: probes/test_said.py}\n"
    recipe.write_text(text.replace("save_steps: [30]", "save_steps: [20, 40]"), encoding="utf-8")
    (root / "probes" / "test_said.py").write_text(PROBES.format(cases=cases), encoding="utf-8")
    environment = {**os.environ, "RECIPE_STORE": "off"}
    command = [str(Path(sys.executable).with_name("recipe")), "run", recipe.name]
    subprocess.run(command, cwd=root, env=environment, capture_output=True, check=True, timeout=300)
    run = root / "results" / "tiny"
    found = []
    for stage in ("base", "qa"):
        for event in events(run, f"train-{stage}"):
            if event["event"] == "published":
                file = checkpoints.verdict_path(run / stage / f"ckpt-{event['step']}")
                asked = verdicts.read(file)
                assert len(asked.verdicts) == cases
                generation_s = sum(suite.generation_s for suite in asked.suites)
                found.append(file.stat().st_mtime - event["time"] - generation_s)
    return found


if __name__ == "__main__":
    main()
