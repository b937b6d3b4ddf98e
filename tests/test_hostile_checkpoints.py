"""Checkpoints of strangers: nothing that is in one is run, and nothing too large is read."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from runner import foreign_code, loadable, model
from runner.errors import BadCheckpoint
from runner.probing.engine import loading
from tests.tiny import copy


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What a bomb makes; it must not be there at the end."""
    return tmp_path / "it ran"


@pytest.fixture
def armed(tiny_checkpoint: Path, tmp_path: Path, mark: Path) -> Path:
    """A checkpoint whose only weights are a pickle that runs code, beside others that Trainer leaves."""
    made = copy(tiny_checkpoint, tmp_path / "checkpoint-10")
    (made / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (made / name).write_bytes(pickle.dumps(Bomb(mark)))
    return made


def test_the_bomb_works(mark: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.is_dir()


def test_pickled_weights_are_refused_with_what_to_do(armed: Path, mark: Path) -> None:
    assert loadable.problem(armed) == (
        "pytorch_model.bin is a pickle, and reading one can run any code that is in it\n"
        f"    hint: have it saved as safetensors; or, where you trust who made it, set RECIPE_PICKLES={armed}"
    )
    for load in (lambda: loading.load_weights(armed, "float32"), lambda: model.load(armed, "sdpa", "float32")):
        with pytest.raises(BadCheckpoint, match="pytorch_model.bin is a pickle"):
            load()
    assert not mark.exists()


def test_a_pickle_that_the_user_names_is_read_and_still_runs_nothing(
    armed: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECIPE_PICKLES", f"elsewhere{os.pathsep}{armed}")
    with pytest.raises(BadCheckpoint):
        loading.load_weights(armed, "float32")
    assert not mark.exists()


def test_honest_pickles_that_the_user_names_are_loaded(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = copy(tiny_checkpoint, tmp_path / "old")
    network = loading.load_weights(tiny_checkpoint, "float32")
    torch.save(network.state_dict(), made / "pytorch_model.bin")
    (made / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint):
        loading.load_weights(made, "float32")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECIPE_PICKLES", "old")
    assert loadable.problem(made) == ""
    theirs = loading.load_weights(made, "float32")
    assert all(torch.equal(theirs.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_a_pickle_beside_safetensors_is_not_read(tiny_checkpoint: Path, tmp_path: Path, mark: Path) -> None:
    made = copy(tiny_checkpoint, tmp_path / "both")
    (made / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    assert loadable.problem(made) == ""
    loading.load_weights(made, "float32")
    assert not mark.exists()


def test_a_pickled_adapter_is_refused_too(tiny_checkpoint: Path, tmp_path: Path, mark: Path) -> None:
    made = tmp_path / "adapter"
    made.mkdir()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(tiny_checkpoint),
        "target_modules": ["q_proj"],
        "r": 2,
    }
    (made / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (made / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    assert "adapter_model.bin is a pickle" in loadable.problem(made)
    for load in (lambda: loading.load_model(made, "float32"), lambda: model.load(made, "sdpa", "float32")):
        with pytest.raises(BadCheckpoint, match="adapter_model.bin is a pickle"):
            load()
    assert not mark.exists()


def test_shards_that_an_index_names_are_looked_at(armed: Path) -> None:
    index = {"weight_map": {"model.embed_tokens.weight": "pytorch_model.bin"}}
    (armed / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    (armed / "pytorch_model.bin").rename(armed / "shard.bin")
    index["weight_map"]["model.embed_tokens.weight"] = "shard.bin"
    (armed / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert loadable.problem(armed).startswith("shard.bin is a pickle")


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_code_that_comes_with_a_model_is_not_run(
    tiny_checkpoint: Path, tmp_path: Path, mark: Path, known: bool
) -> None:
    """Known: transformers has the model itself, so that it is loaded without the code."""
    made = copy(tiny_checkpoint, tmp_path / "custom")
    config = json.loads((made / "config.json").read_text("utf-8"))
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    config["model_type"] = config["model_type"] if known else "of_its_own"
    (made / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told = json.loads((made / "tokenizer_config.json").read_text("utf-8"))
    told["auto_map"] = {"AutoTokenizer": ["own.Tokenizer", None]}
    (made / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    (made / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n", encoding="utf-8")
    if known:
        loading.load_weights(made, "float32")
    else:
        needs = r"it needs Python that comes with it \(auto_map in its configuration\), and code of a checkpoint"
        for load in (lambda: loading.load_weights(made, "float32"), lambda: model.load(made, "sdpa", "float32")):
            with pytest.raises(BadCheckpoint, match=needs):
                load()
    assert not mark.exists()


def test_what_other_errors_say_is_left_as_it_is() -> None:
    assert foreign_code.reworded("a shard is missing") == "a shard is missing"


def test_a_header_that_is_longer_than_its_file_or_nested_without_end_is_damage(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    made = copy(tiny_checkpoint, tmp_path / "headers")
    for header in (b"\xff" * 8, (2**40).to_bytes(8, "little"), (4000).to_bytes(8, "little") + b"[" * 4000):
        (made / "model.safetensors").write_bytes(header + b"\0" * 16)
        assert loadable.problem(made) == "model.safetensors is cut short or damaged"


def test_a_configuration_that_is_nested_without_end_or_far_too_large_is_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    made = copy(tiny_checkpoint, tmp_path / "configs")
    (made / "config.json").write_text("[" * 100_000, encoding="utf-8")
    assert loadable.problem(made) == "config.json is damaged"
    with (made / "config.json").open("wb") as file:
        file.truncate(loadable.MAX_JSON_BYTES + 1)
    assert loadable.problem(made) == "config.json has 64,000,001 bytes, and no configuration has more than 64,000,000"


def test_an_index_cannot_name_a_file_outside_of_its_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    made = copy(tiny_checkpoint, tmp_path / "outside")
    shutil.move(made / "model.safetensors", tmp_path / "x.safetensors")
    for name in ("../x.safetensors", str(tmp_path / "x.safetensors")):
        index = {"weight_map": {"model.embed_tokens.weight": name}}
        (made / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        assert loadable.problem(made) == f"model.safetensors.index.json names {name}, which is not in its folder"
