"""Closed questions, and numbers about a suite as a whole."""

import math
from pathlib import Path

import pytest

from runner import verdicts
from tests.probe_project import ask, probes, verdicts_of, write

pytest_plugins = ["pytester"]

CLOSED = """
CHARS = [{"char": char} for char in "心水木abcdef"]
@probe(cases=CHARS, prompt="{{ char }}", choices=["心", "水", "a b"], answer="ANSWER")
def test_it(case, reply, record):
    assert reply.stop_reason == "choice" and reply in ("心", "水", "a b") and reply.margin >= 0 and reply.logprob < 0
    record(margin=reply.margin)
    assert reply == "水"
"""


def test_a_closed_question_is_answered_by_its_most_likely_choice(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    file = verdicts_of(project, tiny_checkpoint, probes(CLOSED.replace("ANSWER", "水")))
    for verdict in file.verdicts:
        choices = verdict.generation["choices"]
        assert set(choices) == {"心", "水", "a b"}
        assert (verdict.answered, verdict.reply) == (max(choices, key=choices.__getitem__),) * 2
        assert verdict.expected == "水"
        assert verdict.outcome == ("pass" if verdict.answered == "水" else "miss")
        assert verdict.logprob == choices[verdict.answered]
        assert "max_new_tokens" not in verdict.generation
        assert verdict.generation["stop_reason"] == "choice"
    asked = file.asked("test_it")
    assert asked is not None
    assert asked.values["accuracy"] == sum(verdict.outcome == "pass" for verdict in file.verdicts) / 9
    assert set(asked.values) == {"accuracy", "precision", "recall", "f1"}


def test_a_gate_can_bound_a_score_of_closed_questions(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    closed = CLOSED.replace("ANSWER", "水").replace('answer="水"', 'answer="水", gate={"f1": {"min": 1.01}}')
    write(project, probes(closed))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E   *f1*1.01*"])


def test_a_key_that_is_no_choice_is_an_error_that_says_so(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    file = verdicts_of(project, tiny_checkpoint, probes(CLOSED.replace("ANSWER", "{{ char }}")), "-k", "not U+")
    said = {verdict.reason for verdict in file.verdicts if verdict.outcome == "error"}
    assert len(said) == 7  # six letters and 木
    assert all(reason.endswith("is not among its choices: '心', '水', 'a b'") for reason in said)


POOLED = """
@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=4, pooled={"replies": len, "letters": lambda all: sum(map(len, all))}, gate={"replies": {"max": 3}})
def test_it(reply): pass
"""  # noqa: E501


def test_a_number_about_the_whole_suite_is_computed_from_all_replies(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    file = verdicts_of(project, tiny_checkpoint, probes(POOLED))
    asked = file.asked("test_it")
    assert asked is not None
    assert asked.values == {"replies": 3.0, "letters": float(sum(len(verdict.reply) for verdict in file.verdicts))}
    assert ask(project, "probes", "--ckpt", tiny_checkpoint).ret == 0
    write(project, probes(POOLED.replace('"max": 3', '"max": 2')))
    assert ask(project, "probes", "--ckpt", tiny_checkpoint).ret == 1


def test_of_a_suite_asked_in_part_there_is_no_number(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    asked = verdicts_of(project, tiny_checkpoint, probes(POOLED), "-k", "U+6C34").asked("test_it")
    assert asked is not None
    assert asked.values == {}


def test_a_function_over_all_replies_that_fails_is_no_number_and_said(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, probes(POOLED.replace("len,", "lambda replies: 1 / 0,")))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v.jsonl")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["pooled replies of test_it: ZeroDivisionError: division by zero"])
    asked = verdicts.read(project.path / "v.jsonl").asked("test_it")
    assert asked is not None
    assert math.isnan(asked.values["replies"])
