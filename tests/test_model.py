"""A model of a config, and a trainer's arguments: what a recipe cannot have is a user's error that names its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from runner import model, spec
from runner.checkpoints import weights_sha256
from runner.errors import BadRecipe
from runner.recipe.model_configs import causal_types, settings_of
from runner.train import arguments
from tests.in_process import begin, prepare, train
from tests.tiny_project import leave_out_dpo, write_project

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_checkpoint)
    return found


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "qwen33"}, "model.config.model_type: transformers has no model type 'qwen33'"),
        ({"model_type": "qwen3", "hidden": 3}, "model.config: qwen3 has no setting 'hidden'"),
        ({"model_type": "qwen3", **SMALL, "head_dim": "x"}, "no qwen3 can be made of these settings: .*head_dim"),
        ({"model_type": "llama", **SMALL, "num_attention_heads": 5}, "no llama can be made of these settings: "),
        ({"model_type": "qwen3", **SMALL, "hidden_act": "silly"}, "no qwen3 can be made of these settings: .*silly"),
        ({"model_type": "clip"}, "no clip can be made of these settings: "),
    ],
)
def test_a_config_that_makes_no_model_is_an_error_of_the_recipe(
    tokenizer: PreTrainedTokenizerBase, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRecipe, match=message):
        model.build(config, tokenizer, 1, "eager")


def test_a_vocabulary_may_be_larger_than_its_tokenizer_and_never_smaller(tokenizer: PreTrainedTokenizerBase) -> None:
    own = max(tokenizer.get_vocab().values()) + 1
    sizes = (
        model.build({"model_type": "llama", **SMALL, "vocab_size": size}, tokenizer, 1, "eager").config.vocab_size
        for size in (own + 7, 3)
    )
    assert tuple(sizes) == (own + 7, own)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_attention_is_chosen_among_those_that_the_type_of_model_has() -> None:
    chosen = {kind: model.choose_attention("auto", "float32", kind) for kind in ("bloom", "qwen3", "", "no_such_type")}
    assert {kind: choice.value for kind, choice in chosen.items()} == {
        "bloom": "eager", "qwen3": "sdpa", "": "sdpa", "no_such_type": "sdpa",
    }  # fmt: skip
    assert (chosen["bloom"].why, chosen["qwen3"].why) == ("bloom has no other", "no CUDA device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_float16_on_a_cpu_is_an_error_of_the_recipe() -> None:
    with pytest.raises(BadRecipe, match=r"^model\.dtype: float16 cannot be trained on a CPU"):
        model.choose_dtype("float16")
    assert model.choose_dtype("bfloat16").value == "bfloat16"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["stages.base.trainer_args={optim: adamm}"], "trainer_args.optim cannot be as it is written: "),
        (["stages.base.trainer_args={adam_epsilon: 1.0e-9, torch_compile_mode: 3, optim: lomo}"], "trainer_args.optim"),
        (["stages.base.lr_scheduler_type=cosine_with_min_lr"], "lr_scheduler_type cannot be as it is written: "),
        (["model.dtype=float16"], "model.dtype: float16"),
    ],
    ids=["optim", "not-installed", "schedule", "dtype"],
)
def test_an_impossible_value_ends_the_trainer_as_a_users_error_that_names_the_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], sets: list[str], said: str
) -> None:
    recipe = write_project(tmp_path / "project")
    leave_out_dpo(recipe)
    assert begin(prepare(recipe, tmp_path / "run", *sets), "base") == 2
    assert capfd.readouterr().err.startswith(said)


def test_what_a_trainer_refuses_while_it_trains_is_blamed_on_the_argument_it_names() -> None:
    stage = spec.Dpo.model_validate({"kind": "dpo", "data": "pairs", "trainer_args": {"f_divergence_type": "near"}})
    with (
        pytest.raises(BadRecipe, match=r"^trainer_args\.f_divergence_type cannot be as it is written: Unknown"),
        arguments.blamed(stage),
    ):
        raise ValueError("Unknown f_divergence_type: near")
    with pytest.raises(ValueError, match="of our own"), arguments.blamed(stage):
        raise ValueError("a bug of our own")


def test_the_settings_read_from_source_are_those_that_configurations_have() -> None:
    assert len(causal_types()) > 100
    for kind in ("qwen3", "llama", "gpt2", "mistral", "qwen3_moe", "gemma3_text", "mamba"):
        found, made = settings_of(kind), AutoConfig.for_model(kind)
        assert found is not None
        wanted = {*made.to_dict(), *made.attribute_map} - {"model_type", "_attn_implementation", "architectures"}
        assert {key for key in wanted if not key.startswith("_")} <= {*found.types, *found.others}
        assert all(hasattr(made, key) for key in found.types)


def test_workers_that_load_the_data_change_neither_rows_nor_their_order(tmp_path: Path) -> None:
    recipe = write_project(tmp_path / "project")
    leave_out_dpo(recipe)
    still = ["stages.base.num_train_epochs=3", "stages.base.save_strategy=no", "model.config.attention_dropout=0.0"]
    alone = prepare(recipe, tmp_path / "alone", *still)
    shared = prepare(recipe, tmp_path / "shared", *still, "stages.base.trainer_args={dataloader_num_workers: 2}")
    assert weights_sha256(train(alone, "base")) == weights_sha256(train(shared, "base"))
