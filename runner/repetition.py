"""How much a text repeats itself: pure measures over characters, words or tokens.

A text x of units x_1 … x_L has L - n + 1 n-grams; one shorter than n has none, and repeats nothing.

    distinct-n   different n-grams / n-grams                   Li et al. 2016, arXiv:1510.03055
    seq-rep-n    1 - different n-grams / n-grams               Welleck et al. 2019, arXiv:1908.04319
    diversity    (1 - seq-rep-2)(1 - seq-rep-3)(1 - seq-rep-4)  Su et al. 2022, arXiv:2202.06417

Chinese has no spaces: characters are the default unit. Every measure takes time in proportion to L, but for
`longest_repeat`, which takes L log L.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain
from typing import Literal

Unit = Literal["char", "word"]
Text = str | Sequence[Hashable]
"""A string, or a sequence of token ids (`reply.tokens`)."""

_HAN_AND_KANA = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af\u3040-\u30ff"
_WORDS = re.compile(f"[{_HAN_AND_KANA}]|[^\\W{_HAN_AND_KANA}]+|[^\\w\\s]")


def units(text: Text, unit: Unit = "char") -> Sequence[Hashable]:
    """What is counted: characters (code points) without white space, words (each Han character or kana, each
    punctuation mark, and each run of other letters is one), or the tokens themselves where a sequence of them is given.

    Raises:
        ValueError: `unit` is neither `char` nor `word`.
    """
    if not isinstance(text, str):
        return text
    if unit == "char":
        return "".join(text.split())
    if unit == "word":
        return _WORDS.findall(text)
    raise ValueError(f"unit is {unit!r}; expected 'char' or 'word', or a sequence of tokens instead of a string")


def _ngrams(text: Text, n: int, unit: Unit) -> list[Hashable]:
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1")
    sequence = units(text, unit)
    if isinstance(sequence, str):
        return [sequence[start : start + n] for start in range(len(sequence) - n + 1)]
    return list(zip(*(sequence[shift:] for shift in range(n)), strict=False))


def distinct(text: Text, n: int = 2, unit: Unit = "char") -> float:
    """distinct-n: different n-grams per n-gram, in (0, 1]; 1 where there are none.

    Li et al. divide by the number of words; dividing by the number of n-grams, as is usual since, makes 1 reachable.
    """
    return pooled_distinct([text], n, unit)


def pooled_distinct(texts: Iterable[Text], n: int = 2, unit: Unit = "char") -> float:
    """distinct-n over all texts as one: low where many replies say the same, though none repeats itself.

    N-grams do not cross from one text into the next. 1 where there are none.
    """
    grams = list(chain.from_iterable(_ngrams(text, n, unit) for text in texts))
    return len(set(grams)) / len(grams) if grams else 1.0


def seq_rep(text: Text, n: int = 4, unit: Unit = "char") -> float:
    """seq-rep-n: the share of n-grams that are repeats, 1 - different / all, in [0, 1); 0 where there are none."""
    return pooled_seq_rep([text], n, unit)


def pooled_seq_rep(texts: Iterable[Text], n: int = 4, unit: Unit = "char") -> float:
    """The share, among the n-grams of all texts, of those that repeat an earlier one of the same text; in [0, 1).

    That is the mean of `seq_rep` weighted by the number of n-grams: one long loop among many short replies shows, and
    two replies that say the same are no loop (that is `pooled_distinct`). N-grams do not cross texts. 0 where there
    are none.
    """
    repeats = total = 0
    for text in texts:
        grams = _ngrams(text, n, unit)
        total += len(grams)
        repeats += len(grams) - len(set(grams))
    return repeats / total if total else 0.0


def diversity(text: Text, unit: Unit = "char") -> float:
    """The product of 1 - seq-rep-n over n = 2, 3, 4 (Su et al. 2022), in (0, 1]; 1 of a text of one unit or none."""
    sequence = units(text, unit)
    return distinct(sequence, 2) * distinct(sequence, 3) * distinct(sequence, 4)


def longest_repeat(text: Text, unit: Unit = "char") -> int:
    """Units in the longest span that occurs at least twice; the two may overlap. 0 where nothing repeats.

    A span of length k repeats only if one of length k - 1 does, so the length can be searched for. Spans are compared
    by names: equal spans of length 2^j have equal names, made of the names of their halves (Karp, Miller and Rosenberg
    1972, doi:10.1145/800152.804905). A span of any length is named by the two, overlapping, that cover it.
    """
    named = _named(units(text, unit))  # the spans of length `power`, by where they begin
    if not _any_repeat(named):
        return 0
    power = 1
    while power < len(named) and _any_repeat(doubled := _named(_pairs(named, power))):
        named, power = doubled, 2 * power
    low, high = power, min(2 * power - 1, len(named) + power - 2)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _any_repeat(_pairs(named, middle - power)) else (low, middle - 1)
    return low


def _pairs(named: Sequence[int], shift: int) -> list[tuple[int, int]]:
    """The names of the spans that begin `shift` apart."""
    return list(zip(named, named[shift:], strict=False))


def _named(items: Iterable[Hashable]) -> list[int]:
    """A small number for each item, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(item, len(numbers)) for item in items]


def _any_repeat(items: Sequence[Hashable]) -> bool:
    return len(set(items)) < len(items)


def looping_tail(text: Text, unit: Unit = "char", min_repeats: int = 3) -> int:
    """Units at the end that are one period said at least `min_repeats` times over; 0 where the text does not end so.

    A last, incomplete round counts: 「春风春风春风春」 has a looping tail of 7. Read backwards, a tail of period p is p
    units longer than the agreement of what comes p units later with the beginning: the Z function (Gusfield 1997,
    Algorithms on Strings, Trees and Sequences, section 1.4) tells that of every p at once.

    Raises:
        ValueError: `min_repeats` is below 2.
    """
    if min_repeats < 2:
        raise ValueError(f"min_repeats is {min_repeats}; expected at least 2")
    backwards = units(text, unit)[::-1]
    longest = 0
    for period, agrees in enumerate(_agreement(backwards)):
        if period and period + agrees >= period * min_repeats:
            longest = max(longest, period + agrees)
    return longest


def _agreement(sequence: Sequence[Hashable]) -> list[int]:
    """The Z function: at i, how many units from i on agree with the beginning; 0 at 0."""
    length = len(sequence)
    agree = [0] * length
    left = right = 0  # the known agreement that reaches furthest right: sequence[left:right] is a beginning
    for i in range(1, length):
        known = min(right - i, agree[i - left]) if i < right else 0
        while i + known < length and sequence[known] == sequence[i + known]:
            known += 1
        agree[i] = known
        if i + known > right:
            left, right = i, i + known
    return agree


def measures(text: str, tokens: Sequence[int] = ()) -> dict[str, float]:
    """The numbers that a probe records of one reply: `record(**repetition.measures(reply, reply.tokens))`.

    `seq_rep_4`, `distinct_2`, `longest_repeat` and `looping_tail` are over characters, `word_seq_rep_4` over words (of
    which a Han character is one), `token_seq_rep_4` and `token_distinct_2` over `tokens`; without tokens (a server
    tells none) the last two are left out. `looping_share` is the looping tail's share of the characters: 1 where the
    reply is nothing but a loop. Languages are compared by words: four letters come again in any long English text,
    four words hardly.
    """
    chars = units(text)
    tail = looping_tail(chars)
    found = {
        "seq_rep_4": seq_rep(chars, 4),
        "word_seq_rep_4": seq_rep(text, 4, "word"),
        "distinct_2": distinct(chars, 2),
        "longest_repeat": float(longest_repeat(chars)),
        "looping_tail": float(tail),
        "looping_share": tail / len(chars) if chars else 0.0,
    }
    if tokens:
        found |= {"token_seq_rep_4": seq_rep(tokens, 4), "token_distinct_2": distinct(tokens, 2)}
    return found
