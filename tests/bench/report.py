"""A report of 50 checkpoints x 2,000 cases: how long it takes to build, and how long until a browser paints it.

    python tests/bench/report.py                      # bars: 10 s, 2 s
    python tests/bench/report.py --checkpoints 10 --cases 200

The run is written by hand in the formats of a run, with replies that change from checkpoint to checkpoint as those of a
model do; nothing is trained. The paint is measured in headless Chromium, where it is installed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from runner import report
from tests.recorded_run import write_run_folder

BUILT_S, PAINTED_S = 10.0, 2.0


def main() -> None:
    """Write the run, build, paint, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=50)
    parser.add_argument("--cases", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = write_run_folder(Path(scratch), options.checkpoints, options.cases)
        began = time.monotonic()
        written = report.write([run])
        built_s = time.monotonic() - began
        print(f"{options.checkpoints} checkpoints x {options.cases:,} cases, {written.size_bytes / 1e6:.1f} MB")
        print(f"built in       {built_s:6.2f} s   bar {BUILT_S:g} s")
        painted = first_paint_s(written.path)
        shown = "no Chromium here" if painted is None else f"{painted:6.2f} s   bar {PAINTED_S:g} s"
        print(f"first paint at {shown}")


def first_paint_s(page: Path) -> float | None:
    """Seconds from the start of the navigation to the first contentful paint."""
    browser = shutil.which("chromium")
    if browser is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        with playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]) as chromium:
            tab = chromium.new_page()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-drawn=yes]")
            ms: float = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return ms / 1000


if __name__ == "__main__":
    main()
