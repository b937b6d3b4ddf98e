"""runner.slurm: the script for a cluster, and a real Slurm that runs it, interrupts it and lets it go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import slurm, spec
from runner.errors import UserError
from tests.slurm_cluster import cluster, said, why_not
from tests.tiny_project import events, leave_out_dpo, recipe, wait_until, write_project

RECIPE = {
    "recipe": "demo",
    "model": {"config": {"model_type": "qwen3"}, "tokenizer": {"train": "char", "from_data": "rows"}},
    "data": {"rows": {"path": "a.tsv", "text": "{{ a }}"}},
    "stages": {"base": {"kind": "pretrain", "data": "rows"}},
}


def script(launch: dict[str, object], *command: str) -> str:
    made = spec.Recipe.model_validate({**RECIPE, "launch": launch})
    return slurm.script_of(made, Path("/p/results/demo"), command or ("run", "demo.yaml")).text


def options(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH --")]


def test_the_script_asks_for_what_the_recipe_says_and_starts_one_task_of_each_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = script({
        "nodes": 4,
        "processes": 8,
        "slurm": {
            "partition": "gpu", "account": "lab", "time": "12:00:00", "cpus_per_task": 96, "mem": "900G",
            "setup": "source .venv/bin/activate",
            "options": {"constraint": "h100 & ib", "exclusive": True, "hold": False},
        },
    })  # fmt: skip
    assert options(text) == [
        "job-name=demo", f"chdir={tmp_path}", "output=/p/results/demo/slurm/%j.log", "open-mode=append", "nodes=4",
        "ntasks-per-node=1", "gpus-per-node=8", "cpus-per-task=96", "mem=900G", "time=12:00:00", "partition=gpu",
        "account=lab", "constraint='h100 & ib'", "exclusive", "signal=TERM@120", "requeue",
    ]  # fmt: skip
    assert "\nsource .venv/bin/activate\n" in text
    assert "\nexport SRUN_CPUS_PER_TASK=96\nsrun recipe run demo.yaml\n" in text  # srun inherits it no other way
    assert 'scontrol requeue "$SLURM_JOB_ID"' in text


def test_without_a_block_it_asks_for_one_node_and_finds_this_installation() -> None:
    text = script({})
    assert [line for line in options(text) if line.startswith(("nodes", "gpus", "time", "partition"))] == ["nodes=1"]
    assert re.search(r"^export PATH=\S+/bin:\$PATH$", text, re.MULTILINE)


def test_gpus_are_those_of_the_processes_unless_the_recipe_says_otherwise() -> None:
    assert "gpus-per-node=2" in options(script({"processes": 2}))
    assert "gpus-per-node=4" in options(script({"processes": 2, "slurm": {"gpus_per_node": 4}}))
    assert not [line for line in options(script({"processes": 2, "slurm": {"gpus_per_node": 0}})) if "gpus" in line]


def test_a_run_that_must_not_come_back_is_not_put_into_the_queue_again() -> None:
    text = script({"slurm": {"requeue": False}})
    assert "no-requeue" in options(text)
    assert "scontrol" not in text


def test_a_word_with_a_blank_stays_one_word() -> None:
    assert "srun recipe run 'my recipe.yaml' --set 'vars.name=a b'\n" in script(
        {}, "run", "my recipe.yaml", "--set", "vars.name=a b"
    )


def test_where_there_is_no_sbatch_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as caught:
        slurm.submit(slurm.Script(tmp_path / "slurm" / "run.sbatch", "#!/bin/bash\n"))
    assert caught.value.screen() == (
        "sbatch is not installed here\n"
        "    expected: a machine of the cluster from which jobs are handed in\n"
        "    hint: --slurm --dry-run prints the script"
    )
    assert not (tmp_path / "slurm").exists()


def test_a_dry_run_prints_the_script_with_the_same_command_and_hands_nothing_in(tmp_path: Path) -> None:
    write_project(tmp_path)
    done = recipe(tmp_path, "run", "tiny.yaml", "--slurm", "--dry-run", "--processes", "2", "--set", "seed=8")
    assert done.code == 0
    assert "\nsrun recipe run tiny.yaml --processes 2 --set seed=8\n" in done.screen
    assert not (tmp_path / "results").exists()


# --- a real one ---


@pytest.fixture(scope="module")
def real() -> Iterator[None]:
    if reason := why_not():
        pytest.skip(reason)
    with cluster():
        yield


def job(number: str, field: str) -> str:
    found = re.search(rf"\b{field}=(\S+)", said("scontrol", "show", "job", number))
    assert found is not None
    return found[1]


def submitted(root: Path, *arguments: str) -> str:
    """The number of the job."""
    no_gpus = ("--set", "launch.slurm.gpus_per_node=0", "--set", "launch.slurm.cpus_per_task=2")
    done = recipe(root, "run", "tiny.yaml", "--slurm", *no_gpus, *arguments)
    found = re.match(r"submitted as job (\d+)\nscript  \S+run.sbatch\nfollow  tail -F \S+\n", done.screen)
    assert found is not None, done.screen
    return found[1]


@pytest.mark.slurm
def test_a_job_that_is_told_to_stop_saves_comes_back_and_finishes(tmp_path: Path, real: None) -> None:
    leave_out_dpo(write_project(tmp_path))
    run = tmp_path / "results" / "tiny"
    number = submitted(tmp_path, "--processes", "2")
    log = run / "slurm" / f"{number}.log"
    wait_until(lambda: len(events(run, "train-base")) > 20, timeout_s=200)
    said("scancel", "--signal=TERM", number)  # what Slurm sends when time is up, and before it gives the node to others
    wait_until(lambda: job(number, "Restarts") == "1", timeout_s=60)
    assert "interrupted: state is saved, the same command resumes" in log.read_text(encoding="utf-8")
    wait_until(lambda: job(number, "JobState") in ("COMPLETED", "FAILED"), timeout_s=240)
    assert job(number, "ExitCode") == "1:0", log.read_text(encoding="utf-8")  # the gate of this project is red
    began = [event for event in events(run, "train-base") if event["event"] == "started"]
    assert len(began) == 2
    assert began[0]["step"] == 0 < began[1]["step"]
    assert (run / "qa" / "ckpt-6" / "manifest.json").is_file()


@pytest.mark.slurm
def test_a_job_that_is_cancelled_does_not_come_back_and_what_sbatch_refuses_is_shown(
    tmp_path: Path, real: None
) -> None:
    write_project(tmp_path)
    refused = recipe(tmp_path, "run", "tiny.yaml", "--slurm", "--set", "launch.slurm.options={no-such-option: 1}")
    assert refused.code == 2
    assert "unrecognized option '--no-such-option=1'" in refused.screen
    number = submitted(tmp_path)
    wait_until(lambda: job(number, "JobState") == "RUNNING")
    said("scancel", number)
    wait_until(lambda: not said("squeue", "--noheader").strip(), timeout_s=60)
    assert (job(number, "JobState"), job(number, "Restarts")) == ("CANCELLED", "0")
