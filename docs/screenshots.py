"""The pictures of the documentation, made anew from a real run: `make screenshots`.

    python docs/screenshots.py results/zhdict_naive          # writes docs/images/

They are of `recipes/zhdict_naive.yaml`, whose loss falls while what was held out is lost. The report is opened in
Chromium (playwright drives it), the terminal's screen is drawn by rich. Pictures that are too large are refused: they
are in every clone.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from runner import listing, report

IMAGES = Path(__file__).parent / "images"
MOST_BYTES, MOST_TOGETHER_BYTES = 150_000, 1_000_000
COLOURS = 192
"""Of a PNG's palette: a page has few colours, and its letters' edges need only some shades of each."""
SUITE, CASE = "held_out", "U+4E8E"


def main() -> None:
    """Write the pictures of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=Path("results/zhdict_naive"))
    run = parser.parse_args().run
    IMAGES.mkdir(exist_ok=True)
    screen(run, IMAGES / "run_screen.svg")
    with tempfile.TemporaryDirectory() as scratch:
        page = report.write([run], Path(scratch) / "report.html").path
        with sync_playwright() as playwright:
            with playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"]) as browser:
                for name, (how, settings) in PICTURES.items():
                    with opened(browser, page, **settings) as tab:
                        keep(how(tab), IMAGES / f"report_{name}.png")
    for kind in ("training-qa", "matrix"):
        (written,) = (path for path in report.pictures([run], IMAGES / "plots") if path.stem.endswith(f"-{kind}"))
        written.replace(IMAGES / f"plot_{kind.removesuffix('-qa')}.svg")
    shutil.rmtree(IMAGES / "plots")
    sizes = {path.name: path.stat().st_size for path in sorted(IMAGES.iterdir())}
    for name, size in sizes.items():
        print(f"{name:24} {size / 1e3:6.0f} kB")
    if max(sizes.values()) > MOST_BYTES or sum(sizes.values()) > MOST_TOGETHER_BYTES:
        sys.exit(f"too large: at most {MOST_BYTES / 1e3:.0f} kB each, {MOST_TOGETHER_BYTES / 1e3:.0f} kB together")


# --- the page ---


@contextmanager
def opened(browser: Browser, page: Path, **settings: Any) -> Iterator[Page]:
    """The report in a tab, drawn."""
    tab = browser.new_page(**settings)
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-drawn=yes]")
    yield tab
    tab.close()


def top(tab: Page) -> bytes:
    """What is seen at first."""
    return tab.screenshot()


def matrix(tab: Page) -> bytes:
    """From the title to the end of the matrix."""
    box = tab.locator(".matrix").first.bounding_box()
    assert box
    width = tab.viewport_size["width"] if tab.viewport_size else 1000
    return tab.screenshot(
        full_page=True, clip={"x": 0, "y": 0, "width": width, "height": box["y"] + box["height"] + 16}
    )


def plots(tab: Page) -> bytes:
    """Pass rates, loss, gradient norm and learning rate of the last stage."""
    tab.locator(".zoom button").last.click()
    tab.mouse.move(0, 0)
    section = tab.locator("section", has=tab.locator('[data-chart="training"]'))
    return section.screenshot()


def case(tab: Page) -> bytes:
    """A case at every checkpoint."""
    tab.locator(f'button.cell[data-suite="{SUITE}"]').last.click()
    tab.locator("#find").fill(CASE)
    tab.locator(".case").first.click()
    tab.wait_for_selector(".said")
    return tab.locator("dialog").screenshot()


WIDE = {"viewport": {"width": 1000, "height": 800}}
PICTURES: dict[str, tuple[Callable[[Page], bytes], dict[str, Any]]] = {
    "matrix": (matrix, WIDE),
    "case": (case, WIDE),
    "plots": (plots, WIDE),
    "dark": (top, WIDE | {"color_scheme": "dark"}),
    "phone": (top, {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}),
}


def keep(png: bytes, path: Path) -> None:
    """A PNG with a palette: a third of the bytes, and nobody sees it."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


# --- the terminal ---


_TEXT = re.compile(r'textLength="[\d.]+"([^>]*>)([^<]*)(</text>)')
_CELL = 12.2
"""Pixels that rich gives a letter."""


def screen(run: Path, path: Path) -> None:
    """The last screen of the run, as a terminal of 96 columns shows it."""
    console = Console(record=True, width=96, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    listing.show(run, console)
    svg = console.export_svg(title=f"recipe show {run.name}", theme=DIMMED_MONOKAI)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # it names a CDN
    # rich 15 counts the letters of a piece; a Chinese one is as wide as two
    svg = _TEXT.sub(lambda at: f'textLength="{_CELL * cell_len(unescape(at[2])):.1f}"{at[1]}{at[2]}{at[3]}', svg)
    path.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
