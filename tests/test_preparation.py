"""runner.preparation: data, tokenizer, plan and jobs of a real project, without a model."""

import re
from pathlib import Path

import pytest

from runner import folder, jobs, recipe
from runner.checkpoints import Parent, weights_sha256
from runner.errors import BadCheckpoint, BadRecipe, UserError
from runner.folder import Superseded, write_run
from runner.preparation import (
    Prepared,
    inputs_of,
    make_plan,
    new_job,
    run_record,
    start_of,
    states,
    visible_gpus,
    write_data,
)
from runner.recipe import Loaded
from runner.standings import Standings
from tests.recorded import CHARS, RECIPE, project, publish


def prepared(root: Path, text: str = RECIPE) -> Prepared:
    return Prepared(project(root / "p", text), root / "run")


def again(before: Prepared, text: str = RECIPE) -> Prepared:
    """The recipe and its data, read anew."""
    before.loaded.path.write_text(text, encoding="utf-8")
    loaded: Loaded = recipe.load(before.loaded.path)
    return Prepared(loaded, before.run)


def write(made: Prepared, superseded: Superseded | None = None) -> None:
    made.run.mkdir(exist_ok=True)
    write_data(made, superseded or Superseded(made.run))
    write_run(made.run, run_record(made, made.looks))


def train(made: Prepared, name: str, steps: int, state: jobs.State = "done") -> None:
    """What a trained stage leaves."""
    standings = Standings(made.recipe, made.run)
    start, start_key = start_of(made, standings, name)
    job = new_job(made, name, start, inputs_of(made, name, start, start_key))
    publish(made.run, name, steps, parent=start)
    jobs.write(made.run / name, job.ended(state, steps) if state != "running" else job)


# --- data ---


def test_nothing_is_written_by_preparing(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    make_plan(made)
    assert not made.run.exists()


def test_splits_and_tokenizer_are_written_into_the_run(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    write(made)
    names = sorted(path.name for path in (made.run / "data").iterdir())
    assert {"questions.train.jsonl", "questions.held_out.jsonl", "tokenizer"} <= set(names)
    splits = [
        (made.run / "data" / f"questions.{split}.jsonl").read_text(encoding="utf-8") for split in ("train", "held_out")
    ]
    assert [split.count("\n") for split in splits] == [8, 8]
    assert made.data_is_current


def test_data_that_is_current_is_left_as_it_is(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    write(made)
    before = {path: path.stat().st_mtime_ns for path in made.run.rglob("*")}
    other = again(made)
    write_data(other, Superseded(other.run))
    assert {path: path.stat().st_mtime_ns for path in made.run.rglob("*")} == before


def test_data_that_changed_is_moved_aside(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    write(made)
    with (made.loaded.root / "chars.tsv").open("a", encoding="utf-8") as file:
        file.write("鼻\t鼻\n")
    other = again(made)
    assert not other.data_is_current
    write(other)
    assert (made.run / "superseded" / "1" / "data" / "questions.train.jsonl").exists()
    assert "鼻" in other.tokenizer.tokenizer.get_vocab()


def test_each_data_set_has_a_digest_that_changes_with_its_rows_and_its_templates(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    before = dict(made.digests)
    assert set(before) == {"texts", "questions", "questions.train", "questions.held_out", "tokenizer"}
    other = dict(again(made, RECIPE.replace("{{ radical }}部", "部首{{ radical }}")).digests)
    changed = {name for name in before if before[name] != other[name]}
    assert changed == {"questions", "questions.train", "questions.held_out", "tokenizer"}


def test_the_vocabulary_has_every_character_of_its_data(tmp_path: Path) -> None:
    assert set(CHARS + "？部 ") <= set(prepared(tmp_path).tokenizer.tokenizer.get_vocab())


# --- the plan ---


def test_the_plan_counts_what_training_will_see(tmp_path: Path) -> None:
    made = make_plan(prepared(tmp_path))
    base, qa = made.stages
    assert (base.arithmetic.rows, base.arithmetic.total_steps, base.start, base.suites) == (16, 8, "model", ())
    assert (base.counts.rows, base.counts.tokens, base.counts.supervised) == (
        32,
        32 * 4,
        32 * 3,
    )  # 心 心 and EOS; nothing foretells the first
    assert (qa.arithmetic.rows, qa.arithmetic.publish_steps, qa.start) == (8, (2, 4), "base@last")
    assert (qa.counts.tokens, qa.counts.supervised) == (16 * 5, 16 * 3)  # 心？ and 心部 EOS
    assert made.result == "the gates of qa@best set the exit code"
    assert (made.path, made.model) == ("recorded.yaml", "new qwen3, hidden_size 32, num_hidden_layers 1")
    assert [stage.state for stage in made.stages] == ["to do", "to do"]


# --- what is done, and what has changed ---


def test_a_stage_that_was_trained_with_the_same_inputs_is_done(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    write(made)
    train(made, "base", 8)
    assert states(again(made)) == {"base": "done", "qa": "to do"}
    train(made, "qa", 4)
    assert states(again(made)) == {"base": "done", "qa": "done"}


def test_a_new_model_depends_on_no_folder_and_a_loaded_one_on_the_bytes_of_its_weights(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    assert made.weights == ""
    folder = made.loaded.root / "m"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    text = re.sub(r"model:.*?\n(?=\S)", "model: {path: m}\n", made.loaded.path.read_text(encoding="utf-8"), flags=re.S)
    first = again(made, text).weights
    (folder / "model.safetensors").write_bytes(b"two")
    assert first != again(made, text).weights


def test_a_step_that_will_not_be_published_is_an_error_before_anything_trains(tmp_path: Path) -> None:
    made = again(prepared(tmp_path), RECIPE.replace("from: base@last", "from: base@3"))
    with pytest.raises(BadRecipe, match=r"`base` publishes no checkpoint at step 3"):
        make_plan(made)


def test_a_stage_that_was_interrupted_resumes(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    write(made)
    train(made, "base", 8)
    train(made, "qa", 2, "running")
    saved = made.run / "qa" / "state" / "checkpoint-3"
    saved.mkdir(parents=True)
    assert states(again(made)) == {"base": "done", "qa": "to do"}  # half a state is none
    (saved / "complete.json").write_text("{}")
    assert states(again(made)) == {"base": "done", "qa": "resumes at step 3"}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("seed: 3", "seed: 4", {"base": "changed: data texts, seed 3 -> 4, tokenizer", "qa": "again, after base"}),
        (
            "from: base@last,",
            "from: base@last, learning_rate: 0.01,",
            {"base": "done", "qa": "changed: learning_rate 5e-05 -> 0.01"},
        ),
        (
            "probes/test_chars.py, cases: questions.train, stages: qa",
            "probes/test_chars.py",
            {"base": "done", "qa": "done"},
        ),
    ],
)
def test_a_stage_whose_inputs_changed_says_what_did(
    tmp_path: Path, before: str, after: str, told: dict[str, str]
) -> None:
    made = prepared(tmp_path)
    write(made)
    train(made, "base", 8)
    train(made, "qa", 4)
    assert before in RECIPE
    found = states(again(made, RECIPE.replace(before, after)))
    assert found["qa"] == told["qa"]
    assert found["base"].split(":")[0] == told["base"].split(":")[0]


def test_a_stage_starts_from_the_published_checkpoint_with_its_digest(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    write(made)
    train(made, "base", 8)
    start, key = start_of(made, Standings(made.recipe, made.run), "qa")
    assert start == Parent("base@8", "../base/ckpt-8", weights_sha256(made.run / "base" / "ckpt-8"))
    job = jobs.read(made.run / "base")
    assert job is not None
    assert key == job.key
    assert start_of(made, Standings(made.recipe, made.run), "base") == (None, "")


def test_a_stage_that_starts_from_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    stages = {**made.recipe.stages, "qa": made.recipe.stages["qa"].model_copy(update={"from_": "models/none"})}
    made.recipe = made.recipe.model_copy(update={"stages": stages})
    with pytest.raises(BadCheckpoint, match=r"^stages\.qa\.from: there is no folder .*/models/none$"):
        start_of(made, Standings(made.recipe, made.run), "qa")


def test_a_stage_before_its_start_was_trained_says_so(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    with pytest.raises(UserError, match="^base@last: stage base has no checkpoint"):
        start_of(made, Standings(made.recipe, made.run), "qa")


# --- records ---


def test_the_record_of_a_run_names_its_recipe_and_its_data(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    write(made)
    record = folder.read_run(made.run)
    assert (record.recipe, record.recipe_path, record.seed) == ("recorded", "recorded.yaml", 3)
    assert record.data == made.digests
    assert set(record.versions) >= {"python", "torch", "transformers", "recipe-runner"}
    assert record.git_commit is None  # the project is no git checkout


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_hidden_devices_are_not_counted(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert visible_gpus() == []


def test_a_job_has_every_number_of_its_stage(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    job = new_job(made, "base", None, inputs_of(made, "base", None, ""))
    assert (job.total_steps, job.publish_steps, job.steps_per_epoch) == (8, (8,), 4)
    assert job.per_device_batch_size * job.accumulation_steps == 4
    assert (job.state, job.steps_done, job.start) == ("running", 0, None)


# --- looks ---


def test_a_gate_of_the_probe_file_that_may_test_for_losses_beyond_chance_is_a_look(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    assert made.looks == 0
    file = made.loaded.root / "probes" / "test_chars.py"
    file.write_text(file.read_text(encoding="utf-8") + '\nGATE = {"max_regression": "significant"}\n', encoding="utf-8")
    assert again(made).own_significant == {"select", "held_out"}
    assert again(made).looks == 2  # the checkpoints of qa; the recipe's gate of held_out replaces that of the file


def test_a_gate_in_the_conftest_beside_the_probe_file_is_seen_too(tmp_path: Path) -> None:
    made = prepared(tmp_path)
    conftest = made.loaded.root / "probes" / "conftest.py"
    conftest.write_text('GATE = {"max_regression": "significant"}\n', encoding="utf-8")
    assert again(made).looks == 2
