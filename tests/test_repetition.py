"""runner.repetition, on worked examples, against the definitions taken word by word, and on long texts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import repetition

FEW_LETTERS = st.text(alphabet="ab", max_size=24)
"""Texts that repeat themselves often."""


def longest_repeat_by_definition(text: str) -> int:
    for length in range(len(text) - 1, 0, -1):
        spans = [text[start : start + length] for start in range(len(text) - length + 1)]
        if len(set(spans)) < len(spans):
            return length
    return 0


def looping_tail_by_definition(text: str, min_repeats: int) -> int:
    for start in range(len(text)):
        tail = text[start:]
        for period in range(1, len(tail) // min_repeats + 1):
            if all(tail[i] == tail[i + period] for i in range(len(tail) - period)):
                return len(tail)
    return 0


@pytest.mark.parametrize("text", ["", "春", "春风", " \n\t", (), (7,)], ids=repr)
def test_a_text_shorter_than_n_repeats_nothing(text: repetition.Text) -> None:
    assert repetition.seq_rep(text, n=4) == repetition.pooled_seq_rep([text], n=4) == 0
    assert repetition.distinct(text, n=4) == repetition.pooled_distinct([text], n=4) == 1
    assert repetition.longest_repeat(text) == repetition.looping_tail(text) == 0
    assert repetition.diversity(text) == 1


def test_no_text_at_all_repeats_nothing() -> None:
    assert repetition.pooled_seq_rep([]) == 0
    assert repetition.pooled_distinct([]) == 1


def test_seq_rep_is_the_share_of_ngrams_that_are_repeats() -> None:
    # abcd bcda cdab dabc abcd: five 4-grams, four of them different
    assert repetition.seq_rep("abcdabcd", n=4) == pytest.approx(1 / 5)


def test_white_space_is_no_character() -> None:
    assert repetition.seq_rep("ab ab\nab", n=2) == repetition.seq_rep("ababab", n=2)
    assert repetition.units("绿豆　糕\u00a0好") == "绿豆糕好"  # nor is an ideographic or a no-break space


def test_a_han_character_is_a_word_and_a_latin_word_is_one() -> None:
    assert repetition.units("用GPT-4说：你好 world", "word") == ["用", "GPT", "-", "4", "说", "：", "你", "好", "world"]


def test_a_mixed_text_repeats_the_same_by_characters_and_by_words_where_it_loops() -> None:
    looping = "他说hello他说hello他说hello"  # 他 说 hello: three words, seven characters
    assert repetition.looping_tail(looping) == 21
    assert repetition.looping_tail(looping, "word") == 9
    assert repetition.longest_repeat(looping) == 14
    assert repetition.longest_repeat(looping, "word") == 6
    assert repetition.seq_rep(looping, 2, "word") == pytest.approx(1 - 3 / 8)


def test_characters_outside_the_basic_plane_are_one_character_and_one_word() -> None:
    assert repetition.units("𠀀𠀀b", "word") == ["𠀀", "𠀀", "b"]
    assert repetition.looping_tail("𠀀𠀁𠀀𠀁𠀀𠀁") == 6


def test_token_ids_are_counted_as_they_are() -> None:
    assert repetition.seq_rep((1, 2, 1, 2, 1), n=2) == pytest.approx(0.5)
    assert repetition.longest_repeat([11, 1, 1, 11, 1]) == 2  # not the digits: 111 1 would be longer


def test_pooled_distinct_sees_replies_that_say_the_same() -> None:
    assert repetition.distinct("abc", 2) == 1
    assert repetition.pooled_distinct(["abc", "abc"], 2) == 0.5


def test_pooled_seq_rep_counts_repeats_within_a_text_and_weighs_long_texts_more() -> None:
    assert repetition.pooled_seq_rep(["abc", "abc"], 2) == 0  # two that say the same are no loop
    assert repetition.pooled_seq_rep(["abcd", "aaaaaaaaaaaaa"], 2) == pytest.approx(11 / 15)
    assert repetition.seq_rep("abcd", 2) + repetition.seq_rep("aaaaaaaaaaaaa", 2) == pytest.approx(11 / 12)


def test_ngrams_do_not_cross_from_one_text_into_the_next() -> None:
    assert repetition.pooled_distinct(["ab", "ba", "ab"], 2) == pytest.approx(2 / 3)
    assert repetition.pooled_distinct(["a", "b", "a", "b"], 2) == 1


def test_diversity_is_the_product_over_two_three_four() -> None:
    text = "abcabcab"
    parts = [1 - repetition.seq_rep(text, n) for n in (2, 3, 4)]
    assert repetition.diversity(text) == pytest.approx(parts[0] * parts[1] * parts[2])


def test_the_longest_repeat_may_overlap_itself() -> None:
    assert repetition.longest_repeat("aaaa") == 3
    assert repetition.longest_repeat("abcxabc") == 3


def test_a_looping_tail_counts_its_unfinished_round() -> None:
    assert repetition.looping_tail("他说：春风春风春风春") == 7
    assert repetition.looping_tail("春风春风") == 0  # said twice is no loop
    assert repetition.looping_tail("春风春风", min_repeats=2) == 4


def test_what_repeats_before_the_end_is_no_tail() -> None:
    assert repetition.looping_tail("春风春风春风了") == 0


def test_the_measures_of_a_reply_are_one_number_each() -> None:
    assert repetition.measures("好好好好好，好好好好好", [3, 3, 3, 3, 3, 3]) == {
        "seq_rep_4": pytest.approx(3 / 8),
        "word_seq_rep_4": pytest.approx(3 / 8),
        "distinct_2": pytest.approx(3 / 10),
        "longest_repeat": 5.0,
        "looping_tail": 5.0,
        "looping_share": pytest.approx(5 / 11),
        "token_seq_rep_4": pytest.approx(2 / 3),
        "token_distinct_2": pytest.approx(1 / 5),
    }


def test_words_are_measured_as_words_and_characters_as_characters() -> None:
    said = repetition.measures("to be or not to be or not to be", list(range(10)))
    # 4 of the 7 runs of four words are different: to be or not, be or not to, or not to be, not to be or
    assert said["word_seq_rep_4"] == pytest.approx(3 / 7)
    assert said["seq_rep_4"] == pytest.approx(1 - 9 / 19)  # of tobeornottobeornottobe, which turns after 9 characters
    assert (said["token_seq_rep_4"], said["token_distinct_2"]) == (0.0, 1.0)


def test_an_empty_reply_has_measures_and_one_without_tokens_has_those_of_characters() -> None:
    assert repetition.measures("") == {
        "seq_rep_4": 0, "word_seq_rep_4": 0, "distinct_2": 1,
        "longest_repeat": 0, "looping_tail": 0, "looping_share": 0,
    }  # fmt: skip


def test_a_measure_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="^n is 0; expected at least 1$"):
        repetition.seq_rep("abc", 0)
    with pytest.raises(ValueError, match="^min_repeats is 1; expected at least 2$"):
        repetition.looping_tail("abc", min_repeats=1)
    with pytest.raises(ValueError, match="^unit is 'line'; expected 'char' or 'word', or a sequence of tokens"):
        repetition.seq_rep("abc", unit="line")  # type: ignore[arg-type]


@given(FEW_LETTERS, st.integers(1, 5))
def test_seq_rep_and_distinct_stay_within_their_bounds_and_sum_to_one(text: str, n: int) -> None:
    assert 0 <= repetition.seq_rep(text, n) < 1
    assert repetition.seq_rep(text, n) + repetition.distinct(text, n) == pytest.approx(1)


@given(FEW_LETTERS, st.integers(1, 5))
def test_a_text_and_its_tokens_are_measured_alike(text: str, n: int) -> None:
    tokens = [ord(char) for char in text]
    assert repetition.seq_rep(text, n) == repetition.seq_rep(tokens, n)
    assert repetition.longest_repeat(text) == repetition.longest_repeat(tokens)
    assert repetition.looping_tail(text) == repetition.looping_tail(tokens)


@given(st.text(alphabet="abc", max_size=24) | FEW_LETTERS)
def test_the_longest_repeat_is_that_of_the_definition(text: str) -> None:
    assert repetition.longest_repeat(text) == longest_repeat_by_definition(text)


@given(FEW_LETTERS, st.integers(2, 4))
def test_the_looping_tail_is_that_of_the_definition(text: str, min_repeats: int) -> None:
    assert repetition.looping_tail(text, min_repeats=min_repeats) == looping_tail_by_definition(text, min_repeats)


@given(st.lists(FEW_LETTERS, max_size=4), st.integers(1, 4))
def test_pooled_measures_do_not_depend_on_the_order_of_the_texts(texts: list[str], n: int) -> None:
    assert repetition.pooled_seq_rep(texts, n) == repetition.pooled_seq_rep(texts[::-1], n)
    assert repetition.pooled_distinct(texts, n) == repetition.pooled_distinct(texts[::-1], n)


@pytest.mark.parametrize("period", [1, 7, None], ids=["one token", "a period of 7", "said twice"])
def test_a_hundred_thousand_tokens_take_about_ten_times_what_ten_thousand_take(period: int | None) -> None:
    def seconds(length: int) -> float:
        tokens = [i % (period or length // 2) for i in range(length)]
        begun = time.process_time()
        repetition.measures("", tokens)
        repetition.longest_repeat(tokens)
        repetition.looping_tail(tokens)
        return time.process_time() - begun

    short = min(seconds(10_000) for _ in range(3))
    assert min(seconds(100_000) for _ in range(2)) < 40 * short  # a quadratic measure takes 100 times
