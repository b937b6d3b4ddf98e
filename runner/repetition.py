"""How much a text repeats itself: pure measures over characters, words or tokens.

Formulas: seq-rep-n, Welleck et al. 2019 (arXiv:1908.04319); distinct-n, Li et al. 2016 (arXiv:1510.03055); diversity,
Su et al. 2022 (arXiv:2202.06417). A text shorter than n has no n-grams: it repeats nothing (seq-rep 0, distinct 1).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal

Unit = Literal["char", "word"]
Text = str | Sequence[Hashable]
"""A string, or a sequence of token ids (`reply.tokens`)."""

_WORDS = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af\u3040-\u30ff]"  # a Han character or kana is a word
    "|[^\\W\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af\u3040-\u30ff]+"
    "|[^\\w\\s]"
)


def units(text: Text, unit: Unit = "char") -> Sequence[Hashable]:
    """What is counted: characters without white space, words (each Han character or kana, each punctuation mark, and
    each run of other letters is one), or the tokens themselves where a sequence of them is given."""
    if not isinstance(text, str):
        return text
    if unit == "char":
        return "".join(text.split())
    if unit == "word":
        return _WORDS.findall(text)
    raise ValueError(f"unit is {unit!r}; expected 'char' or 'word', or a sequence of tokens instead of a string")


def _ngrams(sequence: Sequence[Hashable], n: int) -> list[Hashable]:
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1")
    if isinstance(sequence, str):
        return [sequence[start : start + n] for start in range(len(sequence) - n + 1)]
    return [tuple(sequence[start : start + n]) for start in range(len(sequence) - n + 1)]


def distinct(text: Text, n: int = 2, unit: Unit = "char") -> float:
    """distinct-n: different n-grams per n-gram, in [0, 1]; 1 where there are none.

    Li et al. divide by the number of words; dividing by the number of n-grams, as is usual since, makes 1 reachable.
    """
    return pooled_distinct([text], n, unit)


def pooled_distinct(texts: Iterable[Text], n: int = 2, unit: Unit = "char") -> float:
    """distinct-n over all texts together: low where many replies say the same. N-grams do not cross texts."""
    grams = [gram for text in texts for gram in _ngrams(units(text, unit), n)]
    return len(set(grams)) / len(grams) if grams else 1.0


def seq_rep(text: Text, n: int = 4, unit: Unit = "char") -> float:
    """seq-rep-n: the share of n-grams that are repeats, 1 - different / all, in [0, 1); 0 where there are none."""
    return 1.0 - distinct(text, n, unit)


def diversity(text: Text, unit: Unit = "char") -> float:
    """Product of 1 - seq-rep-n over n = 2, 3, 4 (Su et al. 2022), in (0, 1]."""
    sequence = units(text, unit)
    return distinct(sequence, 2) * distinct(sequence, 3) * distinct(sequence, 4)


def longest_repeat(text: Text, unit: Unit = "char") -> int:
    """Units in the longest span that occurs at least twice; the two may overlap. 0 where nothing repeats.

    A span of length k repeats only if one of length k - 1 does, so the length is found by bisection.
    """
    sequence = units(text, unit)
    low, high = 0, max(len(sequence) - 1, 0)
    while low < high:
        middle = (low + high + 1) // 2
        grams = _ngrams(sequence, middle)
        low, high = (middle, high) if len(set(grams)) < len(grams) else (low, middle - 1)
    return low


def looping_tail(text: Text, unit: Unit = "char", min_repeats: int = 3) -> int:
    """Units at the end that are one period said at least `min_repeats` times over; 0 where the text does not end so.

    A last, incomplete round counts: 「春风春风春风春」 has a looping tail of 7.
    """
    if min_repeats < 2:
        raise ValueError(f"min_repeats is {min_repeats}; expected at least 2")
    sequence = units(text, unit)
    length, best = len(sequence), 0
    for period in range(1, length // min_repeats + 1):
        start = length - period
        while start > 0 and sequence[start - 1] == sequence[start - 1 + period]:
            start -= 1
        if length - start >= period * min_repeats:
            best = max(best, length - start)
    return best
