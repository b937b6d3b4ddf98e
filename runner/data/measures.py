"""How varied texts are: distinct-n and the compression ratio, over a bounded sample.

    distinct-n          different n-grams / n-grams          Li et al. 2016, arXiv:1510.03055
    compression ratio   bytes / bytes that zlib makes of them Shaib et al. 2024, arXiv:2403.00553

Units are words, of which each Han character is one (`runner.repetition`). Both fall, and rise, with the amount of text:
they compare data sets of one size, and the sample is never larger than SAMPLE_CHARS.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from runner import repetition

SAMPLE_ROWS = 2000
"""Rows that are measured, spread evenly over the data set."""
SAMPLE_CHARS = 1_000_000
"""Characters that are measured at most."""


@dataclass(frozen=True)
class Diversity:
    """How varied some texts are."""

    distinct_1: float
    """In (0, 1]; 1 where no word comes twice."""
    distinct_2: float
    compression: float
    """Above 1 where zlib finds repetitions: about 2 to 3 for prose, more for texts written by one template."""
    rows: int
    """That were measured."""


def diversity(texts: Iterable[str]) -> Diversity:
    """The measures of all texts as one, up to SAMPLE_CHARS characters."""
    words, chars = [], 0
    packer, plain, packed = zlib.compressobj(), 0, 0
    for text in texts:
        words.append(repetition.units(text, "word"))
        data = text.encode("utf-8", "surrogatepass") + b"\n"
        plain += len(data)
        packed += len(packer.compress(data))
        chars += len(text)
        if chars >= SAMPLE_CHARS:
            break
    packed += len(packer.flush())
    return Diversity(
        repetition.pooled_distinct(words, 1),
        repetition.pooled_distinct(words, 2),
        plain / packed,
        len(words),
    )
