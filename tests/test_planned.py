"""What `recipe plan` says of a stage is what its trainer then does: steps, tokens, tokens that the loss sees."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner import preparation
from runner.check import load_variants
from runner.cli import cli
from runner.data.token_store import TOKENS
from runner.folder import Superseded
from runner.memory import devices
from runner.preparation import Prepared, make_plan
from tests.in_process import finished, losses, prepare, train
from tests.tiny_project import write_project

SMALL = ("stages.base.save_strategy=no", "stages.base.num_train_epochs=2.5", "stages.base.global_batch_size=12")
BASE = {
    "pretrain": (),
    "pretrain-of-both": ("stages.base.data=[questions.train, facts]",),
    "sft": ("stages.base.kind=sft", "stages.base.data=questions"),
    "max-steps": ("stages.base.max_steps=7",),
    "mix": ("stages.base.data=[questions, facts]", "stages.base.mix={questions: {epochs: 0.5}, facts: {rows: 50}}"),
    "weights": ("stages.base.data=[questions, facts]", "stages.base.mix={questions: {weight: 1}, facts: {weight: 2}}"),
    "oversample": ("stages.base.mix={facts: {oversample: colour}}",),
    "replay": (
        "stages.base.kind=sft",
        "stages.base.data=questions.train",
        "stages.base.replay={of: facts, ratio: 0.6}",
    ),
    "buffer": ("stages.base.replay={of: questions, ratio: 0.5, buffer: 7}",),
    "truncated": ("stages.base.kind=sft", "stages.base.data=questions", "stages.base.max_length=24"),
    "keep-end": ("stages.base.max_length=24", "stages.base.truncation=keep_end"),
    "drop": ("stages.base.max_length=28", "stages.base.truncation=drop"),
    "chunk": ("stages.base.max_length=16", "stages.base.truncation=chunk", "stages.base.chunk_overlap=4"),
    "packing": ("stages.base.packing=true", "stages.base.max_length=64"),
    "packing-accumulated": ("stages.base.packing=true", "stages.base.micro_batch_size=4"),
    "wrapped": ("stages.base.packing=wrapped", "stages.base.max_length=32"),
    "accumulated": ("stages.base.micro_batch_size=5",),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("planned"))


def check(prepared: Prepared, name: str) -> None:
    """Train a stage, and compare."""
    planned = next(stage for stage in make_plan(prepared).stages if stage.name == name)
    train(prepared, name)
    done = finished(prepared, name)
    told = (planned.arithmetic.total_steps, planned.counts.tokens, planned.counts.supervised)
    assert (done.step, done.tokens, done.supervised_tokens) == told
    assert losses(prepared, name)[-1].tokens == done.tokens
    assert done.supervised_tokens > 0


@pytest.mark.parametrize("sets", BASE.values(), ids=BASE)
def test_a_stage_takes_the_steps_and_tokens_of_its_plan(recipe: Path, tmp_path: Path, sets: tuple[str, ...]) -> None:
    check(prepare(recipe, tmp_path / "run", *SMALL, *sets), "base")


@pytest.mark.parametrize("kind", ["dpo", "contrast"])
def test_a_preference_stage_takes_the_steps_and_tokens_of_its_plan(recipe: Path, tmp_path: Path, kind: str) -> None:
    sets = (*SMALL, "stages.base.max_steps=1", "stages.qa.max_steps=1", "stages.qa.save_strategy=no",
            f"stages.prefer.kind={kind}", "stages.prefer.from=qa@last",
            "stages.prefer.num_train_epochs=1.5")  # fmt: skip
    prepared = prepare(recipe, tmp_path / "run", *sets)
    train(prepared, "base")
    train(prepared, "qa")
    check(prepared, "prefer")


def test_a_trainer_reads_what_the_plan_encoded(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(recipe, tmp_path / "run", *SMALL)
    prepared.keep_tokens()
    make_plan(prepared)
    kept = sorted(path.name for path in (prepared.run / "data" / TOKENS).iterdir())
    assert kept == sorted({key for name in ("base", "qa") for key in prepared.epochs(name).keys})
    from runner.data import parts

    monkeypatch.setattr(parts, "encode", None)  # a trainer that encodes would fail
    train(prepared, "base")


def test_token_ids_are_no_part_of_what_a_run_promises(recipe: Path, tmp_path: Path) -> None:
    prepared = prepare(recipe, tmp_path / "run", *SMALL)
    again = Prepared(prepared.loaded, prepared.run)
    again.keep_tokens()
    make_plan(again)
    old = prepared.run / "data" / TOKENS / "of-other-data"
    old.mkdir()
    (prepared.run / "data" / "manifest.json").unlink()  # so that the data counts as changed
    preparation.write_data(again, Superseded(prepared.run))
    assert not old.exists()
    assert len(list((prepared.run / "data" / TOKENS).iterdir())) == 2
    assert TOKENS not in (prepared.run / "data" / "manifest.json").read_text(encoding="utf-8")
    assert not (prepared.run / "superseded" / "1" / "data" / TOKENS).exists()
    assert (prepared.run / "superseded" / "1" / "data" / "questions.train.jsonl").exists()


def test_a_stage_depends_on_what_it_replays_and_counts_as_trained_on_it(recipe: Path, tmp_path: Path) -> None:
    plain = prepare(recipe, tmp_path / "plain", *SMALL)
    replay = prepare(recipe, tmp_path / "replay", *SMALL, "stages.qa.replay={of: base, ratio: 0.5}")
    inputs = {
        name: preparation.inputs_of(made, "qa", None, "") for name, made in (("plain", plain), ("replay", replay))
    }
    assert inputs["replay"].keys() - inputs["plain"].keys() == {"data facts"}
    assert inputs["replay"]["replay"] != inputs["plain"]["replay"]
    assert replay.recipe.replayed("qa") == ("facts",)
    assert "facts" in replay.recipe.trained_on("qa")


SIX = {"mini_qwen", "mini_qwen_dpo_variants", "gen_sft", "tiger_lora"}
"""Planned for six devices: their dtype, or their size, is not for the CPUs of tests."""
SHIPPED = sorted(path for path in (Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_a_shipped_recipe_is_planned_within_ten_seconds_and_writes_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    began = time.process_time()  # of this process: the wall belongs to whatever else the machine does
    planned_for = devices("6x80GB") if file.stem in SIX else None
    for loaded in load_variants(file):
        assert make_plan(Prepared(loaded, tmp_path / "run", planned_for)).stages
    assert time.process_time() - began < 10
    assert not (tmp_path / "run").exists()


def test_the_command_says_the_published_products_steps_and_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SHIPPED[0].parents[1])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = ["plan", "recipes/mini_qwen.yaml", "--devices", "6x80GB", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    for words in ("998.8 M parameters, 155.6 M of them for a vocabulary of 151,936", "6 × 80 GB, not here, bfloat16",
                  "12 × 16 × 6 = 1152", "4 × 16 × 6 = 384", "13,523", "462"):  # fmt: skip
        assert words in done.output
    assert not (tmp_path / "run").exists()
