"""Leaks that the plan finds: a suite asks what a stage is trained on."""

from pathlib import Path

import pytest

from runner.check import load_checked
from runner.errors import BadRecipe
from runner.preparation import Prepared, make_plan

RECIPE = """\
recipe: r
model: {{config: {{model_type: qwen3, hidden_size: 8}}, tokenizer: {{train: char, from_data: questions}}}}
data:
  chars: {{path: chars.csv, split: {{by: char, train: 0.5, held_out: 0.5}}}}
  questions: {{rows: chars, prompt: "radical of {{{{ char }}}}?", completion: " {{{{ radical }}}}"}}
stages:
  first: {{kind: sft, data: questions.train, num_train_epochs: 1}}
  second: {{kind: sft, from: first@last, data: {data}, num_train_epochs: 1}}
probes:
  asked: {{file: test_radical.py, cases: {cases}, leaks: {leaks}}}
"""
PROBE = """\
from runner import probe

@probe(prompt="{{ prompt }}")
def test_radical(case, reply):
    assert reply == case.completion
"""


def prepared(folder: Path, *, cases: str, leaks: str = "warn", data: str = "questions.train") -> Prepared:
    (folder / "pyproject.toml").touch()
    (folder / "chars.csv").write_text("char,radical\n" + "".join(f"{c},{c.upper()}\n" for c in "abcdefgh"))
    (folder / "test_radical.py").write_text(PROBE)
    (folder / "r.yaml").write_text(RECIPE.format(cases=cases, leaks=leaks, data=data))
    return Prepared(load_checked(folder / "r.yaml", ()), folder / "results" / "r")


def test_held_out_questions_leak_nowhere(tmp_path: Path) -> None:
    assert prepared(tmp_path, cases="questions.held_out").leaks == ()


def test_the_plan_warns_of_questions_that_are_trained(tmp_path: Path) -> None:
    warnings = make_plan(prepared(tmp_path, cases="questions.train")).warnings
    assert "probes.asked: 4 of its 4 questions are trained in first (they stand in questions.train)" in warnings


def test_the_stage_is_named_where_they_begin_to_leak(tmp_path: Path) -> None:
    (leak,) = prepared(tmp_path, cases="questions.held_out", data="questions").leaks
    assert leak.words == "4 of its 4 questions are trained in second (they stand in questions)"


def test_a_suite_of_trained_questions_says_so_and_is_not_warned_of(tmp_path: Path) -> None:
    warnings = make_plan(prepared(tmp_path, cases="questions.train", leaks="expected")).warnings
    assert not [warning for warning in warnings if "trained in" in warning]


def test_nothing_is_planned_where_a_suite_forbids_leaks(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe) as caught:
        make_plan(prepared(tmp_path, cases="questions", leaks="fail"))
    first, _, rest = caught.value.screen().partition("\n")
    assert first.endswith("r.yaml:10:41: 4 of its 8 questions are trained in first (they stand in questions.train)")
    assert "expected: cases that no stage trains on, as `leaks: fail` promises" in rest
