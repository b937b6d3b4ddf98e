"""The recipes of published experiments: their numbers, and the probes that they ask."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runner import spec
from runner.asking import Reply
from runner.check import load_checked, load_variants
from runner.errors import BadRecipe
from runner.plan import Arithmetic, arithmetic
from runner.preparation import Prepared, check_here
from tests.tiny import make_byte_tokenizer

RECIPES = Path(__file__).parents[1] / "recipes"
EPOCHS = (1264, 2529, 3794, 5059, 6323, 7588, 8853, 10118, 11382, 12640)


def stages(name: str) -> dict[str, spec.Stage]:
    """The stages of a shipped recipe."""
    return dict(load_checked(RECIPES / f"{name}.yaml").spec.stages)


def planned(name: str, stage: str, devices: int) -> Arithmetic:
    """Steps and batches of a stage on so many devices, with the rows that the recipe declares."""
    whole = load_checked(RECIPES / f"{name}.yaml").spec
    rows = whole.data[whole.stages[stage].data[0]].num_rows
    return arithmetic(whole.stages[stage], rows, devices)


def product(numbers: Arithmetic) -> tuple[int, int, int]:
    """Rows of a device, accumulated steps, devices."""
    return numbers.per_device_batch_size, numbers.accumulation_steps, numbers.processes


@pytest.mark.parametrize(
    ("name", "stage", "expected", "steps", "checkpoints"),
    [
        ("mini_qwen", "pretrain", (12, 16, 6), 13523, (2000, 4000, 6000, 8000, 10000, 12000, 13523)),
        ("mini_qwen", "sft", (12, 16, 6), 23193, (7731, 15462, 23193)),  # published: 7730, 15461, about 23.2 k
        ("mini_qwen", "prefer", (4, 16, 6), 462, (462,)),
        ("gen_sft", "sft", (12, 16, 6), 12640, EPOCHS),
    ],
)
def test_six_devices_make_the_published_batches_steps_and_checkpoints(
    name: str, stage: str, expected: tuple[int, int, int], steps: int, checkpoints: tuple[int, ...]
) -> None:
    numbers = planned(name, stage, 6)
    assert (product(numbers), numbers.total_steps, numbers.publish_steps) == (expected, steps, checkpoints)


def test_today_ten_epochs_would_be_ten_steps_more() -> None:
    stage = stages("gen_sft")["sft"].model_copy(update={"max_steps": None})
    assert arithmetic(stage, 1_456_927, 6).total_steps == 12_650


def test_the_adapter_is_trained_in_four_parts_of_32() -> None:
    numbers = planned("tiger_lora", "tune", 1)
    assert product(numbers) == (32, 4, 1)
    assert 19_500 < numbers.steps_per_epoch < 20_500  # published: about 20,000
    assert numbers.publish_steps[:2] == (400, 800)


def test_the_gravity_is_what_was_published_times_a_number_that_adam_does_not_see() -> None:
    plain, gravity = (loaded.spec.stages["tune"] for loaded in load_variants(RECIPES / "tiger_lora.yaml"))
    assert plain.lora is not None
    assert plain.lora.l2 == 0
    assert gravity.lora is not None
    ours = {"cross-entropy": 1.0, "norm": gravity.lora.l2}
    assert {term: pytest.approx(0.7 * weight, abs=1e-6) for term, weight in ours.items()} == {
        "cross-entropy": 0.7, "norm": 0.3,
    }  # fmt: skip
    assert 0.7 * gravity.max_grad_norm == pytest.approx(plain.max_grad_norm)
    assert 0.7 * gravity.trainer_args["adam_epsilon"] == pytest.approx(1e-8)


def test_the_variants_are_two_starts_with_four_learning_rates_on_one_pretraining() -> None:
    found = load_variants(RECIPES / "mini_qwen_dpo_variants.yaml")
    last = {one.variant: one.spec.stages["prefer"] for one in found}
    assert {name: (stage.from_, stage.learning_rate) for name, stage in last.items()} == {
        "epoch2_5e-7": ("sft@epoch=2", 5e-7),
        "epoch3_1e-6": ("sft@epoch=3", 1e-6),
        "epoch3_5e-7": ("sft@epoch=3", 5e-7),
        "epoch2_1e-7": ("sft@epoch=2", 1e-7),
    }  # fmt: skip
    assert len({one.spec.stages["sft"].model_dump_json() for one in found}) == 1


def test_without_the_data_a_run_says_which_file_and_how_to_name_another(tmp_path: Path) -> None:
    make_byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    loaded = load_checked(RECIPES / "mini_qwen.yaml", [f"model.tokenizer={tmp_path / 'tokenizer'}"])
    with pytest.raises(BadRecipe) as found:
        check_here(Prepared(loaded, tmp_path / "run"))
    assert [problem.hint for problem in found.value.problems] == [
        f"put it there, or say where it is: --set data.{name}.path=PATH" for name in ("corpus", "chats", "pairs")
    ]
    assert "data/pretrain/*.jsonl" in found.value.problems[0].message


# --- probes ---


def probes(name: str) -> ModuleType:
    """A probe file of the recipes, as a module."""
    described = importlib.util.spec_from_file_location(name, RECIPES / "probes" / f"{name}.py")
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


def replied(text: str, stop_reason: str = "eos") -> Reply:
    """A reply of a model."""
    return Reply(text, stop_reason=stop_reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("李白（701年－762年），字太白。", (True, True)),
        ("Li Bai (701–762) was a poet.", (True, True)),
        ("李白（701年—？），卒于763年。", (True, False)),
        ("李白，唐代诗人。", (False, False)),
        ("李白生于1701年，卒于762年。", (False, True)),
    ],
)
def test_years_are_right_or_wrong_to_the_digit(said: str, right: tuple[bool, bool]) -> None:
    module, case = probes("test_three_prompts"), SimpleNamespace(**probes("test_three_prompts").LIVES[0])
    for probe, expected in zip((module.test_year_of_birth, module.test_year_of_death), right, strict=True):
        if expected:
            probe(case, replied(said))
        else:
            with pytest.raises(AssertionError):
                probe(case, replied(said))


def test_repetition_is_recorded_over_characters() -> None:
    recorded: dict[str, Any] = {}
    module = probes("test_three_prompts")
    module.test_reply_ends(replied("绿豆糕，绿豆糕，绿豆糕，"), recorded.update)
    assert recorded["seq_rep_4"] == pytest.approx(1 - 4 / 9)
    assert recorded["distinct_1"] == pytest.approx(4 / 12)
    assert recorded["looping_share"] == 1
    with pytest.raises(AssertionError, match="did not end"):
        module.test_reply_ends(replied("好" * 20, "length"), recorded.update)


def test_the_authors_rules_are_asked_in_the_words_of_training_with_and_without_the_rule(tmp_path: Path) -> None:
    loaded = load_variants(RECIPES / "tiger_lora.yaml", variant="plain")[0]
    data = Prepared(loaded, tmp_path / "run").data
    rules, sums = ([data.get(ref).example(row, 0) for row in range(4)] for ref in ("rules", "sums"))
    assert all("### Response:" in example.prompt for example in (*rules, *sums))
    assert ["每吃掉一个苹果" in example.prompt for example in (rules[0], sums[0])] == [True, False]
    assert [example.completion for example in rules] == ["1", "1", "6, 8", "6, 8"]
    module, case = probes("test_two_rules"), SimpleNamespace(key=["6", "8"])
    module.test_computes(case, replied("10棵树，可能还活着6棵或8棵。"))
    with pytest.raises(AssertionError):
        module.test_computes(case, replied("8"))
