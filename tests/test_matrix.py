"""runner.matrix and what ends a stage early: variants of a tiny recipe, run as siblings through the command line."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from runner import checkpoints, jobs, verdicts
from runner.check import load_checked, load_variants
from runner.errors import BadRecipe, FolderTaken, UserError
from runner.folder import read_run
from runner.matrix.records import Found, compare
from runner.matrix.running import claim
from runner.matrix.screen import table_screen
from runner.probing import targets
from runner.standings import Standings
from tests.screens import decision, lines
from tests.tiny_project import RUN, Project, events, leave_out_dpo, recipe, weights, write_project

VARIANTS = ("early", "plain", "back", "fast")

# pass rates that fall from step to step, whatever is trained: what a stage ends by is to be known beforehand
FALLING = """

@probe(prompt="what is {{ word }}?", max_new_tokens=4)
def test_falling(request, reply):
    step = int(request.node.name.partition("@")[2].partition("-")[0])
    assert sum(map(ord, request.node.name.rpartition("-")[2])) % 6 >= step / 2
"""

STAGES = """\
stages:
  base: {kind: pretrain, data: facts, num_train_epochs: 1, learning_rate: 3.0e-3, global_batch_size: 8,
         logging_steps: 1}
  qa: {kind: sft, from: base@last, data: questions.train, num_train_epochs: 2, learning_rate: 1.0e-3,
       global_batch_size: 8, save_steps: [2, 4, 5], logging_steps: 1}

probes:
  falling: {file: "probes/test_words.py::test_falling", cases: questions.held_out, stages: qa,
            gate: {min_pass_rate: 0.7}}

best: falling
result: {checkpoint: qa@last}

matrix:
  early:
    stages: {qa: {stop_when: {suite: falling, worse_for: 1}}}
    report_to: tensorboard
  plain: {}
  back: {probes: {falling: {gate: {on_fail: rollback}}}}
  fast:
    stages: {qa: {learning_rate: 1.0e-2, num_train_epochs: 1}}
    probes: {falling: {gate: {min_pass_rate: 0.99, on_fail: rollback}}}
"""


def write(root: Path) -> Path:
    """The tiny project with a recipe of variants."""
    file = write_project(root)
    leave_out_dpo(file)
    text = file.read_text(encoding="utf-8")
    file.write_text(text[: text.index("stages:\n")] + STAGES, encoding="utf-8")
    with (root / "probes" / "test_words.py").open("a", encoding="utf-8") as probes:
        probes.write(FALLING)
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The undisturbed run of all variants, which nobody changes."""
    root = tmp_path_factory.mktemp("matrix") / "project"
    write(root)
    return Project(root, recipe(root, "run", "tiny.yaml"))


def rates(project: Project, variant: str) -> dict[str, float]:
    """Pass rate of the suite at every checkpoint of qa."""
    found = {}
    for step, folder in checkpoints.published(project.run / variant / "qa"):
        outcomes = [verdict.outcome for verdict in verdicts.read(checkpoints.verdict_path(folder)).of("falling")]
        found[f"qa@{step}"] = outcomes.count("pass") / len(outcomes)
    return found


# --- variants as siblings ---


def test_every_variant_has_the_folder_of_a_run_and_stages_in_common_are_trained_once(finished: Project) -> None:
    assert finished.first.code == 1, finished.first.screen
    assert sorted(os.listdir(finished.run)) == ["back", "early", "fast", "matrix.json", "plain", "report.html"]
    bases = [finished.run / variant / "base" / "ckpt-5" for variant in VARIANTS]
    assert len({(base / "model.safetensors").stat().st_ino for base in bases}) == 1  # no copies of weights
    trained = [
        (variant, row["stage"])
        for variant in VARIANTS
        for row in events(finished.run / variant, "run")
        if row["event"] == "stage" and row["state"] == "running"
    ]
    # plain goes on with the stage that early had ended at step 4, and back ends it where early did
    assert trained == [("early", "base"), ("early", "qa"), ("plain", "qa"), ("fast", "qa")]
    told = [(row["state"], row["why"]) for row in events(finished.run / "fast", "run") if row["event"] == "stage"]
    assert told[0] == ("shared", "trained in early")


def test_a_variant_is_a_run_of_its_own_recipe(finished: Project) -> None:
    record = read_run(finished.run / "fast")
    assert (record.recipe, record.variant, record.recipe_path) == ("tiny", "fast", "tiny.yaml")
    made = load_checked(finished.run / "fast" / "recipe.yaml", root=finished.root)
    assert (made.variant, made.spec.stages["qa"].learning_rate, made.spec.matrix) == ("", 0.01, {})
    assert made.spec == load_checked(finished.root / "tiny.yaml", variant="fast").spec


def test_losses_and_parents_of_a_shared_stage_are_there_in_every_variant(finished: Project) -> None:
    made = load_checked(finished.root / "tiny.yaml", variant="fast").spec
    standings = Standings(made, finished.run / "fast")
    assert "base@5" in standings.losses()
    last = standings.resolve("qa@last")
    assert [found.label for found in standings.line(last)] == ["base@5", last.label]


def test_the_table_is_kept_with_its_intervals_and_paired_differences(finished: Project) -> None:
    kept = json.loads((finished.run / "matrix.json").read_text(encoding="utf-8"))
    assert (kept["format_version"], kept["recipe"], kept["recipe_path"]) == (1, "tiny", "tiny.yaml")
    rows = {row["variant"]: row for row in kept["variants"]}
    assert {name: row["result"] for name, row in rows.items()} == {
        "early": "qa@last = qa@4", "plain": "qa@last = qa@6", "back": "qa@last = qa@2", "fast": "qa@2",
    }  # fmt: skip
    (early,), (back,) = rows["early"]["suites"], rows["back"]["suites"]
    assert early["rate"] == rates(finished, "early")["qa@4"]
    assert early["interval_95"][0] < early["rate"] < early["interval_95"][1]
    assert (early["outcome"], "p" in early) == ("first", False)
    assert back["rate"] == rates(finished, "back")["qa@2"]
    assert back["difference"] == pytest.approx(back["rate"] - early["rate"])
    assert (back["lost"], back["p"]) == (0, 0.5 ** back["gained"])
    assert {name: row["exit_code"] for name, row in rows.items()} == {"early": 1, "plain": 1, "back": 0, "fast": 1}
    assert "red: exit code 1 (early: falling; plain: falling; fast: falling)" in finished.first.screen


def test_the_same_command_again_trains_nothing_and_ends_in_the_same_table(finished: Project, tmp_path: Path) -> None:
    project = finished.copy(tmp_path / "project")
    before = {variant: weights(project.run / variant) for variant in VARIANTS}
    table = (project.run / "matrix.json").read_bytes()
    again = recipe(project.root, "run", "tiny.yaml", PYTHONPROFILEIMPORTTIME="1")
    assert again.code == 1, again.screen
    imported = {line.rpartition("|")[2].strip() for line in again.screen.splitlines() if line.startswith("import ")}
    assert "torch" not in imported
    assert {variant: weights(project.run / variant) for variant in before} == before
    assert (project.run / "matrix.json").read_bytes() == table
    assert not list(project.run.glob("*/superseded"))


def test_a_changed_overlay_changes_its_variant_alone_and_an_end_follows_the_verdicts(
    finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")
    before = {variant: weights(project.run / variant) for variant in VARIANTS}
    sets = [
        "--set", "matrix.early.stages.qa.stop_when.worse_for=2",
        "--set", "matrix.plain.stages={base: {learning_rate: 1e-3}, qa: {save_steps: 500}}",
    ]  # fmt: skip
    planned = recipe(project.root, "plan", "tiny.yaml", "--variant", "early", *sets)
    assert "resumes at step 4" in planned.screen
    assert "ends where falling is below its best 2 checkpoints in a row" in planned.screen

    changed = recipe(project.root, "run", "tiny.yaml", *sets)
    assert changed.code == 1, changed.screen
    after = {variant: weights(project.run / variant) for variant in VARIANTS}
    assert (after["back"], after["fast"]) == (before["back"], before["fast"])
    # plain trains its own base now; what the others took of it, or it of them, stays
    assert list(after["plain"]) == ["base@5", "qa@6"]
    assert after["plain"]["base@5"] != after["back"]["base@5"]
    assert weights(project.run / "plain" / "superseded" / "1") == before["plain"]
    # early goes on where it had ended, to the weights that plain had come to
    starts = [row["step"] for row in events(project.run / "early", "train-qa") if row["event"] == "started"]
    assert starts == [0, 4]
    assert list(rates(project, "early")) == ["qa@2", "qa@4", "qa@5"]
    assert after["early"] == {label: before["plain"][label] for label in after["early"]}
    # by the first rule it ends at qa@4 again, though qa@5 is published
    made = load_checked(project.root / "tiny.yaml", variant="early").spec
    assert Standings(made, project.run / "early").resolve("qa@last").label == "qa@4"


# --- stages that end by their probes ---


def test_a_stage_ends_where_its_suite_stays_below_its_best_and_last_is_there(finished: Project) -> None:
    seen = rates(finished, "early")
    assert list(seen) == ["qa@2", "qa@4"]
    assert seen["qa@4"] < seen["qa@2"]
    job = jobs.read(finished.run / "early" / "qa")
    assert job is not None
    assert (job.state, job.steps_done, job.total_steps) == ("done", 4, 6)
    assert f"qa ended at step 4 of 6: falling is below its best, {seen['qa@2']:.1%} at qa@2" in finished.first.screen


def test_a_red_gate_that_rolls_back_makes_last_and_best_the_checkpoint_before_it(finished: Project) -> None:
    made = load_checked(finished.root / "tiny.yaml", variant="back").spec
    standings = Standings(made, finished.run / "back")
    assert [found.label for found in standings.checkpoints("qa")] == ["qa@2", "qa@4"]
    assert standings.resolve("qa@last").label == "qa@2"
    assert standings.resolve("qa@best").label == "qa@2"
    assert standings.resolve("qa@4").label == "qa@4"  # still there by its step
    assert "falling red at qa@4, on_fail: rollback: back to qa@2" in finished.first.screen


def test_a_rollback_with_nothing_before_it_stops_the_variant_and_not_the_others(finished: Project) -> None:
    job = jobs.read(finished.run / "fast" / "qa")
    assert job is not None
    assert (job.state, job.steps_done) == ("stopped", 2)
    assert "stopped at qa@2: falling red at qa@2, on_fail: rollback, and no checkpoint before it" in (
        finished.first.screen
    )


# --- trackers ---


def test_a_tracker_is_told_losses_and_pass_rates_at_the_same_steps(finished: Project) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(finished.run / "early" / "trackers" / "tensorboard" / "qa"))
    read.Reload()
    told = [(event.step, event.value) for event in read.Scalars("eval/falling_pass_rate")]
    seen = rates(finished, "early")
    assert told == [(2, pytest.approx(seen["qa@2"])), (4, pytest.approx(seen["qa@4"]))]
    losses = {event.step: event.value for event in read.Scalars("train/loss")}
    rows = events(finished.run / "early", "train-qa")
    recorded = {row["step"]: row["loss"] for row in rows if row["event"] == "logged"}
    assert losses == {step: pytest.approx(loss) for step, loss in recorded.items()}
    assert not (finished.run / "plain" / "trackers").exists()


# --- by hand ---


def test_a_checkpoint_of_a_variant_belongs_to_the_run_of_that_variant(finished: Project) -> None:
    given = [str(RUN / "back" / "base" / "ckpt-5"), str(RUN / "plain" / "base" / "ckpt-5")]
    shared = targets.find(given, finished.root, finished.root)
    assert [target.label for target in shared] == ["back/base@5", "plain/base@5"]
    everything = [target.label for target in targets.find([str(RUN)], finished.root, finished.root)]
    assert everything[:3] == ["back/base@5", "back/qa@2", "back/qa@4"]
    assert len(everything) == sum(len(weights(finished.run / variant)) for variant in VARIANTS)
    (target,) = targets.find([str(RUN / "back" / "qa" / "ckpt-2")], finished.root, finished.root)
    assert target.run is not None
    assert target.at is not None
    assert (target.run.folder, target.run.record.variant) == (finished.run / "back", "back")
    ((only,),) = [target.run.standings.decisions(target.at)]
    assert (only.suite, only.green) == ("falling", True)


# --- loading ---


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "p")


def test_set_wins_over_every_overlay_and_reaches_into_one_by_its_path(small: Path) -> None:
    everywhere = load_variants(small, ["stages.qa.learning_rate=0.5"])
    assert [one.spec.stages["qa"].learning_rate for one in everywhere] == [0.5] * 4
    one = load_variants(small, ["matrix.fast.stages.qa.learning_rate=0.5", "matrix.plain=null"])
    assert [(found.variant, found.spec.stages["qa"].learning_rate) for found in one] == [
        ("early", 0.001), ("back", 0.001), ("fast", 0.5),
    ]  # fmt: skip


def test_a_variant_that_is_not_there_is_answered_with_the_nearest(small: Path) -> None:
    with pytest.raises(UserError) as refused:
        load_variants(small, variant="fats")
    assert refused.value.screen() == f"{small} has no variant fats\n    hint: did you mean fast?"
    with pytest.raises(UserError) as refused:
        load_variants(small, ["matrix=null"], variant="fast")
    assert refused.value.screen() == (
        f"{small} has no variant fast: it has no `matrix:`\n    hint: leave --variant out"
    )


def test_a_matrix_is_extended_overlay_by_overlay_and_null_in_one_deletes_in_the_variant(small: Path) -> None:
    child = small.with_name("child.yaml")
    child.write_text(
        "extends: tiny.yaml\nrecipe: child\n"
        "matrix:\n  early: null\n  back: {best: null, result: {checkpoint: qa@2}}\n  more: {seed: 9}\n",
        encoding="utf-8",
    )
    found = {one.variant: one.spec for one in load_variants(child, root=small.parent)}
    assert list(found) == ["plain", "back", "fast", "more"]
    assert (found["back"].best, found["plain"].best, found["more"].seed) == (None, "falling", 9)
    gate = found["back"].probes["falling"].gate
    assert gate is not None
    assert gate.on_fail == "rollback"


def test_vars_may_differ_between_variants(small: Path) -> None:
    text = small.read_text(encoding="utf-8").replace("seed: 7", "seed: 7\nvars: {rate: 0.25}")
    text = text.replace("learning_rate: 1.0e-3", 'learning_rate: "{{ rate }}"').replace(
        "  plain: {}", "  plain: {}\n  high: {vars: {rate: 0.75}}"
    )
    small.write_text(text, encoding="utf-8")
    _, plain, high, *_ = load_variants(small)
    assert (plain.spec.stages["qa"].learning_rate, high.spec.stages["qa"].learning_rate) == (0.25, 0.75)


def test_a_fault_that_all_variants_have_is_told_once(small: Path) -> None:
    small.write_text(small.read_text(encoding="utf-8").replace("seed: 7", "sed: 7"), encoding="utf-8")
    with pytest.raises(BadRecipe) as refused:
        load_variants(small)
    (problem,) = refused.value.problems
    assert problem.message == "unknown key `sed` at the top of the recipe"


# --- whose folder it is ---


def test_a_folder_of_a_run_without_variants_or_of_anything_else_is_refused(finished: Project, tmp_path: Path) -> None:
    (mine, *_) = load_variants(finished.root / "tiny.yaml")
    with pytest.raises(FolderTaken, match="is the folder of a run without variants"):
        claim(finished.run / "plain", mine)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(FolderTaken, match=r"is not empty and .* holds 'thesis.txt', but no matrix.json"):
        claim(tmp_path, mine)
    other = replace(mine, spec=mine.spec.model_copy(update={"recipe": "other"}))
    with pytest.raises(FolderTaken, match="belongs to the recipe 'tiny' of tiny.yaml"):
        claim(finished.run, other)
    claim(finished.run, mine)


# --- the table ---


def outcomes(letters: str) -> list[verdicts.Verdict]:
    names = {"p": "pass", "m": "miss"}
    return [
        verdicts.Verdict("old", "t.py::t", f"c{place}", names[letter])  # type: ignore[arg-type]
        for place, letter in enumerate(letters)
    ]


def test_the_table_pairs_every_variant_with_the_first_and_holm_counts_all_comparisons() -> None:
    first, forgot, same = outcomes("p" * 12), outcomes("m" * 9 + "p" * 3), outcomes("p" * 11 + "m")
    found = [
        Found("plain", "new@last = new@8", "", 0, [decision(True, 12, suite="old")], {"old": first}),
        Found("kl", "new@last = new@8", "", 1, [decision(False, 3, 9, suite="old")], {"old": forgot}),
        Found("ewc", "new@8", "", 0, [decision(None, 11, 1, suite="old")], {"old": same}),
    ]
    table = compare("facts", found)
    cells = [row.cells[0] for row in table.rows]
    assert [cell.outcome for cell in cells] == ["first", "worse", "same"]
    assert (cells[1].p, cells[1].adjusted) == (1 / 512, 2 / 512)
    assert table.exit_code == 1
    assert (
        "\n".join(lines(table_screen(table)))
        == """\
matrix facts

variant  result            gates
plain    new@last = new@8  ✓
kl       new@last = new@8  ✗ old
ewc      new@8             no gate

        pass rate            against plain     p
old
  plain 100 % [75.8–100.0] ✓
  kl    25.0 % [8.9–53.2]  ✗  −75.0  −9 +0 0.002 ✗ worse
  ewc   91.7 % [64.6–98.5]     −8.3  −1 +0   0.5 · same
pass rates with their 95 % Wilson intervals; against plain: percentage points,
cases lost and gained, and the paired p of so many in the direction that has
more (one-sided, by fact); better, worse: beyond chance at 5% after Holm over 2
comparisons

red: exit code 1 (kl: old)"""
    )


def test_variants_that_were_asked_other_suites_stand_without_a_comparison() -> None:
    found = [
        Found("plain", "a@1", "", 0, [decision(None, 2, suite="old")], {"old": outcomes("pp")}),
        Found("other", "a@1", "", 0, [decision(None, 2, suite="new")], {"new": outcomes("pp")}),
    ]
    shown = "\n".join(lines(table_screen(compare("facts", found))))
    assert "  plain not asked" in shown
    assert "green: exit code 0" in shown
