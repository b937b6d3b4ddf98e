"""Files that earlier versions wrote, and this one: whatever shows, compares or checks a run still reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runner import checkpoints, comparing, diverging, events, folder, jobs, listing, report, spec, verdicts, verifying
from runner.checkpoints import verdict_path
from runner.matrix import records
from runner.standings import open_run
from tests.formats.make import restore

VERSIONS = sorted(Path(__file__).parent.glob("formats/v*"), key=lambda path: int(path.name[1:]))


@pytest.fixture(params=VERSIONS, ids=lambda path: str(path.name))
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The runs of a matrix of two variants, as that version left them."""
    return restore(request.param, tmp_path)


def shown(renderable: Any) -> str:
    recorder = Console(width=160, highlight=False)
    with recorder.capture() as captured:
        recorder.print(renderable)
    return captured.get()


def test_the_newest_folder_has_the_formats_of_today(tmp_path: Path) -> None:
    run = restore(VERSIONS[-1], tmp_path) / "fast"

    def version(name: str) -> int:
        first = (run / name).read_text(encoding="utf-8").partition("\n")[0]
        row = json.loads(first if name.endswith(".jsonl") else (run / name).read_text(encoding="utf-8"))
        return int(row["format_version"])

    today = {
        "run.json": folder.FORMAT_VERSION,
        "lock": folder.FORMAT_VERSION,
        "qa/stage.json": jobs.FORMAT_VERSION,
        "qa/state/decision-2.json": jobs.FORMAT_VERSION,
        "qa/left_out.json": diverging.FORMAT_VERSION,
        "qa/ckpt-2/manifest.json": checkpoints.FORMAT_VERSION,
        "qa/probes/ckpt-2.jsonl": verdicts.FORMAT_VERSION,
        "events/run.jsonl": events.FORMAT_VERSION,
        "data/manifest.json": spec.FORMAT_VERSION,
        "../matrix.json": records.FORMAT_VERSION,
    }
    written = {name: version(name) for name in today}
    assert written == today, "a format has changed: write a folder of it (tests/formats/make.py), keep the older ones"


def test_the_runs_are_listed_and_shown(runs: Path) -> None:
    screen = shown(listing.list_screen(listing.listed(runs.parent)))
    assert "formats/fast" in screen
    assert "formats/slow" in screen
    recorder = Console(width=160, highlight=False)
    with recorder.capture() as captured:
        code = listing.show(runs / "slow", recorder)
    assert code == 1
    assert "held_out" in captured.get()


def test_everything_that_was_recorded_of_a_run_is_read(runs: Path) -> None:
    opened = open_run(runs / "fast")
    assert opened.record.variant == "fast"
    asked = opened.standings.all_checkpoints()
    assert [checkpoint.label for checkpoint in asked] == ["base@4", "qa@2", "qa@4"]
    file = opened.standings.verdicts(asked[-1])
    assert file is not None
    assert {suite.suite: suite.cases for suite in file.suites} == {"known": 4, "held_out": 4}
    assert len(opened.standings.decisions(asked[-1])) == 2
    assert opened.standings.resolve("qa@best").stage == "qa"
    job = opened.standings.job("qa")
    assert job is not None
    assert (job.state, job.steps_done, job.publish_steps) == ("done", 4, (2, 4))
    assert jobs.read_decision(runs / "fast" / "qa", 2) is True
    assert diverging.left_out(diverging.read(runs / "fast" / "qa")) == {3}
    for journal in (runs / "fast" / "events").glob("*.jsonl"):
        lines = journal.read_text(encoding="utf-8").splitlines()
        assert lines
        assert all(events.parse(line) is not None for line in lines), journal.name
    assert [row["variant"] for row in records.read(runs)["variants"]] == ["slow", "fast"]
    assert not folder.is_held(runs / "fast")


def test_its_verdicts_are_compared_with_those_of_another_run(runs: Path) -> None:
    slow, fast = (str(verdict_path(runs / name / "qa" / "ckpt-4")) for name in ("slow", "fast"))
    compared = comparing.compare(comparing.find(slow, runs), comparing.find(fast, runs))
    assert [suite.suite for suite in compared.suites] == ["known", "held_out"]
    assert not compared.is_red
    assert comparing.compare(comparing.find("slow", runs), comparing.find("fast", runs)).suites


def test_a_report_of_it_is_written(runs: Path) -> None:
    written = report.write([runs / "fast"], runs / "report.html")
    assert "held_out" in written.path.read_text(encoding="utf-8")


def test_nothing_of_it_is_damaged_but_the_files_that_were_left_out(runs: Path) -> None:
    found = verifying.verify(runs)
    assert found.verdict_files == 4
    assert found.checkpoints == 6
    assert {one.found for one in found.damages} == {"is missing"}
    left_out = {one.path.name for one in found.damages}
    assert left_out <= {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "facts.json", "facts.u64", "questions.train.json", "questions.train.u64",
    }  # fmt: skip
