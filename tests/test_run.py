"""Whole runs of a real tiny recipe through the command line: folder, skipping, resuming, superseding, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runner import checkpoints, jobs, verdicts
from runner.check import load_checked
from runner.events import Finished, Follower
from runner.folder import FORMAT_VERSION, read_run, writing
from runner.preparation import Prepared, make_plan
from runner.standings import Standings
from tests.tiny_project import (
    PROBES,
    ROWS,
    RUN,
    Project,
    afresh,
    alive,
    descendants,
    events,
    leave_out_dpo,
    recipe,
    started,
    wait_until,
    weights,
    write_project,
)

STAGES = ("base", "qa", "prefer")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The undisturbed run, which nobody changes."""
    root = tmp_path_factory.mktemp("finished") / "project"
    write_project(root)
    return Project(root, afresh(root, "run", "tiny.yaml"))


# --- the folder ---


def test_a_run_leaves_the_folder_that_the_design_promises(finished: Project) -> None:
    run = finished.run
    assert finished.first.code == 1, finished.first.screen
    found = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert found >= {
        "recipe.yaml", "run.json", "lock", "events/run.jsonl", "events/train-base.jsonl", "data/questions.train.jsonl",
        "data/questions.held_out.jsonl", "data/tokenizer/tokenizer.json", "qa/probes/ckpt-3.jsonl",
        "qa/probes/ckpt-6.jsonl", "prefer/probes/ckpt-3.jsonl", "report.html",
    }  # fmt: skip
    assert list(weights(run)) == ["base@30", "base@120", "qa@3", "qa@6", "prefer@3"]
    for stage in STAGES:
        for _, folder in checkpoints.published(run / stage):
            assert {"model.safetensors", "config.json", "tokenizer.json", "manifest.json"} <= set(os.listdir(folder))
    assert not [name for name in found if name.endswith("/state") or "/." in name or name.startswith("superseded")]


def test_every_file_of_records_carries_its_format_version(finished: Project) -> None:
    run = finished.run
    whole = [run / "run.json", run / "lock", *run.glob("*/stage.json"), *run.glob("*/ckpt-*/manifest.json")]
    assert len(whole) == 10
    for path in whole:
        owner = {"stage.json": jobs.FORMAT_VERSION, "manifest.json": checkpoints.FORMAT_VERSION}
        version = owner.get(path.name, FORMAT_VERSION)
        assert json.loads(path.read_text(encoding="utf-8"))["format_version"] == version, path
    first_rows = [path.read_text(encoding="utf-8").split("\n")[0] for path in run.glob("*/probes/*.jsonl")]
    rows = [line for path in run.glob("events/*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(first_rows) == 3
    assert all(json.loads(row)["format_version"] == verdicts.FORMAT_VERSION for row in first_rows)
    assert all(json.loads(row)["format_version"] == 1 for row in rows)


def test_a_manifest_names_every_file_and_the_checkpoint_its_stage_started_from(finished: Project) -> None:
    run = finished.run
    parents = {}
    for stage in STAGES:
        for _, folder in checkpoints.published(run / stage):
            manifest = checkpoints.read_manifest(folder)
            others = set(os.listdir(folder)) - {"manifest.json"}
            assert manifest.files == {name: checkpoints.sha256_file(folder / name) for name in others}
            parents[manifest.label] = manifest.parent
            if manifest.parent:
                start = run / stage / manifest.parent.path
                assert checkpoints.weights_sha256(start) == manifest.parent.weights_sha256
    assert {label: parent and parent.label for label, parent in parents.items()} == {
        "base@30": None, "base@120": None, "qa@3": "base@120", "qa@6": "base@120", "prefer@3": "qa@3",
    }  # fmt: skip


def test_a_checkpoint_loads_with_plain_transformers_and_says_what_the_verdicts_say(finished: Project) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished.run / "prefer" / "ckpt-3"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    recorded = verdicts.read(checkpoints.verdict_path(folder)).of("right")
    assert len(recorded) == ROWS // 2
    for verdict in recorded[:5]:
        prompt = tokenizer(verdict.prompt, return_tensors="pt")
        said = model.generate(**prompt, do_sample=False, max_new_tokens=24)[0, prompt.input_ids.shape[1] :]
        assert tokenizer.decode(said, skip_special_tokens=True) == verdict.reply
        assert verdict.tokens == len(said)
    assert model.dtype == torch.float32


def test_the_plan_counts_what_every_trainer_then_counted(finished: Project) -> None:
    plan = make_plan(Prepared(load_checked(finished.root / "tiny.yaml"), finished.run))
    for stage in plan.stages:
        assert stage.state == "done"
        journal = Follower(finished.run / "events" / f"train-{stage.name}.jsonl")
        (event,) = (stamped.event for stamped in journal.new() if isinstance(stamped.event, Finished))
        assert (event.step, event.tokens, event.supervised_tokens) == (
            stage.arithmetic.total_steps,
            stage.counts.tokens,
            stage.counts.supervised,
        )


# --- best, gates, exit codes ---


def test_best_is_the_earlier_of_two_that_tie_and_else_the_higher(finished: Project, tmp_path: Path) -> None:
    both = [verdicts.read(finished.run / "qa" / "probes" / f"ckpt-{step}.jsonl").of("always") for step in (3, 6)]
    assert [len(asked) for asked in both] == [ROWS // 2] * 2
    assert all(verdict.outcome == "pass" for asked in both for verdict in asked)
    parent = checkpoints.read_manifest(finished.run / "prefer" / "ckpt-3").parent
    assert parent is not None
    assert parent.label == "qa@3"

    shutil.copytree(finished.run / "qa", tmp_path / "qa")
    spec = load_checked(finished.root / "tiny.yaml").spec
    file = tmp_path / "qa" / "probes" / "ckpt-3.jsonl"
    asked = verdicts.read(file)
    verdicts.write(file, replace(asked, verdicts=(replace(asked.verdicts[0], outcome="miss"), *asked.verdicts[1:])))
    assert Standings(spec, tmp_path).resolve("qa@best").label == "qa@6"


def test_a_red_gate_of_the_result_is_exit_code_1_and_says_why(finished: Project) -> None:
    assert finished.first.code == 1
    assert "0 of 20 passed (0.0%), min_pass_rate is 0.9" in finished.first.screen
    judged = [row for row in events(finished.run, "run") if row["event"] == "gate"]
    assert [(row["suite"], row["ckpt"], row["green"]) for row in judged] == [
        ("right", "qa@3", False),
        ("right", "qa@6", False),
        ("right", "prefer@3", False),
    ]


def test_a_red_gate_that_stops_ends_the_run_there_with_exit_code_1(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write_project(root)
    arguments = (
        "run", "tiny.yaml", "--set", "stages.base.num_train_epochs=1", "--set", "stages.base.save_strategy=no",
        "--set", "probes.right.gate.on_fail=stop",
    )  # fmt: skip
    first = recipe(root, *arguments)
    assert first.code == 1, first.screen
    assert "stopped at qa@3" in first.screen
    assert list(weights(root / RUN)) == ["base@5", "qa@3"]  # of 6 steps; the trainer ended where it waited
    job = jobs.read(root / RUN / "qa")
    assert job is not None
    assert (job.state, job.steps_done) == ("stopped", 3)
    assert not (root / RUN / "prefer").exists()

    again = recipe(root, *arguments)
    assert again.code == 1, again.screen
    assert list(weights(root / RUN)) == ["base@5", "qa@3"]
    assert not (root / RUN / "superseded").exists()


# --- by hand ---


def test_probing_a_checkpoint_by_hand_gives_the_verdicts_of_the_run(finished: Project, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    argv = [sys.executable, "-m", "pytest", "probes", "--ckpt", str(RUN / "qa" / "ckpt-6"), "-p", "no:cacheprovider"]
    argv += ["--probe-verdicts", str(mine)]
    asked = subprocess.run(argv, cwd=finished.root, capture_output=True, text=True, check=False)
    assert asked.returncode == 1, asked.stdout + asked.stderr
    assert "gate[right-qa@6]" in asked.stdout
    by_hand, in_run = verdicts.read(mine), verdicts.read(finished.run / "qa" / "probes" / "ckpt-6.jsonl")
    assert (by_hand.ckpt, by_hand.weights_sha256) == (in_run.ckpt, in_run.weights_sha256)
    assert by_hand.verdicts == in_run.verdicts
    assert [replace(suite, generation_s=0) for suite in by_hand.suites] == [
        replace(suite, generation_s=0) for suite in in_run.suites
    ]


# --- again ---


def test_the_same_command_again_trains_nothing_without_torch_and_an_edited_probe_is_only_asked_again(
    finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "moved")  # a project may move; its run is still done
    before = weights(project.run)
    trained = {path: path.read_bytes() for path in project.run.glob("events/train-*.jsonl")}
    asked = {path: path.read_bytes() for path in project.run.glob("*/probes/*.jsonl")}

    again = afresh(project.root, "run", "tiny.yaml", PYTHONPROFILEIMPORTTIME="1")
    assert again.code == 1, again.screen
    imported = {line.rpartition("|")[2].strip() for line in again.screen.splitlines() if line.startswith("import ")}
    assert "runner.run" in imported
    assert not {name for name in imported if name.partition(".")[0] in ("torch", "transformers", "trl", "pytest")}
    assert {path: path.read_bytes() for path in asked} == asked
    assert not (project.run / "superseded").exists()

    probe = project.root / "probes" / "test_words.py"
    probe.write_text(PROBES.replace("assert reply == f", "assert reply or f"), encoding="utf-8")
    edited = recipe(project.root, "run", "tiny.yaml")
    assert edited.code == 0, edited.screen
    assert weights(project.run) == before
    assert {path: path.read_bytes() for path in trained} == trained
    kept = project.run / "superseded" / "1"
    assert all(
        (kept / path.relative_to(project.run)).read_bytes() == verdict_file for path, verdict_file in asked.items()
    )
    assert sorted(str(path.relative_to(kept)) for path in kept.iterdir()) == ["prefer", "qa", "recipe.yaml", "run.json"]
    assert all(verdict.outcome == "pass" for path in asked for verdict in verdicts.read(path).verdicts)


def test_a_changed_stage_and_those_below_move_to_superseded_and_those_above_stay(
    finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")
    before = weights(project.run)
    verdicts_before = (project.run / "qa" / "probes" / "ckpt-3.jsonl").read_bytes()
    untouched = {path: path.stat().st_mtime_ns for path in (project.run / "base").rglob("*")}

    changed = recipe(project.root, "run", "tiny.yaml", "--set", "stages.qa.learning_rate=2e-3")
    assert changed.code == 1, changed.screen
    after = weights(project.run)
    assert {label: before[label] == after[label] for label in before} == {
        "base@30": True, "base@120": True, "qa@3": False, "qa@6": False, "prefer@3": False,
    }  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in (project.run / "base").rglob("*")} == untouched
    kept = project.run / "superseded" / "1"
    assert weights(kept) == {label: sha for label, sha in before.items() if not label.startswith("base")}
    assert (kept / "qa" / "probes" / "ckpt-3.jsonl").read_bytes() == verdicts_before
    kept_recipe = (kept / "recipe.yaml").read_text(encoding="utf-8")
    assert "learning_rate: 0.001" in kept_recipe
    assert "learning_rate: 0.002" not in kept_recipe
    assert read_run(kept).data == read_run(project.run).data
    told = [(row["stage"], row["state"], row["why"]) for row in events(project.run, "run") if row["event"] == "stage"]
    assert ("qa", "changed", "learning_rate 0.001 -> 0.002") in told
    assert read_run(project.run).project_root == str(project.root)


# --- killed, interrupted ---


def test_an_interrupt_or_a_kill_before_there_is_a_trainer_ends_everything_at_once(tmp_path: Path) -> None:
    root = tmp_path / "project"
    leave_out_dpo(write_project(root))

    def stage_began() -> bool:
        return any(row["event"] == "stage" for row in events(root / RUN, "run"))

    with started(root, "run", "tiny.yaml") as process:
        wait_until(stage_began, process)
        below = descendants(process.pid)
        os.kill(process.pid, signal.SIGINT)
        screen, _ = process.communicate(timeout=60)
    assert process.returncode == 130, screen
    assert len(below) == 1
    wait_until(lambda: not alive(below[0]), timeout_s=20)

    # killed instead, the process that imports dies too, though it does not look at its parent meanwhile
    (root / RUN / "events" / "run.jsonl").unlink()
    with started(root, "run", "tiny.yaml") as process:
        wait_until(stage_began, process)
        below = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert len(below) == 1
    wait_until(lambda: not alive(below[0]), timeout_s=20)


# --- refused ---


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_a_folder_of_another_recipe_is_refused_and_left_as_it_is(finished: Project) -> None:
    other = finished.root / "other.yaml"
    text = (finished.root / "tiny.yaml").read_text(encoding="utf-8")
    other.write_text(text.replace("recipe: tiny", "recipe: other"), encoding="utf-8")
    before = snapshot(finished.run)
    refused = recipe(finished.root, "run", "other.yaml", "--out", str(RUN))
    other.unlink()
    assert refused.code == 2, refused.screen
    assert "belongs to the recipe 'tiny' of tiny.yaml" in refused.screen
    assert snapshot(finished.run) == before


def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(finished: Project, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy", encoding="utf-8")
    before = snapshot(tmp_path)
    refused = recipe(finished.root, "run", "tiny.yaml", "--out", str(tmp_path))
    assert refused.code == 2, refused.screen
    assert "is not the folder of a run" in refused.screen
    assert snapshot(tmp_path) == before


def test_a_folder_that_is_being_written_is_refused_and_left_as_it_is(finished: Project, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "project").run
    with writing(run):
        before = snapshot(run)
        refused = recipe(run.parent.parent, "run", "tiny.yaml")
        assert snapshot(run) == before
    assert refused.code == 2, refused.screen
    assert f"is being written by process {os.getpid()}" in refused.screen
