"""A look at the model before anything trains: parameters without weights, and what cannot be, with its place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runner import recipe
from runner.check import load_checked
from runner.errors import BadRecipe
from runner.preparation import Look, Prepared, looked, make_plan
from runner.preparation.looked import Seen
from runner.recipe import Loaded

RECIPE = """\
recipe: looked
model:
  config: {model_type: qwen2, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,
           intermediate_size: 48, vocab_size: 700, tie_word_embeddings: TIED}
  tokenizer: {train: char, from_data: rows}
data:
  rows: {path: rows.tsv}
stages:
  base: {kind: sft, data: rows}
  tune: {kind: sft, from: base@last, data: rows, lora: {r: 4, targets: [q_proj, down_proj]}}
  more: {kind: sft, from: tune@last, data: rows, adapter: continue}
  part: {kind: sft, from: base@last, data: rows, train_only: "model.layers.1.mlp.*"}
"""


def load(root: Path, *sets: str, tied: bool = True) -> Loaded:
    (root / "pyproject.toml").touch()
    (root / "rows.tsv").write_text("prompt\tcompletion\na\tb\nc\td\n", encoding="utf-8")
    (root / "looked.yaml").write_text(RECIPE.replace("TIED", str(tied).lower()), encoding="utf-8")
    return load_checked(root / "looked.yaml", sets)


def see(loaded: Loaded, *, elsewhere: bool = False) -> Seen:
    """What the child of a plan would answer, in this process."""
    from runner.train import looking

    asked = looked._Asked([loaded], elsewhere=elsewhere)
    assert looking.main(asked.argv) == 0
    (found,) = asked.read("")
    asked.close()
    return found


def real(loaded: Loaded, lora: Mapping[str, Any] | None) -> tuple[int, int]:
    """Parameters of the network with weights, and those that are trained."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(loaded.spec.model.config or {})
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config))
    if lora is not None:
        network = get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", **lora))
    parameters = list(network.parameters())
    return sum(one.numel() for one in parameters), sum(one.numel() for one in parameters if one.requires_grad)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("written", "lora"),
    [
        ("{r: 4, targets: [q_proj, down_proj]}", {"r": 4, "target_modules": ["q_proj", "down_proj"]}),
        ("{r: 2, targets: all-linear}", {"r": 2, "target_modules": "all-linear"}),
        ("{r: 2, targets: [k_proj], use_dora: true}", {"r": 2, "target_modules": ["k_proj"], "use_dora": True}),
        ("{r: 2, targets: [k_proj], bias: all}", {"r": 2, "target_modules": ["k_proj"], "bias": "all"}),
        ("{r: 2, targets: [k_proj], bias: lora_only}", {"r": 2, "target_modules": ["k_proj"], "bias": "lora_only"}),
    ],
)
def test_an_adapter_has_as_many_parameters_as_peft_makes(
    tmp_path: Path, written: str, lora: dict[str, Any], tied: bool
) -> None:
    loaded = load(tmp_path, f"stages.tune.lora={written}", tied=tied)
    stages = see(loaded).stages
    network = stages["tune"].network
    assert (network.total, network.trained) == real(loaded, lora)
    assert (stages["more"].network.total, stages["more"].network.trained) == (network.total, network.trained)
    assert (stages["base"].network.total, stages["base"].network.trained) == real(loaded, None)
    assert stages["part"].network.trained == 3 * 32 * 48


def test_embeddings_have_as_many_rows_as_the_tokenizer_has_tokens(tmp_path: Path) -> None:
    loaded = load(tmp_path, tied=False)
    found = see(loaded).stages["base"]
    more = found.with_vocabulary(1000)
    assert more.network.total - found.network.total == 2 * 300 * 32
    assert more.network.trained - found.network.trained == 2 * 300 * 32
    assert found.with_vocabulary(None) is found


def test_what_cannot_be_is_refused_with_its_place_in_every_stage_at_once(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, "stages.tune.lora={targets: [q_porj]}", "stages.part.train_only=model.layer.*",
        "model.attn_implementation=flash_attention_2",
    )  # fmt: skip
    with pytest.raises(BadRecipe) as caught:
        see(loaded).check()
    said = caught.value.screen()
    assert "--set stages.tune.lora={targets: [q_porj]}: stages.tune.lora.targets: the model has no module" in said
    assert "did you mean q_proj?" in said
    assert "stages.part.train_only: no parameter of the model matches 'model.layer.*'" in said
    assert "model.attn_implementation: flash_attention_2 cannot run here: " in said


def test_a_slip_in_the_file_is_shown_in_its_line(tmp_path: Path) -> None:
    load(tmp_path)
    file = tmp_path / "looked.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("down_proj", "dwon_proj"), encoding="utf-8")
    with pytest.raises(BadRecipe) as caught:
        see(load_checked(file)).check()
    assert caught.value.screen().splitlines() == [
        f"{file}:10:72: stages.tune.lora.targets: the model has no module 'dwon_proj' that can have an adapter",
        "   10 |   tune: {kind: sft, from: base@last, data: rows, lora: {r: 4, targets: [q_proj, dwon_proj]}}",
        "      |                                                                        ^^^^^^^^^^^^^^^^^^^",
        "    expected: all-linear, or some of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        "    hint: did you mean down_proj?",
    ]


def test_devices_elsewhere_are_taken_for_gpus_and_nothing_of_this_machine_is_asked(tmp_path: Path) -> None:
    wanted = ("model.attn_implementation=flash_attention_2", "model.dtype=float16",
              "stages.tune.lora={targets: [q_proj], quantize: 8bit}")  # fmt: skip
    found = see(load(tmp_path, *wanted), elsewhere=True)
    found.check()
    assert found.half
    assert found.attention == "flash_attention_2 (asked for; whether it can run there is seen there)"


def test_a_model_that_is_not_here_is_no_fault_of_the_recipe(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    file = tmp_path / "looked.yaml"
    text = file.read_text(encoding="utf-8")
    before, after = text.index("  config"), text.index("\ndata:") + 1
    file.write_text(text[:before] + "  path: gone\n" + text[after:], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        found = see(load_checked(file))
    found.check()
    assert found.stages == {}
    assert found.why
    assert loaded.spec.model.config is not None


def test_a_plan_looks_in_a_process_of_its_own_and_says_what_it_saw(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    with Look([loaded]) as look:
        made = make_plan(Prepared(loaded, tmp_path / "run"), look=look.seen)
    base, tune, _, _ = made.stages
    assert made.parameters == "38 k parameters, 22 k of them for a vocabulary of 700"
    assert made.attention == "sdpa (no CUDA device)"
    assert base.memory is not None
    assert base.memory.weights == 4 * (15_648 + 700 * 32)
    assert tune.notes[-1].startswith("trains 1 k of 39 k parameters (")
    assert json.loads(json.dumps(recipe.dump(loaded)))
