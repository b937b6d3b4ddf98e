"""runner.data.mixture: how many rows an epoch has of each data set, and which ones."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import spec
from runner.data.mixture import Balanced, Buffered, Passes, permutation, replayed_per_epoch, rows_per_epoch


def positions(stream: Passes | Balanced | Buffered, start: int, stop: int) -> list[int]:
    return stream.take(start, stop).positions.tolist()


def test_an_order_has_every_row_once_and_follows_from_its_key_alone() -> None:
    assert permutation(6, "36:shuffle:0").tolist() == [5, 3, 2, 4, 0, 1]  # a change trains other models
    assert permutation(6, "36:shuffle:1").tolist() != permutation(6, "36:shuffle:0").tolist()
    assert sorted(permutation(1000, "x").tolist()) == list(range(1000))


@settings(deadline=None)
@given(rows=st.integers(1, 40), taken=st.integers(1, 60), epochs=st.integers(1, 8))
def test_no_row_comes_again_before_every_other_has_come(rows: int, taken: int, epochs: int) -> None:
    stream, seen = Passes(rows, "k"), Counter[int]()
    for epoch in range(epochs):
        seen.update(positions(stream, epoch * taken, (epoch + 1) * taken))
        often = [seen[row] for row in range(rows)]
        assert sum(often) == (epoch + 1) * taken
        assert max(often) - min(often) <= 1


def test_a_row_that_is_seen_again_has_a_number_of_its_own_for_each_sight() -> None:
    drawn = Passes(3, "k").take(0, 9)
    pairs = set(zip(drawn.positions.tolist(), drawn.sights.tolist(), strict=True))
    assert pairs == {(row, sight) for row in range(3) for sight in range(3)}


def test_any_place_of_a_stream_can_be_asked_for_without_those_before_it() -> None:
    for stream in (Passes(7, "k"), Balanced("aabbbbc", "k"), Buffered(100, 7, "k")):
        whole = positions(stream, 0, 60)
        assert [place for at in range(0, 60, 5) for place in positions(stream, at, at + 5)] == whole


def test_rows_of_rare_classes_are_repeated_until_each_class_has_as_many_as_the_largest() -> None:
    classes = ["common"] * 7 + ["rare"] * 2 + ["once"]
    stream = Balanced(classes, "k")
    assert len(stream) == 21
    seen = Counter(positions(stream, 0, 21))
    assert {name: sum(n for row, n in seen.items() if classes[row] == name) for name in set(classes)} == {
        "common": 7, "rare": 7, "once": 7,
    }  # fmt: skip
    assert {seen[row] for row in range(7)} == {1}
    assert {seen[7], seen[8]} == {3, 4}
    # the one that came more often in the first pass comes less often in the second
    assert Counter(positions(stream, 0, 42))[7] == 7
    drawn = stream.take(0, 42)
    pairs = list(zip(drawn.positions.tolist(), drawn.sights.tolist(), strict=True))
    assert len(set(pairs)) == 42


def test_a_buffer_is_bounded_and_chosen_once() -> None:
    stream = Buffered(1000, 10, "36:replay")
    first = set(positions(stream, 0, 25))
    assert len(stream) == len(first) == 10
    assert set(positions(stream, 5000, 5100)) == first == set(positions(Buffered(1000, 10, "36:replay"), 0, 10))
    assert set(positions(Buffered(1000, 10, "37:replay"), 0, 10)) != first
    assert stream.within(0, 1000) == stream.within(0, 500) + stream.within(500, 1000) == 10
    assert len(Buffered(4, 10, "k")) == 4


@pytest.mark.parametrize(
    ("mix", "rows"),
    [
        ({}, {"a": 100, "b": 20, "c": 7}),
        ({"a": {"epochs": 0.5}, "c": {"epochs": 3.0}}, {"a": 50, "b": 20, "c": 21}),
        ({"c": {"epochs": 0.5}}, {"a": 100, "b": 20, "c": 4}),
        ({"c": {"epochs": 0.01}}, {"a": 100, "b": 20, "c": 1}),
        ({"b": {"rows": 90}}, {"a": 100, "b": 90, "c": 7}),
        ({"a": {"weight": 1.0}, "b": {"weight": 3.0}}, {"a": 30, "b": 90, "c": 7}),
        ({"a": {"weight": 1.0}, "b": {"weight": 1.0}, "c": {"weight": 1.0}}, {"a": 42, "b": 43, "c": 42}),
    ],
)
def test_an_epoch_has_the_rows_that_the_mixture_promises(
    mix: dict[str, dict[str, float]], rows: dict[str, int]
) -> None:
    parts = {name: spec.Part.model_validate(part) for name, part in mix.items()}
    assert rows_per_epoch({"a": 100, "b": 20, "c": 7}, parts) == rows


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0.01, 100)), min_size=2, max_size=6))
def test_weights_share_out_as_many_rows_as_the_weighted_data_sets_have(of: list[tuple[int, float]]) -> None:
    available = {str(number): rows for number, (rows, _) in enumerate(of)}
    parts = {str(number): spec.Part(weight=weight) for number, (_, weight) in enumerate(of)}
    found = rows_per_epoch(available, parts)
    together, weights = sum(available.values()), sum(weight for _, weight in of)
    for name, part in parts.items():
        assert part.weight is not None
        assert abs(found[name] - together * part.weight / weights) <= 1
    assert abs(sum(found.values()) - together) < len(of)  # where a share is less than a row, it is a row


def test_replayed_rows_are_a_ratio_of_the_own_ones() -> None:
    assert replayed_per_epoch(1000, spec.Replay(of=("x",), ratio=0.25)) == 250
    assert replayed_per_epoch(3, spec.Replay(of=("x",), ratio=0.01)) == 1
    assert np.isclose(250 / 1250, 0.2)  # "0.25 makes a fifth of each epoch old"
