"""runner.memory: what a device takes, by the numbers of a model; what autograd keeps of a layer, counted."""

from dataclasses import replace

import pytest

from runner import memory, spec
from runner.errors import UserError
from runner.memory import Devices, Network, Training

QWEN = Network(
    total=998_800_000, trained=998_800_000, vocabulary=151_936, hidden=1024, layers=48, heads=16, kv_heads=4,
    head_dim=64, intermediate=4864,
)  # fmt: skip
PLAIN = Training(length=1024)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6x80GB", Devices(6, 80_000_000_000)),
        ("1x24GB", Devices(1, 24_000_000_000)),
        ("80gb", Devices(1, 80_000_000_000)),
        ("2 × 141G", Devices(2, 141_000_000_000)),
    ],
)
def test_devices_are_a_count_and_a_size(text: str, expected: Devices) -> None:
    assert memory.devices(text) == expected


@pytest.mark.parametrize("text", ["", "6", "6xH100", "0x80GB", "80MB", "GBx6"])
def test_anything_else_is_no_devices(text: str) -> None:
    with pytest.raises(UserError) as caught:
        memory.devices(text)
    assert caught.value.screen() == (
        f"--devices: {text!r} says no devices\n    expected: COUNTxSIZE, for example 6x80GB or 1x24GB"
    )


def test_a_model_that_is_trained_alone_takes_sixteen_bytes_for_each_weight() -> None:
    one = memory.estimate(QWEN, PLAIN, 1)
    states = one.weights + one.gradients + one.optimizer
    assert states == 16 * QWEN.total


def test_half_precision_adds_a_cast_of_each_weight_and_takes_less_for_activations() -> None:
    full, half = (memory.estimate(QWEN, replace(PLAIN, half=half), 4) for half in (False, True))
    assert half.weights == full.weights + 2 * QWEN.total
    assert half.activations < 0.8 * full.activations


def test_zero_divides_first_the_optimizer_then_gradients_then_weights() -> None:
    ways = {way: memory.estimate(QWEN, replace(PLAIN, half=True), 1, way, 8) for way in memory.WAYS}
    assert ways["zero1"].optimizer == 12 * QWEN.total // 8
    assert ways["zero2"].optimizer == ways["zero1"].optimizer
    large = replace(QWEN, total=20 * QWEN.total, trained=20 * QWEN.total)
    one, two, three = (memory.estimate(large, replace(PLAIN, half=True), 1, way, 8) for way in memory.WAYS[1:4])
    assert two.gradients < one.gradients / 2
    assert three.weights < two.weights / 2
    assert ways["offload"].host == 16 * QWEN.total // 8
    assert ways["offload"].optimizer == 0


def test_an_adapter_needs_gradients_and_moments_of_itself_alone() -> None:
    lora = replace(QWEN, total=QWEN.total + 9_000_000, trained=9_000_000)
    held = {bits: memory.estimate(lora, replace(PLAIN, half=True, base_bits=bits), 1) for bits in (16, 8, 4)}
    assert all(one.gradients == 4 * lora.trained and one.optimizer == 8 * lora.trained for one in held.values())
    assert held[16].weights - held[8].weights == QWEN.total
    assert held[8].weights - held[4].weights == QWEN.total // 2


@pytest.mark.parametrize("half", [False, True])
def test_three_tensors_of_a_large_vocabulary_stand_beside_each_other_in_float32(half: bool) -> None:
    tokens = 2 * PLAIN.length
    assert memory.estimate(QWEN, replace(PLAIN, half=half), 2).logits == 12 * tokens * QWEN.vocabulary


def test_gradients_stand_beside_activations_only_where_they_are_accumulated() -> None:
    once, twice = (memory.estimate(QWEN, replace(PLAIN, accumulates=many), 8) for many in (False, True))
    assert twice.total == once.total + once.gradients


@pytest.mark.parametrize("way", memory.WAYS)
def test_the_largest_micro_batch_is_the_last_that_fits(way: str) -> None:
    on = Devices(6, 80_000_000_000)
    how = replace(PLAIN, half=True, accumulates=True)
    found = memory.fits(QWEN, how, 12, way, on)
    room = on.bytes_each * (1 - memory.RESERVED)
    assert memory.estimate(QWEN, how, found.most_rows, way, 6).total <= room
    assert memory.estimate(QWEN, how, found.most_rows + 1, way, 6).total > room


def test_where_not_one_row_fits_none_does() -> None:
    assert memory.fits(QWEN, PLAIN, 1, "", Devices(1, 8_000_000_000)).most_rows == 0


SHAPES = {
    "qwen2": {"num_key_value_heads": 2},
    "llama": {"num_key_value_heads": 4},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
}


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", SHAPES)
def test_what_autograd_keeps_of_a_layer_is_what_is_estimated(kind: str, half: bool) -> None:
    kept = [_kept(kind, layers, half) for layers in (1, 2)]
    network = Network(
        total=0, trained=0, vocabulary=64, hidden=64, layers=1, heads=4, kv_heads=SHAPES[kind]["num_key_value_heads"],
        head_dim=16, intermediate=192, qk_norm=kind == "qwen3",
    )  # fmt: skip
    how = Training(length=128, half=half)
    one, two = (memory.estimate(replace(network, layers=layers), how, 2).activations for layers in (1, 2))
    assert two - one == pytest.approx(kept[1] - kept[0], rel=0.04)


def _kept(kind: str, layers: int, half: bool) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass, weights and their casts left out."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind, hidden_size=64, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=192, vocab_size=64,
        pad_token_id=None, bos_token_id=None, eos_token_id=None, **SHAPES[kind],
    )  # fmt: skip
    network = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    shapes = {tuple(weight.shape) for weight in network.parameters()}
    shapes |= {shape[::-1] for shape in shapes}
    own = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        cast = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
        if tensor.untyped_storage().data_ptr() not in own and not cast:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.arange(256).reshape(2, 128) % 64
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        network(input_ids=ids, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_dpo_on_the_adapter_of_an_earlier_stage_holds_no_second_base() -> None:
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "two",
            "model": {"path": "base"},
            "data": {"rows": {"path": "rows.jsonl"}},
            "stages": {
                "sft": {"kind": "lora", "data": "rows"},
                "prefer": {"kind": "dpo", "from": "sft@last", "adapter": "continue", "data": "rows"},
                "whole": {"kind": "dpo", "from": "sft@last", "data": "rows"},
            },
        }
    )
    numbers = {"half": True, "eager": False, "whole": 1000, "trained": 10, "accumulates": False}
    found = {
        name: memory.training(stage, recipe.trained_adapter(name, lambda place: False), **numbers)
        for name, stage in recipe.stages.items()
    }
    assert {name: (how.copies, how.base_bits) for name, how in found.items()} == {
        "sft": (0, 16),
        "prefer": (0, 16),
        "whole": (4000, 32),
    }
