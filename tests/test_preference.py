"""dpo on a real tiny model: which reference, which token ids, which loss."""

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
from transformers import AutoModelForCausalLM, AutoTokenizer

from runner import checkpoints
from runner.preparation import Prepared, make_plan
from runner.train import preference
from tests.in_process import begin, finished, losses, prepare, train
from tests.tiny_project import write_project

Weights = dict[str, torch.Tensor]


@dataclass
class Stage:
    """The stage `prefer`, after it was trained from `qa`."""

    prepared: Prepared
    base: Path
    qa: Path
    prefer: Path
    trainer: preference.PreferenceTrainer
    policy_at_start: Weights
    reference_at_start: Weights
    collated: list[tuple[list[dict[str, list[int]]], dict[str, torch.Tensor]]]
    """What TRL's collator was given and what it made of it, batch by batch."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Three stages trained in this process, by the trainer itself; what it held at its start is kept."""
    recipe = write_project(tmp_path_factory.mktemp("preference"))
    sets = [f"stages.{name}.save_strategy=no" for name in ("base", "qa", "prefer")]
    sets += ["model.config.attention_dropout=0.0", "stages.prefer.from=qa@last", "stages.prefer.num_train_epochs=2"]
    prepared = prepare(recipe, recipe.parent / "run", *sets)
    held: dict[str, Any] = {}

    class Holding(preference.PreferenceTrainer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            held["trainer"] = self
            held["policy_at_start"] = _copy(self.model.state_dict())
            held["reference_at_start"] = _copy(self.ref_model.state_dict())
            collate, held["collated"] = self.data_collator, []

            def recording(rows: list[dict[str, list[int]]]) -> Any:
                held["collated"].append((rows, made := collate(rows)))
                return made

            self.data_collator = recording

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preference, "PreferenceTrainer", Holding)
        folders = {name: train(prepared, name) for name in ("base", "qa", "prefer")}
    return Stage(prepared, **folders, **held)


def _copy(weights: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in weights.items()}


def _same(left: Weights, right: Weights) -> bool:
    """Whether all tensors that both name are equal; tied ones are saved once."""
    names = left.keys() & right.keys()
    assert "model.embed_tokens.weight" in names
    assert len(names) >= 10
    return all(torch.equal(left[name], right[name]) for name in names)


def test_the_reference_is_the_checkpoint_the_stage_starts_from(stage: Stage) -> None:
    assert _same(stage.reference_at_start, load_file(stage.qa / "model.safetensors"))
    assert _same(stage.policy_at_start, stage.reference_at_start)
    assert not _same(stage.reference_at_start, load_file(stage.base / "model.safetensors"))


def test_the_reference_stays_while_the_policy_learns(stage: Stage) -> None:
    assert _same(stage.trainer.ref_model.state_dict(), stage.reference_at_start)
    learnt = load_file(stage.prefer / "model.safetensors")
    assert _same(stage.trainer.model.state_dict(), learnt)
    assert not _same(learnt, stage.reference_at_start)
    assert not any(parameter.requires_grad for parameter in stage.trainer.ref_model.parameters()) or all(
        parameter.grad is None for parameter in stage.trainer.ref_model.parameters()
    )


def test_the_first_loss_is_ln_2_and_it_falls(stage: Stage) -> None:
    found = [event.loss for event in losses(stage.prepared, "prefer")]
    assert found[0] == pytest.approx(math.log(2), abs=1e-6)
    assert found[-1] < math.log(2) - 0.01


def test_the_loss_of_a_later_step_is_dpos_formula_by_hand(stage: Stage) -> None:
    """-log sigmoid(beta * ((log p_c - log q_c) - (log p_r - log q_r))), of sums over a completion's tokens."""
    policy = AutoModelForCausalLM.from_pretrained(stage.prefer)
    reference = AutoModelForCausalLM.from_pretrained(stage.qa)
    by_hand = []
    for row in stage.collated[0][0]:
        margins = []
        for network in (policy, reference):
            chosen, rejected = (_log_p(network, row, row[side]) for side in ("chosen_ids", "rejected_ids"))
            margins.append(chosen - rejected)
        by_hand.append(-math.log(1 / (1 + math.exp(-0.1 * (margins[0] - margins[1])))))

    trainer = stage.trainer
    _, batch = stage.collated[0]
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model.eval(), batch).item()
    assert loss == pytest.approx(sum(by_hand) / 8, abs=1e-5)
    assert abs(loss - math.log(2)) > 1e-3


def _log_p(network: Any, row: dict[str, list[int]], said: list[int]) -> float:
    prompt = row["prompt_ids"]
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([prompt + said])).logits[0].double()  # (T, V)
    scores = torch.log_softmax(logits, dim=-1)
    return sum(scores[len(prompt) + at - 1, token].item() for at, token in enumerate(said))


def test_trl_gets_our_token_ids_with_an_eos_on_both_sides(stage: Stage) -> None:
    tokenizer = AutoTokenizer.from_pretrained(stage.qa)
    pairs = stage.prepared.data.get("pairs").pairs()
    rows = list(stage.trainer.train_dataset)
    assert len(rows) == len(pairs) == 20
    for row, pair in zip(rows, pairs, strict=True):
        for text, ids in ((pair.prompt, row["prompt_ids"]), (pair.chosen, row["chosen_ids"][:-1])):
            assert ids == [tokenizer.convert_tokens_to_ids(char) for char in text]
        assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row["rejected_ids"][:-1]) == pair.rejected != pair.chosen


def test_what_reaches_the_model_counts_the_completion_and_its_eos_and_nothing_of_the_prompt(stage: Stage) -> None:
    rows, batch = stage.collated[0]
    expected = [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
    assert len(batch["input_ids"]) == 16  # 8 chosen, then their 8 rejected
    for at, (prompt, said) in enumerate(expected):
        assert batch["input_ids"][at][batch["attention_mask"][at].bool()].tolist() == prompt + said
        assert batch["input_ids"][at][batch["completion_mask"][at].bool()].tolist() == said


def test_every_epoch_has_each_pair_once_in_another_order(stage: Stage) -> None:
    seen = [(*row["prompt_ids"], -1, *row["rejected_ids"]) for rows, _ in stage.collated for row in rows]
    assert len(seen) == 40
    assert sorted(seen[:20]) == sorted(seen[20:])
    assert len(set(seen[:20])) == 20
    assert seen[:20] != seen[20:]


def test_the_plan_counts_the_tokens_that_the_trainer_sees(stage: Stage) -> None:
    planned = next(found for found in make_plan(stage.prepared).stages if found.name == "prefer")
    counted = finished(stage.prepared, "prefer")
    assert (counted.step, counted.tokens, counted.supervised_tokens) == (
        planned.arithmetic.total_steps,
        planned.counts.tokens,
        planned.counts.supervised,
    )


def test_a_stage_interrupted_inside_an_epoch_resumes_against_the_same_reference_to_the_same_weights(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stage.prepared.run, run, ignore=shutil.ignore_patterns("prefer", "*prefer.jsonl"))
    prepared = Prepared(stage.prepared.loaded, run)

    class Interrupted(preference.PreferenceTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            if self.state.global_step == 4:  # of 6, 3 to an epoch
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(preference, "PreferenceTrainer", Interrupted)
        assert begin(prepared, "prefer") == 130
    assert [path.name for path in (run / "prefer" / "state").glob("checkpoint-*")] == ["checkpoint-5"]
    assert checkpoints.weights_sha256(train(prepared, "prefer")) == checkpoints.weights_sha256(stage.prefer)
