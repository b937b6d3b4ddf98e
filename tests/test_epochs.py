"""runner.data.epochs: mixtures, replay, pieces and wrapped rows of real data sets, counted as they are trained on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner import spec
from runner.data import datasets
from runner.data.chat import ChatTemplate
from runner.data.epochs import Epochs, stage_epochs
from runner.data.token_store import Kept
from runner.data.tokenizer import train_tokenizer
from runner.data.tokens import Tokens
from runner.errors import BadData

LETTERS = "abcdefghijklmnopqrstuvwxyz"
FAST = train_tokenizer(spec.Tokenizer(train="char", from_data=("x",)), [LETTERS + LETTERS.upper() + "0123456789? "])

DATA = {
    "letters": {"path": "letters.jsonl"},
    "asked": {"rows": "letters", "prompt": "{{ x }}?", "completion": "{{ x|upper }}"},
    "told": {"path": "told.jsonl"},
    "joined": {"rows": "letters", "pick": {"n": 2, "of": [{"text": f"{{{{ x }}}}{n}"} for n in range(6)]}},
    "drawn": {"rows": "letters", "pick": {"n": 1, "of": [{"text": "{{ x }}" * n} for n in (1, 2, 30)]}},
}
ROWS = 20


def stage(root: Path, kept: Kept | None = None, **block: Any) -> Epochs:
    """The epochs of a stage that is written so; `before` trains on `told`."""
    classes = ["many"] * 14 + ["few"] * 5 + ["one"]
    rows = [{"x": LETTERS[number], "kind": classes[number]} for number in range(ROWS)]
    texts = [{"text": LETTERS[:number]} for number in range(1, 27)]
    for name, table in (("letters", rows), ("told", texts)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "seed": 5,
            "model": {"path": "m"},
            "data": DATA,
            "stages": {
                "before": {"kind": "pretrain", "data": "told"},
                "now": {"kind": "sft", "from": "before@last", "data": "asked", **block},
            },
        }
    )
    return stage_epochs(recipe, "now", datasets.build(recipe, root), FAST, None, kept)


def text(row: Tokens) -> str:
    return FAST.tokenizer.decode(list(row.ids))


def texts(epochs: Epochs, epoch: int) -> list[str]:
    return [text(row) for row in epochs.epoch(epoch)]


# --- mixtures ---


def test_without_a_mixture_every_row_comes_once_in_each_epoch(tmp_path: Path) -> None:
    epochs = stage(tmp_path)
    assert len(epochs) == len(epochs.epoch(0)) == ROWS
    assert sorted(texts(epochs, 0)) == sorted(texts(epochs, 1)) == [f"{x}?{x.upper()}" for x in LETTERS[:ROWS]]
    assert texts(epochs, 0) != texts(epochs, 1)
    assert epochs.counts(8, 3).sources == ()  # there is nothing to say


def test_half_an_epoch_shows_half_of_the_rows_and_the_next_one_the_other_half(tmp_path: Path) -> None:
    epochs = stage(tmp_path, mix={"asked": {"epochs": 0.5}})
    first, second = texts(epochs, 0), texts(epochs, 1)
    assert len(first) == len(second) == ROWS / 2
    assert len({*first, *second}) == ROWS


def test_two_passes_in_an_epoch_draw_every_row_anew_for_each(tmp_path: Path) -> None:
    epochs = stage(tmp_path, kind="pretrain", data="joined", mix={"joined": {"epochs": 2.0}})
    rows = list(epochs.epoch(0))
    assert Counter(row.row for row in rows) == dict.fromkeys(range(ROWS), 2)
    assert len({text(row) for row in rows}) > 1.8 * ROWS  # two of six in some order: 1 in 30 is drawn alike


@pytest.mark.parametrize(
    ("mix", "shares"),
    [
        ({"asked": {"weight": 3.0}, "told": {"weight": 1.0}}, {"asked": 0.75, "told": 0.25}),
        ({"asked": {"rows": 74}}, {"asked": 0.74, "told": 0.26}),
        ({"told": {"epochs": 0.5}}, {"asked": 20 / 33, "told": 13 / 33}),
    ],
)
def test_shares_are_what_the_mixture_promises(mix: dict[str, Any], shares: dict[str, float], tmp_path: Path) -> None:
    epochs = stage(tmp_path, kind="pretrain", data=["asked", "told"], mix=mix)
    for epoch in (0, 1, 5):
        asked = sum("?" in shown for shown in texts(epochs, epoch))
        assert asked / len(epochs) == pytest.approx(shares["asked"], abs=0.015)
    told = epochs.counts(8, 400).sources
    assert {source.name: source.rows for source in told} == pytest.approx(shares, abs=0.015)
    seen = Counter(shown for epoch in range(40) for shown in texts(epochs, epoch))
    assert len(seen) == ROWS + 26  # nothing starves


def test_rare_classes_are_repeated_until_all_have_as_many_rows(tmp_path: Path) -> None:
    epochs = stage(tmp_path, mix={"asked": {"oversample": "kind"}})
    kinds = {f"{LETTERS[n]}?{LETTERS[n].upper()}": n for n in range(ROWS)}
    for epoch in (0, 3):
        rows = Counter(kinds[shown] for shown in texts(epochs, epoch))
        assert [sum(rows[n] for n in group) for group in (range(14), range(14, 19), [19])] == [14, 14, 14]
    assert epochs.counts(42, 1).sources[0].per_epoch == 42


# --- replay ---


def test_replayed_rows_are_a_ratio_of_the_own_ones_and_come_round_to_all(tmp_path: Path) -> None:
    epochs = stage(tmp_path, replay={"of": "before", "ratio": 0.25})
    assert len(epochs) == ROWS + 5
    seen: list[str] = []
    for epoch in range(6):
        old = [shown for shown in texts(epochs, epoch) if "?" not in shown]
        assert len(old) == 5
        seen += old
    assert len(set(seen[:25])) == 25  # a row comes again only after all others
    assert len(set(seen)) == 26


def test_a_buffer_is_bounded_and_the_same_in_every_epoch_and_for_every_process(tmp_path: Path) -> None:
    epochs, again = (stage(tmp_path, replay={"of": "told", "ratio": 0.5, "buffer": 3}) for _ in range(2))
    old = [
        {shown for shown in texts(found, epoch) if "?" not in shown} for found in (epochs, again) for epoch in (0, 9)
    ]
    assert len(old[0]) == 3
    assert old == [old[0]] * 4
    assert epochs.counts(10, 6).sources[1].available == 3


def test_documents_that_an_sft_stage_replays_are_supervised_whole(tmp_path: Path) -> None:
    epochs = stage(tmp_path, replay={"of": "told", "ratio": 1.0})
    for row in epochs.epoch(0):
        assert row.spans == (((2, 4),) if "?" in text(row) else ((0, len(row.ids)),))
        assert row.ids[-1] == FAST.eos_id
    mixed = epochs.counts(40, 1)
    assert [source.supervised for source in mixed.sources] == pytest.approx(
        [40 / mixed.supervised, 1 - 40 / mixed.supervised]
    )


def test_a_stage_replays_several_data_sets_as_one(tmp_path: Path) -> None:
    epochs = stage(tmp_path, data="drawn", kind="pretrain", replay={"of": ["before", "asked"], "ratio": 0.5})
    seen = Counter(shown for epoch in range(23) for shown in texts(epochs, epoch) if "?" in shown)
    assert len(seen) == ROWS
    assert seen.total() == 23 * 10 * ROWS / (ROWS + 26) == 100
    assert [source.name for source in epochs.counts(10, 3).sources] == ["drawn", "told", "asked"]


# --- long rows, and rows of one length ---


def test_long_rows_are_left_out_or_become_several_and_steps_follow(tmp_path: Path) -> None:
    plain = stage(tmp_path, kind="pretrain", data="told", max_length=16)
    left = stage(tmp_path, kind="pretrain", data="told", max_length=16, truncation="drop")
    cut = stage(tmp_path, kind="pretrain", data="told", max_length=16, truncation="chunk", chunk_overlap=4)
    assert (len(plain), len(left)) == (26, 15)  # 15 letters and EOS fit
    assert len(cut) > 26
    assert (left.counts(15, 2).left_out, left.counts(15, 2).rows) == (22, 30)
    assert (cut.counts(50, 1).pieces, cut.counts(50, 1).truncated) == (11, 0)
    assert plain.counts(26, 1).truncated == 11
    assert all(len(row.ids) <= 16 for row in cut.epoch(0))


def test_every_epoch_has_as_many_rows_as_the_first_where_drawn_texts_have_other_numbers_of_pieces(
    tmp_path: Path,
) -> None:
    epochs = stage(tmp_path, kind="pretrain", data="drawn", max_length=8, truncation="chunk")
    assert {len(epochs.epoch(epoch)) for epoch in range(6)} == {len(epochs)}
    lengths = [sum(len(row.ids) for row in epochs.epoch(epoch)) for epoch in range(6)]
    assert len(set(lengths)) > 1


def test_wrapped_rows_have_exactly_max_length_and_hold_the_running_documents(tmp_path: Path) -> None:
    whole = stage(tmp_path, kind="pretrain", data=["told", "asked"])
    wrapped = stage(tmp_path, kind="pretrain", data=["told", "asked"], packing="wrapped", max_length=8)
    for epoch in (0, 1):
        running = [token for row in whole.epoch(epoch) for token in row.ids]
        rows = list(wrapped.epoch(epoch))
        assert [token for row in rows for token in row.ids] == running[: len(running) // 8 * 8]
        assert {len(row.ids) for row in rows} == {8}
    assert len(wrapped) == len(running) // 8
    assert wrapped.counts(16, 2).tokens == 2 * 16 * 8


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"truncation": "drop", "max_length": 8}, "longs: every row is longer than max_length 8, and so left out"),
        ({"packing": "wrapped", "max_length": 64}, "longs: all documents together fill no row of max_length 64"),
    ],
)
def test_a_stage_without_a_row_is_refused(block: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "longs.jsonl").write_text(json.dumps({"text": LETTERS}) + "\n", encoding="utf-8")
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": {"path": "m"},
            "data": {"longs": {"path": "longs.jsonl"}},
            "stages": {"now": {"kind": "pretrain", "data": "longs", **block}},
        }
    )
    epochs = stage_epochs(recipe, "now", datasets.build(recipe, tmp_path), FAST, None)
    with pytest.raises(BadData) as caught:
        len(epochs)
    assert caught.value.screen().splitlines()[0].endswith(said)


# --- what every kind has in common ---

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "half": {"mix": {"asked": {"epochs": 0.5}}},
    "balanced": {"mix": {"asked": {"oversample": "kind"}}},
    "replay": {"replay": {"of": "before", "ratio": 0.4, "buffer": 10}},
    "joined": {"kind": "pretrain", "data": ["joined", "asked"], "mix": {"joined": {"epochs": 1.5}}},
    "chunk": {"kind": "pretrain", "data": ["drawn", "told"], "max_length": 8, "truncation": "chunk"},
    "drop": {"kind": "pretrain", "data": ["drawn", "told"], "max_length": 8, "truncation": "drop"},
    "wrapped": {"kind": "pretrain", "data": ["drawn", "told"], "max_length": 8, "packing": "wrapped"},
    "wrapped-joined": {"kind": "pretrain", "data": "joined", "max_length": 8, "packing": "wrapped"},
}
EVERY_KIND = pytest.mark.parametrize("block", KINDS.values(), ids=KINDS)


@EVERY_KIND
def test_an_epoch_is_the_same_whoever_asks_for_it_and_whatever_was_asked_before(
    block: dict[str, Any], tmp_path: Path
) -> None:
    through, resumed = stage(tmp_path, **block), stage(tmp_path, **block)
    epochs = [list(through.epoch(epoch)) for epoch in range(5)]
    assert len(through) == len(resumed)
    assert list(resumed.epoch(4)) == epochs[4]
    assert list(resumed.epoch(2)) == epochs[2]


@EVERY_KIND
def test_counts_are_those_of_the_rows_that_are_trained_on(block: dict[str, Any], tmp_path: Path) -> None:
    epochs = stage(tmp_path, **block)
    steps = -(-len(epochs) // 6)
    counts = stage(tmp_path, **block).counts(global_batch_size=6, total_steps=2 * steps + 1)
    rows = [*epochs.epoch(0), *epochs.epoch(1), *epochs.epoch(2)[:6]]
    assert (counts.rows, counts.tokens) == (len(rows), sum(len(row.ids) for row in rows))
    assert counts.supervised == sum(row.supervised for row in rows)
    assert counts.truncated == sum(row.truncated for row in rows)
    assert counts.dropped == sum(row.supervised == 0 for row in rows)
    by_step = [
        epochs.epoch(step // steps).tokens_in(step % steps * 6, (step % steps + 1) * 6) for step in range(2 * steps + 1)
    ]
    assert tuple(np.sum(by_step, axis=0)) == (counts.tokens, counts.supervised)
    if counts.sources:
        assert sum(source.rows for source in counts.sources) == pytest.approx(1)
        assert sum(source.supervised for source in counts.sources) == pytest.approx(1)


@EVERY_KIND
def test_what_one_process_encoded_another_one_reads(block: dict[str, Any], tmp_path: Path) -> None:
    digests = {name: f"digest of {name}" for name in DATA}
    parent = stage(tmp_path, Kept(tmp_path / "tokens", digests, writes=True), **block)
    steps = -(-len(parent) // 6)
    parent.counts(6, 3 * steps)
    expected = [list(parent.epoch(epoch)) for epoch in range(3)]
    # a mark in the kept ids: who sees it did not encode the texts again
    for ids in (tmp_path / "tokens").glob("*/ids.i32"):
        ids.write_bytes((np.fromfile(ids, np.int32) + 1000).tobytes())
    trainer = stage(tmp_path, Kept(tmp_path / "tokens", digests), **block)
    assert trainer.keys == parent.keys == {path.name for path in (tmp_path / "tokens").iterdir()}
    for epoch in (2, 0, 1):
        found = [[token - 1000 for token in row.ids] for row in trainer.epoch(epoch)]
        assert found == [list(row.ids) for row in expected[epoch]]


def test_epochs_that_the_parent_did_not_encode_are_encoded_by_the_trainer(tmp_path: Path) -> None:
    block = {"kind": "pretrain", "data": "joined"}
    kept = Kept(tmp_path / "tokens", {"joined": "d"}, writes=True)
    stage(tmp_path, kept, **block).counts(20, 2)
    trainer, plain = stage(tmp_path, kept, **block), stage(tmp_path, **block)
    for epoch in (1, 7, 0, 3):
        assert list(trainer.epoch(epoch)) == list(plain.epoch(epoch))
    again = stage(tmp_path, kept, **block)
    assert again.counts(20, 5) == plain.counts(20, 5)


def test_a_conversation_that_its_template_makes_several_rows_of_counts_as_several(tmp_path: Path) -> None:
    # a template that hides all answers but the last: each answer is learned in a row of its own
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}q{{ m.content }}{% elif loop.last %}a{{ m.content }}<eos>"
        "{% else %}a<eos>{% endif %}{% endfor %}{% if add_generation_prompt %}a{% endif %}"
    )
    turns = [{"role": role, "content": "hi"} for role in ("user", "assistant", "user", "assistant")]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"messages": turns}) + "\n", encoding="utf-8")
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": {"path": "m"},
            "data": {"talks": {"path": "talks.jsonl"}},
            "stages": {"now": {"kind": "sft", "data": "talks"}},
        }
    )
    template = ChatTemplate(source, "here")
    epochs = stage_epochs(recipe, "now", datasets.build(recipe, tmp_path), FAST, template)
    assert len(epochs) == len(epochs.epoch(0)) == 2
    assert epochs.counts(2, 1).pieces == 0
