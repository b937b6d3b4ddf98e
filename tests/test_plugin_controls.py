"""Controls: asked wherever a probe that follows them is, in a run as by hand."""

from pathlib import Path

import pytest

from runner import launch, verdicts
from tests.probe_project import ask, probes, write
from tests.tiny import make_run

pytest_plugins = ["pytester"]

CONTROL = """
@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=2)
def test_control(case, reply):
    assert case.char == "心"
"""
FOLLOWER = """
@probe(cases=ROWS, prompt="{{ char }}?", max_new_tokens=2, given=test_control)
def test_follows(case, reply):
    pass
"""
SUITE = '  follows: {file: "probes/test_p.py::test_follows", gate: {min_pass_rate: 0.9}}'
OUTCOMES = ["pass", "not_asked", "not_asked"]


@pytest.mark.parametrize("own", [True, False], ids=["own cases", "the suite's cases"])
def test_in_a_run_and_by_hand_the_same_cases_are_not_asked(
    project: pytest.Pytester, tiny_checkpoint: Path, own: bool
) -> None:
    text = CONTROL + FOLLOWER
    write(project, probes(text if own else text.replace("cases=ROWS, ", "")))
    suite = SUITE if own else SUITE.replace("gate:", "cases: questions.held_out, gate:")
    run = make_run(project.path, tiny_checkpoint, suite, [{"id": char, "char": char} for char in "心水木"])
    checkpoint, file = run / "qa" / "ckpt-8", project.path / "v.jsonl"
    in_run = launch.probe_argv(checkpoint, ["probes/test_p.py::test_follows"], ["follows"], file, project.path)
    ask(project, *in_run)
    found = verdicts.read(file)
    assert [asked.suite for asked in found.suites] == ["follows"]
    assert found.suites[0].key
    assert [one.outcome for one in found.of("follows")] == OUTCOMES
    for argument in ("probes", "probes/test_p.py", "probes/test_p.py::test_follows"):
        ask(project, argument, "--ckpt", checkpoint, "--probe-verdicts", file)
        assert [one.outcome for one in verdicts.read(file).of("follows")] == OUTCOMES


def test_a_control_that_two_classes_inherit_is_that_of_the_class(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    body = """
class Both:
    @probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=2)
    def test_control(self, case, reply):
        assert case.char == self.known

    @probe(cases=ROWS, prompt="{{ char }}?", max_new_tokens=2, given=test_control)
    def test_follows(self, case, reply):
        pass

class TestA(Both):
    known = "心"

class TestB(Both):
    known = "水"
"""
    write(project, probes(body))
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v.jsonl")
    file = verdicts.read(project.path / "v.jsonl")
    outcomes = {one.suite: [same.outcome for same in file.of(one.suite)] for one in file.verdicts}
    assert outcomes["TestA.test_follows"].count("not_asked") == outcomes["TestB.test_follows"].count("not_asked") == 2
    passed = {(one.suite, one.case_id) for one in file.verdicts if one.outcome == "pass" and "follows" in one.suite}
    assert passed == {("TestA.test_follows", "U+5FC3"), ("TestB.test_follows", "U+6C34")}


def test_a_control_of_another_file_is_asked_there_and_here_it_is_a_control_alone(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, probes(CONTROL), "test_a.py")
    write(project, probes("import sys; sys.path.insert(0, 'probes')\nfrom test_a import *\n" + FOLLOWER), "test_b.py")
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v.jsonl")
    file = verdicts.read(project.path / "v.jsonl")
    assert [one.outcome for one in file.of("test_control")] == ["pass", "miss", "miss"]
    assert [one.outcome for one in file.of("test_follows")] == OUTCOMES
    assert len(file.suites) == 2


def test_a_control_that_is_no_test_is_an_error(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, probes((CONTROL + FOLLOWER).replace("test_control", "control")))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["its control control is not asked: define it as a test of the same file"])
