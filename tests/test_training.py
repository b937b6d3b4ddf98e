"""pretrain and sft on a real tiny model: what the loss sees, what seeds decide, what epochs hold, what is counted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

from runner import checkpoints, model
from runner.data.epochs import Epochs
from runner.data.tokens import Encoding, Tokens
from runner.preparation import Prepared, make_plan
from runner.train import batches, causal
from tests.in_process import begin, finished, losses, prepare, train
from tests.tiny_project import write_project

NO_CHECKPOINTS = "stages.base.save_strategy=no"
STILL = "model.config.attention_dropout=0.0"
QUESTIONS = ("stages.base.kind=sft", "stages.base.data=questions")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("training"))


def trained(recipe: Path, run: Path, *sets: str) -> Prepared:
    """The stage `base` of the tiny recipe, trained to its end."""
    prepared = prepare(recipe, run, NO_CHECKPOINTS, *sets)
    train(prepared, "base")
    return prepared


def checkpoint(prepared: Prepared) -> Path:
    ((_, folder),) = checkpoints.published(prepared.run / "base")
    return folder


def digest(prepared: Prepared) -> str:
    return checkpoints.weights_sha256(checkpoint(prepared))


# --- what the loss sees ---


def test_completion_and_eos_are_supervised_and_prompt_and_padding_are_not() -> None:
    rows = [Tokens([11, 12, 13, 21, 22, 2], ((3, 6),), row=0), Tokens([11, 31, 2], ((1, 3),), row=1)]
    batch = batches.Collate(pad_id=1, prompt_loss_weight=0.0)(rows)
    assert batch["input_ids"].tolist() == [[11, 12, 13, 21, 22, 2], [11, 31, 2, 1, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 21, 22, 2], [-100, 31, 2, -100, -100, -100]]
    assert "loss_weights" not in batch


def test_with_a_prompt_weight_every_token_is_a_label_and_the_prompt_weighs_less() -> None:
    rows = [Tokens([11, 12, 21, 2], ((2, 4),), row=0), Tokens([31, 2], ((0, 2),), row=1)]
    batch = batches.Collate(pad_id=1, prompt_loss_weight=0.5)(rows)
    assert batch["labels"].tolist() == [[11, 12, 21, 2], [31, 2, -100, -100]]
    assert batch["loss_weights"].tolist() == [[0.5, 0.5, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("sets", "prompt_weight"),
    [
        (QUESTIONS, 0.0),
        ((*QUESTIONS, "stages.base.prompt_loss_weight=0.3"), 0.3),
        ((*QUESTIONS, "stages.base.prompt_loss_weight=1.0"), 1.0),
        (("stages.base.data=questions",), 1.0),
    ],
    ids=["sft", "sft-0.3", "sft-1", "pretrain"],
)
def test_the_loss_is_the_weighted_mean_of_the_tokens_computed_by_hand(
    recipe: Path, tmp_path: Path, sets: tuple[str, ...], prompt_weight: float
) -> None:
    # one step over all rows, that changes nothing: the checkpoint is the model whose loss was recorded
    one_step = ("stages.base.max_steps=1", "stages.base.global_batch_size=40", "stages.base.learning_rate=0.0", STILL)
    whole = trained(recipe, tmp_path / "whole", *sets, *one_step)
    parts = trained(recipe, tmp_path / "parts", *sets, *one_step, "stages.base.micro_batch_size=7")
    assert parts.arithmetic["base"].accumulation_steps == 8  # 8 of 5 rows each: the most that divides 40 and is <= 7

    by_hand = _loss_by_hand(checkpoint(whole), recipe.parent / "words.tsv", prompt_weight)
    assert losses(whole, "base")[0].loss == pytest.approx(by_hand, abs=1e-5)
    assert losses(parts, "base")[0].loss == pytest.approx(by_hand, abs=1e-5)


def _loss_by_hand(folder: Path, words: Path, prompt_weight: float) -> float:
    """Row by row, without padding or labels: sum of w_t * -log p(token_t), divided by the sum of w_t."""
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    total = weight = 0.0
    with words.open(encoding="utf-8") as file, torch.no_grad():
        for row in csv.DictReader(file, delimiter="\t"):
            prompt, said = f"what is {row['word']}?", f" {row['word']} is {row['colour']}"
            ids = [tokenizer.convert_tokens_to_ids(char) for char in prompt + said] + [tokenizer.eos_token_id]
            assert tokenizer.unk_token_id not in ids
            scores = torch.log_softmax(network(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)  # (T, V)
            for position in range(1, len(ids)):
                of_token = prompt_weight if position < len(prompt) else 1.0
                total += of_token * -scores[position - 1, ids[position]].item()
                weight += of_token
    return total / weight


@pytest.mark.parametrize("sets", [QUESTIONS, (*QUESTIONS, "stages.base.prompt_loss_weight=0.3"), ()])
def test_accumulated_gradients_train_the_same_weights_as_the_whole_batch(
    recipe: Path, tmp_path: Path, sets: tuple[str, ...]
) -> None:
    # plain gradient descent: Adam divides each gradient by its own size, and so makes rounding visible
    steps = ("stages.base.max_steps=3", "stages.base.global_batch_size=20", "stages.base.learning_rate=0.5", STILL)
    plain = ("stages.base.trainer_args.optim=sgd", *sets, *steps)
    whole = trained(recipe, tmp_path / "whole", *plain)
    parts = trained(recipe, tmp_path / "parts", *plain, "stages.base.micro_batch_size=4")
    before, after = (load_file(checkpoint(run) / "model.safetensors") for run in (whole, parts))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-5, rtol=0)
    assert [event.loss for event in losses(whole, "base")] == pytest.approx(
        [event.loss for event in losses(parts, "base")], abs=1e-5
    )
    assert losses(whole, "base")[-1].loss < losses(whole, "base")[0].loss - 0.1


# --- seeds ---


def test_the_seed_alone_decides_initial_and_final_weights(recipe: Path, tmp_path: Path) -> None:
    short = ("stages.base.max_steps=6",)
    first = trained(recipe, tmp_path / "first", *short)
    torch.manual_seed(12345)  # whatever was drawn in this process before does not matter
    again = trained(recipe, tmp_path / "again", *short)
    other = trained(recipe, tmp_path / "other", *short, "seed=8")
    assert digest(first) == digest(again) != digest(other)


def test_the_model_is_built_after_the_seed_is_set(recipe: Path, tmp_path: Path) -> None:
    untouched = ("stages.base.max_steps=1", "stages.base.learning_rate=0.0")
    torch.manual_seed(12345)
    prepared = trained(recipe, tmp_path / "run", *untouched)
    published = load_file(checkpoint(prepared) / "model.safetensors")

    # plain transformers, seeded by hand
    set_seed(7)
    expected = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint(prepared))).state_dict()
    for name, tensor in published.items():
        assert torch.equal(expected[name], tensor), name

    tokenizer = model.load_tokenizer(str(checkpoint(prepared)))
    config = prepared.recipe.model.config
    assert config is not None
    other = model.build(config, tokenizer, 8, "sdpa").state_dict()
    assert not torch.equal(other["model.embed_tokens.weight"], published["model.embed_tokens.weight"])


# --- epochs, and what is counted ---


class Recording(batches.Collate):
    """The collator that trains, which also keeps what it was given."""

    seen: list[list[Tokens]]
    labels: list[int]

    def __call__(self, rows: list[Tokens]) -> dict[str, torch.Tensor]:
        type(self).seen.append(rows)
        batch = super().__call__(rows)
        type(self).labels.append(int((batch["labels"][:, 1:] != batches.IGNORED).sum()))
        return batch


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    Recording.seen, Recording.labels = [], []
    monkeypatch.setattr(causal, "Collate", Recording)
    return Recording


def test_every_epoch_has_each_row_once_drawn_and_shuffled_anew(
    recipe: Path, tmp_path: Path, recorded: type[Recording]
) -> None:
    prepared = trained(recipe, tmp_path / "run", "stages.base.num_train_epochs=3")
    assert [len(batch) for batch in recorded.seen] == [8] * 15
    epochs = [[row for batch in recorded.seen[at : at + 5] for row in batch] for at in (0, 5, 10)]
    orders = [[row.row for row in rows] for rows in epochs]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3

    texts = [{row.row: tuple(row.ids) for row in rows} for rows in epochs]
    same = sum(texts[0][row] == texts[1][row] for row in range(40))
    assert same < 20  # 2 of 3 templates in some order: 1 in 6 is drawn alike by chance

    expected = Epochs([prepared.data.get("facts")], prepared.tokenizer, 7, Encoding(1024, whole=True))
    assert epochs == [list(expected.epoch(number)) for number in range(3)]


@pytest.mark.parametrize(
    "sets",
    [
        ("stages.base.num_train_epochs=1.5",),
        ("stages.base.num_train_epochs=2", "stages.base.global_batch_size=12", "stages.base.micro_batch_size=4"),
        (*QUESTIONS, "stages.base.max_steps=7", "stages.base.max_length=24"),
        ("stages.base.data=[questions.train, facts]", "stages.base.max_steps=9"),
    ],
    ids=["part-of-an-epoch", "short-last-batch", "truncated", "two-data-sets"],
)
def test_the_plan_counts_the_tokens_and_steps_that_the_trainer_then_sees(
    recipe: Path, tmp_path: Path, recorded: type[Recording], sets: Sequence[str]
) -> None:
    prepared = prepare(recipe, tmp_path / "run", NO_CHECKPOINTS, *sets)
    planned = make_plan(prepared).stages[0]
    train(prepared, "base")
    counted = finished(prepared, "base")
    assert (counted.step, counted.tokens, counted.supervised_tokens) == (
        planned.arithmetic.total_steps,
        planned.counts.tokens,
        planned.counts.supervised,
    )
    # the data loader is one batch ahead of the model, where the last step is not an epoch's last
    batches = list(zip(recorded.seen, recorded.labels, strict=True))
    if sum(map(len, recorded.seen)) > planned.counts.rows:
        batches.pop()
    rows = [row for batch, _ in batches for row in batch]
    assert planned.counts.rows == len(rows)
    assert planned.counts.tokens == sum(len(row.ids) for row in rows)
    assert planned.counts.supervised == sum(labels for _, labels in batches)
    assert planned.counts.truncated == sum(row.truncated for row in rows)
    assert losses(prepared, "base")[-1].tokens == counted.tokens


def test_rows_cut_before_their_completion_teach_nothing_and_break_nothing(recipe: Path, tmp_path: Path) -> None:
    untouched = (*QUESTIONS, "stages.base.max_length=8", "stages.base.max_steps=2")
    prepared = trained(recipe, tmp_path / "run", *untouched)
    assert [event.loss for event in losses(prepared, "base")] == [0, 0]
    assert prepared.counts("base").dropped == 16


# --- resuming ---


def test_a_checkpoint_that_could_not_be_published_is_published_when_the_stage_resumes(
    recipe: Path, tmp_path: Path
) -> None:
    steps = ("stages.base.max_steps=7",)
    undisturbed = trained(recipe, tmp_path / "undisturbed", *steps)
    prepared = prepare(recipe, tmp_path / "run", NO_CHECKPOINTS, *steps)
    in_the_way = prepared.run / "base" / "ckpt-7"
    in_the_way.parent.mkdir()
    in_the_way.touch()
    assert begin(prepared, "base") == 2
    in_the_way.unlink()
    train(prepared, "base")
    assert digest(prepared) == digest(undisturbed)
