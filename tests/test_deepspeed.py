"""DeepSpeed: its configuration agrees with the recipe, and what it trains is what is trained without it."""

import importlib.util
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from yaml import safe_dump, safe_load

from runner import deepspeed_config, recipe
from runner.check import load_checked
from runner.errors import UserError
from tests.tiny_project import events, started, wait_until, write_project
from tests.tiny_project import recipe as command

NAMES = ("zero1", "zero2", "zero3", "offload")


@dataclass(frozen=True)
class Shares:
    """How a batch is divided."""

    per_device_batch_size: int = 2
    accumulation_steps: int = 4
    processes: int = 2


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny project, entered; without dropout, which processes draw each for itself."""
    file = write_project(tmp_path)
    values = safe_load(file.read_text(encoding="utf-8"))
    values["model"]["config"]["attention_dropout"] = 0.0
    for stage in values["stages"].values():
        stage |= {"global_batch_size": 16, "micro_batch_size": 2, "num_train_epochs": 1}
    file.write_text(safe_dump(values, sort_keys=False), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(**launch: Any) -> recipe.Loaded:
    return load_checked("tiny.yaml", [f"launch.{key}={json.dumps(value)}" for key, value in launch.items()])


def made(one: recipe.Loaded, stage: str = "qa", shares: Shares = Shares()) -> dict[str, Any]:
    return deepspeed_config.configuration(one.spec, stage, one.root, shares)


# --- what is written ---


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_of_a_written_configuration_are_the_recipes(project: Path, name: str) -> None:
    stage = loaded(deepspeed=name).spec.stages["qa"]
    config = made(loaded(deepspeed=name))
    assert config["train_batch_size"] == stage.global_batch_size == 2 * 4 * 2
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (2, 4)
    assert config["gradient_clipping"] == stage.max_grad_norm
    assert config["zero_optimization"]["stage"] == {"zero1": 1, "zero2": 2}.get(name, 3)
    assert ("offload_param" in config["zero_optimization"]) == (name == "offload")
    assert "optimizer" not in config
    assert "scheduler" not in config


def test_precision_is_the_recipes_and_auto_is_left_to_the_trainer(project: Path) -> None:
    def precision(dtype: str) -> list[Any]:
        config = made(load_checked("tiny.yaml", ["launch.deepspeed=zero2", f"model.dtype={dtype}"]))
        return [config["bf16"]["enabled"], config["fp16"]["enabled"]]

    assert [precision(dtype) for dtype in ("float32", "bfloat16", "auto")] == [
        [False, False], [True, False], ["auto", "auto"],
    ]  # fmt: skip


def test_a_packed_step_is_one_batch_that_is_divided_where_it_is_packed(project: Path) -> None:
    config = made(load_checked("tiny.yaml", ["launch.deepspeed=zero2", "stages.qa.packing=true"]))
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (8, 1)


def test_a_file_that_agrees_keeps_what_is_its_own_and_loses_optimizer_and_schedule(project: Path) -> None:
    own = {
        "train_batch_size": "auto", "bf16": {"enabled": "auto"}, "gradient_clipping": 1,
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 1000}, "wall_clock_breakdown": True,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": "auto"}},
        "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_max_lr": "auto", "warmup_num_steps": 0}},
    }  # fmt: skip
    (project / "own.json").write_text(json.dumps(own), encoding="utf-8")
    sets = ["launch.deepspeed=own.json", "stages.base.learning_rate=1.0e-3", "stages.prefer.learning_rate=1.0e-3"]
    config = made(load_checked("tiny.yaml", sets))
    assert config["zero_optimization"] == {
        "stage": 3, "reduce_bucket_size": 1000, "stage3_gather_16bit_weights_on_model_save": True,
    }  # fmt: skip
    assert config["wall_clock_breakdown"]
    assert config["train_batch_size"] == 16
    assert not {"optimizer", "scheduler"} & config.keys()


def test_micro_batches_of_a_file_are_compared_where_the_processes_are_known(project: Path) -> None:
    own = '{"zero_optimization": {"stage": 2},\n "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 4}'
    (project / "own.json").write_text(own, encoding="utf-8")
    one = loaded(deepspeed="own.json")
    shares = dict.fromkeys(one.spec.stages, Shares())
    found = deepspeed_config.problems(one.spec, one.root, lambda path: one.mark(*path), shares)
    assert [problem.screen().splitlines()[0] for problem in found] == [
        f"own.json:2:36: `train_micro_batch_size_per_gpu` is 4, and `stages.{stage}.micro_batch_size` makes it 2 "
        f"(tiny.yaml:{one.mark('stages', stage, 'micro_batch_size').at_value().line})"
        for stage in one.spec.stages
    ]


# --- resuming ---


def test_state_of_deepspeed_goes_on_only_as_it_was_begun(project: Path) -> None:
    def check(before: tuple[int, str | None], now: tuple[int, str | None]) -> None:
        sides = [
            (count, made(loaded(deepspeed=name), shares=Shares(2, 8 // count, count)) if name else {})
            for count, name in (before, now)
        ]
        deepspeed_config.check_resumes(Path("results/tiny/qa"), "qa", *sides)

    check((2, "zero2"), (2, "zero2"))
    check((1, None), (2, None))
    with pytest.raises(UserError) as caught:
        check((2, "zero2"), (4, "zero2"))
    assert caught.value.screen() == (
        "stage qa was begun on 2 processes with ZeRO-2, and is to go on on 4 processes with ZeRO-2; other "
        "gradient_accumulation_steps\n"
        "    expected: what it was begun on: the state of DeepSpeed is cut into pieces, one for each process\n"
        "    hint: go on as it was begun, or move results/tiny/qa away: the stage is then trained again"
    )
    for before, now in (((2, "zero2"), (2, None)), ((2, None), (2, "zero3")), ((2, "zero3"), (2, "offload"))):
        with pytest.raises(UserError, match="is to go on on 2 processes with"):
            check(before, now)


# --- without it ---


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_without_deepspeed_a_run_ends_before_it_trains_with_the_line_that_installs_it(project: Path) -> None:
    done = command(project, "run", "tiny.yaml", "--deepspeed", "zero2")
    assert done.code == 2
    assert done.screen.endswith(
        "launch.deepspeed: DeepSpeed is not installed\n    hint: pip install 'recipe-runner[distributed]'\n"
    )
    assert not list((project / "results").rglob("ckpt-*"))


# --- with it ---

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one short stage, which one process has trained into results/one."""
    root = tmp_path_factory.mktemp("deepspeed")
    file = write_project(root)
    values = safe_load(file.read_text(encoding="utf-8"))
    values["model"]["config"]["attention_dropout"] = 0.0
    base = {**values["stages"]["base"], "max_steps": 8, "save_steps": [4], "micro_batch_size": 2}
    kept = {key: values[key] for key in ("recipe", "seed", "model", "data")} | {"stages": {"base": base}}
    file.write_text(safe_dump(kept, sort_keys=False), encoding="utf-8")
    assert command(root, "run", "tiny.yaml", "--out", "results/one").code == 0
    return root


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in events(run, "train-base") if "loss" in row]


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint, as plain transformers loads them."""
    model = AutoModelForCausalLM.from_pretrained(run / "base" / f"ckpt-{step}", dtype=torch.float32)
    return dict(model.state_dict())


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_two_processes_with_deepspeed_train_what_one_process_trains(trained: Path, name: str) -> None:
    out = trained / "results" / name
    done = command(trained, "run", "tiny.yaml", "--out", str(out), "--processes", "2", "--deepspeed", name)
    assert done.code == 0, done.screen
    alone = trained / "results" / "one"
    assert losses(out) == pytest.approx(losses(alone), abs=1e-4)
    assert len(losses(out)) == 8
    for step in (4, 8):
        expected, found = tensors(alone, step), tensors(out, step)
        assert expected.keys() == found.keys()
        assert max(float((expected[key] - found[key]).abs().max()) for key in expected) < 1e-4
        names = {path.name for path in (out / "base" / f"ckpt-{step}").iterdir()}
        assert names == {path.name for path in (alone / "base" / f"ckpt-{step}").iterdir()}
    job = json.loads((out / "base" / "stage.json").read_text(encoding="utf-8"))
    kept = json.loads((out / "base" / job["deepspeed"]).read_text(encoding="utf-8"))
    assert (job["processes"], kept["zero_optimization"]["stage"]) == (2, int(name[-1]))


@needs_deepspeed
@pytest.mark.slow
def test_an_interrupted_stage_goes_on_with_the_same_deepspeed_and_with_no_other(trained: Path) -> None:
    out = trained / "results" / "interrupted"
    arguments = ("run", "tiny.yaml", "--out", str(out), "--processes", "2", "--deepspeed", "zero2")
    with started(trained, *arguments) as process:
        wait_until(lambda: (out / "base" / "ckpt-4").is_dir(), process)
        process.send_signal(signal.SIGTERM)
        screen, _ = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the stage was done before it could be interrupted")
    assert process.returncode == 130, screen
    other = command(trained, *arguments[:-1], "zero3")
    assert other.code == 2
    assert "stage base was begun on 2 processes with ZeRO-2, and is to go on on 2 processes with ZeRO-3" in other.screen
    assert command(trained, *arguments).code == 0
    expected, found = tensors(trained / "results" / "one", 8), tensors(out, 8)
    assert max(float((expected[key] - found[key]).abs().max()) for key in expected) < 1e-4


@needs_deepspeed
@pytest.mark.slow
def test_one_process_may_offload(trained: Path) -> None:
    out = trained / "results" / "offload"
    done = command(trained, "run", "tiny.yaml", "--out", str(out), "--deepspeed", "offload")
    assert done.code == 0, done.screen
    assert losses(out) == pytest.approx(losses(trained / "results" / "one"), abs=1e-4)
