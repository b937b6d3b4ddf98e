"""Packing: sequences are filled well, rows in them do not see each other, and what a step learns stays the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from runner.data.tokens import Tokens
from runner.errors import BadRecipe
from runner.preparation import make_plan
from runner.train import isolation
from runner.train.batches import IGNORED, PACKED, Collate, Pack
from runner.train.packing import NOTHING, Layout, bins, sequences
from runner.train.penalties import weight_of
from tests.in_process import finished, losses, prepare, train
from tests.tiny_project import write_project

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def network(kind: str = "qwen3", attention: str = "sdpa", **more: Any) -> Any:
    torch.manual_seed(3)
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "intermediate_size": 64, "vocab_size": 50, "max_position_embeddings": 256, "use_cache": False,
    } | more  # fmt: skip
    known = AutoConfig.for_model(kind)
    config = AutoConfig.for_model(kind, **{name: value for name, value in sizes.items() if hasattr(known, name)})
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def rows(*lengths: int) -> list[Tokens]:
    """Rows of which the second half is supervised."""
    generator = torch.Generator().manual_seed(sum(lengths))
    return [
        Tokens(torch.randint(0, 50, (length,), generator=generator).tolist(), ((length // 2, length),), number)
        for number, length in enumerate(lengths)
    ]


def step(model: Any, batches: list[dict[str, torch.Tensor]]) -> tuple[float, torch.Tensor]:
    """The loss of a step, and its gradients one after the other."""
    model.zero_grad()
    total, loss = sum(weight_of(batch) for batch in batches), 0.0
    for batch in batches:
        share = model(**batch, num_items_in_batch=total).loss
        share.backward()
        loss += share.item()
    return loss, torch.cat([weight.grad.flatten() for weight in model.parameters()])


# --- the plan of a step ---


@given(LENGTHS)
@settings(max_examples=60, deadline=None)
def test_every_row_lies_in_one_sequence_and_none_is_too_long(lengths: list[int]) -> None:
    packed = bins(lengths, max(lengths))
    assert sorted(row for members in packed for row in members) == list(range(len(lengths)))
    filled = [sum(lengths[row] for row in members) for members in packed]
    assert max(filled) <= max(lengths)
    # no two sequences would fit into one, as best-fit never opens one that is not needed
    assert sum(size <= max(lengths) / 2 for size in filled) <= 1


@pytest.mark.parametrize("layout", Layout)
@given(lengths=LENGTHS, at_once=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_micro_batches_hold_every_row_and_little_padding(layout: Layout, lengths: list[int], at_once: int) -> None:
    made = list(sequences(lengths, layout, at_once))
    places = [place for lines in made for line in lines for place in line]
    assert sorted(place.row for place in places if place.row >= 0) == list(range(len(lengths)))
    for lines in made:
        assert len({sum(place.length for place in line) for line in lines}) == 1
        assert len(lines) <= (at_once if layout is Layout.MASKED else 1)
    padding = {place.row: place.length - lengths[place.row] for place in places if place.row >= 0}
    if layout is Layout.GROUPED:
        assert all(pad <= max(0.12 * (lengths[row] + pad), 16) for row, pad in padding.items())
    else:
        assert not any(padding.values())


def test_a_rows_first_token_has_no_label_where_another_row_stands_before_it() -> None:
    (batch,) = Pack(9, 0.5, Layout.FLAT, 4)([Tokens([1, 2, 3], ((1, 3),), 0), Tokens([4, 5], ((0, 2),), 1)])[PACKED]
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 2, 3, IGNORED, 5]]
    assert batch["loss_weights"].tolist() == [[0, 1, 1, 0, 1]]


# --- on a model ---


@pytest.mark.parametrize(("attention", "layout"), [("sdpa", Layout.GROUPED), ("eager", Layout.MASKED)])
@pytest.mark.parametrize("at_once", [16, 1])
@pytest.mark.parametrize("prompt_weight", [0.0, 0.3])
def test_loss_and_gradients_of_a_step_are_those_of_padding(
    attention: str, layout: Layout, at_once: int, prompt_weight: float
) -> None:
    model, some = network(attention=attention), rows(40, 3, 17, 17, 5, 28, 33, 9)
    padded = [Collate(0, 0.0)(some)]
    expected_loss, expected = step(model, padded)
    assert isolation.choose(model, attention) is layout
    packed = Pack(0, 0.0, layout, at_once)(some)[PACKED]
    assert (len(packed) > 1) == (at_once == 1)
    loss, gradients = step(model, packed)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    torch.testing.assert_close(gradients, expected, atol=1e-5, rtol=0)
    with_prompts = Pack(0, prompt_weight, layout, at_once)(some)[PACKED]
    assert sum(weight_of(batch) for batch in with_prompts) == weight_of(Collate(0, prompt_weight)(some))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
        ("mistral", {"sliding_window": 4}),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    ],
)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_models_can_pack_too(kind: str, more: dict[str, Any], attention: str) -> None:
    model, some = network(kind, attention, **more).eval(), rows(12, 3, 7, 7)
    expected, _ = step(model, [Collate(0, 0.0)(some)])
    layout = isolation.choose(model, attention)
    assert step(model, Pack(0, 0.0, layout, 16)(some)[PACKED])[0] == pytest.approx(expected, abs=1e-5)


def test_a_model_with_a_state_that_runs_on_is_refused() -> None:
    model = network("mamba", "eager", num_hidden_layers=1, state_size=4)
    with pytest.raises(BadRecipe) as caught:
        isolation.choose(model, "eager")
    assert caught.value.screen() == (
        "packing: true cannot be: in a mamba rows that share a sequence see each other\n    hint: say packing: false"
    )


def test_a_padded_batch_goes_through_the_same_model() -> None:
    model, some = network().eval(), rows(12, 3, 7)
    batch = Collate(0, 0.0)(some)
    expected = model(**batch).loss
    isolation.choose(model, "sdpa")
    assert model(**batch).loss.item() == pytest.approx(expected.item(), abs=1e-6)


# --- in a stage ---

STILL = ("model.config.attention_dropout=0.0", "stages.base.save_strategy=no", "stages.base.trainer_args.optim=sgd")
STEPS = ("stages.base.max_steps=4", "stages.base.global_batch_size=20", "stages.base.learning_rate=0.5")


@pytest.mark.parametrize("how", [(), ("stages.base.micro_batch_size=4",), ("model.attn_implementation=eager",)])
def test_a_packed_stage_trains_the_weights_of_a_padded_one(tmp_path: Path, how: tuple[str, ...]) -> None:
    recipe = write_project(tmp_path / "project")
    folders = []
    for packing in ("false", "true"):
        run = tmp_path / packing
        prepared = prepare(recipe, run, *STILL, *STEPS, *how, f"stages.base.packing={packing}")
        folders.append(train(prepared, "base"))
        counts = make_plan(prepared).stages[0].counts
        assert (finished(prepared, "base").tokens, finished(prepared, "base").step) == (counts.tokens, 4)
        (*_, last) = losses(prepared, "base")
        folders.append(last.loss)  # type: ignore[arg-type]
    padded, first, packed, second = folders
    assert first == pytest.approx(second, abs=1e-5)
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (padded, packed))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-5, rtol=0)
    configs = [json.loads((Path(folder) / "config.json").read_text()) for folder in (padded, packed)]
    assert configs[0] == configs[1]


def test_terms_against_forgetting_are_the_same_in_a_packed_stage(tmp_path: Path) -> None:
    recipe = write_project(tmp_path / "project")
    kept = (
        "stages.base.max_steps=2", "stages.qa.from=base@last", "stages.qa.max_steps=3", "stages.qa.learning_rate=0.5",
        "stages.qa.kl={weight: 0.5}", "stages.qa.trainer_args.optim=sgd", "stages.qa.save_strategy=no",
    )  # fmt: skip
    found = []
    for how in (("stages.qa.packing=false",), ("stages.qa.packing=true", "stages.qa.micro_batch_size=2")):
        prepared = prepare(recipe, tmp_path / str(len(found)), *STILL, *kept, *how)
        train(prepared, "base")
        train(prepared, "qa")
        found.append([(event.loss, event.more["kl"]) for event in losses(prepared, "qa")])
    assert found[0][-1][1] > 1e-4  # the term is not nothing
    for padded, packed in zip(*found, strict=True):
        assert packed == pytest.approx(padded, abs=1e-5)


# --- how rows lie, worked out by hand ---


def test_rows_of_about_one_length_share_a_group_and_a_much_shorter_one_begins_its_own() -> None:
    def grouped(*lengths: int) -> list[tuple[int, int]]:
        ((places,),) = sequences(lengths, Layout.GROUPED, len(lengths))
        return [(place.row, place.length) for place in places]

    # 12 % of 200 are 24: 176 is padded to 200, 175 is not
    assert grouped(200, 176) == [(0, 200), (1, 200)]
    assert grouped(200, 175) == [(0, 200), (1, 175)]
    # of 100 they are 12, and 16 tokens are padded in any case
    assert grouped(100, 84) == [(0, 100), (1, 100)]
    assert grouped(100, 83) == [(0, 100), (1, 83)]
    assert grouped(1) == [(0, 1)]
    assert grouped(200, 150, 140) == [(0, 200), (1, 150), (2, 150)]


def test_sequences_that_a_mask_keeps_apart_are_filled_to_one_length_with_padding() -> None:
    ((first, second, third),) = sequences([5, 3, 4], Layout.MASKED, 3)
    assert [(place.row, place.length) for place in first] == [(0, 5)]
    assert [(place.row, place.length) for place in second] == [(2, 4), (-1, 1)]
    assert [(place.row, place.length) for place in third] == [(1, 3), (-1, 2)]
    ((alone,),) = sequences([5], Layout.MASKED, 1)
    assert [(place.row, place.length) for place in alone] == [(0, 5)]


def test_rows_go_the_longest_first_into_the_sequence_that_they_fill_best() -> None:
    assert bins([5, 4, 3, 3, 2, 1], 6) == [[0, 5], [1, 4], [2, 3]]
    assert bins([2, 2, 2], 4) == [[0, 1], [2]]
    assert bins([3, 2, 4], 4) == [[2], [0], [1]]


@pytest.mark.parametrize("layout", Layout)
@given(lengths=LENGTHS, at_once=st.integers(1, 3), of=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_processes_share_the_rows_of_a_step_and_call_the_model_as_often(
    layout: Layout, lengths: list[int], at_once: int, of: int
) -> None:
    made = [list(sequences(lengths, layout, at_once, index, of)) for index in range(of)]
    assert len({len(micros) for micros in made}) == 1
    lines = [line for micros in made for micro in micros for line in micro]
    assert sorted(place.row for line in lines for place in line if place.row >= 0) == list(range(len(lengths)))
    idle = [line for line in lines if all(place.row < 0 for place in line)]
    assert all([(place.row, place.length) for place in line] == [(-1, NOTHING)] for line in idle)
    # of the sequences of a round no process has two more than another
    whole = len(bins(lengths, max(lengths)))
    assert len(made[0]) == -(-whole // (at_once * of))
    if layout is Layout.MASKED:
        rounds = [[sum(line[0].row >= 0 for line in micro) for micro in micros] for micros in made]
        assert all(max(counts) - min(counts) <= 1 for counts in zip(*rounds, strict=True))


def test_a_process_without_a_row_gets_a_sequence_of_padding_while_others_go_on() -> None:
    first, second = (list(sequences([3, 3, 3], Layout.FLAT, 1, index, 2)) for index in (0, 1))
    assert [[[place.row for place in line] for line in micro] for micro in first] == [[[0]], [[-1]]]
    assert [[[place.row for place in line] for line in micro] for micro in second] == [[[1]], [[2]]]


# --- tensors, worked out by hand ---

SHORT = [Tokens([1, 2, 3], ((1, 3),), 0), Tokens([4, 5], ((0, 2),), 1)]


def test_padded_rows_begin_a_line_each_and_padding_is_neither_seen_nor_learned() -> None:
    batch = Collate(9, 0.5)(SHORT)
    assert {name: (tensor.tolist(), tensor.dtype) for name, tensor in batch.items()} == {
        "input_ids": ([[1, 2, 3], [4, 5, 9]], torch.int64),
        "attention_mask": ([[1, 1, 1], [1, 1, 0]], torch.int64),
        "labels": ([[1, 2, 3], [4, 5, IGNORED]], torch.int64),
        "loss_weights": ([[0.5, 1, 1], [1, 1, 0]], torch.float32),
    }
    plain = Collate(9, 0.0)(SHORT)
    assert plain["labels"].tolist() == [[IGNORED, 2, 3], [4, 5, IGNORED]]
    assert set(plain) == {"input_ids", "attention_mask", "labels"}


def test_of_no_rows_there_is_a_batch_that_teaches_nothing() -> None:
    batch = Collate(9, 0.5)([])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[9, 9]], "attention_mask": [[1, 1]], "labels": [[IGNORED] * 2], "loss_weights": [[0, 0]],
    }  # fmt: skip


def test_packed_rows_lie_where_the_plan_puts_them_and_each_counts_its_positions_from_zero() -> None:
    some = [Tokens([1, 2, 3], ((0, 1), (2, 3)), 0), Tokens([4], ((0, 1),), 1), Tokens([5, 6, 7, 8], ((1, 4),), 2)]
    pack = Pack(9, 0.25, Layout.MASKED, 4)
    (batch,) = pack(some)[PACKED]
    assert {name: (tensor.tolist(), tensor.dtype) for name, tensor in batch.items()} == {
        "input_ids": ([[5, 6, 7, 8], [1, 2, 3, 4]], torch.int64),
        "position_ids": ([[0, 1, 2, 3], [0, 1, 2, 0]], torch.int64),
        "labels": ([[IGNORED, 6, 7, 8], [IGNORED, 2, 3, IGNORED]], torch.int64),
        "loss_weights": ([[0, 1, 1, 1], [0, 0.25, 1, 0]], torch.float32),
    }
    assert list(pack.places([3, 1, 4])) == [(0, 0, 2), (1, 0, 0), (1, 3, 1)]
    assert list(pack.places([2, 4])) == [(0, 0, 1), (1, 0, 0)]  # what is filled up is no row
    grouped = Pack(9, 0.0, Layout.GROUPED, 4)(some)[PACKED]
    assert [micro["input_ids"].tolist() for micro in grouped] == [[[5, 6, 7, 8, 1, 2, 3, 9, 4, 9, 9, 9]]]
    assert grouped[0]["position_ids"].tolist() == [[0, 1, 2, 3] * 3]


def test_the_second_of_two_processes_packs_its_own_rows() -> None:
    made = [Pack(9, 0.0, Layout.FLAT, 1, (index, 2))(SHORT)[PACKED] for index in (0, 1)]
    assert [[micro["input_ids"].tolist() for micro in micros] for micros in made] == [[[[1, 2, 3]]], [[[4, 5]]]]
