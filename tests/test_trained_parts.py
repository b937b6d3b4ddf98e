"""Which parameters a stage trains and with what noise: freezing by pattern, dropout, NEFTune, the size of adapters."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from runner import checkpoints, model, spec
from runner.errors import BadRecipe
from runner.train import adapters, causal, frozen
from runner.train.penalties import Share
from tests.in_process import begin, events, losses, prepare, train
from tests.tiny_project import leave_out_dpo, write_project

ONE = ("stages.base.max_steps=1", "stages.base.save_strategy=no")
STILL = "model.config.attention_dropout=0.0"
UNTIED = "model.config.tie_word_embeddings=false"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = write_project(tmp_path_factory.mktemp("parts"))
    leave_out_dpo(found)
    return found


def trained(recipe: Path, run: Path, *sets: str) -> Any:
    """The stage `base`, trained for one step; the trainer too."""
    held: list[causal.CausalTrainer] = []
    prepared = prepare(recipe, run, *ONE, *sets)
    whole = causal.CausalTrainer.train

    def holding(trainer: causal.CausalTrainer, *args: Any, **kwargs: Any) -> Any:
        held.append(trainer)
        return whole(trainer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal.CausalTrainer, "train", holding)
        folder = train(prepared, "base")
    return prepared, folder, held[0]


# --- freezing ---


@pytest.mark.parametrize(
    ("sets", "moved"),
    [
        (("stages.base.freeze=[model.layers.*, model.norm.weight]",), {"model.embed_tokens.weight"}),
        (("stages.base.train_only='*.self_attn.q_proj.*'",), {"model.layers.0.self_attn.q_proj.weight"}),
        ((UNTIED, "stages.base.freeze=lm_head.*", "stages.base.learning_rate=0.1"), None),
    ],
    ids=["freeze", "train_only", "untied"],
)
def test_only_what_the_patterns_leave_is_changed_and_held_by_the_optimizer(
    recipe: Path, tmp_path: Path, sets: tuple[str, ...], moved: set[str] | None
) -> None:
    _, untouched, _ = trained(recipe, tmp_path / "start", *sets, "stages.base.learning_rate=0")
    start = load_file(untouched / "model.safetensors")
    _, folder, trainer = trained(recipe, tmp_path / "run", *sets)
    after = load_file(folder / "model.safetensors")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, start[name])}
    assert changed == (moved or set(after) - {"lm_head.weight"})
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    network: torch.nn.Module = trainer.model  # type: ignore[assignment]
    assert {name for name, parameter in network.named_parameters() if id(parameter) in held} == changed


def test_a_tied_parameter_is_frozen_by_either_name_and_that_is_said(recipe: Path, tmp_path: Path) -> None:
    prepared, folder, _ = trained(recipe, tmp_path / "run", "stages.base.freeze=lm_head.*")
    start = trained(recipe, tmp_path / "start", "stages.base.learning_rate=0")[1]
    before, after = (load_file(one / "model.safetensors") for one in (start, folder))
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert not torch.equal(before["model.norm.weight"], after["model.norm.weight"])
    started = next(event for event in events(prepared, "base") if event.kind == "started")
    assert started.notes == (  # type: ignore[union-attr]
        "model.embed_tokens.weight and lm_head.weight are one tensor (tied weights): not trained",
    )


@pytest.mark.parametrize(
    ("sets", "screen"),
    [
        (
            ["stages.qa.freeze=model.layer.*"],
            "stages.qa.freeze: no parameter of the model matches 'model.layer.*'\n"
            "    expected: a pattern of names such as model.embed_tokens.weight, "
            "model.layers.0.self_attn.q_proj.weight, model.layers.0.self_attn.k_proj.weight, "
            "model.norm.weight, lm_head.weight\n"
            "    hint: did you mean model.layers.*?",
        ),
        (["stages.qa.freeze='*'"], "stages.qa.freeze leaves nothing to train"),
        (
            ["stages.qa.lora={targets: [q_prj]}"],
            "stages.qa.lora.targets: the model has no module 'q_prj' that can have an adapter\n"
            "    expected: all-linear, or some of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj\n"
            "    hint: did you mean q_proj?",
        ),
        (
            ["stages.qa.lora={targets: [lm_head]}"],
            "stages.qa.lora.targets: lm_head shares its weights with another module (tie_word_embeddings)\n"
            "    expected: modules that have weights of their own\n"
            "    hint: an adapter on one of the two could not be merged; leave it out",
        ),
    ],
    ids=["no-parameter", "nothing-left", "no-module", "tied"],
)
def test_a_slip_in_a_later_stage_is_found_before_the_first_one_trains(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], sets: list[str], screen: str
) -> None:
    prepared = prepare(recipe, tmp_path / "run", *ONE, *sets)
    assert begin(prepared, "base") == 2
    assert capfd.readouterr().err == screen + "\n"
    assert not list(checkpoints.published(prepared.run / "base"))


def test_bitsandbytes_that_is_not_installed_is_said_before_anything_trains(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert begin(prepare(recipe, tmp_path / "run", *ONE, "stages.qa.lora={quantize: 4bit}"), "base") == 2
    assert capfd.readouterr().err == (
        "stages.qa.lora.quantize: 4bit needs bitsandbytes, which is not installed\n"
        "    hint: pip install 'recipe-runner[quantize]', or leave quantize out\n"
    )


def test_a_pattern_means_what_it_says_of_tied_and_untied_names(tiny_checkpoint: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_checkpoint)
    stage = spec.Sft.model_validate({"kind": "sft", "data": "x", "train_only": ["lm_head.*", "*.norm.weight"]})
    assert frozen.choose(network, stage) == (
        "model.embed_tokens.weight and lm_head.weight are one tensor (tied weights): trained",
    )
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == {
        "model.embed_tokens.weight", "model.norm.weight",
    }  # fmt: skip


# --- dropout ---


def test_dropout_is_in_force_while_a_stage_trains_and_not_in_what_it_publishes(recipe: Path, tmp_path: Path) -> None:
    slow = ("stages.base.learning_rate=0.0", STILL)
    _, folder, trainer = trained(recipe, tmp_path / "run", *slow, "stages.base.dropout=0.5")
    network: Any = trainer.model
    assert network.model.layers[0].self_attn.attention_dropout == 0.5
    assert json.loads((folder / "config.json").read_text())["attention_dropout"] == 0.0
    plain, still, _ = trained(recipe, tmp_path / "still", *slow)
    assert losses(plain, "base")[0].loss != losses(_of(tmp_path / "run", plain), "base")[0].loss
    assert checkpoints.weights_sha256(still) == checkpoints.weights_sha256(folder)
    assert (still / "config.json").read_text() == (folder / "config.json").read_text()


def _of(run: Path, like: Any) -> Any:
    from runner.preparation import Prepared

    return Prepared(like.loaded, run)


def test_every_dropout_of_a_configuration_is_set_and_a_model_without_any_says_so() -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model("gpt2")
    model.set_dropout(config, 0.25)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.25, 0.25, 0.25)
    assert config.summary_first_dropout == 0.1
    with pytest.raises(BadRecipe) as caught:
        model.set_dropout(AutoConfig.for_model("mamba"), 0.1)
    assert caught.value.screen() == (
        "dropout: a mamba has none\n"
        "    expected: a model whose configuration has a setting such as attention_dropout\n"
        "    hint: remove it; lora.dropout is another one, of the adapter's input"
    )
    model.set_dropout(AutoConfig.for_model("mamba"), 0.0)  # there is none to take away


# --- NEFTune ---


@pytest.mark.parametrize("lora", [False, True])
def test_neftune_noise_is_uniform_in_alpha_over_the_root_of_length_times_width_and_off_at_evaluation(
    recipe: Path, tmp_path: Path, lora: bool
) -> None:
    seen: dict[bool, list[tuple[torch.Tensor, torch.Tensor]]] = {True: [], False: []}
    sets = ("stages.base.neftune_noise_alpha=5", *(["stages.base.lora={}"] if lora else []))
    whole = causal.CausalTrainer.training_step

    def watching(trainer: causal.CausalTrainer, network: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        embeddings = network.get_input_embeddings()
        hook = embeddings.register_forward_hook(
            lambda module, ids, made: seen[module.training].append((ids[0], (made - module.weight[ids[0]]).detach()))
        )
        network.eval()
        network(input_ids=inputs["input_ids"])
        network.train()
        found = whole(trainer, network, inputs, *args, **kwargs)
        hook.remove()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal.CausalTrainer, "training_step", watching)
        train(prepare(recipe, tmp_path / "run", *ONE, *sets), "base")
    assert all(not noise.any() for _, noise in seen[False])
    ((ids, noise),) = seen[True]
    bound = 5 / (ids.shape[1] * 32) ** 0.5
    assert noise.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert noise.abs().max().item() <= bound * 1.0001
    assert noise.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


# --- the size of an adapter ---


def test_l2_adds_the_mean_of_the_norms_of_a_and_b_whatever_the_micro_batches(recipe: Path, tmp_path: Path) -> None:
    # plain gradient descent: one step moves a matrix by its gradient, which is what is compared
    sets = (STILL, "stages.base.trainer_args={optim: sgd}", "stages.base.max_grad_norm=0")
    sets += ("stages.base.learning_rate=1.0",)
    runs = {
        (l2, size): trained(
            recipe, tmp_path / f"{l2}-{size}", *sets, f"stages.base.lora={{l2: {l2}, r: 2}}",
            f"stages.base.micro_batch_size={size}",
        )
        for l2, size in ((0.0, 8), (3.0, 8), (3.0, 2))
    }  # fmt: skip
    tensors = {key: load_file(folder / "adapter_model.safetensors") for key, (_, folder, _) in runs.items()}
    network = model.load(runs[3.0, 8][1].parent / "base", "sdpa", "float32")
    start = adapters.new(network, spec.Lora(r=2), "base", 7)
    own = {name.replace(".default", ""): tensor.detach() for name, tensor in start.named_parameters() if "lora" in name}
    mean = sum(tensor.double().norm().item() for tensor in own.values()) / len(own)
    assert losses(runs[3.0, 8][0], "base")[0].more["l2"] == pytest.approx(3 * mean, rel=1e-5)
    for size in (8, 2):
        gap = losses(runs[3.0, size][0], "base")[0].loss - losses(runs[0.0, 8][0], "base")[0].loss
        assert gap == pytest.approx(3 * mean, rel=1e-4)
        for name, tensor in tensors[3.0, size].items():
            # the gradient of l2 / n * |A| is l2 / n * A / |A|; B is 0, where it is 0
            before = own[name]
            pull = 3 / len(own) * before / before.norm() if before.norm() else torch.zeros_like(before)
            torch.testing.assert_close(tensors[0.0, 8][name] - tensor, pull, atol=2e-6, rtol=1e-4)


def test_the_parts_of_the_micro_batches_add_up_to_the_term_of_the_step(tiny_checkpoint: Path) -> None:
    network = adapters.new(model.load(tiny_checkpoint, "sdpa", "float32"), spec.Lora(), "base", 1)
    term = adapters.SmallAdapter(network, 0.5)
    parts = [term.loss(network, {}, None, Share(0, index, 4, torch.tensor(1.0))).item() for index in range(4)]
    assert sum(parts) == pytest.approx(0.5 * adapters.mean_norm(network).item(), rel=1e-6)
