"""Checkpoints whose weights are there and are wrong: never an answer of something else than the checkpoint."""

import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from runner.asking import Decoding
from runner.errors import BadCheckpoint
from runner.probing.engine import Engine
from runner.probing.questions import Question
from tests.tiny import copy

OPEN = Question("abc", decoding=Decoding(max_new_tokens=4))
CLOSED = Question("abc", choices=("a", "bc"))


def change(file: Path, into: object) -> None:
    tensors = load_file(file)
    save_file(into(tensors), file, metadata={"format": "pt"})  # type: ignore[operator]


@pytest.fixture
def adapter(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_checkpoint),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_weights_that_are_no_numbers_answer_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy(tiny_checkpoint, tmp_path / "nan")
    change(folder / "model.safetensors", lambda tensors: {name: one * float("nan") for name, one in tensors.items()})
    answers = Engine(folder).generate([OPEN, CLOSED])
    said = "the model's logits are not numbers: its weights are damaged, or overflow"
    assert [answer.error for answer in answers] == [said, said]


def test_an_adapter_with_tensors_of_other_names_is_not_answered_by_its_base(adapter: Path) -> None:
    Engine(adapter).close()
    file = adapter / "adapter_model.safetensors"
    change(file, lambda tensors: {name.replace("model.model", "model"): one for name, one in tensors.items()})
    with pytest.raises(BadCheckpoint, match=r"the adapter lacks 'base_model.*q_proj.lora_A.weight' and 3 others"):
        Engine(adapter)


def test_a_configuration_of_fewer_layers_does_not_cut_the_model_short(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy(tiny_checkpoint, tmp_path / "cut")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "layer_types": config["layer_types"][:1]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match=r"the weights hold 'model.layers.1.* for which config.json has no place"):
        Engine(folder)


def test_tensors_of_other_shapes_are_named_without_pointing_to_a_report(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = copy(tiny_checkpoint, tmp_path / "shapes")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
    with pytest.raises(BadCheckpoint, match="its tensors do not have the shapes that config.json gives them"):
        Engine(folder)
