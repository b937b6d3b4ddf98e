"""Probing beside training and elsewhere: the same verdicts and ends, whoever asks and whoever waits."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runner import checkpoints, verdicts
from runner.errors import UserError
from runner.launch import prober_environment, processes
from runner.spec import Launch
from runner.watching.following import watch
from runner.watching.options import Options
from tests.tiny_project import RUN, events, leave_out_dpo, recipe, started, wait_until, weights, write_project

BESIDE, ELSEWHERE = ("--set", "launch.probing=beside"), ("--set", "launch.probing=elsewhere")
ONE_STAGE = """\
stages:
  base: {kind: pretrain, data: facts, num_train_epochs: 200, learning_rate: 3.0e-3, global_batch_size: 8,
         save_steps: 50, logging_steps: 10}

probes:
  always: {file: "probes/test_words.py::test_always", cases: questions.train}
  right: {file: "probes/test_words.py::test_right", cases: questions.held_out, gate: {min_pass_rate: 0.9%s}}
"""


def write_one_stage(root: Path, on_fail: str = "continue") -> Path:
    """A project with one long stage, whose gate is red at every checkpoint."""
    path = write_project(root)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("stages:")] + ONE_STAGE % f", on_fail: {on_fail}", encoding="utf-8")
    return path


def said(run: Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """What every checkpoint of a run was asked and answered, by the path of its verdict file."""
    found = {}
    for path in sorted(run.glob("*/probes/ckpt-*.jsonl")):
        rows = verdicts.read(path).verdicts
        found[str(path.relative_to(run))] = [(row.suite, row.case_id, row.outcome, row.reply) for row in rows]
    return found


def asked_in(rows: list[dict[str, Any]]) -> list[str]:
    """The checkpoints of a journal that were asked, in this order."""
    return [f"{row['stage']}@{row['step']}" for row in rows if row["event"] == "probed"]


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run whose trainers wait for their probes, of two stages."""
    root = tmp_path_factory.mktemp("between") / "project"
    leave_out_dpo(write_project(root))
    done = recipe(root, "run", "tiny.yaml")
    assert done.code == 1, done.screen
    return root / RUN


# --- beside ---


def test_beside_a_trainer_the_same_weights_get_the_same_verdicts_and_the_same_end(
    between: Path, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    leave_out_dpo(write_project(root))
    done = recipe(root, "run", "tiny.yaml", *BESIDE)
    assert done.code == 1, done.screen
    assert weights(root / RUN) == weights(between)
    assert said(root / RUN) == said(between)
    published = [row for row in events(root / RUN, "train-qa") if row["event"] == "published"]
    assert [row["waits"] for row in published] == [False, False]


def test_a_red_gate_beside_a_trainer_ends_it_when_it_is_known_and_what_came_later_is_not_asked(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_one_stage(root, on_fail="stop")
    fewer = (*BESIDE, "--set", "stages.base.save_steps=200")
    done = recipe(root, "run", "tiny.yaml", *fewer)
    assert done.code == 1, done.screen
    assert "stopped at base@200: right red at base@200, on_fail: stop" in done.screen
    steps = [step for step, _ in checkpoints.published(root / RUN / "base")]
    job = json.loads((root / RUN / "base" / "stage.json").read_text(encoding="utf-8"))
    assert steps[0] == 200
    assert job["state"] == "stopped"
    assert steps[-1] < job["total_steps"] == 1000
    assert list(said(root / RUN)) == ["base/probes/ckpt-200.jsonl"]
    state = (root / RUN / "base" / "state").glob("checkpoint-*/complete.json")
    assert len(list(state)) == 1  # it goes on from there, should the gate be mended
    again = recipe(root, "run", "tiny.yaml", *fewer)
    assert again.code == 1
    assert "stopped at base@200" in again.screen
    assert list(said(root / RUN)) == ["base/probes/ckpt-200.jsonl"]

    # as if the command had been killed before it could say that the stage has ended; then the gate is mended
    (root / RUN / "base" / "stage.json").write_text(json.dumps(job | {"state": "running"}), encoding="utf-8")
    probes = root / "probes" / "test_words.py"
    text = re.sub(r"(def test_right.*\n)", r"\1    return\n", probes.read_text(encoding="utf-8"))
    probes.write_text(text, encoding="utf-8")
    mended = recipe(root, "run", "tiny.yaml", *fewer)
    assert mended.code == 0, mended.screen
    job = json.loads((root / RUN / "base" / "stage.json").read_text(encoding="utf-8"))
    assert (job["state"], job["steps_done"]) == ("done", 1000)
    assert len(said(root / RUN)) == 5


def test_an_interrupt_beside_saves_the_trainer_and_the_queue_is_asked_later(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_one_stage(root)
    with started(root, "run", "tiny.yaml", *BESIDE, "--set", "stages.base.num_train_epochs=60") as process:
        wait_until(lambda: bool(asked_in(events(root / RUN, "run"))), process)
        process.send_signal(signal.SIGINT)
        screen, _ = process.communicate(timeout=120)
    assert process.returncode == 130, screen
    done = recipe(root, "run", "tiny.yaml", *BESIDE, "--set", "stages.base.num_train_epochs=60")
    assert done.code == 1, done.screen
    steps = [step for step, _ in checkpoints.published(root / RUN / "base")]
    assert steps == list(range(50, 301, 50))
    assert list(said(root / RUN)) == sorted(f"base/probes/ckpt-{step}.jsonl" for step in steps)


def test_a_prober_that_dies_beside_saves_the_trainer_first(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_one_stage(root)
    probes = root / "probes" / "test_words.py"
    text = probes.read_text(encoding="utf-8")
    probes.write_text(text + "\nimport nothing_of_the_kind\n", encoding="utf-8")
    done = recipe(root, "run", "tiny.yaml", *BESIDE)
    assert done.code == 3
    assert "probing base@50 ended with exit code 4" in done.screen
    assert list((root / RUN / "base" / "state").glob("checkpoint-*/complete.json"))


def test_the_prober_beside_has_the_last_device_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    beside, gpus = Launch(probing="beside"), ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert prober_environment(beside, gpus) == {"CUDA_VISIBLE_DEVICES": "2"}
    assert processes(beside, gpus) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-aa")
    assert prober_environment(beside, gpus[:2]) == {"CUDA_VISIBLE_DEVICES": "GPU-aa"}
    for alone in ((beside, gpus[:1]), (beside, []), (Launch(), gpus)):
        assert prober_environment(*alone) == {}


# --- elsewhere ---


def test_elsewhere_the_run_trains_and_the_watch_asks_and_the_run_again_judges(between: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    leave_out_dpo(write_project(root))
    with started(root, "watch", str(RUN)) as watch:  # before there is a run
        done = recipe(root, "run", "tiny.yaml", *ELSEWHERE)
        assert done.code == 1, done.screen
        verdict_files = [root / RUN / "qa" / "probes" / f"ckpt-{step}.jsonl" for step in (3, 6)]
        wait_until(lambda: all(path.is_file() for path in verdict_files), watch)
        second = recipe(root, "watch", str(RUN), "--once")
        assert second.code == 2
        assert re.match(r"the checkpoints of .*/results/tiny are being asked by process \d+ on ", second.screen)
        wait_until(lambda: asked_in(events(root / RUN, "watch")) == ["qa@3", "qa@6"], watch)
        watch.send_signal(signal.SIGINT)
        screen, _ = watch.communicate(timeout=60)
    assert watch.returncode == 130, screen
    assert "qa@3 right: 0 % of 20 red" in screen
    assert said(root / RUN) == said(between)
    judged = recipe(root, "run", "tiny.yaml", *ELSEWHERE)
    assert judged.code == 1
    assert judged.screen.splitlines()[-1] == "red: exit code 1"
    once = recipe(root, "watch", str(RUN), "--once")
    assert (once.code, once.screen.splitlines()[-1]) == (1, "red: exit code 1")


def test_a_run_that_nobody_has_asked_is_not_green(between: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(between.parent.parent, root)
    for path in (root / RUN).glob("*/probes/*.jsonl"):
        path.unlink()
    done = recipe(root, "run", "tiny.yaml", *ELSEWHERE)
    assert done.code == 1
    assert done.screen.splitlines()[-3:] == [
        "trained, and not judged: 2 not asked yet (qa@3, qa@6)",
        "  recipe watch results/tiny    asks; then the same command judges",
        "not judged: exit code 1",
    ]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (
            Options(RUN, ()),
            "results/tiny is a run that asks its checkpoints itself (launch.probing: between)\n"
            "    hint: recipe run --set launch.probing=elsewhere leaves it to recipe watch",
        ),
        (Options(RUN / "qa", ()), "results/tiny/qa is a stage of a run\n    hint: recipe watch results/tiny"),
        (
            Options(RUN, (), suites=("right",)),
            "--suite belongs to --probes\n    hint: a run is asked the suites of its recipe",
        ),
        (
            Options(RUN, (), timeout_s=60.0),
            "--timeout belongs to --probes\n    hint: a run is asked the suites of its recipe",
        ),
        (
            Options(Path("results"), ()),
            "results holds the runs of several variants\n"
            "    expected: one of them\n"
            "    hint: recipe watch results/tiny",
        ),
        (
            Options(Path("probes"), ()),
            "probes is not the folder of a run\n"
            "    expected: --probes PATH: what is asked of the checkpoints of another trainer",
        ),
        (
            Options(Path("results/tinny"), (), idle_s=0.01),
            "results/tinny is not the folder of a run\n"
            "    expected: a folder with a run.json, or --probes for what another trainer writes",
        ),
    ],
)
def test_a_run_that_cannot_be_watched_says_why(
    between: Path, monkeypatch: pytest.MonkeyPatch, options: Options, shown: str
) -> None:
    monkeypatch.chdir(between.parent.parent)
    with pytest.raises(UserError) as refused:
        watch(options, Console(file=io.StringIO()))
    assert refused.value.screen() == shown
