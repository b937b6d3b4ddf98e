"""runner.classification: scores of closed questions, against worked examples and against each other."""

import doctest
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner.classification
from runner.classification import Scores, scores

pairs = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=30)


def test_the_example_in_the_docstring_holds() -> None:
    assert doctest.testmod(runner.classification).failed == 0


def test_a_label_that_is_never_answered_counts_as_nothing_right() -> None:
    # a: precision 1/2, recall 1, F1 2/3; b: never answered, all 0
    found = scores([("a", "a"), ("b", "a")])
    assert found == Scores(0.5, 0.25, 0.5, pytest.approx(1 / 3))


def test_a_label_that_is_answered_and_never_expected_counts_too() -> None:
    assert scores([("a", "a"), ("a", "b")]) == Scores(0.5, 0.5, 0.25, pytest.approx(1 / 3))


def test_three_labels_by_hand() -> None:
    # a: 2 expected, answered 2, 1 right; b: 1 expected, answered 2, 1 right; c: 1 expected, answered 0
    found = scores([("a", "a"), ("a", "b"), ("b", "b"), ("c", "a")])
    assert found.accuracy == 0.5
    assert found.precision == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert found.recall == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found.f1 == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)


def test_of_no_answers_there_are_no_scores() -> None:
    with pytest.raises(ValueError, match="no answers"):
        scores([])


@given(pairs)
def test_scores_lie_between_0_and_1_and_do_not_depend_on_order(found: list[tuple[str, str]]) -> None:
    shuffled = found[:]
    random.Random(1).shuffle(shuffled)
    assert vars(scores(found)) == pytest.approx(vars(scores(shuffled)))
    assert all(0 <= value <= 1 for value in vars(scores(found)).values())


@given(st.lists(st.sampled_from("abc"), min_size=1))
def test_all_right_is_1_throughout(labels: list[str]) -> None:
    assert scores([(label, label) for label in labels]) == Scores(1.0, 1.0, 1.0, 1.0)
