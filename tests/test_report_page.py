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


@pytest.fixture(scope="module")
def opened(chromium: Any, page_file: Path) -> Iterator[tuple[Any, list[str], list[str]]]:
    """The report, drawn once for all; with what came on its console, and what it fetched."""
    tab = chromium.new_page(viewport={"width": 1200, "height": 900})
    said: list[str] = []
    fetched: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: fetched.append(request.url))
    tab.goto(page_file.as_uri())
    tab.wait_for_selector("html[data-drawn=yes]")
    yield tab, said, fetched
    tab.close()


@pytest.fixture
def tab(opened: tuple[Any, list[str], list[str]], page_file: Path) -> Iterator[Any]:
    """The report as it is at first; afterwards nothing may stand on its console, and nothing may have been fetched."""
    tab, said, fetched = opened
    yield tab
    tab.evaluate("document.getElementById('cases').close()")
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


def test_cases_are_walked_through_with_the_arrow_keys_and_left_where_one_stands(tab: Any) -> None:
    cell(tab, "held_out", "qa@10").click()
    tab.locator("#which").select_option("lost")
    lost = tab.locator(".case b").all_inner_texts()
    tab.locator(".case").first.click()
    tab.keyboard.press("ArrowLeft")  # there is none before
    assert tab.locator("#cases-title").inner_text() == f"held_out: {lost[0]}"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#cases-title").inner_text() == f"held_out: {lost[2]}"
    tab.keyboard.press("Enter")  # the way back has the focus
    assert tab.evaluate("document.activeElement.querySelector('b').textContent") == lost[2]
    assert tab.locator(".case").count() == len(lost)


def test_a_stage_can_be_looked_at_alone(tab: Any) -> None:
    shown = "document.querySelector('[data-chart=training]').layout"
    whole = tab.evaluate(f"{shown}.xaxis.range")
    tab.locator(".zoom button", has_text="qa").press("Enter")
    assert tab.evaluate(f"{shown}.xaxis.range") == [8, 18.3]
    assert tab.locator(".zoom [aria-pressed=true]").inner_text() == "qa"
    tab.locator(".zoom button", has_text="all steps").click()
    assert tab.evaluate(f"{shown}.xaxis.range") == whole


def test_on_paper_everything_is_open_and_light(tab: Any) -> None:
    tab.locator("#theme").click()  # dark: on paper it is light nevertheless
    widths = "[...document.querySelectorAll('.js-plotly-plot')].map((place) => place._fullLayout.width)"
    before = tab.evaluate(widths)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.emulate_media(media="print")
    assert tab.locator("details:not([open])").count() == 0
    assert set(tab.evaluate(widths)) == {700}
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tick = tab.locator("[data-chart=training] .xtick text").first
    assert tick.evaluate("(text) => getComputedStyle(text).fill") == "rgb(26, 28, 31)"
    assert not tab.locator("nav").is_visible()
    tab.emulate_media(media="screen")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details[open]").count() == 0
    assert tab.evaluate(widths) == before
    tab.locator("#theme").click()


def test_runs_beside_each_other_have_a_chart_of_their_own(chromium: Any, page_file: Path, tmp_path: Path) -> None:
    other = write_run_folder(tmp_path / "other", 2, 20)
    both = report.write([page_file.parent, other], tmp_path / "both.html").path
    tab = chromium.new_page()
    tab.goto(both.as_uri())
    tab.wait_for_selector("html[data-drawn=yes]")
    assert tab.locator('[data-chart="beside"] .scatterlayer .trace').count() == 2
    tab.close()


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
