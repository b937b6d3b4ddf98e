"""Amounts of data that are allowed and probably not meant: what the plan says of them, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.check import load_checked
from runner.preparation import Prepared, make_plan
from tests.tiny_project import write_project

SETS = ("stages.qa.data=questions.train", "stages.prefer.from=qa@last", "stages.base.num_train_epochs=1")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


def said(recipe: Path, *sets: str) -> list[str]:
    """The warnings of the plan about amounts."""
    made = make_plan(Prepared(load_checked(recipe, (*SETS, *sets)), recipe.parent / "results"))
    return [warning for warning in made.warnings if ".replay" in warning or ".mix" in warning or ".kl" in warning]


def test_more_old_rows_than_new_ones_are_warned_of(recipe: Path) -> None:
    assert said(recipe, "stages.qa.replay={of: base, ratio: 1}") == []
    assert said(recipe, "stages.qa.replay={of: base, ratio: 1.5}") == [
        "stages.qa.replay: 30 rows of an epoch are old and 20 new; ratio is old rows for each new one"
    ]
    assert said(recipe, "stages.qa.replay={of: questions.held_out, ratio: 25}") == [
        "stages.qa.replay: 500 rows of an epoch are old and 20 new; ratio is old rows for each new one",
        "stages.qa.replay: 500 rows an epoch of the 20 there are: each is seen 25.0 times an epoch",
    ]


def test_a_buffer_that_bounds_nothing_is_warned_of(recipe: Path) -> None:
    assert said(recipe, "stages.qa.replay={of: base, ratio: 0.5, buffer: 40}") == []
    assert said(recipe, "stages.qa.replay={of: base, ratio: 0.5, buffer: 41}") == [
        "stages.qa.replay: buffer: 41 bounds nothing, there are 40 rows"
    ]


def test_more_rows_of_a_data_set_than_there_are_are_warned_of(recipe: Path) -> None:
    assert said(recipe, "stages.qa.mix={questions.train: {rows: 20}}") == []
    assert said(recipe, "stages.qa.mix={questions.train: {rows: 90}}") == [
        "stages.qa.mix.questions.train: rows: 90 of the 20 there are: each is seen 4.5 times an epoch"
    ]


def test_more_rows_to_compare_than_there_are_or_than_are_learned_are_warned_of(recipe: Path) -> None:
    assert said(recipe, "stages.qa.kl={weight: 1, data: facts, rows: 32}") == []
    assert said(recipe, "stages.qa.kl={weight: 1, data: facts, rows: 33}") == [
        "stages.qa.kl: 33 rows are compared at each step, and 8 learned: most of the time goes into the comparison"
    ]
    assert said(recipe, "stages.qa.kl={weight: 1, data: facts, rows: 100}") == [
        "stages.qa.kl: 100 rows a step of the 40 there are: each is seen 2.5 times a step; say rows: 40 or fewer"
    ]


def test_a_data_set_that_is_named_twice_is_seen_twice(recipe: Path) -> None:
    made = make_plan(Prepared(load_checked(recipe, (*SETS, "stages.qa.data=[questions.train, questions.train]")),
                              recipe.parent / "results"))  # fmt: skip
    qa = made.stages[1]
    assert qa.arithmetic.rows == 40
    assert qa.counts is not None
    assert [(source.name, source.per_epoch) for source in qa.counts.sources] == [("questions.train", 20.0)] * 2
