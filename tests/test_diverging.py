"""Losses and gradients that are no numbers: where a stage stops, what it says, how it goes on without a batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from runner import checkpoints, diverging, events, plan
from runner.check import load_checked
from runner.children import Child
from runner.diverging import EXIT_AGAIN, Fault, decide
from runner.errors import EXIT_TRAINING_FAILED, TrainingFailed, UserError
from runner.preparation import Prepared
from runner.run.training import Training
from runner.train.finite import FiniteTrainer
from tests.in_process import begin, losses, prepare, train
from tests.in_process import events as told
from tests.tiny import copy
from tests.tiny_project import write_project

BESIDE = "launch.probing=beside"
"""The trainer asks nobody whether to go on."""
LAST_ROW = "words.tsv:41"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose model is no number where it reads a Z, which one row of its data has."""
    root = tmp_path_factory.mktemp("diverging")
    recipe = write_project(root)
    words = root / "words.tsv"
    lines = words.read_text(encoding="utf-8").splitlines()
    words.write_text("\n".join([*lines[:-1], "Zato\tred"]) + "\n", encoding="utf-8")
    untied = ("model.config.tie_word_embeddings=false", "stages.base.save_strategy=no", "stages.base.max_steps=1")
    folder = copy(train(prepare(recipe, root / "first", *untied), "base"), root / "poisoned")
    (folder / "manifest.json").unlink()
    file = folder / "model.safetensors"
    tensors = load_file(file)
    from transformers import AutoTokenizer

    tensors["model.embed_tokens.weight"][AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("Z")] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    return recipe


POISONED = (
    "seed=11",
    "model.config=null",
    "model.tokenizer=null",
    "model.path=poisoned",
    "stages.base.max_steps=10",
    BESIDE,
)


def steps_of(prepared: Prepared) -> tuple[int, int]:
    """The steps, from 1, whose batches hold the row, in the two epochs of ten steps."""
    epochs = prepared.epochs("base")
    found = [
        step + 1
        for step in range(10)
        if any(row == 39 for _, row in epochs.origins(step // 5, step % 5 * 8, step % 5 * 8 + 8))
    ]
    first, second = found
    return first, second


def faults_of(prepared: Prepared) -> list[events.NotFinite]:
    return [event for event in told(prepared, "base") if isinstance(event, events.NotFinite)]


def finite(folder: Path) -> bool:
    tensors = load_file(folder / "model.safetensors")
    bad = tensors.pop("model.embed_tokens.weight").isfinite().all(dim=1).logical_not().sum()
    return int(bad) == 1 and all(bool(tensor.isfinite().all()) for tensor in tensors.values())


# --- stop ---


def test_a_loss_that_is_no_number_ends_the_stage_with_its_step_its_rows_and_the_last_good_checkpoint(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepared = prepare(project, tmp_path / "run", *POISONED, "stages.base.save_steps=1")
    assert begin(prepared, "base") == EXIT_TRAINING_FAILED
    (event,) = faults_of(prepared)
    assert event.what == "the loss is nan"
    assert event.more_rows == 0
    assert f"facts {LAST_ROW}" in event.rows
    assert len(event.rows) == 8
    before = event.step - 1
    assert event.last_good == f"base@{before}"
    assert [step for step, _ in checkpoints.published(prepared.run / "base")] == list(range(1, event.step))
    assert all(finite(folder) for _, folder in checkpoints.published(prepared.run / "base"))
    assert capfd.readouterr().err.rstrip().endswith(diverging.words(event))
    # the same command comes to the same step, from the state before it
    assert begin(prepared, "base") == EXIT_TRAINING_FAILED
    assert faults_of(prepared)[1] == event


@pytest.mark.parametrize(
    "sets",
    [
        ("stages.base.kind=sft", "stages.base.data=questions", "stages.base.packing=true"),
        ("stages.base.kind=lora", "stages.base.data=questions"),
        ("stages.base.packing=wrapped", "stages.base.max_length=64"),
        ("stages.base.kind=dpo", "stages.base.data=pairs", "data.pairs.rows=questions"),
        ("stages.base.kind=contrast", "stages.base.data=pairs", "data.pairs.rows=questions"),
    ],
    ids=["packed", "lora", "wrapped", "dpo", "contrast"],
)
def test_every_kind_of_stage_stops_and_names_the_row(project: Path, tmp_path: Path, sets: tuple[str, ...]) -> None:
    prepared = prepare(project, tmp_path / "run", *POISONED, *sets, "stages.base.save_strategy=no")
    assert begin(prepared, "base") == EXIT_TRAINING_FAILED
    (event,) = faults_of(prepared)
    assert event.what == "the loss is nan"
    assert any(row.endswith(LAST_ROW) for row in event.rows) or event.more_rows


def test_gradients_are_looked_at_too_and_what_a_scaler_mends_is_no_fault() -> None:
    fine, spoiled = torch.tensor(1.0), torch.tensor(float("inf"))

    def seen(loss: torch.Tensor, norm: torch.Tensor | float | None) -> int:
        return FiniteTrainer._seen(cast(Any, SimpleNamespace(_tr_loss=loss)), norm)

    assert [seen(fine, fine), seen(fine, None), seen(fine, 2.0)] == [0, 0, 0]
    assert [seen(fine, spoiled), seen(fine, float("nan"))] == [1, 1]
    assert seen(spoiled, fine) == 2
    assert seen(torch.tensor(float("nan")), None) == 3


# --- rollback ---


@pytest.fixture(scope="module")
def rolled_back(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, list[int]]:
    """A stage that went back, and the exit codes of its trainers."""
    run = tmp_path_factory.mktemp("back") / "run"
    prepared = prepare(project, run, *POISONED, "stages.base.on_nan=rollback", "stages.base.save_steps=1",
                       "stages.base.logging_steps=1")  # fmt: skip
    codes = [begin(prepared, "base")]
    while codes[-1] == EXIT_AGAIN and len(codes) < 9:
        codes.append(begin(prepared, "base"))
    return prepared, codes


def test_a_stage_goes_back_and_on_without_the_batch(rolled_back: tuple[Prepared, list[int]]) -> None:
    prepared, codes = rolled_back
    first, second = steps_of(prepared)
    assert codes == [EXIT_AGAIN, EXIT_AGAIN, 0]
    what = "the loss is nan"
    assert diverging.read(prepared.run / "base") == (
        Fault(first, what, first - 1, first),
        Fault(second, what, second - 1, second),
    )
    assert [event.left_out for event in faults_of(prepared)] == [(first, first), (second, second)]


def test_a_batch_that_is_left_out_changes_no_weight_and_every_other_one_does(
    rolled_back: tuple[Prepared, list[int]],
) -> None:
    prepared, _ = rolled_back
    left_out = steps_of(prepared)
    digests = [
        checkpoints.read_manifest(folder).weights_sha256 for _, folder in checkpoints.published(prepared.run / "base")
    ]
    assert len(digests) == 10
    same = [step for step in range(2, 11) if digests[step - 1] == digests[step - 2]]
    assert same == list(left_out)
    assert all(finite(folder) for _, folder in checkpoints.published(prepared.run / "base"))


def test_what_is_recorded_is_of_the_steps_that_were_trained(rolled_back: tuple[Prepared, list[int]]) -> None:
    prepared, _ = rolled_back
    left_out = steps_of(prepared)
    assert [event.step for event in losses(prepared, "base")] == [n for n in range(1, 11) if n not in left_out]
    assert all(event.loss > 0.1 for event in losses(prepared, "base"))
    started = [event for event in told(prepared, "base") if isinstance(event, events.Started)]
    steps = diverging.spans(sorted(left_out))
    assert started[-1].notes == (f"2 batches are left out, of steps {steps} (on_nan: rollback)",)
    (end,) = (event for event in told(prepared, "base") if isinstance(event, events.Finished) and event.step == 10)
    assert end.tokens < sum(prepared.epochs("base").epoch(n).tokens_in(0, 40)[0] for n in (0, 1))


def test_a_stage_that_diverges_anyway_ends_after_three_times(project: Path, tmp_path: Path) -> None:
    prepared = prepare(project, tmp_path / "run", "stages.base.learning_rate=1e30", "stages.base.on_nan=rollback",
                       "stages.base.save_strategy=no", "stages.base.max_grad_norm=0", BESIDE)  # fmt: skip
    first = Fault(2, "the loss is nan", 0, 2)  # of two trainers before
    diverging.write(prepared.run / "base", (first, Fault(3, "the loss is nan", 0, 1)))
    codes = [begin(prepared, "base") for _ in range(2)]
    assert codes == [EXIT_AGAIN, EXIT_TRAINING_FAILED]
    assert faults_of(prepared)[-1].tried
    assert not list(checkpoints.published(prepared.run / "base"))


def test_a_loss_that_a_stage_went_back_from_is_not_what_killed_a_later_trainer(tmp_path: Path) -> None:
    journal, log = events.Journal(tmp_path / "events" / "train-base.jsonl"), tmp_path / "base.log"
    log.write_text("Segmentation fault", encoding="utf-8")
    ends = [((3, 3), EXIT_AGAIN), ((), EXIT_TRAINING_FAILED), (None, EXIT_TRAINING_FAILED), ((4, 4), 3)]

    def train(*_: object) -> Child:
        left_out, code = ends.pop(0)
        if left_out is not None:
            journal.write(events.NotFinite("base", 4, "the loss is nan", (), 0, "", "", 0, left_out))
        return Child(0, "train", log, exit_code=code)

    nothing = SimpleNamespace(start=lambda which: None, train=train, about_nodes=lambda: "")
    training = Training(
        cast(Any, SimpleNamespace(run=tmp_path)), cast(Any, nothing), cast(Any, SimpleNamespace(asked_for=False))
    )
    job = cast(Any, SimpleNamespace(stage="base", processes=1))
    training.train(job, lambda event: None, lambda: False)
    with pytest.raises(TrainingFailed, match="the loss is nan at step 4"):
        training.train(job, lambda event: None, lambda: False)
    for _ in range(2):
        with pytest.raises(TrainingFailed, match="Segmentation fault"):
            training.train(job, lambda event: None, lambda: False)
    journal.close()


# --- what is decided and said ---


def test_each_time_after_one_checkpoint_ten_times_as_much_is_left_out() -> None:
    what = "the loss is nan"
    first = decide((), 37, what, 20)
    assert first == Fault(37, what, 20, 37)
    second = decide((first,), 40, what, 20)
    assert second == Fault(40, what, 20, 31)
    third = decide((first, second), 55, what, 20)
    assert third == Fault(55, what, 20, 21)  # never what the checkpoint has learned
    assert decide((first, second, third), 60, what, 20) is None
    assert decide((first, second, third), 60, what, 50) == Fault(60, what, 50, 60)  # another checkpoint was reached
    assert diverging.spans(sorted(diverging.left_out((first, second)))) == "31-40"
    assert diverging.spans([1, 3, 4, 5, 9]) == "1, 3-5, 9"


def test_the_screen_of_a_stage_that_ends() -> None:
    rows = ("questions.train data/qa.tsv:17", "questions.train data/qa.tsv:4")
    event = events.NotFinite("qa", 37, "the loss is nan", rows, 30, "qa@20", "base@8", 20)
    assert diverging.words(event) == (
        "stage qa: the loss is nan at step 37\n"
        "    its batch: questions.train data/qa.tsv:17, questions.train data/qa.tsv:4, and 30 more\n"
        "    last good checkpoint: qa@20\n"
        "    hint: look at these rows; lower learning_rate, or go on without the batch: on_nan: rollback"
    )
    tried = events.NotFinite("base", 2, "the gradients are not finite", rows[:1], 0, "", "", 0, (), True)
    assert diverging.words(tried) == (
        "stage base: the gradients are not finite at step 2\n"
        "    its batch: questions.train data/qa.tsv:17\n"
        "    last good checkpoint: none of this stage; it started from a new model\n"
        "    hint: on_nan: rollback left batches out 3 times after step 0: lower learning_rate"
    )


def test_the_line_of_a_stage_that_goes_back() -> None:
    event = events.NotFinite("qa", 37, "the loss is nan", (), 0, "qa@20", "", 20, (37, 37))
    assert diverging.rolled_back(event) == "the loss is nan at step 37: back to step 20, without the batch of step 37"
    event = events.NotFinite("qa", 12, "the loss is nan", (), 0, "", "", 0, (3, 12))
    assert diverging.rolled_back(event).endswith("back to the stage's start, without the batches of steps 3-12")


def test_the_record_of_a_newer_version_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    assert diverging.read(tmp_path) == ()
    (tmp_path / diverging.FILE).write_text('{"format_version": 99, "faults": []}', encoding="utf-8")
    with pytest.raises(UserError, match="has format 99, this version reads up to 1"):
        diverging.read(tmp_path)
    (tmp_path / diverging.FILE).write_text('{"format_version": 1, "faul', encoding="utf-8")
    with pytest.raises(UserError, match=r"left_out\.json is damaged"):
        diverging.read(tmp_path)


def test_the_plan_says_that_a_stage_may_go_back_and_it_is_the_same_stage(project: Path) -> None:
    asked = load_checked(project, ("stages.qa.on_nan=rollback",)).spec
    assert plan.ends(asked, "base") == ()
    (line,) = plan.ends(asked, "qa")
    assert "not finite" in line
    about: dict[str, Any] = {"data": {}, "start": None, "start_key": "", "tokenizer": "", "weights": ""}
    inputs = plan.stage_inputs(asked, "qa", **{**about, "data": {"questions.train": "x"}})
    assert not [name for name in inputs if "nan" in name]
