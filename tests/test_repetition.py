"""runner.repetition, on worked examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import repetition


def test_a_text_shorter_than_n_repeats_nothing() -> None:
    assert repetition.seq_rep("", n=4) == 0
    assert repetition.seq_rep("春风", n=4) == 0
    assert repetition.distinct("", n=2) == 1
    assert repetition.longest_repeat("") == repetition.longest_repeat("a") == 0
    assert repetition.looping_tail("") == 0


def test_seq_rep_is_the_share_of_ngrams_that_are_repeats() -> None:
    # abcd bcda cdab dabc abcd: five 4-grams, four of them different
    assert repetition.seq_rep("abcdabcd", n=4) == pytest.approx(1 / 5)


def test_white_space_is_no_character() -> None:
    assert repetition.seq_rep("ab ab\nab", n=2) == repetition.seq_rep("ababab", n=2)


def test_a_han_character_is_a_word_and_a_latin_word_is_one() -> None:
    assert repetition.units("用GPT-4说：你好 world", "word") == ["用", "GPT", "-", "4", "说", "：", "你", "好", "world"]


def test_token_ids_are_counted_as_they_are() -> None:
    assert repetition.seq_rep((1, 2, 1, 2, 1), n=2) == pytest.approx(0.5)


def test_pooled_distinct_sees_replies_that_say_the_same() -> None:
    assert repetition.distinct("abc", 2) == 1
    assert repetition.pooled_distinct(["abc", "abc"], 2) == 0.5


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


@given(st.text(alphabet="ab", max_size=40), st.integers(1, 5))
def test_seq_rep_stays_within_its_bounds(text: str, n: int) -> None:
    assert 0 <= repetition.seq_rep(text, n) < 1
