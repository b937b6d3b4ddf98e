"""Adapters on a real tiny model: what is published, who goes on with it, what dpo compares with, where it loads."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from runner import checkpoints, loadable, model, spec
from runner.errors import BadRecipe
from runner.preparation import Prepared, make_plan
from runner.probing.engine import loading
from runner.train import adapters, causal, preference
from tests.in_process import begin, events, losses, prepare, train
from tests.tiny_project import RECIPE, write_project

STAGES = """\
stages:
  base: {kind: pretrain, data: facts, max_steps: 20, learning_rate: 3.0e-3, global_batch_size: 8}
  add: {kind: lora, from: base@last, data: questions.train, max_steps: 5, learning_rate: 1.0e-2, global_batch_size: 8,
        lora: {r: 4, targets: [q_proj, v_proj, down_proj]}, logging_steps: 1}
  more: {kind: sft, from: add@last, data: questions.train, max_steps: 1, learning_rate: 0.0, lora: {dropout: 0.1}}
  whole: {kind: sft, from: add@last, data: questions.train, max_steps: 1, learning_rate: 0.0}
  anew: {kind: lora, from: add@last, adapter: merge, data: questions.train, max_steps: 1, learning_rate: 0.0}
  prefer: {kind: dpo, from: add@last, adapter: continue, data: pairs, max_steps: 3, learning_rate: 1.0e-2,
           global_batch_size: 8, logging_steps: 1}
  direct: {kind: dpo, from: add@last, data: pairs, max_steps: 2, learning_rate: 1.0e-2, global_batch_size: 8,
           logging_steps: 1}
  fresh: {kind: dpo, from: base@last, lora: {use_dora: true}, data: pairs, max_steps: 2, learning_rate: 1.0e-2,
          global_batch_size: 8, logging_steps: 1}
  noisy: {kind: dpo, from: add@last, adapter: continue, lora: {dropout: 0.3}, dropout: 0.3, data: pairs, max_steps: 1,
          global_batch_size: 8, trainer_args: {disable_dropout: false}}
  noisy_new: {kind: dpo, from: base@last, lora: {dropout: 0.3}, dropout: 0.3, data: pairs, max_steps: 1,
              global_batch_size: 8, trainer_args: {disable_dropout: false}}
"""
TEXT = "what is bado?"


def recipe_with(root: Path, stages: str) -> Path:
    """The tiny project with other stages, and no probes."""
    recipe = write_project(root)
    recipe.write_text(RECIPE[: RECIPE.index("stages:")] + stages, encoding="utf-8")
    return recipe


@dataclass
class Trained:
    """Every stage, trained, and what the two trainers of dpo were given."""

    prepared: Prepared
    folders: Mapping[str, Path]
    trainers: Mapping[str, Any]
    before: Mapping[str, torch.Tensor]
    """Logits of what each stage of dpo starts with, before its first step."""
    passes: Mapping[str, list[Pass]]
    """Of each stage of dpo, what its model and its reference made of each batch, in turn."""


@dataclass
class Pass:
    """What a network made of a batch while a stage of dpo trained."""

    reference: bool
    ids: torch.Tensor
    labels: torch.Tensor
    log_probs: torch.Tensor
    """Of each token but the first: (B, T-1)."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("adapters")
    prepared = prepare(recipe_with(root, STAGES), root / "run")
    trainers: dict[str, Any] = {}
    before: dict[str, torch.Tensor] = {}
    passes: dict[str, list[Pass]] = {}

    class Holding(preference.PreferenceTrainer):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            name = Path(self.args.output_dir).parent.name
            trainers[name] = self
            self.create_optimizer()
            before[name] = _logits(self.model)
            for network in (self.model, self.ref_model):
                if network is not None:
                    network.register_forward_hook(_passing(passes.setdefault(name, [])), with_kwargs=True)
            return super().train(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preference, "PreferenceTrainer", Holding)
        folders = {name: train(prepared, name) for name in prepared.recipe.stages}
    return Trained(prepared, folders, trainers, before, passes)


def _passing(kept: list[Pass]) -> Any:
    """A hook that keeps what a network makes of its batches; gradients are off where it is the reference."""

    def keep(network: Any, args: Any, given: Any, made: Any) -> None:
        if getattr(made, "log_probs", None) is not None:
            kept.append(
                Pass(not torch.is_grad_enabled(), given["input_ids"], given["labels"], made.log_probs.detach().clone())
            )

    return keep


def _logits(network: Any, folder: Path | None = None) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder) if folder else None
    ids = tokenizer(TEXT, return_tensors="pt").input_ids if tokenizer else torch.arange(3, 15)[None]
    was = network.training
    with torch.no_grad():
        found: torch.Tensor = network.eval()(input_ids=ids).logits
    network.train(was)
    return found


def answers(folder: Path) -> torch.Tensor:
    return _logits(loading.load_model(folder, "float32"))


# --- what is published ---


def test_an_adapter_is_published_without_the_weights_it_stands_on(trained: Trained) -> None:
    folder = trained.folders["add"]
    names = {file.name for file in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "manifest.json"} <= names
    assert not {"model.safetensors", "config.json", "README.md"} & names
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 6
    assert {tensor.shape[0] if "lora_A" in name else tensor.shape[1] for name, tensor in tensors.items()} == {4}
    assert loadable.problem(folder) == ""


def test_plain_peft_loads_a_published_adapter_from_any_working_folder(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = trained.folders["add"]
    found = AutoPeftModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(_logits(found), answers(folder), atol=1e-5, rtol=0)
    by_hand = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(trained.folders["base"]), str(folder))
    assert torch.equal(_logits(by_hand), _logits(found))
    assert not torch.allclose(_logits(found), answers(trained.folders["base"]), atol=1e-2)


def test_a_run_that_was_moved_as_a_whole_has_its_adapters_still(trained: Trained, tmp_path: Path) -> None:
    run, expected = trained.prepared.run, answers(trained.folders["add"])
    shutil.copytree(run, tmp_path / "moved")
    moved = {name: tmp_path / "moved" / folder.relative_to(run) for name, folder in trained.folders.items()}
    away = run.with_name("away")
    run.rename(away)
    try:
        assert torch.equal(answers(moved["add"]), expected)
        assert loadable.base_of(moved["add"]) == moved["base"]
        assert loadable.base_of(moved["anew"]) == tmp_path / "moved" / "anew" / "base"
        assert checkpoints.read_manifest(moved["add"]).base == "../../base/ckpt-20"
    finally:
        away.rename(run)


def test_the_digest_of_an_adapter_covers_its_base_and_its_scale(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.prepared.run, run)
    folder, base = (run / trained.folders[name].relative_to(trained.prepared.run) for name in ("add", "base"))
    before = checkpoints.weights_sha256(folder)
    assert before == checkpoints.read_manifest(folder).weights_sha256
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["target_modules"].reverse()  # which PEFT writes in any order
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    assert checkpoints.weights_sha256(folder) == before
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 17}))
    assert checkpoints.weights_sha256(folder) != before
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (base / "manifest.json").unlink()
    assert checkpoints.weights_sha256(folder) == before  # of the files themselves
    other = trained.folders["whole"]
    shutil.copy(other / "model.safetensors", base / "model.safetensors")
    assert checkpoints.weights_sha256(folder) != before


def test_only_the_adapter_is_trained_and_the_screen_is_told(trained: Trained) -> None:
    started = next(event for event in events(trained.prepared, "add") if event.kind == "started")
    held = sum(tensor.numel() for tensor in load_file(trained.folders["add"] / "adapter_model.safetensors").values())
    assert started.trained == held < started.parameters  # type: ignore[union-attr]
    assert losses(trained.prepared, "add")[-1].loss < losses(trained.prepared, "add")[0].loss


# --- hand-over ---


def test_an_adapter_that_goes_on_starts_as_it_was_with_its_own_shape_and_the_dropout_that_is_asked(
    trained: Trained,
) -> None:
    before, after = (load_file(trained.folders[name] / "adapter_model.safetensors") for name in ("add", "more"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    settings = loadable.adapter_settings(trained.folders["more"])
    assert (settings["r"], settings["lora_dropout"], settings["inference_mode"]) == (4, 0.1, True)
    assert loadable.base_of(trained.folders["more"]) == trained.folders["base"].resolve()


def test_a_stage_without_lora_trains_the_merged_weights(trained: Trained) -> None:
    assert (trained.folders["whole"] / "model.safetensors").is_file()
    assert not loadable.is_adapter(trained.folders["whole"])
    torch.testing.assert_close(answers(trained.folders["whole"]), answers(trained.folders["add"]), atol=1e-5, rtol=0)


def test_a_new_adapter_after_a_merge_stands_on_the_merged_weights_which_are_kept(trained: Trained) -> None:
    base = trained.prepared.run / "anew" / "base"
    assert loadable.base_of(trained.folders["anew"]) == base.resolve()
    assert torch.equal(answers(base), answers(trained.folders["whole"]))
    assert torch.equal(answers(base), answers(trained.folders["anew"]))  # learning rate 0: B is 0
    assert loadable.adapter_settings(trained.folders["anew"])["r"] == 8
    AutoTokenizer.from_pretrained(base)


def test_the_plan_says_what_becomes_of_each_adapter(trained: Trained) -> None:
    notes = {stage.name: stage.notes for stage in make_plan(trained.prepared).stages}
    assert notes == {
        "base": (),
        "add": ("from base@last; a new adapter, r 4, alpha 16, on q_proj, v_proj, down_proj",),
        "more": ("from add@last, adapter continued",),
        "whole": ("from add@last, adapter merged",),
        "anew": ("from add@last, adapter merged; a new adapter, r 8, alpha 16, on all-linear",),
        "prefer": ("from add@last, adapter continued",),
        "direct": ("from add@last, adapter merged",),
        "fresh": ("from base@last; a new adapter, r 8, alpha 16, on all-linear, DoRA",),
        "noisy": ("from add@last, adapter continued",),
        "noisy_new": ("from base@last; a new adapter, r 8, alpha 16, on all-linear",),
    }


# --- dpo ---


def reference(trainer: Any) -> Any:
    """The trainer's network as its reference sees it, once training is over."""
    trainer.model.set_adapter("ref")
    return trainer.model


def test_the_reference_of_an_adapter_that_goes_on_is_the_adapter_as_it_was_and_not_the_bare_base(
    trained: Trained,
) -> None:
    trainer = trained.trainers["prefer"]
    was = answers(trained.folders["add"])
    torch.testing.assert_close(trained.before["prefer"], was, atol=1e-5, rtol=0)
    torch.testing.assert_close(_logits(reference(trainer)), was, atol=1e-5, rtol=0)
    assert not torch.allclose(was, answers(trained.folders["base"]), atol=1e-2)
    assert not torch.allclose(answers(trained.folders["prefer"]), was, atol=1e-3)
    assert losses(trained.prepared, "prefer")[0].loss == pytest.approx(0.693147, abs=1e-5)


def test_the_reference_of_a_new_adapter_is_its_base(trained: Trained) -> None:
    bare = answers(trained.folders["base"])
    torch.testing.assert_close(trained.before["fresh"], bare, atol=1e-4, rtol=0)
    torch.testing.assert_close(_logits(reference(trained.trainers["fresh"])), bare, atol=1e-4, rtol=0)
    assert not torch.allclose(answers(trained.folders["fresh"]), bare, atol=1e-3)


def test_the_reference_after_a_merge_is_the_merged_model(trained: Trained) -> None:
    was = answers(trained.folders["add"])
    trainer = trained.trainers["direct"]
    torch.testing.assert_close(trained.before["direct"], was, atol=1e-5, rtol=0)
    torch.testing.assert_close(_logits(trainer.ref_model), was, atol=1e-5, rtol=0)
    assert not torch.allclose(answers(trained.folders["direct"]), was, atol=1e-3)
    assert losses(trained.prepared, "direct")[0].loss == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "start", "draws"),
    [
        ("prefer", "add", False),  # a copy of the adapter on the same network: dropout there would reach both
        ("fresh", "base", False),
        ("noisy", "add", True),
        ("noisy_new", "base", True),
    ],
)
def test_the_reference_of_an_adapter_says_what_it_says_without_dropout(
    trained: Trained, name: str, start: str, draws: bool
) -> None:
    policy, reference = trained.passes[name][:2]
    assert (policy.reference, reference.reference) == (False, True)
    with torch.no_grad():
        logits = loading.load_model(trained.folders[start], "float32").eval()(input_ids=reference.ids).logits
    said = torch.log_softmax(logits[:, :-1], dim=-1).gather(-1, reference.ids[:, 1:, None])[..., 0]  # (B, T-1)
    seen = reference.labels[:, 1:] != -100
    torch.testing.assert_close(reference.log_probs[seen], said[seen], atol=1e-4, rtol=0)
    # before the first step both are the same model, but for what the one that is trained drops
    away = (policy.log_probs - reference.log_probs)[seen].abs().max()
    assert away > 0.01 if draws else away < 1e-4


def test_the_optimizer_of_dpo_holds_the_adapter_that_is_trained_and_not_its_copy(trained: Trained) -> None:
    trainer = trained.trainers["prefer"]
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    names = {name for name, parameter in trainer.model.named_parameters() if id(parameter) in held}
    assert names
    assert all(".default." in name for name in names)
    assert not (trained.folders["prefer"] / "ref").exists()


# --- resuming ---


@pytest.mark.parametrize("name", ["add", "prefer"])
def test_an_adapter_stage_that_was_interrupted_resumes_to_the_same_weights(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.prepared.run, run, ignore=shutil.ignore_patterns(name, f"*{name}.jsonl"))
    prepared = Prepared(trained.prepared.loaded, run)
    kind: Any = causal.CausalTrainer if name == "add" else preference.PreferenceTrainer
    undisturbed = kind.training_step

    def interrupted(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return undisturbed(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "training_step", interrupted)
        assert begin(prepared, name) == 130
    folder = train(prepared, name)
    own, expected = (load_file(one / "adapter_model.safetensors") for one in (folder, trained.folders[name]))
    assert all(torch.equal(own[key], expected[key]) for key in expected)
    assert checkpoints.weights_sha256(folder) == checkpoints.weights_sha256(trained.folders[name])


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_base_in_few_bits_is_trained_on_and_probed_whole(tmp_path: Path, bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    stages = """\
stages:
  base: {kind: pretrain, data: facts, max_steps: 2, global_batch_size: 8}
  add: {kind: lora, from: base@last, data: questions.train, max_steps: 2, learning_rate: 1.0e-2}
"""
    prepared = prepare(recipe_with(tmp_path, stages), tmp_path / "run", f"stages.add.lora={{quantize: {bits}}}")
    base, folder = train(prepared, "base"), train(prepared, "add")
    assert loadable.base_of(folder) == base.resolve()
    assert not torch.equal(answers(folder), answers(base))


# --- adapters from elsewhere ---


def test_an_adapter_from_a_folder_goes_on_or_is_merged(trained: Trained, tmp_path: Path) -> None:
    stages = """\
stages:
  on: {kind: lora, data: questions.train, max_steps: 1, learning_rate: 0.0}
  off: {kind: sft, from: FOLDER, data: questions.train, max_steps: 1, learning_rate: 0.0}
"""
    folder = trained.folders["add"]
    recipe = recipe_with(tmp_path, stages.replace("FOLDER", str(folder)))
    prepared = prepare(recipe, tmp_path / "run", f"model={{path: {folder}}}")
    notes = {stage.name: stage.notes for stage in make_plan(prepared).stages}
    assert notes == {"on": (f"from {folder}, adapter continued",), "off": (f"from {folder}, adapter merged",)}
    before, after = (load_file(one / "adapter_model.safetensors") for one in (folder, train(prepared, "on")))
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.testing.assert_close(answers(train(prepared, "off")), answers(folder), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("lora", "screen"),
    [
        (
            {"alpha": 8.0},
            "lora.alpha is 8.0, and the adapter that goes on has 16\n    expected: the alpha of add/ckpt-5\n"
            "    hint: leave it out, or say adapter: merge to begin a new one on what this one has learned",
        ),
        (
            {"targets": ("v_proj",)},
            "lora.targets is v_proj, and the adapter that goes on is on other modules\n"
            "    expected: down_proj, q_proj, v_proj\n"
            "    hint: leave it out, or say adapter: merge to begin a new one on what this one has learned",
        ),
    ],
)
def test_an_adapter_that_goes_on_cannot_be_given_another_shape(
    trained: Trained, lora: dict[str, Any], screen: str
) -> None:
    network = model.load(trained.folders["base"], "sdpa", "float32")
    with pytest.raises(BadRecipe) as caught:
        adapters.continued(network, spec.Lora(**lora), trained.folders["add"], "base")
    assert caught.value.screen() == screen
    same = spec.Lora(r=4, alpha=16, targets=("down_proj", "q_proj", "v_proj"))
    adapters.continued(network, same, trained.folders["add"], "base")


def test_dpo_cannot_train_an_adapter_on_an_output_layer_of_its_own() -> None:
    network: Any = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    )
    asked = spec.Lora(targets=("lm_head", "q_proj"))
    adapters.check_output(network, asked, "sft")
    with pytest.raises(BadRecipe) as caught:
        adapters.check_output(network, asked, "dpo")
    assert caught.value.screen() == (
        "lora.targets: dpo cannot train an adapter on the output layer, lm_head\n    expected: other modules\n"
        "    hint: TRL reads the layer's weights, past the adapter; leave it out"
    )
