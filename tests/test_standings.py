"""runner.standings: where a run stands, read from its folder."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runner import recipe, verdicts
from runner.checkpoints import Parent, verdict_path
from runner.errors import UserError
from runner.events import Journal, Logged, StageState
from runner.spec import Gate
from runner.standings import Checkpoint, Standings
from runner.verdicts import VerdictFile
from tests.recorded import RECIPE, ask, project, publish, verdict_file

BASE = Parent("base@8", "../base/ckpt-8", "w")


@dataclass(frozen=True)
class Recorded:
    run: Path
    standings: Standings


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """base@8, then qa@2, qa@4 and qa@6 with 50, 75 and 75 % of the `select` suite."""
    loaded, run = project(tmp_path / "p"), tmp_path / "run"
    ask(publish(run, "base", 8, epoch=2.0), held_out="pppp")
    for step, outcomes in ((2, "ppmm"), (4, "pppm"), (6, "mppp")):
        ask(publish(run, "qa", step, epoch=step / 2, parent=BASE), select=outcomes, held_out=outcomes)
    return Recorded(run, Standings(loaded.spec, run))


def checkpoint(recorded: Recorded, label: str) -> Checkpoint:
    return recorded.standings.resolve(label)


@pytest.mark.parametrize(
    ("reference", "label"),
    [("qa@last", "qa@6"), ("qa@best", "qa@4"), ("qa@2", "qa@2"), ("qa@epoch=3", "qa@6"), ("base@last", "base@8"),
     ("qa@epoch=1.0", "qa@2")],
)  # fmt: skip
def test_a_reference_means_a_checkpoint(recorded: Recorded, reference: str, label: str) -> None:
    assert recorded.standings.resolve(reference).label == label


def test_the_best_checkpoint_has_verdicts_of_the_suite_that_chooses(recorded: Recorded) -> None:
    publish(recorded.run, "qa", 8, parent=BASE)
    ask(publish(recorded.run, "qa", 10, parent=BASE), select="nnnn")
    assert recorded.standings.resolve("qa@best").label == "qa@4"


@pytest.mark.parametrize(
    ("reference", "told"),
    [("qa@3", "qa@3: no such checkpoint was published\n    expected: one of qa@2, qa@4, qa@6"),
     ("qa@epoch=9", "qa@epoch=9: no such checkpoint was published\n    expected: one of qa@2, qa@4, qa@6"),
     ("prefer@last", "prefer@last: stage prefer has no checkpoint\n    hint: did it finish?"),
     ("../elsewhere", "../elsewhere is not a reference to a checkpoint of this run")],
)  # fmt: skip
def test_a_reference_to_nothing_says_what_there_is(recorded: Recorded, reference: str, told: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        recorded.standings.resolve(reference)


def test_checkpoints_come_in_the_order_of_the_recipe(recorded: Recorded) -> None:
    assert [found.label for found in recorded.standings.all_checkpoints()] == ["base@8", "qa@2", "qa@4", "qa@6"]


def test_a_checkpoint_is_compared_with_the_one_its_stage_started_from(recorded: Recorded) -> None:
    baseline = recorded.standings.baseline_of(checkpoint(recorded, "qa@6"), None)
    assert baseline is not None
    assert baseline.label == "base@8"
    assert recorded.standings.baseline_of(checkpoint(recorded, "base@8"), None) is None


def test_a_gate_may_name_its_own_baseline(recorded: Recorded) -> None:
    baseline = recorded.standings.baseline_of(checkpoint(recorded, "qa@6"), Gate(max_regression=0, baseline="qa@best"))
    assert baseline is not None
    assert baseline.label == "qa@4"


@pytest.mark.parametrize("named", ["qa@last", "qa@4", "qa@6", "qa@epoch=7", "prefer@last"])
def test_a_baseline_that_is_not_published_before_the_checkpoint_is_none_yet(recorded: Recorded, named: str) -> None:
    rule = Gate(max_regression=0, baseline=named)
    assert recorded.standings.baseline_of(checkpoint(recorded, "qa@4"), rule) is None


def test_a_suite_that_ended_in_an_error_chooses_no_checkpoint(recorded: Recorded) -> None:
    ask(publish(recorded.run, "qa", 8, parent=BASE), select="pppe")
    with pytest.raises(UserError, match=r"^qa@best cannot be chosen: suite select ended in an error at qa@8, case c3"):
        recorded.standings.resolve("qa@best")


def test_a_suite_that_was_never_asked_chooses_no_checkpoint(recorded: Recorded) -> None:
    with pytest.raises(UserError, match=r"^base@best cannot be chosen: suite select has no verdicts there"):
        recorded.standings.resolve("base@best")


def test_a_stage_that_started_outside_the_run_has_no_baseline(recorded: Recorded) -> None:
    outside = publish(recorded.run, "qa", 8, parent=Parent("../models/large", "/models/large", "w"))
    assert recorded.standings.baseline_of(Checkpoint("qa", 8, outside), None) is None


def test_the_gate_of_the_recipe_replaces_that_of_the_probe_file(recorded: Recorded) -> None:
    file = verdict_file("qa@6", own_gate={"min_pass_rate": 1}, select="p", held_out="p")
    in_force = recorded.standings.gate_of("held_out", file)
    assert in_force is not None
    assert in_force.min_pass_rate == 0.5
    own = recorded.standings.gate_of("select", file)
    assert own is not None
    assert own.min_pass_rate == 1
    assert recorded.standings.gate_of("select", verdict_file("qa@6", select="p")) is None


def test_every_suite_that_was_asked_is_judged_against_its_baseline(recorded: Recorded) -> None:
    at = checkpoint(recorded, "qa@2")
    file = recorded.standings.verdicts(at)
    assert file is not None
    select, held_out = recorded.standings.judge(at, file)
    assert (select.suite, select.green, select.comparison) == ("select", None, None)
    assert (held_out.suite, held_out.green) == ("held_out", True)
    assert held_out.comparison is not None
    assert (held_out.comparison.baseline, [flip.case_id for flip in held_out.lost]) == ("base@8", ["c2", "c3"])


def test_one_baseline_can_be_given_for_every_suite(recorded: Recorded) -> None:
    at = checkpoint(recorded, "qa@6")
    file = recorded.standings.verdicts(at)
    assert file is not None
    select, _ = recorded.standings.judge(at, file, checkpoint(recorded, "qa@4"))
    assert [flip.case_id for flip in select.lost] == ["c0"]
    assert [flip.case_id for flip in select.gained] == ["c3"]


def test_more_looks_ask_for_more_evidence(tmp_path: Path) -> None:
    text = RECIPE.replace("gate: {min_pass_rate: 0.5}", "gate: {max_regression: significant}")
    loaded, run = project(tmp_path / "p", text), tmp_path / "run"
    ask(publish(run, "base", 8), held_out="p" * 8)
    at = Checkpoint("qa", 2, publish(run, "qa", 2, parent=BASE))
    file = verdict_file("qa@2", held_out="m" * 6 + "pp")  # six lost: p = 1/64
    (once,) = Standings(loaded.spec, run, looks=1).judge(at, file)
    (often,) = Standings(loaded.spec, run, looks=4).judge(at, file)
    assert (once.green, often.green) == (False, True)
    assert once.reasons == ("6 lost and 0 gained against base@8: p = 0.016, below 0.05",)


def test_a_checkpoint_came_of_those_that_stages_handed_on(recorded: Recorded) -> None:
    standings = recorded.standings
    assert [found.label for found in standings.line(checkpoint(recorded, "qa@6"))] == ["base@8", "qa@6"]
    assert [found.label for found in standings.line(checkpoint(recorded, "base@8"))] == ["base@8"]
    kept = standings.forgetting(checkpoint(recorded, "qa@6"))  # held_out was asked at both ends
    assert kept is not None
    assert (kept.worst.suite, kept.forgetting) == ("held_out", 0.25)


def test_suites_of_a_checkpoint_share_the_level(tmp_path: Path) -> None:
    gate = "gate: {max_regression: significant}"
    text = RECIPE.replace("gate: {min_pass_rate: 0.5}", gate).replace(
        "questions.train, stages: qa", f"questions.train, stages: qa, {gate}"
    )
    loaded, run = project(tmp_path / "p", text), tmp_path / "run"
    ask(publish(run, "base", 8), held_out="p" * 8, select="p" * 8, left="p" * 8)
    at = Checkpoint("qa", 2, publish(run, "qa", 2, parent=BASE))
    own = {"max_regression": "significant"}
    standings = Standings(loaded.spec, run)
    both = standings.judge(
        at, verdict_file("qa@2", own_gate=own, held_out="m" * 5 + "ppp", select="p" * 8, left="p" * 8)
    )
    # p = 1/32, times the two suites of the recipe: one that left it does not count
    assert [(found.suite, found.green) for found in both] == [("held_out", True), ("select", True)]
    assert both[0].significance is not None
    assert both[0].significance.suites == 2
    (alone,) = standings.judge(at, verdict_file("qa@2", held_out="m" * 5 + "ppp"))
    assert not alone.green


def test_numbers_of_a_suite_as_a_whole_are_bounded_and_compared(tmp_path: Path) -> None:
    text = RECIPE.replace("gate: {min_pass_rate: 0.5}", "gate: {f1: {min: 0.8, max_mean_rise: 0.1}}")
    loaded, run = project(tmp_path / "p", text), tmp_path / "run"

    def with_f1(label: str, f1: float) -> VerdictFile:
        made = verdict_file(label, held_out="pp")
        return replace(made, suites=tuple(replace(asked, values={"f1": f1}) for asked in made.suites))

    verdicts.write(verdict_path(publish(run, "base", 8)), with_f1("base@8", 0.6))
    at = Checkpoint("qa", 2, publish(run, "qa", 2, parent=BASE))
    (found,) = Standings(loaded.spec, run).judge(at, with_f1("qa@2", 0.75))
    assert found.reasons == ("f1 is 0.75, min is 0.8", "f1 rose by 0.15 to 0.75, max_mean_rise is 0.1")


def test_the_losses_are_those_that_the_trainers_recorded(recorded: Recorded) -> None:
    journal = Journal(recorded.run / "events" / "train-qa.jsonl")
    journal.write(StageState("qa", "running"))
    for step, loss in ((2, 1.5), (4, 0.75)):
        journal.write(Logged("qa", step, 1.0, loss, 0.1, 1.0, 10, 10.0, {}))
    journal.close()
    assert recorded.standings.losses() == {"qa@2": 1.5, "qa@4": 0.75}


def test_a_recipe_of_the_run_folder_stands_for_that_of_the_project(tmp_path: Path, recorded: Recorded) -> None:
    loaded = recipe.load(tmp_path / "p" / "recorded.yaml")
    (recorded.run / "recipe.yaml").write_text(recipe.dump(loaded), encoding="utf-8")
    assert recipe.load(recorded.run / "recipe.yaml", root=tmp_path / "p").spec == loaded.spec


# --- where a stage ends ---


def ended(root: Path, gate: str, *held_out: str, stage: str = "") -> Standings:
    """qa@2, qa@4, … with these outcomes of the gated suite, and of `select`."""
    text = RECIPE.replace("gate: {min_pass_rate: 0.5}", f"gate: {gate}")
    text = text.replace("save_strategy: epoch}", f"save_strategy: epoch{stage}}}")
    loaded, run = project(root / "p", text), root / "run"
    ask(publish(run, "base", 8), held_out="pppp")
    for place, outcomes in enumerate(held_out):
        ask(publish(run, "qa", 2 * place + 2, parent=BASE), select=outcomes, held_out=outcomes)
    return Standings(loaded.spec, run)


def test_last_and_best_go_back_with_a_red_gate_and_steps_do_not(tmp_path: Path) -> None:
    rolled = ended(tmp_path, "{min_pass_rate: 0.5, on_fail: rollback}", "ppmm", "pppm", "mmmm", "pppp")
    end = rolled.end("qa")
    assert end is not None
    assert end.why == "held_out red at qa@6, on_fail: rollback: back to qa@4"
    assert [found.label for found in rolled.kept("qa")] == ["qa@2", "qa@4"]
    assert [rolled.resolve(f"qa@{which}").label for which in ("last", "best", "6", "8")] == [
        "qa@4", "qa@4", "qa@6", "qa@8",
    ]  # fmt: skip


def test_a_stage_of_which_nothing_may_be_kept_ends_at_its_first_checkpoint(tmp_path: Path) -> None:
    rolled = ended(tmp_path, "{min_pass_rate: 0.5, on_fail: rollback}", "mmmm", "pppp")
    end = rolled.end("qa")
    assert end is not None
    assert (end.place, end.keeps) == (0, None)
    assert rolled.resolve("qa@last").label == "qa@2"


def test_the_end_of_a_stage_may_hang_on_checkpoints_of_its_own(tmp_path: Path) -> None:
    """A gate that is compared with its own stage's best is judged without asking where that stage ends."""
    gate = "{max_regression: 1, baseline: qa@best, on_fail: rollback}"
    rolled = ended(tmp_path, gate, "pppp", "pppm", "mmmm")
    assert rolled.resolve("qa@last").label == "qa@4"


def test_a_suite_that_gets_worse_ends_a_stage_and_best_is_kept(tmp_path: Path) -> None:
    rule = ", stop_when: {suite: select, worse_for: 2}"
    stopped = ended(tmp_path, "{min_pass_rate: 0.1}", "pppm", "ppmm", "pmmm", "pppp", stage=rule)
    assert [stopped.resolve(f"qa@{which}").label for which in ("last", "best")] == ["qa@6", "qa@2"]
    end = stopped.end("qa")
    assert end is not None
    assert end.why == "select is below its best, 75.0% at qa@2, 2 checkpoints in a row"


def test_an_end_is_decided_anew_when_verdicts_are_replaced(tmp_path: Path) -> None:
    rolled = ended(tmp_path, "{min_pass_rate: 0.5, on_fail: rollback}", "pppp", "mmmm")
    assert rolled.resolve("qa@last").label == "qa@2"
    ask(tmp_path / "run" / "qa" / "ckpt-4", select="pppp", held_out="pppp")
    assert rolled.end("qa") is None
    assert rolled.resolve("qa@last").label == "qa@4"
