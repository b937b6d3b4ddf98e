"""runner.probing.engine.loading: checkpoints that cannot be loaded, and the screen of each."""

import json
from pathlib import Path

import pytest

from runner.errors import BadCheckpoint
from runner.probing.engine import Engine
from runner.probing.questions import Question
from tests.tiny import copy


def screen(folder: Path) -> list[str]:
    with pytest.raises(BadCheckpoint) as caught:
        Engine(folder)
    return caught.value.screen().replace(str(folder), "CKPT").splitlines()


def test_cut_weights_are_a_bad_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = copy(tiny_checkpoint, tmp_path / "cut")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    said = screen(broken)
    assert said[0].startswith("CKPT: the model could not be loaded: ")
    assert said[1:] == ["    expected: config.json with its *.safetensors"]


def test_weights_that_lack_a_layer_are_a_bad_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = copy(tiny_checkpoint, tmp_path / "lacking")
    change_config(broken, num_hidden_layers=3)
    assert screen(broken) == [
        "CKPT: the weights lack 'model.layers.2.input_layernorm.weight' and 10 others, which config.json calls for"
    ]


def test_weights_of_another_shape_are_a_bad_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = copy(tiny_checkpoint, tmp_path / "shape")
    change_config(broken, intermediate_size=48)
    assert screen(broken) == [
        "CKPT: the model could not be loaded: its tensors do not have the shapes that config.json gives them",
        "    expected: config.json with its *.safetensors",
    ]


def test_weights_of_more_layers_are_a_bad_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = copy(tiny_checkpoint, tmp_path / "more")
    change_config(broken, num_hidden_layers=1)
    assert screen(broken) == [
        "CKPT: the weights hold 'model.layers.1.input_layernorm.weight' and 10 others, for which config.json has no "
        "place",
        "    hint: config.json is of a smaller model, or of another one",
    ]


def test_a_tokenizer_that_is_missing_is_a_bad_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = copy(tiny_checkpoint, tmp_path / "tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (broken / name).unlink()
    assert screen(broken) == [
        "CKPT: there is no tokenizer",
        "    expected: tokenizer.json and tokenizer_config.json beside the weights",
    ]


def test_a_damaged_tokenizer_is_a_bad_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = copy(tiny_checkpoint, tmp_path / "tokenizer")
    (broken / "tokenizer.json").write_text("{", encoding="utf-8")
    said = screen(broken)
    assert said[0].startswith("CKPT: no tokenizer could be loaded: ")
    assert said[1:] == ["    expected: tokenizer.json and tokenizer_config.json beside the weights"]


def test_a_checkpoints_own_sampling_settings_are_not_used(tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = copy(tiny_checkpoint, tmp_path / "sampling")
    settings = {"do_sample": True, "repetition_penalty": 9.0, "temperature": 3.0, "eos_token_id": 2}
    (other / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    asked = [Question("abc" * k) for k in range(1, 6)]
    plain = Engine(tiny_checkpoint).generate(asked)
    assert [answer.tokens for answer in Engine(other).generate(asked)] == [answer.tokens for answer in plain]


def change_config(folder: Path, **settings: int) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config | settings), encoding="utf-8")
