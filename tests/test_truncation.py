"""Rows longer than max_length: they lose an end, are left out, or become several."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import spec
from runner.data import chat, tokens
from runner.data.datasets import Example
from runner.data.tokenizer import Fast, train_tokenizer
from runner.data.tokens import Encoding, Tokens
from tests.chats import trained

LETTERS = "abcdefghijklmnop"
FAST = train_tokenizer(spec.Tokenizer(train="char", from_data=("x",)), [LETTERS])


def encoded(prompt: str, completion: str, how: Encoding) -> tuple[Tokens, ...]:
    return tokens.encode(FAST, [Example(prompt, completion, 3)], how)[0]


def text(row: Tokens) -> str:
    return FAST.tokenizer.decode(row.ids, skip_special_tokens=False)


def said(row: Tokens) -> list[str]:
    return [FAST.tokenizer.decode(row.ids[a:b], skip_special_tokens=False) for a, b in row.spans]


@pytest.mark.parametrize(
    ("truncation", "texts", "learned"),
    [
        ("keep_start", ["abcdefgh"], [["gh"]]),
        ("keep_end", ["defghij<eos>"], [["ghij<eos>"]]),
        ("drop", [], []),
        ("chunk", ["abcdefgh", "ij<eos>"], [["gh"], ["ij<eos>"]]),
    ],
)
def test_a_row_that_is_too_long_is_cut_as_the_recipe_says(
    truncation: str, texts: list[str], learned: list[list[str]]
) -> None:
    rows = encoded("abcdef", "ghij", Encoding(8, truncation=truncation))  # type: ignore[arg-type]
    assert [text(row) for row in rows] == texts
    assert [said(row) for row in rows] == learned
    assert [row.truncated for row in rows] == [truncation != "chunk"] * len(rows)
    (short,) = encoded("abc", "def", Encoding(8, truncation=truncation))  # type: ignore[arg-type]
    assert (text(short), short.truncated) == ("abcdef<eos>", False)


def test_what_a_chunk_repeats_of_the_one_before_is_given_and_not_learned_again() -> None:
    rows = encoded("abc", "defghijklmn", Encoding(8, truncation="chunk", chunk_overlap=3))
    assert [text(row) for row in rows] == ["abcdefgh", "fghijklm", "klmn<eos>"]
    assert [said(row) for row in rows] == [["defgh"], ["ijklm"], ["n<eos>"]]


def test_chunks_of_the_prompt_alone_are_left_out() -> None:
    rows = encoded("abcdefghijklmno", "p", Encoding(8, truncation="chunk"))
    assert [text(row) for row in rows] == ["ijklmnop", "<eos>"]
    assert [row.supervised for row in rows] == [1, 0]  # nothing predicts the first token of a row: overlap does


def test_a_bos_stays_where_the_end_of_a_row_is_kept() -> None:
    fast = Fast(FAST.tokenizer, (1,), FAST.eos_id, FAST.unknown_id)
    ((row,),) = tokens.encode(fast, [Example("abcdef", "ghij", 0)], Encoding(8, truncation="keep_end"))
    assert FAST.tokenizer.decode(row.ids, skip_special_tokens=False) == "<pad>efghij<eos>"
    assert said(row) == ["ghij<eos>"]


def test_a_bos_that_a_chat_template_writes_stays_too() -> None:
    made = chat.shipped("llama3")
    plain = trained("char", made)
    fast = replace(plain, names={**plain.names, "bos_token": "<pad>"})
    ((row,),) = tokens.encode(fast, [Example("好", "很好", 0)], Encoding(64, chat=made))
    ((cut,),) = tokens.encode(fast, [Example("好", "很好", 0)], Encoding(8, chat=made, truncation="keep_end"))
    bos = fast.tokenizer.token_to_id("<pad>")
    assert (row.ids[0], cut.ids[0], list(cut.ids[1:])) == (bos, bos, list(row.ids[-7:]))


def test_an_answer_that_is_cut_from_a_conversation_takes_its_span_along() -> None:
    made = chat.shipped("plain")
    fast = trained("char", made)
    ((row,),) = tokens.encode(fast, [Example("好", "很好", 0)], Encoding(24, chat=made))
    (_, stop), whole = row.spans[0], row.ids
    ((cut,),) = tokens.encode(fast, [Example("好", "很好", 0)], Encoding(stop - 1, chat=made))
    assert (cut.ids, cut.spans, cut.truncated) == (whole[: stop - 1], ((row.spans[0][0], stop - 1),), True)


@given(prompt=st.integers(0, 40), said=st.integers(0, 60), longest=st.integers(8, 24), overlap=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_chunks_with_an_overlap_learn_every_token_once(prompt: int, said: int, longest: int, overlap: int) -> None:
    how = Encoding(longest, truncation="chunk", chunk_overlap=overlap)
    texts = ["".join(LETTERS[at % 16] for at in range(length)) for length in (prompt, said)]
    rows = encoded(texts[0], texts[1], how)
    assert all(len(row.ids) <= longest for row in rows)
    assert all(a[1] <= b[0] for row in rows for a, b in pairwise(row.spans))
    learned = [number for row in rows for start, stop in row.spans for number in row.ids[start:stop]]
    assert learned == [*FAST.ids([texts[1]])[0], FAST.eos_id]
    lost = sum(row.spans[0][0] == 0 for row in rows)
    assert sum(row.supervised for row in rows) == len(learned) - lost
    assert not (overlap and prompt and lost)
