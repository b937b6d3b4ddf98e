"""runner.sharing: a stage of one variant taken over by another, whole or not at all."""

import os
from pathlib import Path

import pytest

from runner import jobs, sharing
from runner.check import load_variants
from runner.checkpoints import published
from runner.jobs import Job
from runner.preparation import Prepared
from tests.recorded import ask, publish
from tests.tiny_project import write_project


@pytest.fixture
def variants(tmp_path: Path) -> Path:
    """The folder of two variants, of which `plain` has trained qa."""
    plain, other = tmp_path / "plain", tmp_path / "other"
    ask(publish(plain, "qa", 2), held_out="pp")
    publish(plain, "qa", 4)
    jobs.write(plain / "qa", Job("qa", "key", {}, None, 2, 8, (2, 4, 8), 4, 1, "done", 4))
    saved = plain / "qa" / "state" / "checkpoint-4"
    saved.mkdir(parents=True)
    (saved / "complete.json").write_text("{}")
    (plain / "qa" / "state" / "decision-4.json").write_text("{}")
    (plain / "events").mkdir()
    (plain / "events" / "train-qa.jsonl").write_text("{}\n")
    (other / "events").mkdir(parents=True)
    for run in (plain, other):
        (run / "run.json").write_text("{}")
    return tmp_path


def test_a_stage_of_the_same_key_that_ended_is_found_beside(variants: Path) -> None:
    assert sharing.find(variants / "other", "qa", "key") == variants / "plain" / "qa"
    assert sharing.find(variants / "other", "qa", "another") is None
    assert sharing.find(variants / "plain", "qa", "key") is None  # its own is no sibling's


def test_a_stage_that_is_still_trained_is_not_taken(variants: Path) -> None:
    jobs.write(variants / "plain" / "qa", Job("qa", "key", {}, None, 2, 8, (2, 4, 8), 4, 1, "running"))
    assert sharing.find(variants / "other", "qa", "key") is None


def test_what_is_taken_over_is_whole_and_takes_no_space(variants: Path) -> None:
    twin, run = variants / "plain" / "qa", variants / "other"
    assert sharing.take_over(twin, run)
    assert [step for step, _ in published(run / "qa")] == [2, 4]
    assert (run / "qa/ckpt-4/model.safetensors").samefile(twin / "ckpt-4/model.safetensors")
    assert (run / "qa/probes/ckpt-2.jsonl").read_bytes() == (twin / "probes/ckpt-2.jsonl").read_bytes()
    assert not (run / "qa/probes/ckpt-2.jsonl").samefile(twin / "probes/ckpt-2.jsonl")  # it may be asked again
    assert sorted(os.listdir(run / "qa" / "state")) == ["checkpoint-4"]
    assert jobs.read(run / "qa") == jobs.read(twin)
    assert (run / "events/train-qa.jsonl").read_text() == "{}\n"


def test_the_base_that_adapters_of_the_stage_stand_on_comes_with_them(variants: Path) -> None:
    twin, run = variants / "plain" / "qa", variants / "other"
    (twin / "base").mkdir()
    (twin / "base" / "model.safetensors").write_bytes(b"weights")
    assert sharing.take_over(twin, run)
    assert (run / "qa/base/model.safetensors").samefile(twin / "base/model.safetensors")


def test_weights_are_copied_where_there_are_no_links(variants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: str, target: str) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    twin, run = variants / "plain" / "qa", variants / "other"
    assert sharing.take_over(twin, run)
    assert (run / "qa/ckpt-4/model.safetensors").read_bytes() == (twin / "ckpt-4/model.safetensors").read_bytes()


def test_a_stage_that_is_moved_away_meanwhile_is_not_taken_in_parts(variants: Path) -> None:
    twin, run = variants / "plain" / "qa", variants / "other"
    (twin / "stage.json").unlink()
    assert not sharing.take_over(twin, run)
    assert not (run / "qa").exists()
    assert not list(run.glob(".qa*"))


def test_what_a_killed_command_left_is_removed(variants: Path) -> None:
    left = variants / "other" / ".qa.123"
    left.mkdir()
    sharing.remove_unfinished(variants / "other", "qa")
    assert not left.exists()


def test_variants_share_the_token_ids_that_both_of_them_read(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project")
    with file.open("a", encoding="utf-8") as recipe:
        recipe.write("matrix:\n  plain: {}\n  faster: {stages: {qa: {learning_rate: 1.0e-2}}}\n")
    plain, faster = (Prepared(one, tmp_path / "results" / one.variant) for one in load_variants(file))
    lengths = []
    for variant in (plain, faster):
        variant.check_steps()  # as a matrix does before anything is written
        assert not variant.run.exists()
        variant.keep_tokens()
        lengths.append([len(row.ids) for row in variant.epochs("qa").epoch(0)])
    assert lengths[0] == lengths[1]
    (own,) = (plain.run / "data" / "tokens").iterdir()
    assert (faster.run / "data" / "tokens" / own.name / "ids.i32").samefile(own / "ids.i32")
