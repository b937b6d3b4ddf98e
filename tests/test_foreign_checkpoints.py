"""Checkpoints that other trainers saved, probed as they lie: transformers' Trainer, TRL with PEFT, DeepSpeed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import runner.probing.warm  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
from runner import checkpoints, verdicts
from runner.verdicts import VerdictFile
from tests.test_targets import cut, shard
from tests.tiny import copy, make_checkpoint

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
PROMPTS = ("abc1", "abc2", "水")
PROBE = f"""
from runner import probe

@probe(cases=[{{"q": q}} for q in {PROMPTS}], prompt="{{{{ q }}}}", max_new_tokens=8)
def test_said(reply): pass
"""


def train(cwd: Path, *arguments: str, launcher: tuple[str, ...] = (), **environment: str) -> None:
    """Run one of `tests.foreign_trainers` to its end, with paths relative to `cwd`."""
    command = [sys.executable, *(launcher or ("-m",)), "tests.foreign_trainers", *arguments]
    more = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **more}, capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `base` and what trainers made of it: transformers' Trainer with a tokenizer and without,
    TRL's SFTTrainer with a `peft_config`."""
    folder = tmp_path_factory.mktemp("foreign")
    make_checkpoint(folder / "base", seed=5)
    train(folder, "base", "trainer,bare,sft-lora")
    return folder


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    """What plain transformers.Trainer leaves."""
    return home / "trainer"


@pytest.fixture(scope="module")
def tuned(home: Path) -> Path:
    """What TRL leaves with PEFT."""
    return home / "sft-lora"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with one probe, and no recipe."""
    shutil.copy(ROOT / "conftest.py", pytester.path / "conftest.py")
    pytester.makefile(".toml", pyproject="[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\n")
    (pytester.path / "probes").mkdir()
    (pytester.path / "probes" / "test_said.py").write_text(PROBE, encoding="utf-8")
    return pytester


def ask(project: pytest.Pytester, *arguments: str | Path) -> pytest.RunResult:
    return project.runpytest_inprocess("probes", *map(str, arguments))


def replies(file: VerdictFile) -> list[str]:
    return [verdict.reply for verdict in file.of("test_said")]


def as_transformers_says(checkpoint: Path, base: Path | None = None) -> list[str]:
    """The same prompts, one by one through transformers' own `generate`; an adapter through PEFT's own loading."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForCausalLM.from_pretrained(base or checkpoint, dtype=torch.float32)
    if base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, checkpoint)
    model.eval()
    said = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=8, do_sample=False)
        said.append(tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return said


# --- as they lie ---


def test_checkpoints_of_transformers_trainer_answer_as_they_do_in_transformers(
    project: pytest.Pytester, trained: Path
) -> None:
    result = ask(project, "--ckpt", trained, "--probe-verdicts", "v")
    result.assert_outcomes(passed=6)
    files = [verdicts.read(project.path / "v" / f"checkpoint-{step}.jsonl") for step in (2, 4)]
    assert [replies(file) for file in files] == [as_transformers_says(trained / f"checkpoint-{s}") for s in (2, 4)]
    assert replies(files[0]) != replies(files[1])
    assert files[1].ckpt == str(trained / "checkpoint-4")
    assert files[1].weights_sha256 == checkpoints.weights_sha256(trained / "checkpoint-4")


def test_adapters_of_trl_answer_as_they_do_in_peft(
    project: pytest.Pytester, home: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_base = json.loads((tuned / "checkpoint-4" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert said_base == "base"  # as it was given: relative to the folder in which training was started
    shutil.copytree(project.path / "probes", home / "probes", dirs_exist_ok=True)
    monkeypatch.chdir(home)
    result = project.runpytest_inprocess("probes", "--ckpt", "sft-lora", "--probe-verdicts", str(project.path / "v"))
    result.assert_outcomes(passed=6)
    said = [replies(verdicts.read(project.path / "v" / f"checkpoint-{step}.jsonl")) for step in (2, 4)]
    assert said == [as_transformers_says(tuned / f"checkpoint-{step}", home / "base") for step in (2, 4)]


def test_adapters_of_dpo_and_full_weights_of_sft_are_probed_too(project: pytest.Pytester, home: Path) -> None:
    train(home, str(home / "base"), "sft,dpo-lora")
    for kind in ("sft", "dpo-lora"):
        result = ask(project, "--ckpt", home / kind, "--probe-verdicts", kind)
        result.assert_outcomes(passed=6)
        base = home / "base" if kind == "dpo-lora" else None
        said = replies(verdicts.read(project.path / kind / "checkpoint-4.jsonl"))
        assert said == as_transformers_says(home / kind / "checkpoint-4", base)


ZERO_2 = {
    "zero_optimization": {"stage": 2},
    "optimizer": {
        "type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
    "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": "auto",
}  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.skipif(shutil.which("g++") is None, reason="deepspeed builds an operator with g++, which is not there")
def test_checkpoints_of_deepspeed_zero_2_are_probed_as_they_lie_and_merged_by_the_command_that_is_told(
    project: pytest.Pytester, home: Path
) -> None:
    (home / "zero2.json").write_text(json.dumps(ZERO_2))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    environment = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    arguments = ("base", "trainer", 'output_dir="zero2"', 'deepspeed="zero2.json"', 'ddp_backend="gloo"')
    train(home, *arguments, launcher=launcher, **environment)
    whole = home / "zero2" / "checkpoint-4"
    assert (whole / "global_step4" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").is_file()
    ask(project, "--ckpt", home / "zero2", "--probe-verdicts", "v").assert_outcomes(passed=6)
    said = replies(verdicts.read(project.path / "v" / "checkpoint-4.jsonl"))
    assert said == as_transformers_says(whole)

    merged = copy(whole, project.path / "merged")
    (merged / "model.safetensors").unlink()
    result = ask(project, "--ckpt", merged)
    result.stdout.fnmatch_lines(["*merged: no weights but the shards of DeepSpeed in global_step4"])
    command = result.stdout.str().partition("hint: merge them: python ")[2].splitlines()[0].split()
    subprocess.run([sys.executable, *command], env={**os.environ, **environment}, check=True, capture_output=True)
    ask(project, "--ckpt", merged, "--probe-verdicts", "m.jsonl").assert_outcomes(passed=3)
    assert replies(verdicts.read(project.path / "m.jsonl")) == said


# --- in other forms ---


def test_sharded_old_and_tied_weights_give_the_same_replies(
    project: pytest.Pytester, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECIPE_PICKLES", "old")  # a pickle is read where the user names it
    source = trained / "checkpoint-4"
    assert json.loads((source / "config.json").read_text())["tie_word_embeddings"]
    shard(copy(source, project.path / "sharded"))
    old = copy(source, project.path / "old")
    model = AutoModelForCausalLM.from_pretrained(source)
    torch.save(model.state_dict(), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    result = ask(project, "--ckpt", source, "--ckpt", "sharded", "--ckpt", "old", "--probe-verdicts", "v")
    result.assert_outcomes(passed=9)
    files = [verdicts.read(file) for file in sorted((project.path / "v").iterdir())]
    assert len({tuple(replies(file)) for file in files}) == 1
    assert len({file.weights_sha256 for file in files} - {""}) == 3


def test_an_adapter_finds_its_base_by_a_whole_path_and_beside_itself(
    project: pytest.Pytester, home: Path, tuned: Path
) -> None:
    found = []
    for name, base in (("whole", str(home / "base")), ("beside", "../model")):
        path = copy(tuned / "checkpoint-4", project.path / name)
        config = json.loads((path / "adapter_config.json").read_text())
        (path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
        for file in path.glob("tok*"):
            file.unlink()  # the base's is taken
        copy(home / "base", project.path / "model") if name == "beside" else None
        ask(project, "--ckpt", path, "--probe-verdicts", f"{name}.jsonl").assert_outcomes(passed=3)
        found.append(replies(verdicts.read(project.path / f"{name}.jsonl")))
    assert found == [as_transformers_says(tuned / "checkpoint-4", home / "base")] * 2


def test_an_adapter_whose_base_is_not_there_names_it_and_the_others_are_asked(
    project: pytest.Pytester, trained: Path, tuned: Path
) -> None:
    path = copy(tuned / "checkpoint-4", project.path / "moved")
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/models/gone"}))
    result = ask(project, "--ckpt", path, "--ckpt", trained / "checkpoint-2")
    result.assert_outcomes(passed=3, errors=3)
    result.stdout.fnmatch_lines(["*/models/gone*"])


# --- bad ones ---


def test_without_a_tokenizer_the_error_says_what_trainer_was_not_given(project: pytest.Pytester, home: Path) -> None:
    result = ask(project, "--ckpt", home / "bare" / "checkpoint-4")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*no tokenizer: there is no tokenizer.json", "*Trainer saves one only where it was given processing_class*"]
    )


def test_broken_checkpoints_of_an_output_folder_are_named_and_the_whole_ones_get_their_verdicts(
    project: pytest.Pytester, trained: Path
) -> None:
    out = project.path / "out"
    for step in (1, 2, 3, 4):
        copy(trained / "checkpoint-4", out / f"checkpoint-{step}")
    cut(out / "checkpoint-1" / "model.safetensors", -100)
    (out / "checkpoint-2" / "model.safetensors").write_bytes(b"")
    (out / "checkpoint-3" / "config.json").unlink()
    result = ask(project, "--ckpt", "out", "--probe-verdicts", "v")
    result.assert_outcomes(passed=3, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*checkpoint-1: model.safetensors is cut short: * of * bytes",
            "*checkpoint-2: model.safetensors is empty: 0 bytes",
            "*checkpoint-3: config.json is missing",
        ]
    )
    broken = verdicts.read(project.path / "v" / "checkpoint-1.jsonl")
    assert [verdict.outcome for verdict in broken.verdicts] == ["error"]


def test_a_glob_that_the_shell_expanded_says_to_quote_it(project: pytest.Pytester, trained: Path) -> None:
    result = ask(project, "--ckpt", trained / "checkpoint-2", trained / "checkpoint-4")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"*{trained / 'checkpoint-4'} is a checkpoint, and stands where pytest expects a test file",
            "    hint: give every checkpoint with --ckpt of its own, and quote a glob: --ckpt 'out/checkpoint-[*]'",
        ]
    )


def test_processes_of_xdist_are_refused_with_what_to_do(project: pytest.Pytester, trained: Path) -> None:
    result = ask(project, "-n", "2", "--ckpt", trained / "checkpoint-2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*probes cannot be spread over processes: each would load the checkpoint and batch a part of the prompts",
            "    hint: leave -n away for probes; all replies of a checkpoint are generated in a few large batches",
        ]
    )


# --- one after the other ---


def test_a_sweep_loads_each_model_once_and_frees_it_before_the_next(
    project: pytest.Pytester, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[object]] = []
    at_load: list[int] = []
    load = AutoModelForCausalLM.from_pretrained

    def counting(*arguments: Any, **options: Any) -> Any:
        at_load.append(sum(found() is not None for found in alive))
        loaded = load(*arguments, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        alive.append(weakref.ref(model.get_input_embeddings().weight))  # a model may live in a cycle, its tensors not
        return loaded

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counting)
    for step in (2, 4, 6):
        copy(trained / f"checkpoint-{min(step, 4)}", project.path / "out" / f"checkpoint-{step}")
    ask(project, "--ckpt", "out", "--probe-store", "off").assert_outcomes(passed=9)
    assert at_load == [0, 0, 0]
