"""runner.data.token_store and epoch_rows: rows of ids on disk, read and counted as they were put there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import spec
from runner.data import token_store
from runner.data.epoch_rows import StoredRows, WrappedRows, references
from runner.data.token_store import Kept, TokenStore, fingerprint
from runner.data.tokenizer import Fast, load_tokenizer, save_tokenizer, train_tokenizer
from runner.data.tokens import Encoding, Tokens

UNKNOWN = 0
GROUPS = [
    [Tokens([5, 0, 7, 2], ((2, 4),), row=0)],
    [],
    [Tokens([8, 2], ((0, 2),), row=2), Tokens([9, 9, 9], ((0, 1), (2, 3)), row=2, truncated=True)],
    [Tokens([0, 0], (), row=3)],
]
ROWS = [row for group in GROUPS for row in group]


def filled(store: TokenStore) -> TokenStore:
    store.append(GROUPS[:2])
    store.append([])
    store.append(GROUPS[2:])
    return store


def fast(text: str = "abc") -> Fast:
    return train_tokenizer(spec.Tokenizer(train="char", from_data=("x",)), [text])


def kept(folder: Path) -> Kept:
    return Kept(folder, {"x": "digest of x"}, writes=True)


def test_rows_come_back_as_they_were_appended() -> None:
    store = filled(TokenStore.empty(UNKNOWN))
    assert [store[index] for index in range(len(store))] == ROWS
    assert store.groups.tolist() == [0, 1, 1, 3, 4]
    assert store.measured("unknown").tolist() == [1, 0, 0, 2]
    assert store.measured("supervised").tolist() == [row.supervised for row in ROWS]
    more = Tokens([3], ((0, 1),), row=4)
    store.append([[more]])
    assert (store[4], store[0]) == (more, ROWS[0])


def test_ids_of_a_large_store_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "IN_MEMORY_BYTES", 8)
    store = filled(TokenStore.empty(UNKNOWN))
    assert [store[index] for index in (3, 0, 2, 1)] == [ROWS[index] for index in (3, 0, 2, 1)]
    assert store._loaded is None


def test_a_published_store_is_opened_by_another_process_as_it_was(tmp_path: Path) -> None:
    place = kept(tmp_path)
    key = place.key("x", fast(), Encoding(16))
    assert place.open(key, UNKNOWN) is None
    begun = filled(place.begin(key, UNKNOWN))
    assert place.open(key, UNKNOWN) is None  # half of one is none
    place.publish(key, begun)
    opened = kept(tmp_path).open(key, UNKNOWN)
    assert opened is not None
    assert [opened[index] for index in range(len(opened))] == ROWS
    assert [begun[index] for index in range(len(begun))] == ROWS


@pytest.mark.parametrize("name", ["about.json", "ids.i32", "offsets.npy"])
def test_a_damaged_store_is_none(name: str, tmp_path: Path) -> None:
    place = kept(tmp_path)
    place.publish("k", filled(place.begin("k", UNKNOWN)))
    file = tmp_path / "k" / name
    file.write_bytes(file.read_bytes()[:-8])
    assert place.open("k", UNKNOWN) is None
    file.unlink()
    assert place.open("k", UNKNOWN) is None


def test_stores_that_nothing_names_are_removed_and_half_ones_too(tmp_path: Path) -> None:
    place = kept(tmp_path)
    for key in ("used", "old"):
        place.publish(key, filled(place.begin(key, UNKNOWN)))
    filled(place.begin("half", UNKNOWN))
    place.clean({"used"})
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_what_rows_depend_on_is_in_the_key_of_their_store(tmp_path: Path) -> None:
    place, how = kept(tmp_path), Encoding(16)
    keys = [
        place.key("x", fast(), how),
        place.key("x", fast("abd"), how),
        place.key("x", fast(), Encoding(17)),
        place.key("x", fast(), Encoding(16, whole=True)),
        place.key("x", fast(), how, "another draw"),
        Kept(tmp_path, {"x": "changed"}).key("x", fast(), how),
    ]
    assert len(set(keys)) == len(keys)
    assert place.key("x", fast(), how) == keys[0]


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_tokenizer_is_the_same_one_after_transformers_saved_it(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    size = {"vocab_size": 300} if kind == "bpe" else {}
    made = train_tokenizer(spec.Tokenizer.model_validate({"train": kind, "from_data": ["x"], **size}), ["汉字 abc"] * 3)
    save_tokenizer(made, tmp_path / "a")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert (
        fingerprint(made) == fingerprint(load_tokenizer(tmp_path / "a")) == fingerprint(load_tokenizer(tmp_path / "b"))
    )


# --- the rows of an epoch ---


def two_stores() -> tuple[list[TokenStore], list[Tokens], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Two stores, an order through both, and the rows in that order."""
    other = TokenStore.empty(UNKNOWN)
    others = [Tokens([number] * number, ((0, number),), row=number) for number in range(1, 6)]
    other.append([[row] for row in others])
    stores = [filled(TokenStore.empty(UNKNOWN)), other]
    refs = np.concatenate([references(0, np.arange(4)), references(1, np.arange(5))])
    order = np.random.RandomState(0).permutation(9)
    return stores, [[*ROWS, *others][place] for place in order], refs[order]


def test_an_epoch_reads_its_rows_in_order_and_counts_them_without_reading() -> None:
    stores, expected, refs = two_stores()
    rows = StoredRows(stores, refs)
    assert list(rows) == expected == rows[:]
    assert (rows[-1], rows[2:5]) == (expected[-1], expected[2:5])
    for start, stop in ((0, 9), (2, 5), (8, 9), (3, 3)):
        part = expected[start:stop]
        tokens, supervised = sum(len(row.ids) for row in part), sum(row.supervised for row in part)
        found = rows.tally(start, stop)
        assert rows.tokens_in(start, stop) == (found.tokens, found.supervised) == (tokens, supervised)
        assert (found.rows, found.truncated) == (len(part), sum(row.truncated for row in part))
        assert found.dropped == sum(row.supervised == 0 for row in part)
        assert found.unknown == sum(list(row.ids).count(UNKNOWN) for row in part)
        assert found.by_store.sum(axis=0).tolist() == [found.rows, tokens, supervised]


@pytest.mark.parametrize("length", [1, 2, 4, 5, 13, 26])
def test_wrapped_documents_run_on_through_rows_of_exactly_one_length(length: int) -> None:
    stores, expected, refs = two_stores()
    running = [token for row in expected for token in row.ids]
    rows = WrappedRows(stores, refs, length)
    assert len(rows) == len(running) // length  # the rest fills no row, and is left out
    assert [token for row in rows for token in row.ids] == running[: len(rows) * length]
    assert {(len(row.ids), row.spans) for row in rows} == {(length, ((0, length),))}
    found = rows.tally(0, len(rows))
    assert (found.rows, found.tokens, found.supervised) == (len(rows), len(rows) * length, len(rows) * (length - 1))
    assert rows.tokens_in(0, len(rows)) == (found.tokens, found.supervised)
    assert found.unknown == running[: len(rows) * length].count(UNKNOWN)
    assert found.by_store[:, 1].sum() == found.tokens


def test_an_epoch_that_is_to_have_more_rows_than_its_documents_fill_begins_again() -> None:
    stores, _, refs = two_stores()
    short = WrappedRows(stores, refs, 10)
    assert len(short) == 2
    long = WrappedRows(stores, refs, 10, rows=5)
    assert list(long) == [short[0], short[1], short[0], short[1], short[0]]
    assert long.tally(1, 5).by_store[:, 1].sum() == 40
    assert len(WrappedRows(stores, refs[:0], 10)) == len(WrappedRows(stores, refs, 27)) == 0


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=0, max_size=7), max_size=12), st.integers(1, 9))
def test_any_documents_wrap_without_losing_or_repeating_a_token(documents: list[list[int]], length: int) -> None:
    store = TokenStore.empty(UNKNOWN)
    store.append([[Tokens(ids, ((0, len(ids)),), row)] for row, ids in enumerate(documents)])
    running = [token for ids in documents for token in ids]
    rows = WrappedRows([store], np.arange(len(documents)), length)
    assert [token for row in rows for token in row.ids] == running[: len(running) // length * length]
    if len(rows):
        assert rows.tally(0, len(rows)).unknown == running[: len(rows) * length].count(UNKNOWN)


def test_a_store_that_a_sibling_keeps_is_linked_and_outlives_it(tmp_path: Path) -> None:
    sibling = kept(tmp_path / "a")
    sibling.publish("k", filled(sibling.begin("k", UNKNOWN)))
    own = replace(kept(tmp_path / "b"), beside=(tmp_path / "a", tmp_path / "nobody"))
    linked = own.open("k", UNKNOWN)
    assert linked is not None
    assert all((tmp_path / "b" / "k" / file.name).samefile(file) for file in (tmp_path / "a" / "k").iterdir())
    sibling.clean(set())
    again = own.open("k", UNKNOWN)
    assert again is not None
    assert again.take(np.arange(len(again))) == linked.take(np.arange(len(linked)))


def test_what_a_sibling_has_not_whole_or_has_not_at_all_is_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sibling = kept(tmp_path / "a")
    sibling.publish("k", filled(sibling.begin("k", UNKNOWN)))
    own = replace(kept(tmp_path / "b"), beside=(tmp_path / "a",))
    assert own.open("other", UNKNOWN) is None
    assert replace(own, writes=False).open("k", UNKNOWN) is None  # a trainer changes nothing

    def no_links(*_: object) -> None:
        raise OSError("no links here")

    with monkeypatch.context() as patch:
        patch.setattr("os.link", no_links)
        assert own.open("k", UNKNOWN) is None
    (tmp_path / "a" / "k" / "ids.i32").write_bytes(b"")
    assert own.open("k", UNKNOWN) is None


def test_a_store_says_which_format_it_has(tmp_path: Path) -> None:
    place = kept(tmp_path)
    place.publish("k", filled(place.begin("k", UNKNOWN)))
    about = tmp_path / "k" / "about.json"
    assert json.loads(about.read_text()) == {"format_version": 1, "ids": 11}
    about.write_text(json.dumps({"format_version": 2, "ids": 11}))
    assert place.open("k", UNKNOWN) is None
