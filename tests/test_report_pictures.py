"""The charts of a report as files: drawn by a real browser, whole, and what is missing is named."""

import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner import report
from runner.cli import cli
from runner.errors import UserError
from runner.report.charts import charts
from runner.report.gathering import gather
from runner.report.pictures import on_paper
from runner.report.rates import matrix
from tests.recorded_run import write_run_folder

SVG = "{http://www.w3.org/2000/svg}"
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("pictures") / "p", 4, 30, lost_at_end=12)


@pytest.mark.usefixtures("_kaleido")
class TestDrawn:
    pytestmark = needs_browser

    def test_the_command_writes_every_chart_as_svg_that_holds_its_text_and_fetches_nothing(
        self, run: Path, tmp_path: Path
    ) -> None:
        done = CliRunner().invoke(cli, ["report", str(run), "--plots", str(tmp_path / "plots")])
        assert done.exit_code == 0, done.output
        names = ["matrix", "training", "numbers", "training-base", "training-qa"]
        written = [tmp_path / "plots" / f"recorded-{name}.svg" for name in names]
        assert sorted((tmp_path / "plots").iterdir()) == sorted(written)
        assert re.findall(r"wrote \S*recorded-([\w-]+)\.svg \(\d+ kB\)", done.output) == names
        for path in written:
            text = path.read_text(encoding="utf-8")
            drawing = ElementTree.fromstring(text)
            assert drawing.tag == f"{SVG}svg"
            assert not [tag for tag in drawing.iter() if tag.tag in (f"{SVG}script", f"{SVG}foreignObject")]
            assert set(re.findall(r"https?://[\w.]+", text)) == {"http://www.w3.org"}
            assert "recorded" in "".join(drawing.itertext())
        said = "".join(ElementTree.parse(written[0]).getroot().itertext())
        assert "held_out" in said
        assert "✗" in said

    def test_a_png_has_twice_the_pixels(self, tmp_path: Path) -> None:
        run = write_run_folder(tmp_path / "p", 1, 5)
        shutil.rmtree(run / "events")  # fewer charts
        first = report.pictures([run], tmp_path / "plots", "png")[0]
        head = first.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(head[16:20], "big") == 2 * 960


@pytest.fixture
def _kaleido() -> None:
    pytest.importorskip("kaleido", reason="kaleido is not installed")


def test_a_chart_on_paper_is_that_of_the_page_with_a_title_and_only_what_is_visible(run: Path) -> None:
    _, numbers = charts(gather(run))
    drawn = on_paper(numbers, "<b>名字")
    assert drawn["layout"]["title"]["text"] == "<b>Repetition against loss</b> — &lt;b>名字"
    assert drawn["layout"]["paper_bgcolor"] == "#ffffff"
    assert drawn["data"][0]["text"] == ["qa@2", "", "", "qa@8"]
    assert drawn["data"][0]["y"] == numbers.figure["data"][0]["y"]
    assert numbers.figure["data"][0]["text"] == ["qa@2", "qa@4", "qa@6", "qa@8"]  # the page's own is as it was


def test_the_matrix_has_a_cell_for_each_suite_at_each_checkpoint_that_was_asked(run: Path) -> None:
    chart = matrix(gather(run))
    assert chart
    (trace,) = chart.figure["data"]
    assert trace["x"] == ["held_out", "loops", "watched"]
    assert [label.split()[0] for label in trace["y"]] == ["qa@2", "qa@4", "qa@6", "qa@8"]
    assert re.fullmatch(r"\d\d\.\d % ✗<br><sub>\[\d\d\.\d–\d\d\.\d\]</sub>", trace["text"][-1][0])


def test_the_matrix_on_paper_has_its_head_in_a_line_with_the_suites_and_no_empty_room_below(run: Path) -> None:
    chart = matrix(gather(run))
    assert chart
    layout = on_paper(chart, "r")["layout"]
    assert "text" not in layout["yaxis"]["title"]
    (head,) = layout["annotations"]
    assert (head["text"], head["x"], head["y"], head.get("textangle", 0)) == ("checkpoint, loss", 0, 1, 0)
    margin = layout["margin"]
    assert margin["l"] >= 8 * len(head["text"])
    assert layout["height"] - margin["t"] - margin["b"] == 46 * 4  # a row each, and nothing else
    assert margin["b"] == 24


def test_both_signs_of_gates_come_from_one_font(run: Path) -> None:
    chart = matrix(gather(run))
    assert chart
    fonts = on_paper(chart)["layout"]["font"]["family"].split(", ")
    assert fonts.index("'DejaVu Sans'") < fonts.index("'WenQuanYi Micro Hei'")  # the latter has ✓ and no ✗


def test_a_run_without_anything_to_draw_writes_nothing_and_needs_no_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run_folder(tmp_path / "p", 0, 5)
    shutil.rmtree(run / "events")
    shutil.rmtree(run / "base")
    monkeypatch.setitem(sys.modules, "kaleido", None)
    assert report.pictures([run], tmp_path / "plots") == []


def test_without_kaleido_the_error_says_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(UserError) as caught:
        report.pictures([run], tmp_path)
    (problem,) = caught.value.problems
    assert problem.message.startswith("pictures of charts need kaleido, which is not installed")
    assert problem.hint == (
        "pip install 'recipe-runner[plots]', of a checkout pip install -c constraints.txt -e '.[plots]'"
    )


@pytest.mark.usefixtures("_kaleido")
def test_without_a_browser_the_error_says_where_it_was_sought_and_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chrome")
    done = CliRunner().invoke(cli, ["report", str(run), "--plots", str(tmp_path / "plots")])
    assert isinstance(done.exception, UserError)
    (problem,) = done.exception.problems
    assert problem.message == "BROWSER_PATH is /nowhere/chrome, where no browser is"
    assert problem.hint.startswith("apt install chromium, ")
    assert not (tmp_path / "plots").exists()


@pytest.mark.usefixtures("_kaleido")
def test_a_browser_that_ends_at_once_is_told_without_a_traceback(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", shutil.which("false") or "/bin/false")
    with pytest.raises(UserError) as caught:
        report.pictures([run], tmp_path)
    (problem,) = caught.value.problems
    assert problem.message == (
        "the browser that draws the charts did not start, or ended, or did not answer (BrowserFailedError)"
    )
    assert problem.hint.endswith("BROWSER_PATH names another browser")
