"""runner.ending: from the folder of a run to its last screen and its exit code."""

from pathlib import Path

import pytest

from runner import jobs, verdicts
from runner.checkpoints import Parent, verdict_path
from runner.console import Ending
from runner.ending import ending
from runner.events import Journal, Logged
from runner.jobs import Job
from runner.recipe import Loaded
from runner.standings import Standings
from tests.recorded import RECIPE, ask, project, publish, verdict_file

BASE = Parent("base@8", "../base/ckpt-8", "w")
SECONDS = {"training": 1.0, "generating": 0.5, "all else": 0.25}


class Recorded:
    """A run whose qa checkpoints have the given outcomes of `select` and `held_out`."""

    def __init__(self, root: Path, at: dict[int, tuple[str, str]], text: str = RECIPE) -> None:
        self.loaded: Loaded = project(root / "p", text)
        self.run = root / "run"
        publish(self.run, "base", 8)
        for step, (select, held_out) in at.items():
            ask(publish(self.run, "qa", step, parent=BASE), select=select, held_out=held_out)

    def end(self) -> Ending:
        return ending(self.loaded, Standings(self.loaded.spec, self.run), self.run, SECONDS)


def test_a_green_result_ends_with_exit_code_0(tmp_path: Path) -> None:
    end = Recorded(tmp_path, {2: ("pmmm", "pmmm"), 4: ("pppp", "pppm")}).end()
    assert (end.exit_code, end.result_label, end.result_baseline) == (0, "qa@best = qa@4", "")
    assert [(decision.suite, decision.green) for decision in end.result] == [("select", None), ("held_out", True)]
    assert (end.turned, end.regressions, end.stopped) == ([], [], "")


def test_only_the_result_sets_the_exit_code(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, {2: ("pppp", "pppp"), 4: ("mmmm", "mmmm")})
    end = recorded.end()
    assert (end.exit_code, end.result_label) == (0, "qa@best = qa@2")
    assert [row.decisions["held_out"].green for row in end.rows if row.decisions] == [True, False]


def test_a_red_result_ends_with_exit_code_1_and_shows_what_was_lost(tmp_path: Path) -> None:
    text = RECIPE.replace("{checkpoint: qa@best}", "{checkpoint: qa@last, baseline: qa@2}")
    end = Recorded(tmp_path, {2: ("pppp", "pppp"), 4: ("mmmm", "pmmm")}, text).end()
    assert (end.exit_code, end.result_label, end.result_baseline) == (1, "qa@last = qa@4", "qa@2")
    ((where, flips),) = end.regressions
    assert where == "held_out at qa@4 against qa@2"
    assert [(flip.case_id, flip.before.reply, flip.after.reply) for flip in flips] == [
        ("c1", "p at qa@2", "m at qa@4"), ("c2", "p at qa@2", "m at qa@4"), ("c3", "p at qa@2", "m at qa@4"),
    ]  # fmt: skip


def test_without_result_the_last_checkpoint_of_the_last_stage_decides(tmp_path: Path) -> None:
    text = RECIPE.replace("result: {checkpoint: qa@best}\n", "")
    end = Recorded(tmp_path, {2: ("pppp", "pppp"), 4: ("mmmm", "mmmm")}, text).end()
    assert (end.exit_code, end.result_label) == (1, "qa@last = qa@4")


def test_the_checkpoint_where_a_gated_suite_turned_is_named_once(tmp_path: Path) -> None:
    held = {2: "pppppppm", 4: "pppppppp", 6: "ppppppmm", 8: "mmmmmmpp", 10: "mmmmmmmm"}
    end = Recorded(tmp_path, {step: (outcomes, outcomes) for step, outcomes in held.items()}).end()
    assert end.turned == ["held_out turned at qa@10: 100 % at qa@4, 0 % here"]


def test_a_fall_that_chance_explains_is_no_turn(tmp_path: Path) -> None:
    end = Recorded(tmp_path, {2: ("pppp", "pppp"), 4: ("pppp", "mmpp")}).end()
    assert end.turned == []


def test_a_run_that_was_stopped_shows_the_checkpoint_where_it_was_and_is_red(tmp_path: Path) -> None:
    text = RECIPE.replace("{min_pass_rate: 0.5}", "{min_pass_rate: 0.5, on_fail: stop}")
    end = Recorded(tmp_path, {2: ("pppp", "pmmm"), 4: ("pppp", "pppp")}, text).end()
    assert (end.exit_code, end.result_label) == (1, "qa@2")
    assert [decision.suite for decision in end.result] == ["select", "held_out"]
    assert end.stopped == "stopped at qa@2: held_out red at qa@2, on_fail: stop"


def test_a_stage_that_went_back_is_judged_by_the_checkpoint_before_and_says_why(tmp_path: Path) -> None:
    text = RECIPE.replace("{min_pass_rate: 0.5}", "{min_pass_rate: 0.5, on_fail: rollback}")
    recorded = Recorded(tmp_path, {2: ("pppp", "pppp"), 4: ("pppp", "mmmm")}, text.replace("qa@best}", "qa@last}"))
    job = Job("qa", "k", {}, None, 2, 8, (2, 4, 8), 4, 1, "done", 4)
    jobs.write(recorded.run / "qa", job)
    end = recorded.end()
    assert (end.exit_code, end.result_label, end.stopped) == (0, "qa@last = qa@2", "")
    assert end.ended == ["qa ended at step 4 of 8: held_out red at qa@4, on_fail: rollback: back to qa@2"]
    assert end.also_red == ["held_out at qa@4: 0 of 4 passed (0.0%), min_pass_rate is 0.5"]


def test_every_checkpoint_has_its_row_with_the_loss_recorded_there(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, {2: ("pppp", "pppp")})
    journal = Journal(recorded.run / "events" / "train-qa.jsonl")
    journal.write(Logged("qa", 2, 1.0, 0.5, 0.1, 1.0, 10, 10.0, {}))
    journal.close()
    end = recorded.end()
    assert [(row.label, row.loss, list(row.decisions)) for row in end.rows] == [
        ("base@8", None, []), ("qa@2", 0.5, ["select", "held_out"]),
    ]  # fmt: skip
    assert end.suites == ("select", "held_out")


def test_a_suite_that_left_the_recipe_is_not_judged_any_more(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path, {})
    file = verdict_file("qa@2", own_gate={"min_pass_rate": 1}, select="pppp", held_out="pppp", gone="mmmm")
    verdicts.write(verdict_path(publish(recorded.run, "qa", 2, parent=BASE)), file)
    end = recorded.end()
    assert (end.exit_code, [decision.suite for decision in end.result]) == (0, ["select", "held_out"])
    assert end.suites == ("select", "held_out")


def test_what_the_line_of_stages_kept_is_measured_from_stage_end_to_result(tmp_path: Path) -> None:
    text = RECIPE.replace("cases: questions.train, stages: qa}", "cases: questions.train}")
    recorded = Recorded(tmp_path, {2: ("pppm", "pppp"), 4: ("mmmm", "pppp")}, text)
    ask(recorded.run / "base" / "ckpt-8", select="pppp")
    end = recorded.end()
    assert end.line == ["base@8", "qa@2"]
    assert end.forgetting is not None
    assert [kept.suite for kept in end.forgetting.suites] == ["select"]  # held_out is asked at one stage's end only
    assert (end.forgetting.backward_transfer, end.forgetting.forgetting) == (-0.25, 0.25)


def test_a_run_whose_suites_are_asked_at_one_stage_has_nothing_to_have_forgotten(tmp_path: Path) -> None:
    assert Recorded(tmp_path, {2: ("pppp", "pppp")}).end().forgetting is None


def test_what_to_type_next_is_relative_to_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(tmp_path, {2: ("pppp", "pppp")})
    monkeypatch.chdir(tmp_path)
    assert recorded.end().commands[0] == "pytest p/probes --ckpt run/qa/ckpt-2"
