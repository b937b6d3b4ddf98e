"""runner.forgetting: both measures, beside figures worked out by hand."""

import pytest

from runner.forgetting import measure


def test_backward_transfer_and_forgetting_of_three_tasks_learned_one_after_the_other() -> None:
    # rows: after task 1, 2, 3; the tests of later tasks were taken too, and count from their own step on in BWT
    ends = [{"a": 0.90}, {"a": 0.80, "b": 0.95}, {"a": 0.85, "b": 0.70, "c": 0.99}]
    found = measure(ends)
    assert found is not None
    # BWT = ((0.85 - 0.90) + (0.70 - 0.95)) / 2; F = ((0.90 - 0.85) + (0.95 - 0.70)) / 2
    assert found.backward_transfer == pytest.approx(-0.15)
    assert found.forgetting == pytest.approx(0.15)
    assert [kept.suite for kept in found.suites] == ["a", "b"]  # c was learned last: nothing came after it
    assert found.worst.suite == "b"


def test_forgetting_is_measured_from_the_best_and_transfer_from_the_first() -> None:
    found = measure([{"a": 0.5}, {"a": 0.9}, {"a": 0.6}])
    assert found is not None
    assert found.backward_transfer == pytest.approx(0.1)
    assert found.forgetting == pytest.approx(0.3)


def test_a_suite_that_was_never_as_good_as_now_is_forgotten_less_than_not_at_all() -> None:
    found = measure([{"a": 0.5}, {"a": 0.9}])
    assert found is not None
    assert (found.backward_transfer, found.forgetting) == pytest.approx((0.4, -0.4))


def test_a_suite_may_be_asked_at_some_ends_only() -> None:
    found = measure([{"a": 0.8, "b": 0.4}, {"b": 0.4}, {"a": 0.7}])
    assert found is not None
    assert [(kept.suite, round(kept.transfer, 6)) for kept in found.suites] == [("a", -0.1)]


@pytest.mark.parametrize("ends", [[], [{"a": 0.5}], [{"a": 0.5}, {"b": 0.5}], [{}, {}]])
def test_without_a_suite_at_two_ends_there_is_nothing_to_say(ends: list[dict[str, float]]) -> None:
    assert measure(ends) is None
