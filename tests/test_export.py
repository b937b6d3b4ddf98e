"""recipe export: whole weights that load without this project, asked once more before they are given away."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from runner import checkpoints, comparing, verdicts
from runner.cli import cli
from runner.comparing.sides import Side
from runner.errors import BadCheckpoint, FolderTaken, UserError
from runner.export import Exported, export, screen
from runner.probing.engine import loading
from tests.screens import lines
from tests.tiny_project import RECIPE, recipe, write_project

STAGES = """\
stages:
  base: {kind: pretrain, data: facts, max_steps: 8, learning_rate: 3.0e-3, global_batch_size: 8}
  qa: {kind: lora, from: base@last, data: questions.train, max_steps: 3, learning_rate: 1.0e-2, global_batch_size: 8}
probes:
  always: {file: "probes/test_words.py::test_always", cases: questions.train, stages: [qa]}
  right: {file: "probes/test_words.py::test_right", cases: questions.held_out, stages: [qa], gate: {min_pass_rate: 0.9}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter, whose gate is red."""
    root = tmp_path_factory.mktemp("export")
    file = write_project(root)
    file.write_text(RECIPE[: RECIPE.index("stages:")] + STAGES, encoding="utf-8")
    done = recipe(root, "run", "tiny.yaml")
    assert done.code == 1, done.screen
    return root / "results" / "tiny"


def test_an_adapter_is_merged_loads_anywhere_answers_alike_and_its_red_gate_is_the_exit_code(run: Path) -> None:
    adapter = run / "qa" / "ckpt-3"
    done = recipe(run.parents[1], "export", "results/tiny/qa/ckpt-3")
    assert done.code == 1
    assert done.screen.splitlines() == [
        "qa@3: merged and exported to results/tiny/exports/qa-3, 0.1 MiB",
        "  · always 100 % of 20 [83.9 % – 100 %]",
        "  ✗ right 0 % of 20 [0 % – 16.1 %]",
        "      0 of 20 passed (0.0%), min_pass_rate is 0.9",
        "every verdict is the one of qa@3",
    ]
    folder = run / "exports" / "qa-3"
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<eos>"
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        expected = loading.load_model(adapter, "float32")(input_ids=ids).logits
        assert torch.equal(plain(input_ids=ids).logits, expected)
    manifest = checkpoints.read_manifest(folder)
    assert (manifest.label, manifest.parent and manifest.parent.path) == ("qa@3", "../../qa/ckpt-3")
    assert manifest.weights_sha256 == checkpoints.weights_sha256(folder)
    assert {asked.suite for asked in verdicts.read(folder / "probes.jsonl").suites} == {"always", "right"}
    assert [entry.name for entry in (run / "exports").iterdir()] == ["qa-3"]
    said = (folder / "README.md").read_text(encoding="utf-8")
    assert said.startswith("---\nlibrary_name: transformers\n")
    assert "# tiny-qa-3\n\nCheckpoint <code>qa&#64;3</code>" in said
    assert "The adapter is merged into its base." in said
    assert "| ✗ red | <code>right</code> | 0 % | 20 | 0 % – 16.1 % |" in said

    again = recipe(run.parents[1], "export", "results/tiny/qa/ckpt-3")
    assert again.code == 2
    assert again.screen.splitlines() == [
        "results/tiny/exports/qa-3 is there already, and is not overwritten",
        "    hint: give another folder with --out, or remove this one",
    ]


def test_a_case_that_the_exported_weights_lose_is_shown(run: Path) -> None:
    told = verdicts.read(run / "qa" / "probes" / "ckpt-3.jsonl")
    lost = told.of("right")[0]
    was = replace(lost, outcome="pass", reply=" as it was")
    before = replace(told, verdicts=tuple(was if one == lost else one for one in told.verdicts))
    found = comparing.compare(Side("qa@3", before), Side("exported", told))
    shown = lines(screen(Exported(run / "given", "qa@3", True, 2**20, (), found), run))
    assert "against qa@3: 1 lost, 0 gained" in shown
    assert lost.case_id in "\n".join(shown)
    assert "as it was" in "\n".join(shown)


def test_a_checkpoint_that_is_whole_is_copied_and_one_of_no_run_is_asked_nothing(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "out" / "checkpoint-10")
    (tmp_path / "out" / "checkpoint-10" / "optimizer.pt").write_bytes(b"x")
    done = export("out/checkpoint-10", None, tmp_path)
    assert not done.is_red
    assert lines(screen(done, tmp_path)) == [
        "out/checkpoint-10: exported to out/checkpoint-10-exported, 0.1 MiB",
        "it was asked nothing: it belongs to no run that asks there",
        "ask it: pytest probes --ckpt out/checkpoint-10-exported",
    ]
    assert not (done.folder / "optimizer.pt").exists()
    assert not (done.folder / "README.md").exists()  # of a checkpoint of no run nothing is known
    before, after = (load_file(one / "model.safetensors") for one in (tiny_checkpoint, done.folder))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("results/tiny", UserError, "results/tiny holds 2 checkpoints\n    expected: one of them\n"
         "    hint: for example results/tiny/base/ckpt-8, results/tiny/qa/ckpt-3"),
        ("results/tiny/data", BadCheckpoint, "--ckpt results/tiny/data is not a checkpoint and holds none"),
    ],
)  # fmt: skip
def test_what_is_no_one_checkpoint_is_refused(run: Path, given: str, error: type[UserError], said: str) -> None:
    with pytest.raises(error) as caught:
        export(given, None, run.parents[1])
    assert caught.value.screen().startswith(said)


def test_an_adapter_without_its_base_leaves_nothing_behind(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "qa" / "ckpt-3", tmp_path / "lost")
    (tmp_path / "lost" / "manifest.json").unlink()
    settings = json.loads((tmp_path / "lost" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "gone/x/y"
    (tmp_path / "lost" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(BadCheckpoint) as caught:
        export("lost", Path("given"), tmp_path)
    assert caught.value.screen() == "lost: its base gone/x/y is not there"
    assert [entry.name for entry in tmp_path.iterdir()] == ["lost"]


def test_a_folder_that_cannot_be_made_is_said(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderTaken, match="cannot be made: Not a directory"):
        export(str(tiny_checkpoint), tmp_path / "file" / "out", tmp_path)


def test_the_command_is_there() -> None:
    assert "export" in cli.commands
