"""Durations, amounts, curves and what is under way, in as few words as they need."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.tables import said
from runner.underway import Work

_BARS = "▁▂▃▄▅▆▇█"
UNKNOWN = "unknown"
"""What cannot be said before the data is here."""


def duration(seconds: float) -> str:
    """`4:12`, `1:02:33` or `8.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of block characters, `width` cells at most; each is the mean of its share of the values, `!` where that
    is not a number."""
    if not values:
        return ""
    width = min(width, len(values))
    chunks = [values[index * len(values) // width : (index + 1) * len(values) // width] for index in range(width)]
    means = [sum(chunk) / len(chunk) for chunk in chunks]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(_BARS) - 1) / max(high - low, 1e-12)
    return "".join(_BARS[round((mean - low) * scale)] if math.isfinite(mean) else "!" for mean in means)


def bytes_words(size: float) -> str:
    """`1.2 GB`, `640 MB`, `12 kB`: in powers of ten, as disks and plans count."""
    for unit, of in (("GB", 1e9), ("MB", 1e6)):
        if size >= of:
            return f"{size / of:.1f} {unit}" if size < 10 * of else f"{size / of:,.0f} {unit}"
    return f"{size / 1e3:.0f} kB"


def work_words(work: Work) -> str:
    """What is done, and how much of it: `tokenizing entries: 1,200 of 10,000 texts`."""
    what = said(work.what, 120)
    if work.total and work.unit == "bytes":
        return f"{what}: {bytes_words(work.done)} of {bytes_words(work.total)}"
    if work.total:
        return f"{what}: {work.done:,.0f} of {work.total:,.0f} {work.unit}"
    return f"{what}: {work.done:,.0f} {work.unit}" if work.done else what


def left_words(seconds: float | None) -> str:
    """`0:40 left`; nothing where that cannot be said."""
    return f"{duration(seconds)} left" if seconds is not None else ""
