"""Token ids: exact round trips, the same ids in transformers, masks by construction, epochs redrawn and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner import spec
from runner.data import datasets, tokens
from runner.data.datasets import Example, Pair
from runner.data.epochs import Epochs, epoch_order
from runner.data.tokenizer import Fast, load_tokenizer, save_tokenizer, train_tokenizer
from runner.data.tokens import Encoding
from runner.errors import BadCheckpoint

TEXTS = ["汉字`语`的部首是`讠部`", " two  spaces\n\n\ttab ", "e\u0301 yǔ 𠀀\u2028\r\n``", "<not special> ##a ▁b Ġc"]


def char(*texts: str) -> Fast:
    return train_tokenizer(spec.Tokenizer(train="char", from_data=("x",)), texts or TEXTS)


def bpe() -> Fast:
    return train_tokenizer(spec.Tokenizer(train="bpe", from_data=("x",), vocab_size=300), TEXTS)


@pytest.mark.parametrize("make", [char, bpe])
def test_a_trained_tokenizer_gives_every_text_back_exactly(make: Any) -> None:
    fast = make()
    assert [fast.tokenizer.decode(ids) for ids in fast.ids(TEXTS)] == TEXTS


@pytest.mark.parametrize("make", [char, bpe])
def test_transformers_loads_it_with_the_same_ids_and_the_same_texts(make: Any, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    fast = make()
    save_tokenizer(fast, tmp_path)
    for loader in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
        loaded = loader.from_pretrained(tmp_path)
        assert [loaded(text)["input_ids"] for text in TEXTS] == fast.ids(TEXTS)
        assert [loaded.decode(ids) for ids in fast.ids(TEXTS)] == TEXTS
        assert (loaded.eos_token_id, loaded.pad_token_id, loaded.unk_token_id) == (2, 1, 0)
        assert len(loaded) == fast.tokenizer.get_vocab_size()
        loaded.save_pretrained(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").ids(TEXTS) == fast.ids(TEXTS)


@pytest.mark.parametrize("make", [char, bpe])
def test_a_saved_tokenizer_is_loaded_as_it_was(make: Any, tmp_path: Path) -> None:
    fast = make()
    save_tokenizer(fast, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.ids(TEXTS) == fast.ids(TEXTS)
    assert (loaded.eos_id, loaded.prefix_ids) == (2, ())
    assert loaded.unknown_id == 0


def test_a_bos_that_the_tokenizer_adds_stands_before_the_prompt(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    fast = char("<abc")
    fast.tokenizer.post_processor = TemplateProcessing(
        single="<pad> $A <eos>", special_tokens=[("<pad>", 1), ("<eos>", 2)]
    )
    save_tokenizer(fast, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.prefix_ids == (1,)
    ((row,),) = tokens.encode(loaded, [Example("a", "b", 0)], Encoding(16))
    assert (row.ids, row.spans) == ([1, *fast.ids(["ab"])[0], 2], ((2, 4),))


def test_a_folder_without_a_tokenizer_or_without_eos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    save_tokenizer(char(), tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(BadCheckpoint, match="has no EOS"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadCheckpoint, match="cannot be loaded"):
        load_tokenizer(tmp_path)


def test_a_char_tokenizer_does_not_know_what_it_never_saw() -> None:
    fast = char("ab")
    assert fast.ids(["axb"]) == [[3, 0, 4]]


def test_the_completion_and_its_eos_are_supervised_and_nothing_else_is() -> None:
    fast = bpe()
    ((row,),) = tokens.encode(fast, [Example("汉字`语`的", "部首 是", 7)], Encoding(64))
    ((start, stop),) = row.spans
    assert fast.tokenizer.decode(row.ids[:start]) == "汉字`语`的"
    assert fast.tokenizer.decode(row.ids[start:stop], skip_special_tokens=False) == "部首 是<eos>"
    assert (row.row, row.supervised, stop, row.truncated) == (7, stop - start, len(row.ids), False)
    ((row,),) = tokens.encode(fast, [Example("汉", "字", 7)], Encoding(64, whole=True))
    assert (row.spans, row.supervised) == (((0, len(row.ids)),), len(row.ids) - 1)


def test_a_row_that_is_too_long_loses_its_end() -> None:
    fast = char("abcdefgh")
    examples = [Example("abcdef", "gh", 0), Example("abcdefgh", "gh", 1)]
    (cut,), (gone,) = tokens.encode(fast, examples, Encoding(8))
    assert (fast.tokenizer.decode(cut.ids), cut.spans, cut.supervised, cut.truncated) == (
        "abcdefgh",
        ((6, 8),),
        2,
        True,
    )
    assert (len(gone.ids), gone.spans, gone.supervised) == (8, (), 0)


def test_pairs_share_their_prompt_and_both_sides_end_in_eos() -> None:
    fast = char("abcdefgh")
    pairs = [Pair("a", "b", "cd", 0), Pair("abcdefg", "ha", "hb", 1)]
    rows = tokens.encode_pairs(fast, pairs, 8)
    assert (rows[0].prompt_ids, rows[0].chosen_ids, rows[0].rejected_ids) == ([3], [4, 2], [5, 6, 2])
    assert (rows[1].chosen_ids, rows[1].rejected_ids) == ([10], [10])


def epochs(root: Path, **data: Any) -> tuple[Epochs, Fast]:
    (root / "rows.jsonl").write_text("".join(json.dumps({"x": letter}) + "\n" for letter in "abcdefgh"))
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": {"path": "m"},
            "data": {"chars": {"path": "rows.jsonl"}, **data},
            "stages": {"qa": {"kind": "sft", "data": list(data)}},
        }
    )
    found = datasets.build(recipe, root)
    fast = char("abcdefgh12345\n")
    return Epochs([found.get(name) for name in data], fast, 5, Encoding(16)), fast


PICK = {"rows": "chars", "pick": {"n": 2, "of": [{"text": f"{{{{ x }}}}{number}"} for number in range(1, 6)]}}
ASKED = {"rows": "chars", "prompt": "{{ x }}", "completion": "1"}


def test_every_epoch_has_every_row_once_redrawn_and_reshuffled(tmp_path: Path) -> None:
    found, fast = epochs(tmp_path, entries=PICK, asked=ASKED)
    again, _ = epochs(tmp_path, entries=PICK, asked=ASKED)
    first, second = found.epoch(0), found.epoch(1)
    assert len(found) == len(first) == len(second) == 16
    assert list(first) == list(again.epoch(0))
    texts = [[fast.tokenizer.decode(row.ids) for row in rows] for rows in (first, second)]
    assert sorted(texts[0]) != sorted(texts[1])
    assert [row.row for row in first] != [row.row for row in second]
    assert sorted(row.row for row in first) == sorted([*range(8), *range(8)])


def test_counts_are_those_of_the_rows_that_are_trained_on(tmp_path: Path) -> None:
    found, _ = epochs(tmp_path, entries=PICK, asked=ASKED)
    rows = [row for epoch in (0, 1) for row in found.epoch(epoch)] + found.epoch(2)[:10]
    counts = found.counts(global_batch_size=5, total_steps=4 + 4 + 2)
    assert counts.rows == len(rows)
    assert counts.tokens == sum(len(row.ids) for row in rows)
    assert counts.supervised == sum(row.supervised for row in rows)


def test_counts_of_rows_that_are_not_redrawn_are_counted_once_for_all_epochs(tmp_path: Path) -> None:
    found, _ = epochs(tmp_path, asked=ASKED)
    counts = found.counts(global_batch_size=8, total_steps=3)
    assert (counts.rows, counts.tokens, counts.supervised, counts.unknown) == (24, 72, 48, 0)


def test_the_order_of_an_epoch_is_a_permutation_of_its_own() -> None:
    assert sorted(epoch_order(9, 1, 0)) == list(range(9))
    assert epoch_order(9, 1, 0) == epoch_order(9, 1, 0) != epoch_order(9, 1, 1)
