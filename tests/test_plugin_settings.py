"""One probe asked under two settings, by a recipe and without one."""

from pathlib import Path

import pytest

from runner.asking import suite_key
from tests.probe_project import probes, verdicts_of
from tests.tiny import make_run

pytest_plugins = ["pytester"]

SETTINGS = """\
  plain: {file: probes/test_p.py}
  penalised: {file: probes/test_p.py, decoding: {repetition_penalty: 5.0, max_new_tokens: 12}}"""
LOOPS = """
@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=9)
def test_it(reply): pass
"""


CLOSED = """
@probe(cases=ROWS, prompt="{{ char }}", choices=["心", "水"])
def test_it(reply): pass
"""


def test_one_probe_is_asked_under_two_settings_by_two_suites(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    run = make_run(project.path, tiny_checkpoint, SETTINGS, [])
    file = verdicts_of(project, run / "qa" / "ckpt-8", probes(LOOPS))
    plain, penalised = file.of("plain"), file.of("penalised")
    assert {(one.generation["repetition_penalty"], one.generation["max_new_tokens"]) for one in plain} == {(1.0, 9)}
    assert {(one.generation["repetition_penalty"], one.generation["max_new_tokens"]) for one in penalised} == {
        (5.0, 12)
    }
    assert {one.question for one in plain}.isdisjoint({one.question for one in penalised})
    path = project.path / "probes" / "test_p.py"
    changes = {"max_new_tokens": 12, "repetition_penalty": 5.0}
    assert {asked.suite: asked.key for asked in file.suites} == {  # as the run computes them, without asking
        "plain": suite_key(path), "penalised": suite_key(path, decoding=changes),
    }  # fmt: skip
    assert any(one.reply != other.reply[: len(one.reply)] for one, other in zip(plain, penalised, strict=True))


def test_a_change_that_does_not_go_with_the_probe_is_an_error_of_its_suite_alone(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    run = make_run(project.path, tiny_checkpoint, SETTINGS.replace("repetition_penalty: 5.0", "samples: 3"), [])
    file = verdicts_of(project, run / "qa" / "ckpt-8", probes(LOOPS))
    (failed,) = file.of("penalised")
    assert (failed.case_id, failed.outcome) == ("collection", "error")
    assert failed.reason.endswith("probes.penalised.decoding with the probe's own: samples is 3 and temperature is 0")
    assert [verdict.outcome for verdict in file.of("plain")] == ["pass"] * 3


def test_a_closed_question_cannot_be_decoded_otherwise(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    run = make_run(project.path, tiny_checkpoint, SETTINGS, [])
    (failed,) = verdicts_of(project, run / "qa" / "ckpt-8", probes(CLOSED)).of("penalised")
    assert failed.reason.endswith("probes.penalised.decoding is given for a closed question, which generates nothing")


def test_without_a_recipe_two_functions_ask_one_body_in_two_ways(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    file = verdicts_of(
        project,
        tiny_checkpoint,
        probes("""
def ends(reply): assert len(reply.tokens) == 9
ASKED = {"cases": ROWS, "prompt": "{{ char }}", "max_new_tokens": 9}

@probe(**ASKED)
def test_plain(reply): ends(reply)

@probe(**ASKED, repetition_penalty=5.0)
def test_penalised(reply): ends(reply)
"""),
    )
    assert [asked.suite for asked in file.suites] == ["test_plain", "test_penalised"]
