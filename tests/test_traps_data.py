"""Traps of real projects that concern rows, checkpoints kept and seeds: each test names one that is caught.

Those about negatives are in test_traps_negatives.py, those about masks and prefixes in test_traps_tokens.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from runner import model
from runner.check import load_checked
from runner.data import datasets
from runner.errors import BadProbe, BadRecipe
from runner.preparation import Prepared, make_plan
from runner.probing.cases import numbered
from tests.tiny import make_byte_tokenizer

RECIPE = """\
recipe: r
model: {config: {model_type: qwen3, hidden_size: 8}, tokenizer: {train: char, from_data: train}}
data:
  train: {path: train.jsonl}
  asked: {path: asked.jsonl}
stages:
  qa: {kind: sft, data: train, num_train_epochs: 1EXTRA}
probes:
  asked: {file: test_it.py, cases: asked, leaks: LEAKS}
"""
PROBE = 'from runner import probe\n\n@probe(prompt="{{ prompt }}")\ndef test_it(case, reply):\n    assert reply\n'


def write(root: Path, trained: list[str], asked: list[str], *, leaks: str = "warn", extra: str = "") -> Path:
    (root / "pyproject.toml").touch()
    (root / "test_it.py").write_text(PROBE)
    for name, prompts in (("train", trained), ("asked", asked)):
        lines = [json.dumps({"prompt": prompt, "completion": "yes"}) for prompt in prompts]
        (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (root / "r.yaml").write_text(RECIPE.replace("LEAKS", leaks).replace("EXTRA", extra))
    return root / "r.yaml"


def prepared(path: Path) -> Prepared:
    return Prepared(load_checked(path, ()), path.parent / "results" / "r")


def test_trap_evaluation_questions_were_all_inside_the_training_file(tmp_path: Path) -> None:
    plan = make_plan(prepared(write(tmp_path, ["a?", "b?", "c?"], ["b?", "c?"])))
    assert "probes.asked: 2 of its 2 questions are trained in qa (they stand in train)" in plan.warnings
    with pytest.raises(BadRecipe, match="2 of its 2 questions are trained in qa"):
        make_plan(prepared(write(tmp_path, ["a?", "b?", "c?"], ["b?", "c?"], leaks="fail")))


def test_trap_evaluation_questions_in_training_by_their_key_are_kept_apart_by_a_split(tmp_path: Path) -> None:
    path = write(tmp_path, ["a?"], ["a?"])
    lines = [json.dumps({"prompt": f"{way} {char}?", "completion": "yes", "char": char})
             for char in "abcdefgh" for way in ("what is", "tell me of")]  # fmt: skip
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    path.write_text(
        path.read_text()
        .replace("{path: train.jsonl}", "{path: train.jsonl, split: {by: char, train: 0.5, held_out: 0.5}}")
        .replace("data: train,", "data: train.train,")
        .replace("cases: asked", "cases: train.held_out")
    )
    found = prepared(path)
    keys = [{case["char"] for case in found.data.get(f"train.{side}").cases()} for side in ("train", "held_out")]
    assert not keys[0] & keys[1]
    assert found.leaks == ()


def test_trap_two_cases_that_share_an_id(tmp_path: Path) -> None:
    path = write(tmp_path, ["a?"], ["b?"])
    rows = [{"id": one, "prompt": f"{at}?", "completion": "yes"} for at, one in enumerate(["r5", "r6", "r6", "r7"])]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        "probes.asked: 2 rows of asked share their id with another; the second r6 is called r6-2, by the order of the "
        "rows: give each an id of its own"
    ) in make_plan(prepared(path)).warnings


def test_a_result_that_nothing_gates_is_not_said_to_set_the_exit_code(tmp_path: Path) -> None:
    plan = make_plan(prepared(write(tmp_path, ["a?"], ["b?"])))
    assert plan.result == "qa@last; nothing gates it"
    assert "result: no suite gates the checkpoints of qa, so the exit code will be 0 whatever happens" in plan.warnings


def test_trap_one_question_asked_a_hundred_times(tmp_path: Path) -> None:
    plan = make_plan(prepared(write(tmp_path, ["a?"], ["b?"] * 100)))
    assert "probes.asked: 99 of its 100 cases are the same as an earlier one, and count all the same" in plan.warnings
    with pytest.raises(BadProbe, match="rows 1 and 2 are the same"):
        numbered([{"q": "b?"}] * 100, "cases.jsonl")


def test_trap_one_row_trained_a_hundred_times_shows_in_the_plan(tmp_path: Path) -> None:
    (account,) = make_plan(prepared(write(tmp_path, ["a?"] * 100, ["b?"]))).data
    assert (account.rows, account.duplicates) == (100, 99)


def test_trap_checkpoints_that_were_to_be_compared_were_deleted(tmp_path: Path) -> None:
    path = write(tmp_path, ["a?"], ["b?"], extra=", trainer_args: {save_total_limit: 1}")
    with pytest.raises(BadRecipe) as caught:
        load_checked(path, ())
    assert "`save_total_limit` is decided by the recipe" in caught.value.screen()
    assert "checkpoints are all kept" in caught.value.screen()


def test_trap_the_model_was_initialised_before_the_seed_was_set() -> None:
    config = {
        "model_type": "qwen3", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 8, "max_position_embeddings": 16,
    }  # fmt: skip
    tokenizer = make_byte_tokenizer()
    weights = []
    for state, seed in ((1, 7), (2, 7), (1, 8)):
        torch.manual_seed(state)  # whatever was drawn before
        weights.append(model.build(config, tokenizer, seed, "eager").get_input_embeddings().weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_trap_splits_written_into_the_run_have_each_key_once(tmp_path: Path) -> None:
    found = prepared(write(tmp_path, ["a?"], ["b?"] * 3))
    (path,) = datasets.write_splits(found.data, tmp_path / "data")
    ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
    assert len(set(ids)) == 3, "a file of cases never has two of one id"
