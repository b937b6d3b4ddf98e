"""runner.gate.chance: intervals, the paired test and its correction, beside figures from elsewhere."""

import math
import random

import pytest

from runner.gate import holm, mcnemar, negative_flip_rate, wilson


def test_wilson_agrees_with_the_published_example() -> None:
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I: 81 of 263
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_of_all_or_none_reaches_the_end_exactly_whatever_the_rounding() -> None:
    for asked in range(1, 400):
        assert (wilson(0, asked)[0], wilson(asked, asked)[1]) == (0.0, 1.0)
        assert 0 < wilson(asked, asked)[0] < 1
        assert wilson(0, asked)[1] == pytest.approx(1 - wilson(asked, asked)[0])
        assert 0 < wilson(1, asked + 1)[0] < 1 / (asked + 1) < wilson(1, asked + 1)[1] < 1


def test_mcnemar_is_the_exact_binomial_tail() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == 1 / 32
    assert mcnemar(2, 1) == 0.5
    assert mcnemar(22, 2) == sum(math.comb(24, k) for k in range(22, 25)) / 2**24


def test_mcnemar_of_ten_thousand_flips_is_a_number() -> None:
    assert mcnemar(5000, 5000) == pytest.approx(0.5, abs=0.01)
    assert 0 < mcnemar(5300, 4700) < 1e-8


def test_holm_multiplies_the_smallest_p_by_all_tests_and_the_next_by_one_less() -> None:
    # 0.01 * 4, 0.013 * 3 lifted to 0.04, 0.04 * 2, 0.3 * 1
    assert holm([0.3, 0.01, 0.04, 0.013]) == pytest.approx((0.3, 0.04, 0.08, 0.04))
    assert holm([]) == ()
    assert holm([0.04]) == (0.04,)
    assert holm([0.6, 0.7]) == (1.0, 1.0)


def test_tests_that_were_not_seen_count() -> None:
    assert holm([0.01, 0.02], unseen=2) == pytest.approx((0.04, 0.06))


def test_holm_keeps_the_chance_of_any_false_rejection() -> None:
    generator, runs = random.Random(5), 4000
    # five tests that share half of their luck, in which nothing is to be found
    found = 0
    for _ in range(runs):
        shared = generator.random()
        ps = [shared if generator.random() < 0.5 else generator.random() for _ in range(5)]
        found += min(holm(ps)) < 0.05
    assert found / runs <= 0.05


def test_the_negative_flip_rate_is_the_share_of_compared_cases_that_were_lost() -> None:
    assert negative_flip_rate(3, 200) == 0.015
    assert negative_flip_rate(0, 0) is None
