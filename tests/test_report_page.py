"""A report in a real browser: it opens without a word on the console, and what is clicked shows what it should."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner import report
from tests.recorded_run import write_run_folder
from tests.test_report import HOSTILE

BROWSER = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="chromium is not installed"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run_folder(tmp_path_factory.mktemp("report") / "p", 5, 100, said=HOSTILE, lost_at_end=40)
    return report.write([run]).path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any, page_file: Path) -> Iterator[Any]:
    """The report, drawn; at the end nothing may stand on its console, and nothing may have been fetched."""
    tab = chromium.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    fetched: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: fetched.append(request.url))
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("html[data-drawn=yes]")
    yield tab
    tab.close()
    assert said == []
    assert [url for url in fetched if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]


def cell(tab: Any, suite: str, at: str) -> Any:
    return tab.locator(f'button.cell[data-suite="{suite}"][data-at="{at}"]')


def test_every_chart_is_drawn(tab: Any) -> None:
    assert tab.locator("[data-chart]").count() == 2
    assert tab.locator("[data-chart] svg.main-svg").count() >= 2
    assert tab.locator('[data-chart="training"] .errorbar').count() > 0


def test_a_cell_opens_its_cases_and_a_filter_finds_the_lost_ones(tab: Any) -> None:
    cell(tab, "held_out", "qa@10").click()
    tab.wait_for_selector("dialog[open] .case")
    assert tab.locator("#cases-title").inner_text() == "held_out at qa@10"
    assert tab.locator("#count").inner_text() == "100 of 100"
    tab.locator("#which").select_option("lost")
    lost = int(tab.locator("#count").inner_text().split()[0])
    assert 30 < lost <= 45
    assert tab.locator(".case").count() == lost


def test_a_case_shows_its_reply_at_every_checkpoint_with_what_changed(tab: Any) -> None:
    cell(tab, "held_out", "qa@10").click()
    tab.locator("#find").fill("U+4E20")
    tab.locator(".case").click()
    rows = tab.locator(".said")
    assert [rows.nth(place).locator("b").inner_text() for place in range(5)] == [f"qa@{n}" for n in (2, 4, 6, 8, 10)]
    last = rows.nth(4)
    assert (last.locator("del").inner_text(), last.locator("ins").inner_text()) == ("心", "水")
    assert tab.locator("#filters").is_hidden()


def test_what_a_model_said_stays_text(tab: Any) -> None:
    cell(tab, "held_out", "qa@2").click()
    tab.wait_for_selector("dialog[open] .case")
    replies = tab.locator(".case span:last-child").all_inner_texts()
    assert replies[:4] == list(HOSTILE[:4])
    assert tab.locator("#list script, #list img").count() == 0


def test_all_is_reached_with_the_keyboard(tab: Any) -> None:
    cell(tab, "watched", "qa@4").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("dialog[open] .case")
    tab.locator(".case").first.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".said")
    assert tab.evaluate("document.activeElement.textContent") == "← watched at qa@4"
    tab.keyboard.press("Enter")
    tab.wait_for_selector("dialog[open] .case")
    tab.keyboard.press("Escape")
    assert tab.locator("dialog[open]").count() == 0


def test_dark_and_light_can_be_switched(tab: Any) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(paper)
    tab.locator("#theme").click()
    assert tab.evaluate(paper) != before
    tab.locator("#theme").click()
    assert tab.evaluate(paper) == before


def test_a_phone_scrolls_only_downwards(chromium: Any, page_file: Path) -> None:
    tab = chromium.new_page(viewport={"width": 390, "height": 800})
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("html[data-drawn=yes]")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close()
