"""runner.jobs: the job file of a stage, and the decisions a waiting trainer reads."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from runner import jobs
from runner.checkpoints import Parent
from runner.errors import UserError
from runner.jobs import Job

JOB = Job(
    stage="qa", key="k", inputs={"seed": "36", "data questions": "ab"}, start=Parent("base@2", "../base/ckpt-2", "ab"),
    steps_per_epoch=4, total_steps=8, publish_steps=(4, 8), per_device_batch_size=16, accumulation_steps=2,
)  # fmt: skip


def test_a_job_comes_back_as_it_was_written(tmp_path: Path) -> None:
    jobs.write(tmp_path / "qa", JOB)
    assert jobs.read(tmp_path / "qa") == JOB
    jobs.write(tmp_path / "qa", replace(JOB, start=None))
    assert jobs.read(tmp_path / "qa") == replace(JOB, start=None)
    assert os.listdir(tmp_path / "qa") == ["stage.json"]


def test_a_stage_that_never_began_has_no_job(tmp_path: Path) -> None:
    assert jobs.read(tmp_path / "qa") is None


def test_a_job_ends_with_its_state_and_its_last_step() -> None:
    ended = JOB.ended("stopped", 4)
    assert (ended.state, ended.steps_done, JOB.state) == ("stopped", 4, "running")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format_version": 1, "start": null}', b"\xff"])
def test_a_damaged_job_file_says_how_to_go_on(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stage.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        jobs.read(tmp_path)
    first, hint = caught.value.screen().split("\n")
    assert first.startswith(f"{tmp_path}/stage.json is damaged (")
    assert hint == f"    hint: move {tmp_path} away; the stage is then trained again"


def test_a_job_file_of_a_newer_version_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_text('{"format_version": 2}', encoding="utf-8")
    with pytest.raises(UserError, match="stage.json has format 2, this version reads up to 1$"):
        jobs.read(tmp_path)


def test_a_trainer_waits_until_the_parent_has_decided(tmp_path: Path) -> None:
    assert jobs.read_decision(tmp_path, 4) is None
    jobs.write_decision(tmp_path, 4, go_on=True)
    jobs.write_decision(tmp_path, 8, go_on=False)
    assert (jobs.read_decision(tmp_path, 4), jobs.read_decision(tmp_path, 8)) == (True, False)
    assert sorted(os.listdir(tmp_path / "state")) == ["decision-4.json", "decision-8.json"]
