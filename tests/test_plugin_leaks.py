"""What verdicts of a run's checkpoint say about the rows it was trained on."""

import json
from pathlib import Path

import pytest

from runner import verdicts
from runner.check import load_checked
from runner.data import datasets, seen
from runner.verdicts import VerdictFile
from tests.probe_project import ask, write
from tests.tiny import make_run

pytest_plugins = ["pytester"]

PROBE = """
from runner import probe

@probe(prompt="radical of {{ char }}?", max_new_tokens=4)
def test_radical(case, reply):
    assert reply.tokens
"""
SUITE = '  held_out: {file: "probes/test_p.py::test_radical", cases: questions.held_out%s}'


@pytest.fixture
def asked(project: pytest.Pytester, tiny_checkpoint: Path):
    def asked(chars: str, suite: str = "", probe: str = PROBE) -> tuple[VerdictFile, list[str]]:
        """The verdicts about cases of these characters, of a checkpoint that was trained on x and y."""
        write(project, probe)
        cases = [{"id": char, "char": char} for char in chars]
        run = make_run(project.path, tiny_checkpoint, SUITE % suite, cases)
        rows = [{"id": char, "char": char, "prompt": f"radical of {char}?", "completion": " A"} for char in "xy"]
        (project.path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        recipe = (run / "recipe.yaml").read_text(encoding="utf-8").replace(", held_out: 0.5", "").replace("0.5", "1.0")
        (project.path / "all.yaml").write_text(recipe.partition("probes:")[0], encoding="utf-8")
        (project.path / "model").symlink_to(tiny_checkpoint)
        loaded = load_checked(project.path / "all.yaml", ())
        trained = datasets.build(loaded.spec, loaded.root).get("questions.train")
        seen.write(seen.gather(trained), run / "data" / "seen")
        result = ask(project, "probes", "--ckpt", run / "qa" / "ckpt-4", "--probe-verdicts", "v.jsonl")
        return verdicts.read(project.path / "v.jsonl"), result.outlines

    return asked


def test_a_trained_question_is_a_leak_and_the_same_in_other_words_was_seen_as_facts(asked) -> None:
    file, lines = asked("xz", probe=PROBE.replace("radical of", "what of"))
    assert {verdict.case_id: verdict.leak for verdict in file.verdicts} == {"x": "facts", "z": ""}
    assert (
        "held_out: 1 of 2 cases are about what its training rows speak of in other words: seen as facts "
        "(questions.train)" in lines
    )


def test_a_leak_is_said_and_changes_no_outcome(asked) -> None:
    file, lines = asked("xyz")
    assert {verdict.case_id: verdict.leak for verdict in file.verdicts} == {"x": "question", "y": "question", "z": ""}
    assert {verdict.outcome for verdict in file.verdicts} == {"pass"}
    assert "held_out: 2 of 3 questions stand in the rows it was trained on: leaked (questions.train)" in lines


def test_where_leaks_fail_a_leaked_case_is_an_error(asked) -> None:
    file, _ = asked("xz", ", leaks: fail")
    leaked, clean = file.verdicts
    assert (leaked.outcome, clean.outcome) == ("error", "pass")
    assert leaked.reason == "leaked: its question stands in questions.train, which this checkpoint was trained on"


def test_where_leaks_are_expected_nothing_is_said(asked) -> None:
    file, lines = asked("xy", ", leaks: expected")
    assert [verdict.leak for verdict in file.verdicts] == ["question", "question"]
    assert not [line for line in lines if "leaked" in line]


def test_a_prompt_that_training_wrote_otherwise_is_shown_beside_it(asked) -> None:
    _, lines = asked("z", probe=PROBE.replace("radical of {{ char }}?", "radical of {{ char }} ?"))
    assert "held_out: its prompt is not how training wrote it: asked 'radical of x ?', trained 'radical of x?'" in lines
