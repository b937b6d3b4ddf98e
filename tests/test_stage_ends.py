"""runner.stage_ends: what ends a stage before its last step, decided from what its probes said."""

import pytest

from runner.spec import StopWhen
from runner.stage_ends import End, Look, first_end


def looks(*rates: float | None) -> list[Look]:
    return [Look(f"qa@{place + 1}", rate=rate) for place, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("rates", "place"),
    [
        ((0.5, 0.6, 0.7), None),
        ((0.7, 0.6, 0.5), 2),
        ((0.7, 0.6, 0.7, 0.6), None),  # one that reaches the best again ends the row
        ((0.7, 0.6, 0.65, 0.9), 2),  # better than the one before, and still below the best
        ((0.5, 0.4, 0.6, 0.5, 0.4), 4),
        ((0.7, 0.6, None, 0.6), 3),  # what cannot be told counts neither way
        ((None, None, None), None),
        ((0.7,), None),
    ],
)
def test_a_stage_ends_at_the_second_checkpoint_in_a_row_below_its_best(
    rates: tuple[float | None, ...], place: int | None
) -> None:
    end = first_end(looks(*rates), StopWhen(suite="select", worse_for=2))
    assert (end and end.place) == place
    if end is not None:
        assert end.keeps == end.place  # @last is where it ended


def test_the_end_names_the_suite_and_its_best() -> None:
    end = first_end(looks(0.25, 0.75, 0.5), StopWhen(suite="select", worse_for=1))
    assert end == End(2, 2, "select is below its best, 75.0% at qa@2")
    end = first_end(looks(0.75, 0.75, 0.5, 0.7), StopWhen(suite="select", worse_for=2))
    assert end == End(3, 3, "select is below its best, 75.0% at qa@1, 2 checkpoints in a row")


def test_without_stop_when_a_falling_rate_ends_nothing() -> None:
    assert first_end(looks(0.9, 0.1, 0.0, 0.0), None) is None


def test_a_red_gate_that_rolls_back_keeps_the_checkpoint_before_it() -> None:
    seen = [Look("qa@1"), Look("qa@2"), Look("qa@3", rollback=("held_out", "loops"))]
    assert first_end(seen, None) == End(2, 1, "held_out, loops red at qa@3, on_fail: rollback: back to qa@2")


def test_a_rollback_with_nothing_before_it_stops_the_run() -> None:
    end = first_end([Look("qa@1", rollback=("held_out",)), Look("qa@2")], None)
    assert end == End(0, None, "held_out red at qa@1, on_fail: rollback, and no checkpoint before it to go back to")


def test_stop_comes_before_rollback_and_the_first_end_counts() -> None:
    both = Look("qa@2", stop=("a",), rollback=("b",))
    assert first_end([Look("qa@1"), both], None) == End(1, None, "a red at qa@2, on_fail: stop")
    assert first_end([Look("qa@1"), Look("qa@2", rollback=("b",)), Look("qa@3", stop=("a",))], None) == End(
        1, 0, "b red at qa@2, on_fail: rollback: back to qa@1"
    )
