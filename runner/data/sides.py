"""Which side of its split each row is on: by its key, so that no key stands on two sides."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping


def divide(seed: int, shares: Mapping[str, float], keys: Iterable[str]) -> array[int]:
    """For each key the number of its side, as the sides stand in `shares`.

    The distinct keys are ordered by sha256(seed:key) and cut at the rounded cumulative shares. Of a digest 64 bits are
    kept, so that a row takes 8 bytes: among ten million keys two share them with a probability of 3e-6, and then they
    are on one side.
    """
    import numpy as np

    places = np.asarray(array("Q", (_place(f"{seed}:{key}") for key in keys)))
    distinct = np.unique(places)
    stops, share = [], 0.0
    for part in shares.values():
        share += part
        stops.append(round(share * len(distinct)))
    # the digest with which each side but the first begins; the last side has all that is left
    begins = distinct[[stop for stop in stops[:-1] if stop < len(distinct)]]
    sides = np.searchsorted(begins, places, side="right").astype(np.uint16)
    return array("H", sides.tobytes())


def _place(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
