"""runner.gate.rules: from verdicts and a baseline to green or red, without a model."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from runner import gate, spec
from runner.gate import Decision, Matter, is_pinned
from runner.verdicts import Verdict
from tests.bench import gates
from tests.letters import verdicts


def rule(**written: object) -> spec.Gate:
    return spec.Gate.model_validate(written)


def judge(
    rules: spec.Gate | None,
    now: Sequence[Verdict],
    before: Sequence[Verdict] | None = None,
    looks: int = 1,
    **more: object,
) -> Decision:
    """What is decided about one suite that is judged alone."""
    (decision,) = gate.judge([Matter("s", rules, now, before, **more)], looks=looks)  # type: ignore[arg-type]
    return decision


def test_exactly_the_minimum_rate_is_green() -> None:
    assert judge(rule(min_pass_rate=0.95), verdicts("p" * 285 + "m" * 15)).green
    decision = judge(rule(min_pass_rate=0.95), verdicts("p" * 284 + "m" * 16))
    assert decision.reasons == ("284 of 300 passed (94.7%), min_pass_rate is 0.95",)


def test_the_lower_bound_is_that_of_the_confidence_and_is_told() -> None:
    decision = judge(rule(min_pass_rate=0.9, confidence=0.9), verdicts("p" * 19 + "m"))
    assert decision.reasons == (
        "19 of 20 passed (95.0%), at least 80.4% at confidence 0.9, min_pass_rate is 0.9",
    )  # fmt: skip
    exactly = gate.wilson(19, 20, 0.9)[0]
    assert judge(rule(min_pass_rate=exactly, confidence=0.9), verdicts("p" * 19 + "m")).green


def test_confidence_asks_the_lower_bound_to_reach_the_rate() -> None:
    assert not judge(rule(min_pass_rate=0.9, confidence=0.95), verdicts("p" * 19 + "m")).green
    assert judge(rule(min_pass_rate=0.9, confidence=0.95), verdicts("p" * 290 + "m" * 10)).green


def test_not_asked_cases_are_out_of_every_rate() -> None:
    assert judge(rule(min_pass_rate=1.0), verdicts("ppnn")).green


def test_a_gate_with_no_asked_case_is_red() -> None:
    assert judge(rule(min_pass_rate=0.0), verdicts("nn")).reasons == ("no case was asked",)
    assert judge(rule(max_regression=3), []).green is False
    assert judge(rule(max_regression=3), []).reasons == ("no case was asked",)


def test_any_error_is_red_and_the_first_is_named() -> None:
    broken = [replace(one, reason=f"boom {one.case_id}") for one in verdicts("ppeem")]
    decision = judge(rule(min_pass_rate=0.1), broken)
    assert (decision.green, decision.reasons) == (False, ("2 cases ended in an error, the first c2: boom c2",))
    alone = judge(rule(min_pass_rate=0.1), [replace(one, reason=f"boom {one.case_id}") for one in verdicts("pppe")])
    assert alone.reasons == ("1 case ended in an error, the first c3: boom c3",)
    unasked = [replace(one, case_id="cases", reason="cases: there is no file rows.jsonl") for one in verdicts("e")]
    assert judge(rule(min_pass_rate=0.1), unasked).reasons[0] == (
        "1 case ended in an error: cases: there is no file rows.jsonl"
    )


def test_where_no_case_was_asked_the_reason_of_the_first_is_told() -> None:
    unasked = [replace(one, reason=f"control of {one.case_id} missed") for one in verdicts("nn")]
    assert judge(rule(min_pass_rate=0.0), unasked).reasons == ("no case was asked: control of c0 missed",)


@pytest.mark.parametrize("rules", [None, {"min_pass_rate": 0.1}], ids=["no gate", "a gate"])
def test_a_decision_keeps_what_it_was_made_from(rules: dict[str, object] | None) -> None:
    now, before = verdicts("pmn", rep=0.5), verdicts("ppn", "base@2")
    decision = judge(None if rules is None else rule(**rules), now, before)
    assert (decision.suite, decision.green) == ("s", None if rules is None else True)
    assert (decision.reasons, decision.notes) == ((), ("2 cases compared with base@2; 1 not answered",))
    assert decision.tally == gate.count(now)
    assert decision.comparison == gate.compare(now, before)
    assert decision.numbers == gate.numbers(now, before, {}, {})
    assert [(number.name, number.mean) for number in decision.numbers] == [("rep", 0.5)]


def test_a_suite_without_a_gate_is_recorded_not_judged() -> None:
    decision = judge(None, verdicts("pm"), verdicts("pp", "base@2"))
    assert (decision.green, len(decision.lost)) == (None, 1)


def test_without_a_baseline_a_regression_is_recorded_not_failed() -> None:
    decision = judge(rule(max_regression="significant"), verdicts("mm"))
    assert (decision.green, decision.reasons) == (None, ())  # recorded: neither red nor green
    assert decision.notes == ("no baseline: recorded, not compared",)


def test_22_lost_and_2_gained_of_200_is_red_whatever_the_number_of_looks() -> None:
    before = verdicts("p" * 190 + "m" * 10, "base@2")
    now = verdicts("m" * 22 + "p" * 168 + "p" * 2 + "m" * 8)
    decision, *others = gate.judge(
        [Matter(name, rule(max_regression="significant"), now if name == "s" else before, before) for name in "sabc"],
        looks=10,
    )
    assert [decision.green, *(other.green for other in others)] == [False, True, True, True]
    assert decision.reasons == (
        "22 lost and 2 gained against base@2: p = 1.8e-05, 7.2e-05 among 4 suites, below 0.005 (5% over 10 looks)",
    )


def test_max_regression_as_a_number_bounds_the_net_loss() -> None:
    before, now = verdicts("pppm", "base@2"), verdicts("mmpp")
    assert judge(rule(max_regression=1), now, before).green
    assert not judge(rule(max_regression=0), now, before).green


def test_cases_that_only_one_side_has_are_told_and_not_compared() -> None:
    decision = judge(rule(max_regression=0), verdicts("mpp")[1:], verdicts("mp", "base@2"))
    assert decision.green
    assert decision.notes == ("1 case compared with base@2; 1 new, 1 gone",)


@pytest.mark.parametrize("rules", [{"max_regression": 9}, {"max_regression": "significant"}, {"pinned": ["c1"]}])
def test_a_comparison_with_no_case_in_common_is_red(rules: dict[str, object]) -> None:
    now, before = verdicts("pp")[1:], verdicts("p", "base@2")
    reason = "no case was answered both here and at base@2"
    assert judge(rule(**rules), now, before).reasons == (reason,)
    assert judge(rule(min_pass_rate=0.5), now, before).green


def test_what_needs_a_baseline_is_red_where_the_one_that_was_named_was_not_asked() -> None:
    for rules in ({"max_regression": 9}, {"pinned": ["c1"]}, {"rep": {"max_mean_rise": 0.1}}):
        decision = judge(rule(**rules), verdicts("pp", rep=0.0), None, given="the baseline qa@4")
        assert decision.reasons == ("the baseline qa@4 has no verdicts of s, so nothing was compared",)
    assert judge(rule(min_pass_rate=0.5), verdicts("pp"), None, given="the baseline qa@4").green


def test_where_a_baseline_is_required_what_needs_one_is_red_without_it() -> None:
    decision = judge(rule(max_regression=9), verdicts("pp"), required=True)
    assert decision.reasons == ("there is no baseline to compare with, and one is required",)
    assert judge(rule(min_pass_rate=0.5), verdicts("pp"), required=True).green
    assert judge(rule(max_regression=9), verdicts("pp"), verdicts("pp"), required=True).green


def test_a_suite_that_changed_wholly_is_red_and_says_so() -> None:
    decision = judge(rule(max_regression=9), verdicts("pp", question="new"), verdicts("pp", "base@2", question="old"))
    assert decision.reasons == ("no case was answered both here and at base@2",)
    assert decision.notes == ("0 cases compared with base@2; 2 changed",)


def test_a_pinned_case_that_asks_something_else_now_is_told() -> None:
    now = [*verdicts("m", question="new"), *verdicts("pp", question="same")[1:]]
    decision = judge(rule(pinned=["c0"]), now, verdicts("pp", "base@2", question="same"))
    assert decision.green
    assert decision.notes == (
        "1 case compared with base@2; 1 changed", "pinned, but changed since the baseline: c0",
    )  # fmt: skip


def test_a_lost_case_that_hangs_by_a_hair_counts_and_is_named() -> None:
    now = [*verdicts("mm", margin=1e-6), *verdicts("ppmm", margin=2.0)[2:]]
    decision = judge(rule(max_regression=1), now, verdicts("pppp", "base@2", margin=2.0))
    assert decision.reasons == ("4 lost and 0 gained against base@2: net 4, max_regression is 1",)
    assert decision.notes == ("2 of the 4 lost hang by a hair: c0, c1",)
    (hair,), (firm,) = verdicts("p", margin=1e-6), verdicts("m", "base@2", margin=2.0)
    assert judge(None, [hair], [firm]).notes == ("1 of the 1 gained hangs by a hair: c0",)


def test_a_pinned_case_that_is_lost_is_red_and_one_never_known_is_not() -> None:
    before = verdicts("pm", "base@2")
    assert not judge(rule(pinned=["c0"]), verdicts("mm"), before).green
    assert judge(rule(pinned=["c1"]), verdicts("mm"), before).green


def test_pinned_cases_that_are_lost_are_named() -> None:
    decision = judge(rule(pinned=["c0", "c2", "c1"]), verdicts("mpm"), verdicts("ppp", "base@2"))
    assert decision.reasons == ("pinned and lost: c0, c2",)


def test_a_baseline_without_a_name_is_called_so() -> None:
    rules = rule(max_regression=0, pinned=["c1"])
    decision = judge(rules, verdicts("mnp"), verdicts("pp", ""))
    assert decision.reasons == (
        "1 lost and 0 gained against the baseline: net 1, max_regression is 0",
        "pinned, passed at the baseline, not asked now: c1",
    )
    assert decision.notes == ("1 case compared with the baseline; 1 new, 1 not answered",)


def test_a_pinned_case_whose_control_missed_is_red_because_it_could_not_be_judged() -> None:
    before = verdicts("ppm", "base@2")
    decision = judge(rule(pinned=["c1", "c2"]), verdicts("pnn"), before)
    assert decision.reasons == ("pinned, passed at base@2, not asked now: c1",)
    assert judge(rule(pinned=["c2"]), verdicts("pnn"), before).green
    now, then = (replace(found[1], row=row) for found, row in ((verdicts("pnn"), "now"), (before, "then")))
    assert judge(rule(pinned=["c1"]), [*verdicts("p"), now], [*before[:1], then]).green  # another case


def test_another_answer_key_is_no_loss_and_is_told() -> None:
    before = [replace(verdict, question="q", row="before") for verdict in verdicts("p" * 12, "base@2")]
    now = [replace(verdict, question="q", row="now") for verdict in verdicts("p" + "m" * 11)]
    now[0] = replace(now[0], row="before")
    decision = judge(rule(max_regression="significant"), now, before, key="k2", key_before="k1")
    assert decision.green
    assert decision.notes == (
        "1 case compared with base@2; 11 changed",
        "the probe file, its cases or its decoding changed in between",
    )  # fmt: skip
    assert not judge(rule(max_regression=0), now, before, key="k", key_before="").notes[1:]


def test_another_assert_on_the_same_reply_is_no_loss_and_is_told() -> None:
    how = {"dtype": "float32", "stop_reason": "eos"}
    before = [replace(one, reply="x", logprob=-2.0) for one in verdicts("p" * 12, "base@2", generation=how)]
    now = [replace(one, reply="x", logprob=-2.0005) for one in verdicts("p" + "m" * 11, generation=how)]
    decision = judge(rule(max_regression="significant", pinned=["c1"]), now, before)
    assert decision.green
    assert decision.notes == (
        "1 case compared with base@2; 11 changed",
        "judged otherwise on the same reply, because the probe's assert changed: c1, c2, c3, c4, c5 and 6 more",
        "pinned, but changed since the baseline: c1",
    )


@pytest.mark.parametrize(("cases", "shown"), [(5, ""), (6, " and 1 more"), (7, " and 2 more")])
def test_five_cases_are_named_and_more_are_counted(cases: int, shown: str) -> None:
    before, now = verdicts("p" * 9, "base@2"), verdicts("m" * cases + "p" * (9 - cases), margin=1e-6)
    (note,) = judge(rule(max_regression=9), now, before).notes
    assert note == f"{cases} of the {cases} lost hang by a hair: c0, c1, c2, c3, c4{shown}"


def test_a_baseline_that_cannot_be_read_is_red_and_says_why() -> None:
    assert judge(rule(max_regression=0), verdicts("p"), fault="v.jsonl: damaged").reasons == ("v.jsonl: damaged",)
    decision = judge(None, verdicts("p"), fault="v.jsonl: damaged")
    assert (decision.green, decision.notes) == (None, ("v.jsonl: damaged",))


def test_a_pinned_id_that_is_no_case_is_red_and_named() -> None:
    decision = judge(rule(pinned=["c00"]), verdicts("pp"))
    assert decision.reasons == ("pinned case c00 is not a case of this suite; did you mean c0?",)
    assert judge(rule(pinned=["other"]), verdicts("pp")).reasons == ("pinned case other is not a case of this suite",)


def test_a_pin_may_be_written_as_the_character_itself() -> None:
    assert is_pinned(rule(pinned=["心"]), "U+5FC3")


def test_bounds_are_over_the_recorded_numbers() -> None:
    assert judge(rule(rep={"max_mean": 0.2}), verdicts("pp", rep=0.2)).green
    for bound in ({"max_mean": 0.1}, {"max": 0.1}, {"min_mean": 0.3}):
        assert not judge(rule(rep=bound), verdicts("pp", rep=0.2)).green


def test_a_bound_on_a_number_nobody_recorded_is_red() -> None:
    decision = judge(rule(seq_rep={"max_mean": 0.1}), verdicts("pp", seq_rep_4=0.0))
    assert decision.reasons == ("no case recorded seq_rep; did you mean seq_rep_4?",)
    assert judge(rule(rep={"max_mean": 1}), verdicts("pp")).reasons == ("no case recorded rep",)


def test_a_bound_names_the_case_that_breaks_it() -> None:
    some = [*verdicts("p", rep=0.1), *verdicts("pp", rep=0.7)[1:]]
    assert judge(rule(rep={"max": 0.5}), some).reasons == ("rep is 0.7 in c1, max is 0.5",)
    assert judge(rule(rep={"min": 0.2}), some).reasons == ("rep is 0.1 in c0, min is 0.2",)
    assert judge(rule(rep={"min": 0.1, "max": 0.7}), some).green
    falling = [*verdicts("p", rep=0.7), *verdicts("pp", rep=0.1)[1:]]
    assert judge(rule(rep={"max": 0.5}), falling).reasons == ("rep is 0.7 in c0, max is 0.5",)
    assert judge(rule(rep={"min": 0.2}), falling).reasons == ("rep is 0.1 in c1, min is 0.2",)


def test_a_gate_that_only_bounds_a_rise_is_recorded_and_not_green_without_a_baseline() -> None:
    assert judge(rule(rep={"max_mean_rise": 0.1}), verdicts("p", rep=0.4)).green is None
    assert judge(rule(rep={"max_mean_rise": 0.1, "max": 1}), verdicts("p", rep=0.4)).green is True


def test_a_number_that_is_exactly_the_bound_is_green() -> None:
    exactly = {"max_mean": 0.5, "min_mean": 0.5, "max": 0.5, "min": 0.5, "max_mean_rise": 0.25}
    assert judge(rule(rep=exactly), verdicts("pp", rep=0.5), verdicts("pp", "base@2", rep=0.25)).green


def test_a_bound_without_a_rise_asks_nothing_of_the_baseline_and_one_with_it_needs_one() -> None:
    before = verdicts("p", "base@2", rep=0.1)
    assert judge(rule(rep={"max_mean": 0.5}), verdicts("p", rep=0.4), before).reasons == ()
    decision = judge(rule(rep={"max_mean_rise": 0.1}), verdicts("p", rep=0.4))
    assert decision.notes == ("no baseline: recorded, not compared",)


def test_a_bound_may_be_on_a_number_of_the_suite_as_a_whole() -> None:
    pooled = {"f1": 0.71}
    assert judge(rule(f1={"min": 0.7, "max_mean": 0.8}), verdicts("pp"), pooled=pooled).green
    for bound in ({"min": 0.8}, {"min_mean": 0.8}):
        (word,) = bound
        decision = judge(rule(f1=bound), verdicts("pp"), pooled=pooled)
        assert decision.reasons == (f"f1 is 0.71, {word} is 0.8",)
    risen = judge(
        rule(f1={"max_mean_rise": 0.1}), verdicts("pp"), verdicts("pp"), pooled=pooled, pooled_before={"f1": 0.5}
    )
    assert risen.reasons == ("f1 rose by 0.21 to 0.71, max_mean_rise is 0.1",)


def test_a_number_of_the_cases_goes_before_one_of_the_suite_by_the_same_name() -> None:
    decision = judge(rule(rep={"max": 0.5}), verdicts("p", rep=0.1), pooled={"rep": 0.9})
    assert decision.green
    assert decision.notes == ("rep is a number of the cases and of the suite: the cases' is judged",)


def test_infinities_that_cancel_are_red() -> None:
    mixed = [*verdicts("p", rep=math.inf), *verdicts("pp", rep=-math.inf)[1:]]
    assert judge(rule(rep={"min": -1e9}), mixed).reasons == ("rep is not a number",)
    assert judge(rule(rep={"max_mean": 1}), verdicts("p", rep=math.inf)).reasons == ("mean rep is inf, max_mean is 1",)


def test_a_rise_over_what_was_not_a_number_is_no_rise_that_was_kept() -> None:
    before = verdicts("p", "base@2", rep=math.nan)
    assert not judge(rule(rep={"max_mean_rise": 9}), verdicts("p", rep=0.1), before).green


def test_a_rise_over_a_baseline_that_recorded_nothing_is_told() -> None:
    gate_, before = rule(rep={"max_mean_rise": 0.1}), verdicts("p", "base@2")
    words = "the baseline recorded no rep to compare with: its rise is not judged"
    assert judge(gate_, verdicts("p", rep=0.1), before).notes == (words,)
    assert judge(gate_, verdicts("p", rep=0.1), before, required=True).reasons == (words,)


def test_a_recorded_nan_is_red() -> None:
    some = [*verdicts("p", rep=math.nan), *verdicts("ppp", rep=0.1)[1:]]
    assert judge(rule(rep={"max_mean": 0.1}), some).reasons == ("rep is not a number in 1 case",)
    both = verdicts("pp", rep=math.nan)
    assert judge(rule(rep={"max_mean": 0.1}), both).reasons == ("rep is not a number in 2 cases",)
    assert judge(rule(f1={"min": 0.1}), verdicts("p"), pooled={"f1": math.nan}).reasons == ("f1 is not a number",)


def test_a_rise_is_measured_from_the_baseline() -> None:
    before = verdicts("pp", "base@2", rep=0.1)
    assert judge(rule(rep={"max_mean_rise": 0.05}), verdicts("pp", rep=0.14), before).green
    assert not judge(rule(rep={"max_mean_rise": 0.05}), verdicts("pp", rep=0.2), before).green
    risen = judge(rule(rep={"max_mean_rise": 0.05}), verdicts("pp", rep=0.2), verdicts("pp", "base@2", rep=0.0))
    assert risen.reasons == ("mean rep rose by 0.2 to 0.2, max_mean_rise is 0.05",)


# --- losses beyond chance ---

SIGNIFICANT = {"max_regression": "significant"}


def lost(number: int, gained: int = 0, name: str = "s") -> Matter:
    """A suite of 20 cases of which so many were lost and gained."""
    other = "p" * (20 - number - gained)
    before = verdicts("p" * number + "m" * gained + other, "base@2")
    return Matter(name, rule(**SIGNIFICANT), verdicts("m" * number + "p" * gained + other), before)


def greens(*matters: Matter, looks: int = 1, unseen: int = 0) -> list[bool | None]:
    return [decision.green for decision in gate.judge(matters, looks=looks, unseen=unseen)]


def test_every_look_lowers_the_level() -> None:
    # p of 6 lost and none gained is 1/64: below 5 % / 3, not below 5 % / 4
    assert greens(lost(6), looks=3) == [False]
    assert greens(lost(6), looks=4) == [True]


def test_every_suite_of_the_checkpoint_lowers_the_level_whether_it_is_seen_or_not() -> None:
    assert greens(lost(6), lost(0), lost(0)) == [False, True, True]
    assert greens(lost(6), lost(0), lost(0), lost(0)) == [True] * 4
    assert greens(lost(6), unseen=2) == [False]
    assert greens(lost(6), unseen=3) == [True]


def test_where_one_suite_is_beyond_chance_the_next_has_fewer_beside_it() -> None:
    # Holm: 9 lost passes at 5 % / 4, then 6 lost at 5 % / 3
    assert greens(lost(9), lost(6), lost(0), lost(0)) == [False, False, True, True]


def test_only_suites_that_are_tested_share_the_level() -> None:
    other = Matter("rate", rule(min_pass_rate=0.1), verdicts("pp"), verdicts("pp"))
    fresh = Matter("fresh", rule(**SIGNIFICANT), verdicts("pp"), None)
    assert greens(lost(5), other, fresh) == [False, True, None]  # p = 1/32


def test_a_decision_tells_how_its_suite_stood_the_test() -> None:
    (decision, _) = gate.judge([lost(6), lost(0)], looks=2)
    found = decision.significance
    assert found is not None
    assert (found.p, found.adjusted, found.suites, found.looks, found.level) == (1 / 64, 1 / 32, 2, 2, 0.025)
    (words, _) = gate.judge([lost(9), lost(0)])
    assert words.reasons == ("9 lost and 0 gained against base@2: p = 0.002, 0.0039 among 2 suites, below 0.05",)
    (words,) = gate.judge([lost(9)], unseen=1)
    assert words.reasons == ("9 lost and 0 gained against base@2: p = 0.002, 0.0039 among 2 suites, below 0.05",)
    (words,) = gate.judge([lost(9)], looks=2)
    assert words.reasons == ("9 lost and 0 gained against base@2: p = 0.002, below 0.025 (5% over 2 looks)",)
    assert judge(rule(min_pass_rate=0.5), verdicts("pp")).significance is None


def test_flips_about_one_fact_count_once() -> None:
    clusters = [str(number // 3) for number in range(18)]
    before, now = verdicts("p" * 18, "base@2", clusters=clusters), verdicts("m" * 15 + "p" * 3, clusters=clusters)
    (alone,) = gate.judge([Matter("s", rule(**SIGNIFICANT), now, before)])
    assert alone.reasons == ("15 lost and 0 gained against base@2 (by fact 5 and 0): p = 0.031, below 0.05",)
    assert greens(Matter("s", rule(**SIGNIFICANT), now, before), looks=2) == [True]


# --- simulated: tests/bench/gates.py does the same at length ---


@pytest.mark.parametrize("scenario", gates.SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_run_of_checkpoints_of_equal_skill_is_hardly_ever_red(scenario: gates.Scenario) -> None:
    """10 checkpoints with 4 % churn, 4 suites of 200 cases: at most 5 % of runs show any red gate."""
    runs = 60
    red = sum(gates.is_red(scenario, random.Random(seed)) for seed in range(runs))
    assert red / runs <= 0.05


def test_without_clusters_cases_about_one_fact_would_be_false_alarms() -> None:
    blind = replace(gates.SCENARIOS[-1], told=False)  # 40 facts of 5 cases
    assert sum(gates.is_red(blind, random.Random(seed)) for seed in range(20)) > 5


@pytest.mark.parametrize(("lost_cases", "gained"), [(22, 2), (18, 2), (14, 1)])
def test_a_true_loss_is_red_even_in_a_run_of_10_looks_at_4_suites(lost_cases: int, gained: int) -> None:
    assert gates.loss_is_red(lost_cases, gained)
