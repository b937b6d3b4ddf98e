"""runner.gate: counting, intervals, comparison and the decision, without a model."""

import math
import random

import pytest

from runner import gate, spec
from runner.verdicts import Outcome, Verdict


def verdicts(outcomes: str, ckpt: str = "qa@8", **values: float) -> list[Verdict]:
    """One verdict per letter: p(ass), m(iss), e(rror), n(ot asked)."""
    names: dict[str, Outcome] = {"p": "pass", "m": "miss", "e": "error", "n": "not_asked"}
    return [
        Verdict("held_out", "t.py::test", f"c{number}", names[letter], ckpt=ckpt, values=values, reply=letter)
        for number, letter in enumerate(outcomes)
    ]


def rule(**written: object) -> spec.Gate:
    return spec.Gate.model_validate(written)


def test_wilson_agrees_with_the_published_example() -> None:
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I: 81 of 263
    low, high = gate.wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_of_nothing_is_everything() -> None:
    assert gate.wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_is_the_exact_binomial_tail() -> None:
    assert gate.mcnemar(0, 0) == 1
    assert gate.mcnemar(5, 0) == 1 / 32
    assert gate.mcnemar(2, 1) == 0.5


def test_exactly_the_minimum_rate_is_green() -> None:
    assert gate.judge(rule(min_pass_rate=0.95), "s", verdicts("p" * 285 + "m" * 15), None).green
    decision = gate.judge(rule(min_pass_rate=0.95), "s", verdicts("p" * 284 + "m" * 16), None)
    assert decision.reasons == ("284 of 300 passed (94.7%), min_pass_rate is 0.95",)


def test_confidence_asks_the_lower_bound_to_reach_the_rate() -> None:
    assert not gate.judge(rule(min_pass_rate=0.9, confidence=0.95), "s", verdicts("p" * 19 + "m"), None).green
    assert gate.judge(rule(min_pass_rate=0.9, confidence=0.95), "s", verdicts("p" * 290 + "m" * 10), None).green


def test_not_asked_cases_are_out_of_every_rate() -> None:
    assert gate.judge(rule(min_pass_rate=1.0), "s", verdicts("ppnn"), None).green


def test_a_gate_with_no_asked_case_is_red() -> None:
    assert gate.judge(rule(min_pass_rate=0.0), "s", verdicts("nn"), None).reasons == ("no case was asked",)
    assert gate.judge(rule(max_regression=3), "s", [], None).green is False


def test_any_error_is_red() -> None:
    assert not gate.judge(rule(min_pass_rate=0.1), "s", verdicts("pppe"), None).green


def test_a_suite_without_a_gate_is_recorded_not_judged() -> None:
    decision = gate.judge(None, "s", verdicts("pm"), verdicts("pp", "base@2"))
    assert (decision.green, len(decision.lost)) == (None, 1)


def test_without_a_baseline_a_regression_is_recorded_not_failed() -> None:
    decision = gate.judge(rule(max_regression="significant"), "s", verdicts("mm"), None)
    assert decision.green
    assert decision.notes == ("no baseline: recorded, not compared",)


def test_22_lost_and_2_gained_of_200_is_red_whatever_the_number_of_looks() -> None:
    before = verdicts("p" * 190 + "m" * 10, "base@2")
    now = verdicts("m" * 22 + "p" * 168 + "p" * 2 + "m" * 8)
    decision = gate.judge(rule(max_regression="significant"), "s", now, before, looks=10, suites=4)
    assert decision.green is False
    assert "22 lost and 2 gained against base@2" in decision.reasons[0]


def test_max_regression_as_a_number_bounds_the_net_loss() -> None:
    before, now = verdicts("pppm", "base@2"), verdicts("mmpp")
    assert gate.judge(rule(max_regression=1), "s", now, before).green
    assert not gate.judge(rule(max_regression=0), "s", now, before).green


def test_cases_that_only_one_side_has_are_told_and_not_compared() -> None:
    decision = gate.judge(rule(max_regression=0), "s", verdicts("mpp")[1:], verdicts("mp", "base@2"))
    assert decision.green
    assert decision.notes == ("1 cases compared with base@2; 1 are new, 1 gone since",)


@pytest.mark.parametrize("rules", [{"max_regression": 9}, {"max_regression": "significant"}, {"pinned": ["c1"]}])
def test_a_comparison_with_no_case_in_common_is_red(rules: dict[str, object]) -> None:
    now, before = verdicts("pp")[1:], verdicts("p", "base@2")
    reason = "no case was answered both here and at base@2"
    assert gate.judge(rule(**rules), "s", now, before).reasons == (reason,)
    assert gate.judge(rule(min_pass_rate=0.5), "s", now, before).green


def test_what_needs_a_baseline_is_red_where_the_one_that_was_named_was_not_asked() -> None:
    for rules in ({"max_regression": 9}, {"pinned": ["c1"]}, {"rep": {"max_mean_rise": 0.1}}):
        decision = gate.judge(rule(**rules), "s", verdicts("pp", rep=0.0), None, given="the baseline qa@4")
        assert decision.reasons == ("the baseline qa@4 has no verdicts of s, so nothing was compared",)
    assert gate.judge(rule(min_pass_rate=0.5), "s", verdicts("pp"), None, given="the baseline qa@4").green


def test_a_pinned_case_that_is_lost_is_red_and_one_never_known_is_not() -> None:
    before = verdicts("pm", "base@2")
    assert not gate.judge(rule(pinned=["c0"]), "s", verdicts("mm"), before).green
    assert gate.judge(rule(pinned=["c1"]), "s", verdicts("mm"), before).green


def test_a_pinned_id_that_is_no_case_is_red_and_named() -> None:
    decision = gate.judge(rule(pinned=["c00"]), "s", verdicts("pp"), None)
    assert decision.reasons == ("pinned case c00 is not a case of this suite; did you mean c0?",)


def test_a_pin_may_be_written_as_the_character_itself() -> None:
    assert gate.is_pinned(rule(pinned=["心"]), "U+5FC3")


def test_bounds_are_over_the_recorded_numbers() -> None:
    assert gate.judge(rule(rep={"max_mean": 0.2}), "s", verdicts("pp", rep=0.2), None).green
    for bound in ({"max_mean": 0.1}, {"max": 0.1}, {"min_mean": 0.3}):
        assert not gate.judge(rule(rep=bound), "s", verdicts("pp", rep=0.2), None).green


def test_a_bound_on_a_number_nobody_recorded_is_red() -> None:
    decision = gate.judge(rule(seq_rep={"max_mean": 0.1}), "s", verdicts("pp", seq_rep_4=0.0), None)
    assert decision.reasons == ("no case recorded seq_rep; did you mean seq_rep_4?",)


def test_a_recorded_nan_is_red() -> None:
    assert not gate.judge(rule(rep={"max_mean": 0.1}), "s", verdicts("p", rep=math.nan), None).green


def test_a_rise_is_measured_from_the_baseline() -> None:
    before = verdicts("pp", "base@2", rep=0.1)
    assert gate.judge(rule(rep={"max_mean_rise": 0.05}), "s", verdicts("pp", rep=0.14), before).green
    assert not gate.judge(rule(rep={"max_mean_rise": 0.05}), "s", verdicts("pp", rep=0.2), before).green


def turned(lost: int, gained: int, *, looks: int, suites: int) -> gate.Decision:
    """So many of 20 cases lost and gained, and the other ones passed twice."""
    other = "p" * (20 - lost - gained)
    before = verdicts("p" * lost + "m" * gained + other, "base@2")
    now = verdicts("m" * lost + "p" * gained + other)
    return gate.judge(rule(max_regression="significant"), "s", now, before, looks=looks, suites=suites)


def test_a_run_of_equal_checkpoints_is_hardly_ever_red() -> None:
    """10 checkpoints, 4 suites of 20 cases of which 12 turn between any two, nothing lost in truth."""
    generator, runs = random.Random(7), 400
    # of the 40 comparisons of a run the one that lost most is red, or none is
    worst = [max(sum(generator.random() < 0.5 for _ in range(12)) for _ in range(40)) for _ in range(runs)]

    def reds(looks: int, suites: int) -> float:
        red = {lost: not turned(lost, 12 - lost, looks=looks, suites=suites).green for lost in set(worst)}
        return sum(red[lost] for lost in worst) / runs

    assert reds(looks=10, suites=4) <= 0.05
    # and were that not corrected for both, it would be
    assert min(reds(looks=1, suites=4), reds(looks=10, suites=1)) > 0.05


def test_every_look_and_every_suite_lowers_the_level() -> None:
    # p of 6 lost and none gained is 1/64: below 5 % / 3, not below 5 % / 4
    judged = [turned(6, 0, looks=looks, suites=suites).green for looks, suites in ((1, 1), (3, 1), (1, 3))]
    assert judged == [False, False, False]
    judged = [turned(6, 0, looks=looks, suites=suites).green for looks, suites in ((4, 1), (1, 4), (2, 2))]
    assert judged == [True, True, True]


@pytest.mark.parametrize("outcome", ["e", "n"])
def test_an_error_or_an_unasked_case_is_no_lost_answer(outcome: str) -> None:
    assert gate.compare(verdicts(outcome), verdicts("p")).lost == ()
