"""A plan without data, tokenizer or GPU: declared rows, devices that are elsewhere; and what a run says then."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runner.check import load_checked
from runner.console import plan_screen
from runner.errors import BadData, BadRecipe
from runner.memory import Fits, Memory, devices
from runner.plan import Plan
from runner.preparation import Prepared, check_here, make_plan
from tests.screens import console, lines, text_of

RECIPE = """\
recipe: declared
model:
  config: {model_type: qwen2, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, vocab_size: 1000}
  tokenizer: nobody/nowhere
data:
  documents: {path: "far/documents-*.jsonl", format: text, num_rows: 15000000}
  answers: {path: far/answers.jsonl, num_rows: 1456927, columns: {prompt: question, completion: answer}}
  few: {rows: answers, take: 1000}
  parts: {path: far/parts.tsv, num_rows: 2000, split: {by: key, train: 0.75, held_out: 0.25}, prompt: a, completion: b}
  part: {rows: parts.train}
  kept: {rows: answers, take: 500, filter: {duplicates: true}}
  pairs: {rows: few, rejected: ["{{ other.completion }}", {repeat: "{{ completion }}"}]}
  preferred: {path: far/preferred.jsonl, format: preference, num_rows: 59000}
stages:
  base: {kind: pretrain, data: documents, packing: wrapped, max_steps: 13523,
         global_batch_size: 1152, micro_batch_size: 12}
  tune: {kind: sft, from: base@last, data: answers, num_train_epochs: 10, global_batch_size: 1152, micro_batch_size: 12,
         save_strategy: epoch}
  prefer: {kind: dpo, from: tune@epoch=2, data: preferred, global_batch_size: 384, micro_batch_size: 4}
"""


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Nothing is asked of a hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


def prepared(root: Path, *sets: str, on: str | None = "6x80GB") -> Prepared:
    (root / "pyproject.toml").touch()
    (root / "declared.yaml").write_text(RECIPE, encoding="utf-8")
    return Prepared(load_checked(root / "declared.yaml", sets), root / "run", devices(on) if on else None)


def planned(root: Path, *sets: str, on: str | None = "6x80GB") -> Plan:
    return make_plan(prepared(root, *sets, on=on))


def test_steps_follow_from_the_rows_that_a_recipe_declares(tmp_path: Path) -> None:
    base, tune, prefer = planned(tmp_path).stages
    assert (base.arithmetic.rows, base.arithmetic.total_steps, base.counts) == (None, 13_523, None)
    assert (tune.arithmetic.rows, tune.arithmetic.total_steps) == (1_456_927, 12_650)
    assert tune.arithmetic.publish_steps == tuple(range(1265, 12_651, 1265))
    assert (prefer.arithmetic.rows, prefer.arithmetic.total_steps) == (59_000, 462)
    assert planned(tmp_path, "stages.tune.max_steps=12640").stages[1].arithmetic.total_steps == 12_640


def test_the_global_batch_is_a_product_over_the_devices(tmp_path: Path) -> None:
    shown = lines(plan_screen(planned(tmp_path)), 120)
    assert [line.strip().partition(" (")[0] for line in shown if line.startswith("  batch")] == [
        "batch: 12 × 16 × 6 = 1152",
        "batch: 12 × 16 × 6 = 1152",
        "batch: 4 × 16 × 6 = 384",
    ]


def test_what_cannot_be_known_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    shown = "\n".join(lines(plan_screen(planned(tmp_path)), 120))
    assert re.search(r"base +pretrain +model +unknown +1152 +13,523 +unknown +unknown +to do", shown)
    assert "not here: data.answers: far/answers.jsonl is not here; it has 1,456,927 rows, as num_rows says" in shown
    why = "there is no folder nobody/nowhere, and the hub cannot be asked: HF_HUB_OFFLINE is set"
    assert f"not here: the tokenizer: {why}" in shown
    assert "not here: what needs them is unknown: tokens, truncation, duplicates, leaks" in shown


@pytest.mark.parametrize(
    ("sets", "rows", "bound"),
    [
        (("stages.tune.data=few",), 1000, ""),
        (("stages.tune.data=parts.train",), 1500, "≈"),
        (("stages.tune.data=part",), 1500, "≈"),
        (("stages.tune.data=kept",), 500, "≤"),
        (("stages.tune.data=[few, parts.held_out]",), 1500, "≈"),
        (("stages.tune.data=few", "stages.tune.truncation=chunk"), 1000, "≥"),
        (("stages.tune.data=few", "stages.tune.truncation=drop"), 1000, "≤"),
        (("stages.tune.data=[few, kept]", "stages.tune.mix={few: {epochs: 0.5}, kept: {rows: 70}}"), 570, "≤"),
        (("stages.tune.data=few", "stages.tune.replay={of: kept, ratio: 0.25}"), 1250, ""),
        (("stages.tune.kind=dpo", "stages.tune.data=pairs"), 2000, "≤"),
        (("stages.tune.kind=contrast", "stages.tune.data=pairs"), 1000, ""),
    ],
)
def test_rows_that_are_made_from_declared_ones_are_counted_as_far_as_that_goes(
    tmp_path: Path, sets: tuple[str, ...], rows: int, bound: str
) -> None:
    made = prepared(tmp_path, "stages.tune.save_strategy=no", "stages.prefer.from=tune@last", *sets)
    found = made.rows("tune")
    assert (found.count, found.bound) == (rows, bound)


def test_a_stage_whose_rows_nobody_knows_needs_its_steps(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe) as caught:
        planned(tmp_path, "stages.base.max_steps=null")
    message = "stage base: how many rows it has is known only from its files, which are not here"
    assert caught.value.screen().splitlines() == [
        f"{tmp_path}/declared.yaml:15:32: {message}",
        "   15 |   base: {kind: pretrain, data: documents, packing: wrapped, max_steps: 13523,",
        "      |                                ^^^^^^^^^",
        "    expected: max_steps in this stage, or the files",
    ]


def test_devices_that_cannot_share_a_batch_are_left_over_and_the_plan_says_what_can(tmp_path: Path) -> None:
    found = planned(tmp_path, "stages.tune.global_batch_size=128", "stages.tune.micro_batch_size=32")
    numbers = found.stages[1].arithmetic
    assert (numbers.per_device_batch_size, numbers.accumulation_steps, numbers.processes) == (32, 1, 4)
    left = "stages.tune: 6 devices cannot share a global batch of 128; planned on 4 of them."
    can = "What can be: 126 or 132, which 6 processes can share; or 2, 4, 8 or 16 processes"
    assert f"{left} {can}" in found.warnings


def test_a_run_says_which_file_is_missing_and_how_another_place_is_given(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe) as caught:
        check_here(prepared(tmp_path, on=None))
    first, *_, last = caught.value.problems
    assert first.screen().splitlines() == [
        f"{tmp_path}/declared.yaml:6:21: data.documents: no file matches far/documents-*.jsonl",
        '    6 |   documents: {path: "far/documents-*.jsonl", format: text, num_rows: 15000000}',
        "      |                     ^^^^^^^^^^^^^^^^^^^^^^^",
        f"    expected: the file with its 15,000,000 rows, at {tmp_path}/far/documents-*.jsonl",
        "    hint: put it there, or say where it is: --set data.documents.path=PATH",
    ]
    assert last.screen().splitlines() == [
        f"{tmp_path}/declared.yaml:4:14: model.tokenizer: there is no folder nobody/nowhere, and the hub cannot be "
        "asked: HF_HUB_OFFLINE is set",
        "    4 |   tokenizer: nobody/nowhere",
        "      |              ^^^^^^^^^^^^^^",
        "    expected: a folder with a tokenizer",
        "    hint: say where it is: --set model.tokenizer=PATH; HF_ENDPOINT names another hub",
    ]


def test_files_with_another_number_of_rows_than_declared_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("prompt\tcompletion\na\tb\nc\td\n", encoding="utf-8")
    made = prepared(tmp_path, "data.answers={path: rows.tsv, num_rows: 3}")
    answers = made.data.get("answers")
    with pytest.raises(BadData) as caught:
        len(answers)
    assert caught.value.screen() == (
        "data.answers: num_rows is 3, and rows.tsv has 2 rows\n"
        "    hint: say num_rows: 2, or remove it: what is here is counted"
    )
    assert len(prepared(tmp_path, "data.answers={path: rows.tsv, num_rows: 2}").data.get("answers")) == 2
    assert len(prepared(tmp_path, "data.answers={path: rows.tsv, num_rows: 2, take: 1}").data.get("answers")) == 1


def test_declaring_rows_changes_no_stage(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("prompt\tcompletion\na\tb\nc\td\n", encoding="utf-8")
    one, other = (
        prepared(tmp_path, f"data.answers={{path: rows.tsv{more}}}").data.get("answers").digest()
        for more in ("", ", num_rows: 2")
    )
    assert one == other


MEMORY = """\
GB of a device  rows  weights  grads  optim  activations  in all  most
  base            12     14.0    4.0    8.0         45.0  71.0 ✓    12
› base zero2      12      4.0    0.7    2.0         45.0  51.7 ✓    16
› as launched; rows: of a micro-batch, and the most that fit; activations: with logits
"""


def test_what_a_device_takes_is_a_table_of_eighty_columns(tmp_path: Path) -> None:
    made = planned(tmp_path)
    plain = Memory(14_000_000_000, 4_000_000_000, 8_000_000_000, 20_000_000_000, 25_000_000_000, 12, accumulates=True)
    divided = replace(plain, weights=4_000_000_000, gradients=700_000_000, optimizer=2_000_000_000)
    fits = (Fits("", plain, 12), Fits("zero2", divided, 16, is_launched=True))
    stages = (replace(made.stages[0], memory=divided, fits=fits), *made.stages[1:])
    shown = console(88)
    shown.print(plan_screen(replace(made, out="results/declared", stages=stages)))
    assert MEMORY in "\n".join(line.rstrip() for line in text_of(shown).split("\n"))
    narrow = lines(plan_screen(replace(made, out="results/declared", stages=stages)))
    assert max(map(len, narrow)) <= 80


def test_the_largest_stage_is_what_training_here_takes(tmp_path: Path) -> None:
    made = planned(tmp_path, on=None)
    small = Memory(4_000_000, 4_000_000, 8_000_000, 90_000_000, 20_000_000, 12)
    large = replace(small, weights=40_000_000)
    stages = (replace(made.stages[0], memory=small), replace(made.stages[1], memory=large), made.stages[2])
    shown = lines(plan_screen(replace(made, stages=stages)), 160)
    words = "weights 40 MB, gradients 4 MB, optimizer 8 MB, activations 90 MB, logits 20 MB"
    assert f"memory: at most 0.2 GB to train ({words})" in shown
