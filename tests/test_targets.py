"""Which checkpoints `--ckpt` means, and what plainly ails them: by their files alone, nothing is loaded."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runner import checkpoints, loadable
from runner.errors import BadCheckpoint, UserError
from runner.probing.targets import find, find_baseline, is_checkpoint
from tests.tiny import copy


def make(folder: Path, *names: str) -> Path:
    """A folder with empty files."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def found(tmp_path: Path, *given: str) -> list[str]:
    return [target.path.relative_to(tmp_path).as_posix() for target in find(given, tmp_path, tmp_path)]


def screen(tmp_path: Path, *given: str) -> str:
    with pytest.raises(UserError) as caught:
        find(given, tmp_path, tmp_path)
    return caught.value.screen().replace(str(tmp_path), "TMP")


# --- what a path means ---


def test_an_output_folder_means_its_checkpoints_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("checkpoint-1000", "checkpoint-200", "checkpoint-30", "runs", "checkpoint-best"):
        make(tmp_path / "out" / name, "config.json")
    assert found(tmp_path, "out") == ["out/checkpoint-30", "out/checkpoint-200", "out/checkpoint-1000"]


@pytest.mark.parametrize("pattern", ["ckpt-{}", "step_{}", "step-{}", "epoch_{}", "iter_{:07}"])
def test_other_trainers_name_their_checkpoints_otherwise(tmp_path: Path, pattern: str) -> None:
    names = [pattern.format(number) for number in (2, 10)]
    for name in reversed(names):
        make(tmp_path / "out" / name, "config.json")
    assert found(tmp_path, "out") == [f"out/{name}" for name in names]


def test_a_half_written_checkpoint_of_an_output_folder_is_asked_too_and_says_why(tmp_path: Path) -> None:
    make(tmp_path / "out" / "checkpoint-1", "config.json")
    make(tmp_path / "out" / "checkpoint-2")
    assert [target.problem for target in find(["out"], tmp_path, tmp_path)] == [
        "config.json is damaged", "the folder is empty",
    ]  # fmt: skip


def test_a_folder_with_weights_is_one_checkpoint_though_others_lie_below_it(tmp_path: Path) -> None:
    make(tmp_path / "out", "config.json", "model.safetensors")
    make(tmp_path / "out" / "checkpoint-5", "config.json", "model.safetensors")
    assert found(tmp_path, "out") == ["out"]
    assert found(tmp_path, "out/checkpoint-*", "out") == ["out/checkpoint-5", "out"]


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_a_configuration_that_a_trainer_wrote_as_it_began_hides_no_checkpoint(tmp_path: Path, name: str) -> None:
    make(tmp_path / "out", name, "tokenizer.json")  # axolotl
    make(tmp_path / "out" / "checkpoint-5", "config.json")
    assert found(tmp_path, "out") == ["out/checkpoint-5"]


def test_a_glob_over_output_folders_means_the_checkpoints_in_each(tmp_path: Path) -> None:
    for name in ("a/checkpoint-2", "a/checkpoint-10", "b/checkpoint-1"):
        make(tmp_path / name, "config.json")
    assert found(tmp_path, "[ab]") == ["a/checkpoint-2", "a/checkpoint-10", "b/checkpoint-1"]
    assert found(tmp_path, "*/checkpoint-?") == ["a/checkpoint-2", "b/checkpoint-1"]


def test_a_checkpoint_named_twice_is_asked_once(tmp_path: Path) -> None:
    make(tmp_path / "out" / "checkpoint-5", "config.json")
    assert found(tmp_path, "out/checkpoint-5", "out", "out/checkpoint-*") == ["out/checkpoint-5"]


def test_an_output_folder_with_several_checkpoints_is_no_baseline(tmp_path: Path) -> None:
    for number in (1, 2):
        make(tmp_path / "out" / f"checkpoint-{number}", "config.json")
    with pytest.raises(UserError, match="is 2 checkpoints"):
        find_baseline("out", [], tmp_path, tmp_path)


# --- what is none ---


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            "out/model.safetensors",
            "--ckpt out/model.safetensors is a file\n"
            "    expected: a folder with config.json or adapter_config.json\n"
            "    hint: give its folder: --ckpt out",
        ),
        (
            "m.gguf",
            "--ckpt m.gguf is a file\n"
            "    expected: a folder with config.json or adapter_config.json\n"
            "    hint: start a server with it (llama-server -m m.gguf) and give its address with --probe-endpoint",
        ),
        (
            "before.jsonl",
            "--ckpt before.jsonl is a file\n"
            "    expected: a folder with config.json or adapter_config.json\n"
            "    hint: a verdict file is what checkpoints are compared with: --probe-baseline",
        ),
        (
            "empty",
            "--ckpt empty is not a checkpoint and holds none\n"
            "    expected: a folder with config.json or adapter_config.json, a run, or a folder of checkpoint-N, "
            "ckpt-N, step_N, epoch_N or iter_N",
        ),
        (
            "ouut",
            "--ckpt ouut: no such folder\n    hint: did you mean out?",
        ),
        (
            "Qwen/Qwen3-0.6B",
            "--ckpt Qwen/Qwen3-0.6B: no such folder\n    hint: checkpoints are folders on this machine",
        ),
        (
            "out/*",
            "--ckpt out/* matches no checkpoint\n    expected: a folder with config.json or adapter_config.json",
        ),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_says_what_to_give_instead(tmp_path: Path, given: str, shown: str) -> None:
    make(tmp_path / "out", "config.json", "model.safetensors")
    make(tmp_path / "empty")
    (tmp_path / "m.gguf").touch()
    (tmp_path / "before.jsonl").touch()
    assert screen(tmp_path, given) == shown


def test_a_positional_folder_with_the_name_of_a_checkpoint_is_one_unless_it_holds_tests(tmp_path: Path) -> None:
    assert is_checkpoint(make(tmp_path / "checkpoint-20"))  # half-written, of an unquoted glob
    assert not is_checkpoint(make(tmp_path / "step_1", "test_probe.py"))
    assert not is_checkpoint(make(tmp_path / "probes"))


# --- what ails it ---


def test_a_whole_checkpoint_has_no_problem(tiny_checkpoint: Path) -> None:
    assert loadable.problem(tiny_checkpoint) == ""
    assert not loadable.is_half_written(tiny_checkpoint)


def cut(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


def shard(path: Path) -> None:
    """The weights in two files with an index, as save_pretrained(max_shard_size=…) leaves them."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    halves = sorted(tensors)[::2], sorted(tensors)[1::2]
    where = {}
    for number, names in enumerate(halves, 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, path / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(names, file))
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (path / "model.safetensors").unlink()


def misplace(path: Path) -> None:
    shard(path)
    index = path / "model.safetensors.index.json"
    row = json.loads(index.read_text())
    first, second = sorted(set(row["weight_map"].values()))
    name = next(name for name, file in row["weight_map"].items() if file == second)
    row["weight_map"][name] = first
    index.write_text(json.dumps(row))


def lose_a_shard(path: Path) -> None:
    shard(path)
    (path / "model-00002-of-00002.safetensors").unlink()


def cut_a_shard(path: Path) -> None:
    shard(path)
    cut(path / "model-00002-of-00002.safetensors", -10)


def only_deepspeed(path: Path) -> None:
    (path / "model.safetensors").unlink()
    make(path / "global_step10", "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (path / "zero_to_fp32.py").touch()


def only_fsdp(path: Path) -> None:
    (path / "model.safetensors").unlink()
    make(path / "pytorch_model_fsdp_0", "__0_0.distcp")


def only_gguf(path: Path) -> None:
    (path / "model.safetensors").rename(path / "model-q4.gguf")


def cut_bin(path: Path) -> None:
    with zipfile.ZipFile(path / "pytorch_model.bin", "w") as archive:
        archive.writestr("data.pkl", "x" * 100)
    cut(path / "pytorch_model.bin", -10)
    (path / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: (path / "config.json").unlink(), "config.json is missing"),
        (lambda path: (path / "config.json").write_text(""), "config.json is damaged"),
        (lambda path: (path / "config.json").write_text("[]"), "config.json is damaged"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "model.safetensors is empty: 0 bytes"),
        (lambda path: cut(path / "model.safetensors", 20), "model.safetensors is cut short or damaged"),
        (lambda path: cut(path / "model.safetensors", -10), "model.safetensors is cut short: SIZE of SIZE bytes"),
        (lambda path: (path / "model.safetensors").unlink(), "no weights: there is no *.safetensors"),
        (
            lambda path: (path / "model.safetensors").rename(path / "consolidated.safetensors"),
            "no weights: there is no *.safetensors\n"
            "    hint: consolidated.safetensors is there, and would be read as model.safetensors",
        ),
        (lose_a_shard, "model-00002-of-00002.safetensors is missing: model.safetensors.index.json names it"),
        (cut_a_shard, "model-00002-of-00002.safetensors is cut short: SIZE of SIZE bytes"),
        (misplace, "model.safetensors.index.json is wrong: TENSOR is not in model-00001-of-00002.safetensors"),
        (
            lambda path: (shard(path), (path / "model.safetensors.index.json").write_text("{}")),
            "model.safetensors.index.json is damaged",
        ),
        (cut_bin, "pytorch_model.bin is cut short or damaged"),
        (
            only_deepspeed,
            "no weights but the shards of DeepSpeed in global_step10\n"
            "    hint: merge them: python CKPT/zero_to_fp32.py CKPT CKPT",
        ),
        (
            only_fsdp,
            "no weights but the shards of FSDP in pytorch_model_fsdp_0\n"
            "    hint: merge them: accelerate merge-weights CKPT/pytorch_model_fsdp_0 CKPT",
        ),
        (
            only_gguf,
            "no weights but a GGUF file\n    hint: start llama-server with it and give --probe-endpoint URL",
        ),
        (
            lambda path: [file.unlink() for file in path.glob("tok*")],
            "no tokenizer: there is no tokenizer.json\n"
            "    hint: Trainer saves one only where it was given processing_class=tokenizer; for this checkpoint, save "
            "the tokenizer it was trained with there: AutoTokenizer.from_pretrained(BASE).save_pretrained('CKPT')",
        ),
    ],
)  # fmt: skip
def test_what_ails_a_checkpoint_is_named(
    tiny_checkpoint: Path, tmp_path: Path, damage: Callable[[Path], object], problem: str
) -> None:
    path = copy(tiny_checkpoint, tmp_path / "checkpoint-10")
    damage(path)
    told = loadable.problem(path).replace(str(path), "CKPT")
    told = re.sub(r"\b\d{4,}\b(?= of| bytes)", "SIZE", re.sub(r"(?<= )model\.\S+weight", "TENSOR", told))
    assert told == problem


def test_training_arguments_are_no_weights(tmp_path: Path) -> None:
    path = make(tmp_path / "checkpoint-1", "training_args.bin", "optimizer.pt", "tokenizer.json")
    (path / "config.json").write_text("{}")
    assert loadable.problem(path) == "no weights: there is no *.safetensors"
    assert [file.name for file in loadable.files(path)] == ["config.json", "tokenizer.json"]


def test_an_adapter_needs_no_configuration_and_no_tokenizer_of_its_own(tmp_path: Path) -> None:
    path = make(tmp_path / "checkpoint-1", "README.md")
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert loadable.problem(path) == ""
    (path / "adapter_model.safetensors").unlink()
    assert loadable.problem(path) == "no weights: there is no *.safetensors"


def test_a_stale_index_beside_whole_weights_is_not_read(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = copy(tiny_checkpoint, tmp_path / "checkpoint-10")
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00009.safetensors"}}')
    assert loadable.problem(path) == ""


def test_weights_of_older_trainers_have_a_digest_too(tmp_path: Path) -> None:
    path = make(tmp_path / "checkpoint-1", "training_args.bin")
    with pytest.raises(BadCheckpoint):
        checkpoints.weights_sha256(path)
    (path / "pytorch_model.bin").write_bytes(b"w")
    assert checkpoints.weights_sha256(path) == checkpoints.sha256_file(path / "pytorch_model.bin")


def test_a_folder_that_vanished_says_so(tmp_path: Path) -> None:
    assert loadable.problem(tmp_path / "checkpoint-1") == "the folder is gone"
