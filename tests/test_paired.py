"""runner.gate.paired: a suite at two checkpoints, case by case."""

import math
from dataclasses import replace
from typing import Any

import pytest

from runner.gate import compare, count, is_fragile, numbers, tolerance
from tests.letters import verdicts


@pytest.mark.parametrize("outcome", ["e", "n"])
def test_an_error_or_an_unasked_case_is_no_lost_answer(outcome: str) -> None:
    found = compare(verdicts(outcome), verdicts("p"))
    assert (found.lost, found.common, found.unanswered) == ((), 0, 1)
    assert found.differences == "1 not answered"


def test_lost_gained_net_and_the_negative_flip_rate() -> None:
    found = compare(verdicts("mmpp"), verdicts("pppm", "base@2"))
    assert ([flip.case_id for flip in found.lost], [flip.case_id for flip in found.gained]) == (["c0", "c1"], ["c3"])
    assert (found.baseline, found.common, found.net, found.negative_flip_rate) == ("base@2", 4, -1, 0.5)
    assert (found.p, found.p_better) == (0.5, 0.875)


def test_what_only_one_side_was_asked_is_new_or_gone() -> None:
    found = compare(verdicts("mpp")[1:], verdicts("mp", "base@2"))
    assert (found.common, found.new, found.gone, found.differences) == (1, 1, 1, "1 new, 1 gone")
    found = compare(verdicts("enppp"), verdicts("ppp"))
    assert (found.common, found.new, found.unanswered, found.differences) == (1, 2, 2, "2 new, 2 not answered")


def test_a_comparison_is_named_for_its_baseline_and_one_with_nothing_has_no_name() -> None:
    assert compare(verdicts("p"), verdicts("p", "base@2")).baseline == "base@2"
    found = compare(verdicts("pp"), [])
    assert (found.baseline, found.new, found.common) == ("", 2, 0)


def test_outcomes_are_counted_each_by_itself() -> None:
    tally = count(verdicts("ppppmmmeen"))
    assert (tally.passed, tally.missed, tally.errors, tally.not_asked) == (4, 3, 2, 1)
    assert (tally.asked, tally.rate) == (9, 4 / 9)
    assert (count(verdicts("n")).asked, count(verdicts("n")).rate) == (0, None)


def test_a_case_whose_question_changed_is_not_compared() -> None:
    now = [*verdicts("m", question="q2"), *verdicts("pm", question="q")[1:]]
    found = compare(now, verdicts("pp", question="q"))
    assert ([flip.case_id for flip in found.lost], found.common, found.changed) == (["c1"], 1, ("c0",))
    assert found.differences == "1 changed"


@pytest.mark.parametrize(("then", "now"), [("", "q"), ("q", ""), ("", "")])
def test_a_file_that_does_not_know_its_questions_is_compared_as_ever(then: str, now: str) -> None:
    assert len(compare(verdicts("m", question=now), verdicts("p", question=then)).lost) == 1


def test_a_case_about_another_row_is_not_compared() -> None:
    before, now = verdicts("pp", question="q"), verdicts("mm", question="q")
    before, now = (
        [replace(one, row=f"{side}{one.case_id}") for one in found] for side, found in (("a", before), ("b", now))
    )
    now[1] = replace(now[1], row="")  # a file that does not tell
    found = compare(now, before)
    assert (found.changed, [flip.case_id for flip in found.lost]) == (("c0",), ["c1"])


def test_without_a_question_the_prompt_tells_that_a_case_changed() -> None:
    before = [replace(one, prompt="asked") for one in verdicts("ppp")]
    now = [
        replace(one, prompt=prompt)
        for one, prompt in zip(verdicts("mmm", question="q"), ("other", "asked", ""), strict=True)
    ]
    assert compare(now, before).changed == ("c0",)


SAID: dict[str, Any] = {"dtype": "float32", "stop_reason": "eos", "choices": {"A": -0.1, "B": -2.0}}


def flipped(**now: object) -> tuple[int, tuple[str, ...]]:
    """Cases lost and judged otherwise, of one whose reply was the same but for what is given."""
    (then,) = verdicts("p", generation=SAID, margin=1.0)
    same = replace(then, logprob=-2.0, tokens=3)
    found = compare([replace(same, outcome="miss", **now)], [same])  # type: ignore[arg-type]
    return len(found.lost), found.rejudged


def test_another_outcome_of_the_same_reply_is_no_work_of_the_model() -> None:
    assert flipped() == (0, ("c0",))
    assert flipped(logprob=-2.0009) == (0, ("c0",))


def test_a_thousandth_is_the_widest_that_one_reply_differs_from_itself() -> None:
    (then,) = verdicts("p", generation=SAID, margin=0.0)
    for margin, rejudged in ((0.001, ("c0",)), (-0.001, ("c0",)), (0.0011, ())):
        assert compare([replace(then, outcome="miss", margin=margin)], [then]).rejudged == rejudged


@pytest.mark.parametrize(
    "now",
    [
        {"reply": "other"},
        {"tokens": 4},
        {"logprob": -2.01},
        {"logprob": None},
        {"margin": 0.9},
        {"generation": {**SAID, "stop_reason": "length"}},
        {"generation": {**SAID, "others": ["another sample"]}},
        {"generation": {**SAID, "thinking": "another thought"}},
        {"generation": {**SAID, "choices": {"A": -0.2, "B": -2.0}}},
        {"generation": {**SAID, "choices": {"A": -0.1}}},
        {"generation": {**SAID, "choices": {**SAID["choices"], "C": -3.0}}},
        {"generation": {"dtype": "float32"}},
    ],
)
def test_a_reply_that_differs_in_anything_an_assert_can_see_is_a_flip(now: dict[str, object]) -> None:
    assert flipped(**now) == (1, ())


def test_a_gain_on_the_same_reply_hides_no_loss() -> None:
    same = {"dtype": "float32", "stop_reason": "eos"}
    (before,), (now,) = verdicts("m", generation=same), verdicts("p", generation=same)
    found = compare([replace(now, reply="x")], [replace(before, reply="x")])
    assert (found.gained, found.rejudged, found.differences) == ((), ("c0",), "1 changed")


# --- cases that share a fact ---


def test_without_clusters_it_is_mcnemar_on_cases() -> None:
    found = compare(verdicts("m" * 6 + "p" * 2), verdicts("p" * 6 + "m" * 2))
    assert found.facts == (6, 2)


def test_cases_about_one_fact_give_one_sign() -> None:
    clusters = ["心", "心", "心", "水", "木", "木"]
    found = compare(verdicts("mmmmpm", clusters=clusters), verdicts("ppppmp", clusters=clusters))
    # 心 lost three times and 水 once: two signs; 木 lost one and gained one: none
    assert (len(found.lost), len(found.gained), found.facts) == (5, 1, (2, 0))
    assert found.p == 0.25


def test_several_probes_about_one_case_give_one_sign() -> None:
    before, now = verdicts("ppp"), verdicts("mmm")
    other = [replace(verdict, probe="t.py::other") for verdict in (*before, *now)]
    found = compare([*now, *other[3:]], [*before, *other[:3]])
    assert (len(found.lost), found.facts) == (6, (3, 0))


# --- what hangs by a hair ---


def test_a_margin_below_tolerance_is_fragile_unless_it_was_asked_again() -> None:
    (hair,) = verdicts("m", margin=5e-5)
    assert is_fragile(hair)
    assert not is_fragile(replace(hair, margin=2e-4))
    assert not is_fragile(replace(hair, margin=1e-4))  # exactly the tolerance
    assert is_fragile(replace(hair, margin=0.2, generation={}))  # as in bfloat16: a server does not say
    assert not is_fragile(replace(hair, margin=None))
    assert not is_fragile(replace(hair, generation={"dtype": "float32", "again": True}))
    assert not is_fragile(replace(hair, generation={"dtype": "float32", "temperature": 0.7}))


def test_fewer_bits_make_a_wider_hair() -> None:
    assert tolerance("float32") < tolerance("float16") < tolerance("bfloat16")
    assert tolerance("") == tolerance("bfloat16")  # a server does not say
    (verdict,) = verdicts("m", margin=0.1, generation={"dtype": "bfloat16"})
    assert is_fragile(verdict)
    assert not is_fragile(replace(verdict, generation={"dtype": "float16"}))


def test_a_flip_is_fragile_where_either_side_is() -> None:
    (firm,), (hair,) = verdicts("m", margin=1.0), verdicts("p", margin=1e-6)
    assert compare([firm], [hair]).lost[0].fragile
    assert compare([replace(hair, outcome="miss")], [replace(firm, outcome="pass")]).lost[0].fragile
    assert not compare([firm], [replace(firm, outcome="pass")]).lost[0].fragile


# --- numbers ---


def test_a_number_rises_over_the_cases_that_both_sides_recorded() -> None:
    before = [*verdicts("p", rep=0.1), *verdicts("pp", rep=0.9)[1:]]
    now = [*verdicts("p", rep=0.2), *verdicts("ppp", rep=0.5)[2:]]
    (rep,) = numbers(now, before, {}, {})
    assert (rep.name, rep.mean, rep.before, rep.rise) == ("rep", 0.35, 0.1, 0.1)
    assert rep.pooled is False


def test_a_number_nobody_recorded_before_has_not_risen() -> None:
    (rep,) = numbers(verdicts("p", rep=0.1), verdicts("p"), {}, {})
    assert (rep.before, rep.rise) == (None, None)


def test_numbers_of_the_suite_stand_behind_those_of_its_cases() -> None:
    found = numbers(verdicts("p", rep=0.1), None, {"f1": 0.75, "distinct": 0.5}, {"f1": 0.5})
    assert [(number.name, number.mean, number.pooled, number.rise) for number in found] == [
        ("rep", 0.1, False, None), ("f1", 0.75, True, 0.25), ("distinct", 0.5, True, None),
    ]  # fmt: skip


def test_a_mean_that_cannot_be_said_is_not_a_number() -> None:
    mixed = [*verdicts("p", x=math.inf), *verdicts("pp", x=-math.inf)[1:]]
    assert math.isnan(numbers(mixed, None, {}, {})[0].mean)
    assert numbers(verdicts("p", x=math.inf), None, {}, {})[0].mean == math.inf
