"""runner.prober: which suites a checkpoint still has to be asked, and their verdicts into the run."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runner import verdicts
from runner.asking import suite_key
from runner.checkpoints import verdict_path
from runner.errors import TrainingFailed, UserError
from runner.folder import Superseded
from runner.prober import Prober
from runner.recipe import Loaded
from runner.spec import DecodingChange
from runner.standings import Checkpoint, Standings
from runner.verdicts import VerdictFile
from tests.recorded import PROBE, project, publish, verdict_file


@dataclass(frozen=True)
class Recorded:
    loaded: Loaded
    run: Path
    at: Checkpoint

    def prober(self) -> Prober:
        standings = Standings(self.loaded.spec, self.run)
        return Prober(self.loaded.spec, self.loaded.root, self.run, standings, Superseded(self.run))

    def answer(self, *, whole: bool = True, **suites: str) -> VerdictFile:
        """What the pytest process does: it writes verdicts where it was told to, each suite that was asked whole with
        its key."""
        argv = self.prober().argv(self.at, list(suites))
        made = verdict_file("qa@2", **suites)
        cases = {"select": "train", "held_out": "held_out"}
        asked = tuple(
            replace(
                suite,
                key=suite_key(
                    self.loaded.root / "probes" / "test_chars.py",
                    cases=self.run / "data" / f"questions.{cases[suite.suite]}.jsonl",
                )
                if whole
                else "",
            )
            for suite in made.suites
        )
        made = VerdictFile(made.ckpt, made.weights_sha256, asked, made.verdicts)
        verdicts.write(Path(argv[argv.index("--probe-verdicts") + 1]), made)
        return made


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    loaded, run = project(tmp_path / "p"), tmp_path / "run"
    (run / "data").mkdir(parents=True)
    for split in ("train", "held_out"):
        (run / "data" / f"questions.{split}.jsonl").write_text('{"id": "c0"}\n', encoding="utf-8")
    return Recorded(loaded, run, Checkpoint("qa", 2, publish(run, "qa", 2)))


def test_what_was_never_asked_is_due_where_the_recipe_asks_it(recorded: Recorded) -> None:
    assert recorded.prober().due(recorded.at) == ("select", "held_out")
    base = Checkpoint("base", 8, publish(recorded.run, "base", 8))
    assert recorded.prober().due(base) == ()


def test_what_was_asked_is_not_due_again(recorded: Recorded) -> None:
    recorded.answer(select="p", held_out="m")
    recorded.prober().take(recorded.at, ["select", "held_out"], "")
    assert recorded.prober().due(recorded.at) == ()


def test_a_suite_whose_cases_changed_is_due_alone(recorded: Recorded) -> None:
    recorded.answer(select="p", held_out="m")
    recorded.prober().take(recorded.at, ["select", "held_out"], "")
    (recorded.run / "data" / "questions.held_out.jsonl").write_text('{"id": "c1"}\n', encoding="utf-8")
    assert recorded.prober().due(recorded.at) == ("held_out",)


def test_suites_whose_probe_file_changed_are_due(recorded: Recorded) -> None:
    recorded.answer(select="p", held_out="m")
    recorded.prober().take(recorded.at, ["select", "held_out"], "")
    (recorded.loaded.root / "probes" / "test_chars.py").write_text(PROBE + "    assert reply\n", encoding="utf-8")
    assert recorded.prober().due(recorded.at) == ("select", "held_out")


def test_a_file_that_two_suites_share_is_collected_once(recorded: Recorded) -> None:
    argv = recorded.prober().argv(recorded.at, ["select", "held_out"])
    assert argv[:7] == [
        str(recorded.loaded.root / "probes/test_chars.py"), "--ckpt", str(recorded.at.path),
        "--probe-suite", "select", "--probe-suite", "held_out",
    ]  # fmt: skip


def test_verdicts_are_put_into_the_run_and_nothing_is_left_beside_them(recorded: Recorded) -> None:
    made = recorded.answer(select="p", held_out="m")
    assert recorded.prober().take(recorded.at, ["select", "held_out"], "") == made
    assert verdicts.read(verdict_path(recorded.at.path)) == made
    assert [path.name for path in verdict_path(recorded.at.path).parent.iterdir()] == ["ckpt-2.jsonl"]
    assert not (recorded.run / "superseded").exists()


def test_verdicts_that_are_replaced_are_kept_and_others_stay_in_force(recorded: Recorded) -> None:
    recorded.answer(select="p", held_out="m")
    recorded.prober().take(recorded.at, ["select", "held_out"], "")
    recorded.answer(held_out="p")
    after = recorded.prober().take(recorded.at, ["held_out"], "")
    assert [(row.suite, row.outcome) for row in after.verdicts] == [("select", "pass"), ("held_out", "pass")]
    kept = verdicts.read(recorded.run / "superseded" / "1" / "qa" / "probes" / "ckpt-2.jsonl")
    assert [row.outcome for row in kept.of("held_out")] == ["miss"]


def test_verdicts_of_a_new_suite_replace_none_and_nothing_is_moved(recorded: Recorded) -> None:
    recorded.answer(select="p")
    recorded.prober().take(recorded.at, ["select"], "")
    recorded.answer(held_out="p")
    recorded.prober().take(recorded.at, ["held_out"], "")
    assert not (recorded.run / "superseded").exists()


def test_a_prober_that_wrote_no_verdicts_failed_and_its_log_is_shown(recorded: Recorded) -> None:
    with pytest.raises(TrainingFailed) as caught:
        recorded.prober().take(recorded.at, ["select", "held_out"], "no tests ran")
    assert str(caught.value) == (
        "probing qa@2 gave no verdicts for select, held_out; the end of its log:\nno tests ran"
    )


def test_a_suite_without_verdicts_is_named_and_the_run_is_left_as_it_was(recorded: Recorded) -> None:
    recorded.answer(select="p")
    with pytest.raises(TrainingFailed, match="^probing qa@2 gave no verdicts for held_out; the end of its log:"):
        recorded.prober().take(recorded.at, ["select", "held_out"], "")
    assert not verdict_path(recorded.at.path).exists()


def test_a_suite_that_was_asked_in_part_is_refused_and_the_run_is_left_as_it_was(recorded: Recorded) -> None:
    recorded.answer(whole=False, select="pm")
    with pytest.raises(TrainingFailed) as caught:
        recorded.prober().take(recorded.at, ["select"], "1 passed, 7 deselected")
    assert str(caught.value) == (
        "probing qa@2 left out cases of select: something chose among the tests or ended them early, for example a "
        "conftest.py; the end of its log:\n1 passed, 7 deselected"
    )
    assert not list(verdict_path(recorded.at.path).parent.iterdir())


def test_a_suite_that_could_not_be_asked_is_all_errors_and_is_taken(recorded: Recorded) -> None:
    recorded.answer(whole=False, select="e")
    recorded.prober().take(recorded.at, ["select"], "")
    assert recorded.prober().due(recorded.at) == ("select", "held_out")  # once it can be asked, it is


def test_a_suite_of_which_no_case_was_asked_is_refused(recorded: Recorded) -> None:
    recorded.answer(whole=False, select="", held_out="e")
    with pytest.raises(TrainingFailed, match="^probing qa@2 left out cases of select: "):
        recorded.prober().take(recorded.at, ["select", "held_out"], "")


def test_a_probe_file_that_cannot_be_collected_ends_the_run_and_the_other_verdicts_are_kept(recorded: Recorded) -> None:
    recorded.answer(whole=True, select="pm", held_out="e")
    fresh = recorded.prober()._fresh(recorded.at)
    file = verdicts.read(fresh)
    broken = [
        replace(one, case_id="collection", reason="SyntaxError") if one.suite == "held_out" else one
        for one in file.verdicts
    ]
    verdicts.write(fresh, replace(file, verdicts=tuple(broken)))
    with pytest.raises(
        UserError, match=r"^suite held_out could not be asked of qa@2: .* cannot be collected: SyntaxError"
    ):
        recorded.prober().take(recorded.at, ["select", "held_out"], "")
    kept = verdicts.read(verdict_path(recorded.at.path))
    assert [one.outcome for one in kept.of("select")] == ["pass", "miss"]


def test_a_suite_that_the_recipe_decodes_otherwise_now_is_due_alone(recorded: Recorded) -> None:
    recorded.answer(select="p", held_out="m")
    recorded.prober().take(recorded.at, ["select", "held_out"], "")
    recipe = recorded.loaded.spec
    changed = recipe.probes["select"].model_copy(update={"decoding": DecodingChange(repetition_penalty=1.2)})
    loaded = replace(recorded.loaded, spec=recipe.model_copy(update={"probes": {**recipe.probes, "select": changed}}))
    assert Recorded(loaded, recorded.run, recorded.at).prober().due(recorded.at) == ("select",)
