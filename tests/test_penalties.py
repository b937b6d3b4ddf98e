"""KL and EWC on a real tiny model: each term is what its paper says, however a step's rows are divided."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from runner.check import load_checked
from runner.data.epochs import Epochs
from runner.data.tokens import Encoding, Tokens
from runner.preparation import Prepared, inputs_of, make_plan
from runner.train import penalties
from runner.train.batches import Collate
from runner.train.penalties import ElasticWeights, KlToStart, Share, Start, StepRows
from tests.in_process import begin, losses, prepare, train
from tests.tiny import make_checkpoint
from tests.tiny_project import leave_out_dpo, write_project

ROWS = [
    Tokens([5, 9, 11, 30, 31, 2], ((3, 6),), 0),
    Tokens([7, 12, 2], ((1, 3),), 1),
    Tokens([20, 21, 22, 23, 24, 25, 26, 2], ((0, 8),), 2),
    Tokens([13, 40, 41, 15, 2], ((2, 3), (4, 5)), 3),
]
"""A prompt and its completion, two of them short, a document, and two turns."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("penalties") / "model")


def network_of(folder: Path) -> PreTrainedModel:
    network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return network


def moved(network: torch.nn.Module, by: float, seed: int = 1) -> None:
    """Move every parameter that is trained, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in penalties.trained(network).values():
            value.add_(by * torch.randn(value.shape, generator=generator))


def whole_step(batch: Mapping[str, Any], step: int = 0) -> Share:
    return Share(step, 0, 1, penalties.weight_of(batch))


def called(network: PreTrainedModel, batch: Mapping[str, Any]) -> Any:
    return network(**penalties.model_inputs(batch))


# --- KL ---


def kl_by_hand(before: PreTrainedModel, now: PreTrainedModel, prompt_weight: float) -> float:
    """Row by row in float64: the weighted mean over tokens of the sum over the vocabulary of p (log p - log q)."""
    total = weights = 0.0
    with torch.no_grad():
        for row in ROWS:
            p, q = (
                torch.log_softmax(model.double()(input_ids=torch.tensor([row.ids])).logits[0], dim=-1)
                for model in (before, now)
            )
            for position in range(1, len(row.ids)):
                inside = any(start <= position < stop for start, stop in row.spans)
                weight = 1.0 if inside else prompt_weight
                nats = sum((p[position - 1].exp() * (p[position - 1] - q[position - 1])).tolist())
                total, weights = total + weight * nats, weights + weight
    return total / weights


@pytest.mark.parametrize("prompt_weight", [0.0, 0.3])
def test_kl_is_the_weighted_mean_of_each_tokens_divergence_computed_by_hand_in_float64(
    folder: Path, prompt_weight: float
) -> None:
    network = network_of(folder)
    start = Start(network)
    moved(network, 0.02)
    batch = Collate(1, prompt_weight)(ROWS)
    term = KlToStart(0.7, start).loss(network, batch, called(network, batch), whole_step(batch))
    by_hand = kl_by_hand(network_of(folder), network, prompt_weight)
    assert by_hand > 0.01
    assert term.item() == pytest.approx(0.7 * by_hand, abs=1e-6)


def test_kl_is_zero_at_the_start_and_pulls_nowhere(folder: Path) -> None:
    network = network_of(folder)
    batch = Collate(1, 0.0)(ROWS)
    term = KlToStart(1.0, Start(network)).loss(network, batch, called(network, batch), whole_step(batch))
    assert term.item() == pytest.approx(0, abs=1e-7)
    term.backward()
    assert all(value.grad is None or value.grad.abs().max() < 1e-6 for value in network.parameters())


def test_the_gradient_of_kl_on_logits_is_the_difference_of_the_distributions() -> None:
    generator = torch.Generator().manual_seed(3)
    before = torch.randn((2, 5, 7), generator=generator)
    now = torch.randn((2, 5, 7), generator=generator).requires_grad_()
    batch = {"labels": torch.tensor([[1, 2, 3, 4, 5], [1, -100, 3, -100, -100]])}
    penalties.divergence(before, now, batch).backward()
    expected = now.softmax(-1) - before.softmax(-1)
    expected[0, 4] = expected[1, 0] = expected[1, 2:] = 0  # they predict nothing that is supervised
    torch.testing.assert_close(now.grad, expected.detach(), atol=1e-6, rtol=0)


def test_the_start_is_compared_without_dropout_and_draws_nothing(folder: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(folder, attention_dropout=0.5, dtype=torch.float32)
    batch = penalties.model_inputs(Collate(1, 0.0)(ROWS))
    quiet = network.eval()(**batch).logits
    network.train()
    state = torch.get_rng_state()
    torch.testing.assert_close(Start(network).logits(batch), quiet, atol=1e-5, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training


def adapted(folder: Path, **changes: Any) -> peft.PeftModel:
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False, **changes)
    torch.manual_seed(5)
    return peft.get_peft_model(network_of(folder), config)


def test_with_a_fresh_adapter_the_start_is_the_model_without_it(folder: Path) -> None:
    network = peft.get_peft_model(network_of(folder), peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    start = Start(network)
    moved(network, 0.1)
    batch = penalties.model_inputs(Collate(1, 0.0)(ROWS))
    base = network_of(folder).eval()(**batch).logits
    assert not torch.allclose(network(**batch).logits, base, atol=1e-2)
    torch.testing.assert_close(start.logits(batch), base, atol=1e-5, rtol=0)
    assert set(start.parameters) == {name for name, _ in network.named_parameters() if "lora_" in name}


def test_a_continued_adapter_starts_as_it_was_not_without_it(folder: Path) -> None:
    network = adapted(folder)
    batch = penalties.model_inputs(Collate(1, 0.0)(ROWS))
    as_it_was = network.eval()(**batch).logits.detach()
    start = Start(network)
    moved(network, 0.1)
    torch.testing.assert_close(start.logits(batch), as_it_was, atol=1e-5, rtol=0)
    assert not torch.allclose(network_of(folder)(**batch).logits, as_it_was, atol=1e-2)


@dataclass
class Cycle:
    """Epochs of which each has the rows in another order."""

    rows: list[Tokens]

    def __len__(self) -> int:
        return len(self.rows)

    def epoch(self, epoch: int) -> list[Tokens]:
        return self.rows[epoch % len(self.rows) :] + self.rows[: epoch % len(self.rows)]


def step_rows(rows: int) -> StepRows:
    return StepRows(Cycle(ROWS), rows, Collate(1, 0.0))  # type: ignore[arg-type]


def test_a_steps_rows_follow_from_its_number_alone_and_epochs_follow_each_other() -> None:
    drawn = [row.row for step in range(4) for row in step_rows(3).of_step(step)]
    assert drawn == [0, 1, 2, 3, 1, 2, 3, 0, 2, 3, 0, 1]
    again = step_rows(3)
    assert [row.row for row in again.of_step(3)] == drawn[9:]
    assert [row.row for row in again.of_step(0)] == drawn[:3]


@pytest.mark.parametrize("of", [1, 2, 3, 8])
def test_the_micro_batches_of_a_step_share_its_rows_out_and_their_terms_add_up(folder: Path, of: int) -> None:
    network = network_of(folder)
    term = KlToStart(1.0, Start(network), step_rows(4))
    moved(network, 0.02)
    outputs = called(network, batch := Collate(1, 0.0)(ROWS))
    none_of_it = torch.tensor(1.0)  # the step's own rows do not matter
    parts = [term.loss(network, batch, outputs, Share(0, index, of, none_of_it)) for index in range(of)]
    by_hand = kl_by_hand(network_of(folder), network, 0.0)
    assert sum(part.item() for part in parts) == pytest.approx(by_hand, abs=1e-6)


# --- EWC ---


def fisher_by_hand(network: PreTrainedModel) -> dict[str, torch.Tensor]:
    """In float64, one token after the other: the mean over rows of the squared gradient of the row's log likelihood."""
    network = network.double()
    found = {name: torch.zeros_like(value) for name, value in penalties.trained(network).items()}
    for row in ROWS:
        network.zero_grad()
        scores = torch.log_softmax(network(input_ids=torch.tensor([row.ids])).logits[0], dim=-1)
        likelihood = sum(
            scores[position - 1, row.ids[position]]
            for start, stop in row.spans
            for position in range(max(start, 1), stop)
        )
        assert isinstance(likelihood, torch.Tensor)
        likelihood.backward()
        for name, value in penalties.trained(network).items():
            if value.grad is not None:
                found[name] += value.grad**2 / len(ROWS)
    return found


@pytest.mark.parametrize("adapter", [False, True], ids=["whole", "adapter"])
def test_fisher_is_the_mean_over_rows_of_squared_gradients_computed_by_hand(folder: Path, adapter: bool) -> None:
    network: Any = adapted(folder) if adapter else network_of(folder)
    for name, value in network.named_parameters():
        if "layers.0.mlp" in name:
            value.requires_grad_(False)
    found = penalties.fisher(network, ROWS)
    by_hand = fisher_by_hand(network)
    assert found.keys() == by_hand.keys()
    assert not any("layers.0.mlp" in name for name in found)
    assert all("lora_" in name for name in found) == adapter
    assert max(value.max().item() for value in found.values()) > 0.01
    for name, value in by_hand.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-3, atol=1e-7)


def test_fisher_of_a_fresh_adapter_is_zero_on_a_and_not_on_b(folder: Path) -> None:
    network = peft.get_peft_model(network_of(folder), peft.LoraConfig(r=4, target_modules=["q_proj"]))
    found = penalties.fisher(network, ROWS)
    assert all((value == 0).all() == ("lora_A" in name) for name, value in found.items())


def test_ewc_is_half_its_weight_times_fisher_times_the_squared_way_from_the_start(folder: Path) -> None:
    network = network_of(folder)
    start = Start(network)
    moved(network, 0.05)
    generator = torch.Generator().manual_seed(9)
    fisher = {name: torch.rand(value.shape, generator=generator) for name, value in start.parameters.items()}
    batch = Collate(1, 0.0)(ROWS)
    term = ElasticWeights(3.0, start, fisher)
    parts = [
        term.loss(network, batch, called(network, batch), Share(0, index, 3, torch.ones(()))) for index in range(3)
    ]
    before, now = dict(network_of(folder).named_parameters()), dict(network.named_parameters())
    by_hand = math.fsum(
        (1.5 * fisher[name].double() * (now[name].double() - before[name].double()) ** 2).sum().item() for name in now
    )
    assert sum(part.item() for part in parts) == pytest.approx(by_hand, rel=1e-6)
    torch.stack(parts).sum().backward()
    for name, value in now.items():
        torch.testing.assert_close(
            value.grad, 3.0 * fisher[name] * (value - before[name]).detach(), rtol=1e-4, atol=1e-7
        )


def test_fisher_is_measured_once_for_a_stage_and_again_for_another(folder: Path, tmp_path: Path) -> None:
    def rows() -> Iterator[Tokens]:
        measured.append(1)
        yield from ROWS

    measured: list[int] = []
    network, path = network_of(folder), tmp_path / "state" / "fisher.safetensors"
    first = penalties.kept_fisher(path, "key", network, rows())
    moved(network, 0.1)
    again = penalties.kept_fisher(path, "key", network, rows())
    assert measured == [1]
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = penalties.kept_fisher(path, "another", network, rows())
    assert measured == [1, 1]
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert [file.name for file in path.parent.iterdir()] == ["fisher.safetensors"]


# --- in a stage ---


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The tiny project with its stage `base` trained; the model of the tests below starts from it."""
    recipe = write_project(tmp_path_factory.mktemp("stage"))
    leave_out_dpo(recipe)
    prepared = prepare(recipe, recipe.parent / "base", *STILL)
    train(prepared, "base")
    return prepared


STILL = (
    "model.config.attention_dropout=0.0",
    "stages.base.save_strategy=no",
    "stages.base.max_steps=20",
    "stages.qa.max_steps=3",
    "stages.qa.save_strategy=no",
    "stages.qa.learning_rate=0.05",
    "stages.qa.trainer_args.optim=sgd",
)
KL = ("stages.qa.kl.weight=0.5",)
KL_DATA = (*KL, "stages.qa.kl.data=facts", "stages.qa.kl.rows=5")
EWC = ("stages.qa.ewc.weight=20", "stages.qa.ewc.data=[facts, questions.train]", "stages.qa.ewc.rows=24")


def tuned(base: Prepared, run: Path, *sets: str) -> Prepared:
    """The stage `qa`, trained from the shared base."""
    prepared = prepare(base.loaded.path, run, *STILL, *sets)
    (run / "base").symlink_to(base.run / "base")
    train(prepared, "qa")
    return prepared


def weights(prepared: Prepared) -> dict[str, torch.Tensor]:
    (path,) = (prepared.run / "qa").glob("ckpt-*/*model.safetensors")
    return load_file(path)


@pytest.mark.parametrize(
    "sets",
    [
        KL,
        (*KL, "stages.qa.prompt_loss_weight=0.2"),
        (*KL_DATA, *EWC),
        (*KL, *EWC, "stages.qa.packing=true"),
        (*KL_DATA, *EWC, "stages.qa.lora={r: 4}"),
    ],
    ids=["kl", "kl-prompts", "both", "packed", "adapter"],
)
def test_a_steps_terms_do_not_depend_on_its_micro_batches(
    base: Prepared, tmp_path: Path, sets: tuple[str, ...]
) -> None:
    whole = tuned(base, tmp_path / "whole", *sets)
    parts = tuned(base, tmp_path / "parts", *sets, "stages.qa.micro_batch_size=2")
    assert parts.arithmetic["qa"].accumulation_steps == 4
    before, after = weights(whole), weights(parts)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=2e-6, rtol=0)
    for one, other in zip(losses(whole, "qa"), losses(parts, "qa"), strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert one.more == pytest.approx(other.more, abs=1e-5)


def test_each_term_is_recorded_and_with_the_cross_entropy_they_are_the_loss(base: Prepared, tmp_path: Path) -> None:
    plain = tuned(base, tmp_path / "plain")
    both = tuned(base, tmp_path / "both", *KL, *EWC)
    first, *later = losses(both, "qa")
    assert first.more == {
        "cross_entropy": pytest.approx(losses(plain, "qa")[0].loss, abs=1e-5),
        "kl": pytest.approx(0, abs=1e-6),
        "ewc": pytest.approx(0, abs=1e-6),
    }
    for event in later:
        assert event.more["kl"] > 1e-6
        assert event.more["ewc"] > 1e-6
        assert event.loss == pytest.approx(sum(event.more.values()), abs=1e-6)
    assert all("kl" not in event.more for event in losses(plain, "qa"))


def test_ewc_holds_the_weights_nearer_to_the_start(base: Prepared, tmp_path: Path) -> None:
    start = load_file(base.run / "base" / "ckpt-20" / "model.safetensors")

    def way(name: str, *sets: str) -> float:
        found = weights(tuned(base, tmp_path / name, "stages.qa.max_steps=12", *sets))
        return math.sqrt(sum((found[key] - start[key]).square().sum().item() for key in found))

    plain = way("plain")
    assert way("ewc", "stages.qa.ewc.weight=200", *EWC[1:]) < 0.8 * plain


def test_kl_holds_what_the_model_says_nearer_to_the_start(base: Prepared, tmp_path: Path) -> None:
    def nats(name: str, weight: float) -> float:
        sets = (f"stages.qa.kl.weight={weight}", *KL_DATA[1:], "stages.qa.max_steps=12")
        return losses(tuned(base, tmp_path / name, *sets), "qa")[-1].more["kl"] / weight

    assert nats("held", 5) < 0.5 * nats("free", 1e-3)


def test_epochs_of_penalties_are_whole_documents_and_completions(base: Prepared) -> None:
    rows = Epochs([base.data.get("facts")], base.tokenizer, 7, Encoding(1024)).epoch(0)
    assert all(row.supervised == len(row.ids) - 1 for row in rows)


def test_a_stage_that_is_interrupted_goes_on_with_the_same_fisher_rows_and_weights(
    base: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = (*KL_DATA, *EWC, "stages.qa.max_steps=6", "stages.qa.trainer_args.optim=adamw_torch")
    undisturbed = tuned(base, tmp_path / "undisturbed", *sets)
    prepared = prepare(base.loaded.path, tmp_path / "run", *STILL, *sets)
    (prepared.run / "base").symlink_to(base.run / "base")
    measured: list[int] = []
    plain, batch = penalties.fisher, StepRows.batch

    def counting(network: PreTrainedModel, rows: Any) -> dict[str, torch.Tensor]:
        measured.append(1)
        return plain(network, rows)

    def interrupting(self: StepRows, share: Share) -> Any:
        if share.step == 3 and len(measured) == 1 and not interrupted:
            interrupted.append(share.step)
            signal.raise_signal(signal.SIGTERM)
        return batch(self, share)

    interrupted: list[int] = []
    monkeypatch.setattr(penalties, "fisher", counting)
    monkeypatch.setattr(StepRows, "batch", interrupting)
    assert begin(prepared, "qa") == 130
    assert (prepared.run / "qa" / "state" / "fisher.safetensors").is_file()
    assert begin(prepared, "qa") == 0
    assert (measured, interrupted) == ([1], [3])
    assert all(torch.equal(tensor, weights(prepared)[name]) for name, tensor in weights(undisturbed).items())
    assert [event.more for event in losses(prepared, "qa")] == [event.more for event in losses(undisturbed, "qa")]


# --- around it ---


def test_the_plan_says_what_each_term_reads_and_its_data_is_an_input_that_counts_as_seen(base: Prepared) -> None:
    loaded = load_checked(base.loaded.path, (*STILL, *KL_DATA, *EWC, "stages.qa.ewc.data=questions.held_out"))
    prepared = Prepared(loaded, base.run.parent / "nowhere")
    notes = make_plan(prepared).stages[1].notes
    assert notes[-2:] == (
        "kl 0.5: compared with the start on 5 rows a step of facts, 0.4 passes over 40",
        "ewc 20: what matters is measured on 20 of 20 rows of questions.held_out",
    )
    assert prepared.recipe.reads("qa") == ("questions.train", "facts", "questions.held_out")
    inputs = inputs_of(prepared, "qa", None, "")
    assert {"data facts", "data questions.held_out", "kl", "ewc"} <= inputs.keys()
    (leak,) = (leak for leak in prepared.leaks if leak.suite == "right")
    assert (leak.stage, leak.ref, leak.leaked) == ("qa", "questions.held_out", 20)


def test_kl_without_data_says_so_in_the_plan(base: Prepared) -> None:
    prepared = Prepared(load_checked(base.loaded.path, (*STILL, *KL)), base.run.parent / "nowhere")
    assert make_plan(prepared).stages[1].notes[-1] == "kl 0.5: compared with the start on the tokens that are learned"
