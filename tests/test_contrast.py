"""contrast on a real tiny model: the loss is the formula's, whatever the micro-batches are, and it can be resumed."""

from __future__ import annotations

import math
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from runner import checkpoints, recipe, spec
from runner.check import load_checked
from runner.data.candidates import Candidates, wrong_tokens
from runner.events import Logged
from runner.preparation import Prepared, make_plan
from runner.train import contrast
from tests.in_process import begin, finished, losses, prepare, train
from tests.tiny_project import write_project

PROMPTS = [
    Candidates((3, 4, 5), (6, 7, 2), ((6, 8, 2), (9, 7, 2), (6, 7, 7, 7, 2))),
    Candidates((4,), (8, 2), ((9, 9, 9, 2),)),
    Candidates((5, 6, 7, 8), (3, 2), ()),
    Candidates((), (7, 3, 2), ((7, 4, 2), (2,))),  # nothing predicts a row's first token
]
WRONG = [[[7 - 6], [0], [2, 3]], [[0, 1, 2]], [], [[1], [0]]]
"""Positions in each rejected completion that say what chosen does not, by hand."""


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=12, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        intermediate_size=32, max_position_embeddings=32, initializer_range=0.6,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).double()


def stage(**changes: Any) -> spec.Contrast:
    return spec.Contrast.model_validate({"kind": "contrast", "data": "pairs", **changes})


@pytest.mark.parametrize(
    ("chosen", "rejected", "wrong"),
    [
        ("abcd", "abxd", [2]),  # one character
        ("abcd", "axyd", [1, 2]),  # a stretch, as long as what it stands for
        ("abcd", "abxyzcd", [2, 3, 4]),  # something said in between
        ("abcd", "abd", [2]),  # something left out: where it goes on instead
        ("abc.", "abcabc.", [3, 4, 5]),  # said twice: where it should have ended
        ("aaa.", "aaaa.", [3]),
        ("a.", "b,", [0, 1]),
        ("abcd", "ab", []),  # cut off: nothing wrong is left
    ],
)
def test_the_wrong_tokens_are_what_two_completions_do_not_share(chosen: str, rejected: str, wrong: list[int]) -> None:
    assert list(wrong_tokens([ord(char) for char in chosen], [ord(char) for char in rejected])) == wrong


def by_hand(network: Any, row: Candidates, wrong: list[list[int]], how: spec.Contrast) -> dict[str, float]:
    """The terms of one prompt, each completion read alone, token by token."""
    scores, means, unlikely = [], [], []
    for number, said in enumerate(row.completions):
        ids = [*row.prompt_ids, *said]
        with torch.no_grad():
            p = network(input_ids=torch.tensor([ids])).logits[0].softmax(-1)  # (T, V)
        first = len(row.prompt_ids)
        log_ps = {at: math.log(p[first + at - 1, token].item()) for at, token in enumerate(said) if first + at > 0}
        means.append(sum(log_ps.values()) / max(len(log_ps), 1))
        scores.append((sum(log_ps.values()) if how.score == "sum" else means[-1]) / how.temperature)
        if number:
            unlikely += [-math.log(1 - math.exp(log_ps[at])) for at in wrong[number - 1] if at in log_ps]
    return {
        "contrast": -math.log(math.exp(scores[0]) / sum(map(math.exp, scores))),
        "sft": -means[0],
        "unlikelihood": sum(unlikely) / max(len(unlikely), 1),
        "accuracy": float(all(scores[0] > score for score in scores[1:])),
    }


@pytest.mark.parametrize("score", ["sum", "mean"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_every_term_is_the_formulas(network: Any, score: str, temperature: float) -> None:
    how = stage(score=score, temperature=temperature, unlikelihood_weight=1.0)
    batch = contrast.Collate(0)(PROMPTS)
    with torch.no_grad():
        logits = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    found = contrast.parts(how, logits, batch)
    for number, (row, wrong) in enumerate(zip(PROMPTS, WRONG, strict=True)):
        expected = by_hand(network, row, wrong, how)
        got = {name: values[number].item() for name, values in vars(found).items()}
        assert got == pytest.approx(expected, abs=2e-6)


def test_the_gradient_of_unlikelihood_stays_finite_where_the_model_is_certain() -> None:
    batch = contrast.Collate(0)([Candidates((1,), (2, 3), ((4, 3),))])
    logits = torch.zeros(2, 3, 6)
    logits[1, 0, 4] = 200.0  # p(wrong token) is 1 in every float
    logits.requires_grad_()
    term = contrast.parts(stage(unlikelihood_weight=1.0), logits, batch).unlikelihood.sum()
    term.backward()
    assert logits.grad is not None
    assert term.item() == pytest.approx(200 - math.log(5), abs=1e-3)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1, 0, 4].item() == pytest.approx(1.0)


# --- a stage ---


@dataclass
class Trained:
    prepared: Prepared
    folder: Path


SETS = (
    "stages.base.save_strategy=no", "stages.base.num_train_epochs=4", "stages.qa.save_strategy=no",
    "stages.prefer.kind=contrast", "stages.prefer.from=qa@last", "stages.prefer.num_train_epochs=4",
    "stages.prefer.unlikelihood_weight=0.5", "stages.prefer.sft_weight=0.7", "stages.prefer.learning_rate=3.0e-3",
    'data.pairs.rejected=[" {{ word }} is {{ other.colour }}", " {{ word }} is {{ other.colour }}", '
    '{repeat: "{{ completion }}", times: 2}]',
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """20 prompts with three negatives each, 8 to a step: 3 steps an epoch, the last one of 4 prompts."""
    file = write_project(tmp_path_factory.mktemp("contrast"))
    prepared = prepare(file, file.parent / "run", *SETS)
    folders = {name: train(prepared, name) for name in ("base", "qa", "prefer")}
    return Trained(prepared, folders["prefer"])


def again(trained: Trained, run: Path, *sets: str) -> Prepared:
    """The same run up to `qa`, with something changed in the last stage."""
    shutil.copytree(trained.prepared.run, run, ignore=shutil.ignore_patterns("prefer", "*prefer.jsonl"))
    loaded = load_checked(trained.prepared.loaded.path, [*SETS, *sets])
    (run / "recipe.yaml").write_text(recipe.dump(loaded), encoding="utf-8")
    return Prepared(loaded, run)


def test_it_learns_to_prefer_chosen_and_says_so(trained: Trained) -> None:
    found = losses(trained.prepared, "prefer")
    assert len(found) == 12
    assert found[-1].loss < found[0].loss - 0.1
    assert found[-1].more["accuracy"] > found[0].more["accuracy"]
    assert checkpoints.read_manifest(trained.folder).kind == "contrast"
    AutoModelForCausalLM.from_pretrained(trained.folder)


def test_the_parts_that_are_recorded_add_up_to_the_loss(trained: Trained) -> None:
    for event in losses(trained.prepared, "prefer"):
        values = event.more
        total = values["contrast"] + 0.7 * values["sft"] + 0.5 * values["unlikelihood"]
        assert event.loss == pytest.approx(total, rel=1e-4)
        assert values["contrast"] >= 0
        assert values["unlikelihood"] >= 0


def test_losses_recorded_every_few_steps_are_means_over_them(trained: Trained, tmp_path: Path) -> None:
    prepared = again(trained, tmp_path / "run", "stages.prefer.logging_steps=3")
    train(prepared, "prefer")
    every, seldom = losses(trained.prepared, "prefer"), losses(prepared, "prefer")
    for number, event in enumerate(seldom):
        three = every[3 * number : 3 * number + 3]
        for name in ("contrast", "sft", "unlikelihood", "accuracy"):
            assert event.more[name] == pytest.approx(sum(one.more[name] for one in three) / 3, rel=1e-4)


@pytest.mark.parametrize("micro_batch_size", [2, 4])
def test_what_is_learned_does_not_depend_on_the_micro_batches(
    trained: Trained, tmp_path: Path, micro_batch_size: int
) -> None:
    without = "stages.prefer.dropout=0"  # that of the checkpoint it starts from draws otherwise for other batches
    prepared = again(trained, tmp_path / "run", without, f"stages.prefer.micro_batch_size={micro_batch_size}")
    whole = again(trained, tmp_path / "whole", without)
    ours, theirs = (load_file(train(one, "prefer") / "model.safetensors") for one in (prepared, whole))
    pairs = zip(losses(prepared, "prefer"), losses(whole, "prefer"), strict=True)
    assert all(_close(one, other) for one, other in pairs)
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-4


def _close(one: Logged, other: Logged) -> bool:
    return one.loss == pytest.approx(other.loss, abs=1e-4) and one.grad_norm == pytest.approx(other.grad_norm, rel=1e-2)


def test_the_plan_counts_what_the_trainer_reads(trained: Trained) -> None:
    planned = next(found for found in make_plan(trained.prepared).stages if found.name == "prefer")
    counted = finished(trained.prepared, "prefer")
    assert planned.arithmetic.rows == 20
    assert (counted.step, counted.tokens, counted.supervised_tokens) == (
        planned.arithmetic.total_steps,
        planned.counts.tokens,
        planned.counts.supervised,
    )


def test_an_interrupted_stage_resumes_to_the_same_weights(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = again(trained, tmp_path / "run")

    class Interrupted(contrast.ContrastTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            if self.state.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(contrast, "ContrastTrainer", Interrupted)
        assert begin(prepared, "prefer") == 130
    assert checkpoints.weights_sha256(train(prepared, "prefer")) == checkpoints.weights_sha256(trained.folder)


def test_it_trains_an_adapter_and_leaves_the_weights(trained: Trained, tmp_path: Path) -> None:
    prepared = again(trained, tmp_path / "run", "stages.prefer.lora={r: 4}")
    folder = train(prepared, "prefer")
    assert (folder / "adapter_model.safetensors").is_file()
    found = losses(prepared, "prefer")
    assert found[0].loss == pytest.approx(
        losses(trained.prepared, "prefer")[0].loss, rel=0.1
    )  # a new adapter adds nothing
    assert found[-1].loss < found[0].loss
