"""dpo on a real tiny model: which reference, which token ids, which loss."""

from __future__ import annotations

import inspect
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOTrainer

from runner import checkpoints, recipe, spec
from runner.check import load_checked
from runner.preparation import Prepared, make_plan
from runner.spec.stages import DpoLoss
from runner.train import preference
from tests.in_process import begin, finished, losses, prepare, train
from tests.tiny_project import write_project

Weights = dict[str, torch.Tensor]
SETS = (
    *(f"stages.{name}.save_strategy=no" for name in ("base", "qa", "prefer")),
    "model.config.attention_dropout=0.0", "stages.prefer.from=qa@last", "stages.prefer.num_train_epochs=2",
)  # fmt: skip


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
    file = write_project(tmp_path_factory.mktemp("preference"))
    prepared = prepare(file, file.parent / "run", *SETS)
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


# --- losses ---


def test_every_loss_of_the_installed_trl_can_be_chosen() -> None:
    source = inspect.getsource(DPOTrainer._compute_loss)
    assert set(re.findall(r'loss_type == "(\w+)"', source)) == set(get_args(DpoLoss))


@pytest.fixture
def one_batch(stage: Stage) -> Iterator[Callable[..., float]]:
    """The loss of one batch at the trained policy, with other settings of the trainer."""
    trainer, kept = stage.trainer, dict(vars(stage.trainer))
    rows, _ = stage.collated[0]
    plain = [{name: row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in rows]

    def loss(*types: str, weights: Sequence[float] = (), **settings: Any) -> float:
        trainer.loss_types, trainer.loss_weights = list(types), list(weights) or [1.0] * len(types)
        for name, value in settings.items():
            setattr(trainer, name, value)
        with torch.no_grad():
            return float(trainer.compute_loss(trainer.model.eval(), trainer.data_collator(plain)))

    yield loss
    trainer.__dict__.update(kept)


@pytest.mark.parametrize("name", get_args(DpoLoss))
def test_every_loss_is_a_number_that_differs_from_the_others(one_batch: Callable[..., float], name: str) -> None:
    value = one_batch(name, label_smoothing=0.01)
    assert math.isfinite(value)
    assert name in ("sigmoid", "robust", "aot") or value != pytest.approx(one_batch("sigmoid"), abs=1e-6)


def test_several_losses_are_summed_with_their_weights(one_batch: Callable[..., float]) -> None:
    both = one_batch("sigmoid", "sft", weights=(0.7, 0.3))
    assert both == pytest.approx(0.7 * one_batch("sigmoid") + 0.3 * one_batch("sft"), abs=1e-6)


def test_the_loss_sft_is_the_cross_entropy_of_chosen(stage: Stage, one_batch: Callable[..., float]) -> None:
    policy = AutoModelForCausalLM.from_pretrained(stage.prefer)
    rows, _ = stage.collated[0]
    log_p = sum(_log_p(policy, row, row["chosen_ids"]) for row in rows)
    assert one_batch("sft") == pytest.approx(-log_p / sum(len(row["chosen_ids"]) for row in rows), abs=1e-5)


def again(stage: Stage, run: Path, *sets: str) -> Prepared:
    """The run as it was before its last stage, with something changed in that."""
    shutil.copytree(stage.prepared.run, run, ignore=shutil.ignore_patterns("prefer", "*prefer.jsonl"))
    loaded = load_checked(stage.prepared.loaded.path, [*SETS, *sets])
    (run / "recipe.yaml").write_text(recipe.dump(loaded), encoding="utf-8")
    return Prepared(loaded, run)


def test_what_is_learned_does_not_depend_on_the_micro_batches(stage: Stage, tmp_path: Path) -> None:
    """Of 19 pairs, 8 to a step, the last step has 3: at two at a time, its third pair is alone."""
    found = []
    for name, *sets in (("whole",), ("parts", "stages.prefer.micro_batch_size=2")):
        prepared = again(stage, tmp_path / name, "data.pairs.take=19", *sets)
        found.append((load_file(train(prepared, "prefer") / "model.safetensors"), losses(prepared, "prefer")))
    (whole, at_once), (parts, in_parts) = found
    assert [event.loss for event in in_parts] == pytest.approx([event.loss for event in at_once], abs=1e-5)
    assert max((whole[name] - parts[name]).abs().max().item() for name in whole) < 1e-4


def test_reference_log_probabilities_computed_beforehand_give_the_same_losses(stage: Stage, tmp_path: Path) -> None:
    prepared = again(stage, tmp_path / "run", "stages.prefer.trainer_args={precompute_ref_log_probs: true}")
    train(prepared, "prefer")
    expected = [event.loss for event in losses(stage.prepared, "prefer")]
    assert [event.loss for event in losses(prepared, "prefer")] == pytest.approx(expected, abs=1e-5)


def test_each_of_several_negatives_gives_a_pair(stage: Stage, tmp_path: Path) -> None:
    ways = ['"{{ other.word }}"', '" {{ word }} is {{ other.colour }}"', '{repeat: "{{ completion }}"}']
    three = f"data.pairs.rejected=[{', '.join(ways)}]"
    prepared = again(stage, tmp_path / "run", three, "stages.prefer.num_train_epochs=1")
    train(prepared, "prefer")
    assert finished(prepared, "prefer").step == 8  # 60 pairs, 8 to a step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_type": "exo_pair"}, "exo_pair needs trainer_args"),
        ({"loss_type": "robust", "trainer_args": {"label_smoothing": 0.5}}, "from 0 to below 0.5, not 0.5"),
        ({"loss_type": "aot", "trainer_args": {"use_weighting": True}}, "aot sorts pairs"),
        (
            {"loss_type": ["sigmoid", "nca_pair"], "trainer_args": {"f_divergence_type": "forward_kl"}},
            "nca_pair goes with no other f_divergence_type",
        ),
    ],
)
def test_losses_that_trl_refuses_are_refused_before(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec.Dpo.model_validate({"kind": "dpo", "data": "pairs", **changes})
