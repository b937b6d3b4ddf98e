"""--probe-workers: processes that generate for one checkpoint each, and one session that judges them all."""

from __future__ import annotations

import json

import pytest

from tests.probe_project import PROBE, ask, write
from tests.tiny import make_checkpoint

pytest_plugins = ["pytester"]


@pytest.fixture
def sweep(project: pytest.Pytester) -> list[str]:
    """The arguments that name three checkpoints, of which one cannot be loaded."""
    write(project, PROBE.replace("@probe(", '@probe(gate={"min_pass_rate": 0.5}, '))
    for step in (1, 2, 3):
        make_checkpoint(project.path / "out" / f"checkpoint-{step}", seed=step)
    (project.path / "out" / "checkpoint-2" / "model.safetensors").write_bytes(b"no weights")
    return ["probes", "--ckpt", "out"]


def rows(project: pytest.Pytester, folder: str) -> dict[str, list[dict[str, object]]]:
    """The verdicts of each checkpoint, without the time they took."""
    found = {}
    for path in sorted((project.path / folder).glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found[path.name] = [line for line in lines if "case_id" in line]
    return found


def test_two_workers_give_the_verdicts_and_the_report_of_one_and_fill_the_store(
    project: pytest.Pytester, sweep: list[str]
) -> None:
    store = str(project.path / "store")
    two = ask(project, *sweep, "--probe-store", store, "--probe-workers", "2", "--probe-verdicts", "two")
    one = ask(project, *sweep, "--probe-store", "off", "--probe-workers", "1", "--probe-verdicts", "one")
    assert rows(project, "two") == rows(project, "one")
    assert len(rows(project, "two")) == 3
    assert two.ret == one.ret == 1
    assert two.parseoutcomes() == one.parseoutcomes()
    again = ask(project, *sweep, "--probe-store", store, "--probe-workers", "1", "-k", "not checkpoint-2")
    again.stdout.fnmatch_lines(["6 of 6 replies came from the reply store"])


def test_a_number_of_workers_below_one_is_refused(project: pytest.Pytester, sweep: list[str]) -> None:
    refused = ask(project, *sweep, "--probe-workers", "0")
    refused.stderr.fnmatch_lines(["*--probe-workers is 0*"])
    assert refused.ret == 4
