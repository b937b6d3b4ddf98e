"""Asking 1,000 cases again after an assert was edited: whole process, with the reply store warm. Bar: at most 4 s.

    python tests/bench/rescoring.py [--cases 1000] [--rounds 3]

The first round fills a store of its own. Before each further one an assert of the probe file is edited, so that nothing
but the replies can be reused. Each says which of the heavy libraries it imported: none.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.tiny import make_checkpoint  # noqa: E402

PROBE = """\
from runner import probe

ROWS = [{{"id": str(number), "q": f"{{number}} abc"}} for number in range({cases})]


@probe(cases=ROWS, prompt="{{{{ q }}}}", max_new_tokens=16, gate={{"min_pass_rate": 0.0}})
def test_length(reply):
    assert len(reply) > {least}
"""
CONFTEST = """
import sys

def pytest_unconfigure():
    print("imported:", sorted({"torch", "transformers", "tokenizers", "numpy"} & set(sys.modules)) or "nothing heavy")
"""


def ask(project: Path, checkpoint: Path, cases: int, least: int) -> tuple[float, str, str]:
    """Seconds, what came from the store, and what was imported."""
    (project / "test_length.py").write_text(PROBE.format(cases=cases, least=least), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RECIPE_STORE": str(project / "store.sqlite3")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_length.py", "--ckpt", str(checkpoint)],
        cwd=project, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    lines = done.stdout.splitlines()
    from_store = next((line for line in lines if "came from the reply store" in line), "none known")
    return seconds, from_store, next(line for line in lines if line.startswith("imported:"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", encoding="utf-8")
        (project / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        checkpoint = make_checkpoint(project / "checkpoint-1")
        print(f"{options.cases} cases, whole process")
        warm = []
        for number in range(options.rounds + 1):
            seconds, from_store, imported = ask(project, checkpoint, options.cases, least=number)
            print(f"{'warm' if number else 'cold'}  {seconds:6.2f} s  {from_store}; {imported}")
            warm += [seconds] if number else []
        print(f"warm, median of {len(warm)}: {statistics.median(warm):.2f} s (bar: 4 s for 1,000 cases)")


if __name__ == "__main__":
    main()
