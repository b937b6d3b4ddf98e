"""runner.train.kernels: what makes training fast, on or off and why; and that it changes nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runner import checkpoints
from runner.errors import BadRecipe
from runner.spec import Launch, Sft
from runner.train import kernels
from tests.tiny_project import RUN, events, leave_out_dpo, recipe, write_project

SAME_SHAPES = """\
stages:
  base: {kind: pretrain, data: facts, max_steps: 4, learning_rate: 3.0e-3, global_batch_size: 8, save_steps: [2],
         logging_steps: 1, packing: wrapped, max_length: 32}
"""
"""A stage whose batches are all of one shape, which are compiled once."""

STAGE = Sft(kind="sft", data=("rows",), learning_rate=1e-3)
CPU_ALONE = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here, which has more to choose from")


def losses(run: Path) -> list[float]:
    """Of every step of the first stage."""
    return [row["loss"] for row in events(run, "train-base") if row["event"] == "logged"]


def with_a_gpu(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    """As where a CUDA device is, and of the packages these."""
    monkeypatch.setattr(kernels, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(kernels, "find_spec", lambda name: name if name in installed else None)


@CPU_ALONE
def test_on_a_cpu_nothing_is_said_of_kernels_unless_the_recipe_chose() -> None:
    chosen = kernels.choose(Launch(), STAGE, "qwen3")
    assert chosen.words == "on: fused AdamW; off: Liger (no CUDA device), torch.compile (not asked for)"
    assert chosen.notes(Launch()) == ()
    off = Launch(fused_optimizer=False, liger=False)
    assert kernels.choose(off, STAGE, "qwen3").notes(off) == (
        "off: fused AdamW (turned off), Liger (turned off), torch.compile (not asked for)",
    )


def test_what_is_chosen_reaches_the_trainer_and_its_own_optimizer_comes_first() -> None:
    assert kernels.choose(Launch(), STAGE, "qwen3").arguments == {"optim": "adamw_torch_fused"}
    assert kernels.choose(Launch(fused_optimizer=False), STAGE, "qwen3").arguments == {"optim": "adamw_torch"}
    own = STAGE.model_copy(update={"trainer_args": {"optim": "adafactor"}})
    chosen = kernels.choose(Launch(), own, "qwen3")
    assert chosen.arguments == {}
    assert chosen.words.endswith("torch.compile (not asked for)")
    assert "fused AdamW (trainer_args.optim is adafactor)" in chosen.words
    with pytest.raises(BadRecipe, match="fused AdamW cannot be had here: trainer_args.optim is ada"):
        kernels.choose(Launch(fused_optimizer=True), own, "qwen3")


def test_on_a_gpu_liger_is_taken_where_it_is_installed_and_knows_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_gpu(monkeypatch, "triton")
    assert kernels.choose(Launch(), STAGE, "qwen3").notes(Launch()) == (
        "on: fused AdamW; off: Liger (liger-kernel is not installed), torch.compile (not asked for)",
    )
    compiled = kernels.choose(Launch(compile=True), STAGE, "qwen3")
    assert compiled.arguments == {"optim": "adamw_torch_fused", "torch_compile": True}
    assert compiled.words.startswith("on: fused AdamW, torch.compile; off: ")
    with_a_gpu(monkeypatch)
    with pytest.raises(BadRecipe, match="launch.compile: torch.compile cannot be had here: triton is not installed"):
        kernels.choose(Launch(compile=True), STAGE, "qwen3")
    with pytest.raises(BadRecipe, match="launch.liger: Liger cannot be had here: liger-kernel is not installed"):
        kernels.choose(Launch(liger=True), STAGE, "qwen3")


@pytest.mark.parametrize(
    ("more", "plain"),
    [
        ({}, True),
        ({"prompt_loss_weight": 0.1}, False),
        ({"kl": {"weight": 0.5}}, False),
    ],
    ids=["plain", "weighted", "kl"],
)
def test_logits_are_left_out_only_where_no_loss_reads_them(more: dict[str, object], plain: bool) -> None:
    stage = Sft.model_validate({"kind": "sft", "data": ["rows"], "learning_rate": 1e-3, **more})
    assert kernels._needs_no_logits(stage) is plain


@CPU_ALONE
def test_a_kernel_that_is_asked_for_and_cannot_run_ends_before_weights_are_made(tmp_path: Path) -> None:
    root = tmp_path / "project"
    leave_out_dpo(write_project(root))
    done = recipe(root, "run", "tiny.yaml", "--set", "launch.liger=true")
    assert done.code == 2
    assert done.screen.splitlines()[-2:] == [
        "launch.liger: Liger cannot be had here: no CUDA device",
        "    hint: remove launch.liger, or say false",
    ]
    assert not events(root / RUN, "train-base")


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, kernels._COMPILERS)), reason="torch.compile needs a C++ compiler here")
def test_a_compiled_stage_learns_the_same_and_is_the_same_stage(tmp_path: Path) -> None:
    root = tmp_path / "project"
    path = write_project(root)
    text = path.read_text(encoding="utf-8")
    still = text.replace("attention_dropout: 0.1", "attention_dropout: 0.0")  # compiled, it draws other numbers
    path.write_text(still[: still.index("stages:")] + SAME_SHAPES, encoding="utf-8")
    compiled = recipe(root, "run", "tiny.yaml", "--set", "launch.compile=true")
    assert compiled.code == 0, compiled.screen
    assert "on: fused AdamW, torch.compile; off: Liger" in compiled.screen
    for step, folder in checkpoints.published(root / RUN / "base"):
        names = load_file(folder / "model.safetensors")
        assert step in (2, 4)
        assert "model.embed_tokens.weight" in names  # as plain transformers has them
    again = recipe(root, "run", "tiny.yaml")
    assert (again.code, again.screen.count("skipped (nothing changed)")) == (0, 1)
    plain = recipe(root, "run", "tiny.yaml", "--out", "plain")
    assert plain.code == 0
    assert losses(root / RUN) == pytest.approx(losses(root / "plain"), abs=1e-4)
