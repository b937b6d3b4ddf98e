"""`recipe report`: what a page says of a run, without a browser; test_report_page opens it in one."""

import base64
import gzip
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runner import report
from runner.cli import cli
from runner.errors import UserError
from runner.markdown import words
from runner.report.cases import shown
from runner.report.charts import charts, loss_axis, stage_charts
from runner.report.gathering import gather, runs_at
from runner.report.repeated import spans
from runner.report.shows import Shown
from runner.spec.methods import Part, Replay
from tests.recorded_run import write_run_folder

HOSTILE = (
    "<script>alert(1)</script>", "</script><script>alert(2)</script>", "<img src=x onerror=alert(3)>", "{{ 7 * 7 }}",
    "\x1b[31mred\x1b[0m", "\u202egnirts", "]]>", "&lt;b&gt;", '" onclick="alert(4)', "a\nb\tc\x00",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five checkpoints; at the last, 40 of 100 cases are lost."""
    return write_run_folder(tmp_path_factory.mktemp("report") / "p", 5, 100, said=HOSTILE, lost_at_end=40)


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return report.write([run]).path.read_text(encoding="utf-8")


def unpacked(page: str) -> Any:
    found = re.search(r'id="data">([A-Za-z0-9+/=]+)<', page)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text.append(data)


def test_a_page_needs_nothing_from_anywhere(page: str) -> None:
    outside = [attrs for _, attrs in Tags(page).tags if {"src", "href"} & attrs.keys()]
    assert {attrs.get("href", attrs.get("src")) for attrs in outside} <= {
        "data:,", "#matrix-0", "#chart-0-training", "#chart-0-numbers", "#watched-0-1", "#stages-0",
    }  # fmt: skip
    assert "default-src 'none'" in page


def test_the_matrix_has_every_suite_at_every_checkpoint_with_its_state(page: str) -> None:
    cells = [attrs for tag, attrs in Tags(page).tags if tag == "button" and "data-suite" in attrs]
    assert [(cell["data-at"], cell["data-suite"]) for cell in cells] == [
        (f"qa@{step}", suite) for step in (2, 4, 6, 8, 10) for suite in ("held_out", "loops", "watched")
    ]
    assert cells[-3]["class"] == "cell red"
    assert cells[-3]["aria-label"].endswith(", red: show its cases")  # type: ignore[union-attr]


def test_a_red_result_shows_why_and_the_lost_cases_with_both_replies(page: str) -> None:
    text = " ".join(" ".join(Tags(page).text).split())
    assert "Result qa@last = qa@10 against qa@2 ." in text
    assert re.search(r"held_out \d\d\.0 % of 100", text)
    assert "41 lost and 0 gained against qa@2: p = 4.5e-13, below 0.05" in text
    assert f"before {HOSTILE[0]} after {HOSTILE[0]}" in text


def test_every_case_has_its_reply_at_every_checkpoint(run: Path, page: str) -> None:
    (found,) = unpacked(page)["runs"]
    suite, texts = found["suites"]["held_out"], found["texts"]
    assert found["labels"] == ["base@8", "qa@2", "qa@4", "qa@6", "qa@8", "qa@10"]
    for at in gather(run).checkpoints:
        verdicts = at.file.of("held_out") if at.file else ()
        here = suite["at"][at.label] if verdicts else {"r": [], "o": ""}
        assert [texts[place] for place in here["r"]] == [shown(verdict.reply) for verdict in verdicts]
        assert here["o"] == "".join(verdict.outcome[0] for verdict in verdicts)


def test_what_a_model_said_is_nowhere_markup(page: str) -> None:
    parsed = Tags(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 3  # the data, the library, the page's own
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    for character in "\x1b\u202e\x00":
        assert character not in page
        assert all(character not in text for text in unpacked(page)["runs"][0]["texts"])


def test_lines_are_kept_and_what_cannot_be_seen_is_spelled_out() -> None:
    assert shown("a\nb\x1b[1m\u202e") == "a\nb\\x1b[1m\\u202e"


def test_the_curves_lie_on_one_axis_of_steps_with_intervals(run: Path) -> None:
    training, numbers = charts(gather(run))
    traces = {trace["name"]: trace for trace in training.figure["data"]}
    assert traces["held_out"]["x"] == [10, 12, 14, 16, 18]  # eight steps of base before them
    assert [step for step in traces["loss"]["x"] if step is not None] == [*range(1, 9), *range(9, 19)]
    rate, up = traces["held_out"]["y"][0], traces["held_out"]["error_y"]["array"][0]
    assert 90 < rate < rate + up <= 100
    assert (numbers.title, numbers.figure["data"][0]["name"]) == ("Repetition against loss", "loops: seq_rep_4")
    assert numbers.figure["data"][0]["y"] == pytest.approx([0.3295, 0.2495, 0.1695, 0.0895, 0.0095])


def test_what_a_reply_says_again_is_marked(page: str) -> None:
    assert list(spans("生于701年的。生于701年的。生于701年")) == [
        ("生于701年的。", False),
        ("生于701年的。生于701年", True),
    ]
    assert list(spans("abc")) == [("abc", False)]
    assert list(spans("")) == []
    assert page.count("<mark>") == 3  # at the first checkpoint alone the three watched replies loop


def test_steps_that_were_taken_again_after_an_interruption_are_shown_once(tmp_path: Path) -> None:
    from runner.events import Journal, Logged, Started

    run = write_run_folder(tmp_path / "p", 2, 5)
    journal = Journal(run / "events" / "train-qa.jsonl")
    journal.write(Started("qa", 2, 4, "cpu", "float32", "sdpa", 1000))
    journal.write(Logged("qa", 3, 0.4, 9.0, 1e-3, 0.5, 10, 1.0, {}))
    journal.close()
    assert [point.logged.step for point in gather(run).stages[1].points] == [1, 2, 3]
    assert gather(run).stages[1].points[-1].logged.loss == 9.0


def test_a_loss_that_is_no_number_breaks_no_page(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "p", 4, 5)
    path = run / "events" / "train-qa.jsonl"
    text = re.sub(r'"loss": [\d.]+', '"loss": NaN', path.read_text(encoding="utf-8"), count=4)
    path.write_text(text, encoding="utf-8")
    training, numbers = charts(gather(run))
    assert numbers.figure["data"][0]["text"] == ["qa@6", "qa@8"]  # of the others no loss is known
    loss = next(trace for trace in training.figure["data"] if trace["name"] == "loss")
    assert None in loss["y"][8:12]
    assert report.write([run]).size_bytes > 0


def test_a_result_that_nobody_has_asked_is_not_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run_folder(tmp_path / "p", 2, 5)
    (run / "qa" / "probes" / "ckpt-4.jsonl").unlink()
    assert "nobody knows whether it passed" in report.write([run]).path.read_text(encoding="utf-8")
    assert report.markdown([run]).splitlines()[:3] == [
        "### ⏳ recorded", "", f"Not judged: {words('qa@last = qa@4')} has not been asked",
    ]  # fmt: skip
    monkeypatch.chdir(run.parents[1])
    assert CliRunner().invoke(cli, ["list"]).output.split()[-2:] == ["not", "judged"]
    shown = CliRunner().invoke(cli, ["show", "recorded"], standalone_mode=False)
    assert (shown.return_value, shown.output.splitlines()[-2:]) == (1, [
        "trained, and not judged: recipe watch results/recorded asks; then recipe run judges",
        "not judged: exit code 1",
    ])  # fmt: skip


def test_a_run_that_has_only_begun_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "p", 0, 5)
    text = report.write([run]).path.read_text(encoding="utf-8")
    assert "… not finished" in text
    assert "stage qa has no checkpoint" in text


def test_several_runs_stand_beside_each_other(run: Path, tmp_path: Path) -> None:
    other = write_run_folder(tmp_path / "other", 3, 100)
    text = report.write([run, other], tmp_path / "both.html").path.read_text(encoding="utf-8")
    assert "Beside each other" in text
    found = unpacked(text)
    names = [one["name"] for one in found["runs"]]
    assert len(set(names)) == 2  # the same recipe twice: their folders tell them apart
    assert [name.split(" ")[0] for name in names] == ["recorded", "recorded"]
    first, second = found["beside"]["data"]
    assert (first["name"], first["x"]) == (names[0], ["held_out", "loops", "watched"])
    assert first["y"][0] < second["y"][0] < second["y"][0] + second["error_y"]["array"][0] <= 100


def test_variants_stand_in_the_order_of_the_recipe_under_their_short_names(tmp_path: Path) -> None:
    folder = tmp_path / "matrix"
    for variant in ("plain", "replay", "ewc"):
        made = write_run_folder(tmp_path / variant, 2, 10)
        record = json.loads((made / "run.json").read_text(encoding="utf-8"))
        (made / "run.json").write_text(json.dumps(record | {"variant": variant}), encoding="utf-8")
        shutil.copytree(made, folder / variant)
    table = {"format_version": 1, "variants": [{"variant": name} for name in ("plain", "replay", "ewc")]}
    assert [path.name for path in runs_at(folder)] == ["ewc", "plain", "replay"]  # no table yet
    (folder / "matrix.json").write_text(json.dumps(table), encoding="utf-8")
    assert [path.name for path in runs_at(folder)] == ["plain", "replay", "ewc"]
    text = report.write([folder], tmp_path / "all.html").path.read_text(encoding="utf-8")
    assert "<h1>recorded</h1>" in text
    assert [trace["name"] for trace in unpacked(text)["beside"]["data"]] == ["plain", "replay", "ewc"]
    (folder / "matrix.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"matrix\.json is damaged"):
        runs_at(folder)


def test_a_run_that_is_named_twice_is_shown_once(run: Path, tmp_path: Path) -> None:
    text = report.write([run, run / ".." / run.name], tmp_path / "one.html").path.read_text(encoding="utf-8")
    assert len(unpacked(text)["runs"]) == 1
    assert unpacked(text)["beside"] is None


def test_a_page_says_what_each_stage_was_trained_on_and_which_checkpoints_are_compared(page: str) -> None:
    text = " ".join(" ".join(Tags(page).text).split())
    assert "base pretrain the model texts 8 of 8 4 5e-05 800" in text
    assert "qa sft base@last questions.train 10 of 10 4 5e-05 1,000" in text
    assert "qa@2 baseline 2.0000" in text
    assert "qa@10 result 0.8571" in text


def test_a_mixture_is_told_in_the_words_of_its_recipe(run: Path) -> None:
    found = gather(run)
    stage = found.recipe.stages["qa"]
    mixed = stage.model_copy(
        update={"mix": {"questions.train": Part(epochs=0.5)}, "replay": Replay(of=("base",), ratio=0.25, buffer=9)}
    )
    one = replace(
        found, recipe=found.recipe.model_copy(update={"stages": {**found.recipe.stages, "qa": mixed}}),
        rows={"questions.train": {"rows": 1200}},
    )  # fmt: skip
    assert Shown(0, one).stages()[1].data == (
        "questions.train, 1,200 rows, epochs 0.5; replay of base, 0.25 rows of 9 chosen ones per row"
    )


def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_axis() -> None:
    assert loss_axis([2.0, 0.5, float("nan")]) == {}
    assert loss_axis([2.0, 0.0]) == {}
    assert loss_axis([]) == {}
    assert loss_axis([2.0, 0.001])["type"] == "log"


def test_the_loss_of_pairs_is_not_drawn_beside_that_of_tokens(run: Path) -> None:
    found = gather(run)
    as_pairs = [replace(stage, kind="dpo") if stage.name == "qa" else stage for stage in found.stages]
    assert [chart.name for chart in charts(found)] == ["training", "numbers"]
    assert [chart.name for chart in charts(replace(found, stages=as_pairs))] == ["training"]


def test_a_stage_alone_keeps_the_colours_that_its_suites_have_in_the_run(run: Path) -> None:
    whole, *_ = charts(gather(run))
    base, qa = stage_charts(gather(run))
    assert (base.name, qa.name) == ("training-base", "training-qa")
    colours = [{t["name"]: t["line"]["color"] for t in chart.figure["data"]} for chart in (whole, qa)]
    assert colours[0] == colours[1]
    assert [trace["name"] for trace in base.figure["data"]] == ["loss", "gradient norm", "learning rate"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--markdown", "--out", "x.html"], "--out, --markdown and --plots are three ways to have a report: give one."),
        (["--format", "png"], "--format is for the files of --plots DIR; a report is HTML, or --markdown."),
    ],
)
def test_options_that_would_have_no_effect_are_errors(options: list[str], says: str) -> None:
    done = CliRunner().invoke(cli, ["report", "results/a", *options])
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == f"Error: {says}"


def test_the_command_writes_into_the_run_and_says_where(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "report.html").unlink(missing_ok=True)
    monkeypatch.chdir(run.parents[1])
    done = CliRunner().invoke(cli, ["report", "results/recorded"])
    assert done.exit_code == 0
    assert re.fullmatch(r"wrote results/recorded/report\.html \(\d\.\d MB\)\n", done.output)
    assert (run / "report.html").stat().st_size < 6e6


def test_markdown_has_the_gates_the_matrix_and_lost_cases_and_no_markup_of_a_model(run: Path) -> None:
    lines = report.markdown([run]).splitlines()
    assert lines[0] == "### ❌ recorded"
    assert lines[2] == f"Result {words('qa@last = qa@10')} against {words('qa@2')}."
    assert lines[4].startswith(f"- ✗ **{words('held_out')}** ")
    assert f"| checkpoint | loss | {words('held_out')} | loops | watched |" in lines
    assert lines[-2].startswith(f"| {words('qa@10')} | 0.8571 | 52.0 % ✗ |")
    assert "<script" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("make", "named", "says"),
    [
        (lambda root: None, "gone", "gone: no such folder"),
        (lambda root: (root / "empty").mkdir(), "empty", "empty is not the folder of a run: it has no run.json"),
    ],
)
def test_what_is_no_run_says_so(tmp_path: Path, make: Any, named: str, says: str) -> None:
    make(tmp_path)
    with pytest.raises(UserError) as caught:
        runs_at(tmp_path / named)
    assert caught.value.problems[0].message == f"{tmp_path}/{says}"


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "p", 1, 5)
    (run / "data").mkdir()
    (run / "data" / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        gather(run)
