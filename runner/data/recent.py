"""What was made lately, by number: as much of it as a budget of bytes allows."""

from __future__ import annotations

from typing import Generic, TypeVar

Made = TypeVar("Made")

BUDGET = 64 << 20
"""Bytes of source that one cache stands for. What is half as large is made once; of more, what comes last is kept."""
_OVERFLOWN = 1 << 20
"""Half of the budget once it was too small: what is read from end to end is not met again before it is let go."""
_OVERHEAD = 512
"""Bytes that a row of Python objects takes besides its text, about."""


class Recent(Generic[Made]):
    """Rows, or what was written for them, in two generations: when the young fill half of the budget, they become the
    old ones, and the old ones go; from then on the budget is small."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._half, self._held = budget // 2, 0
        self._young: dict[int, Made] = {}
        self._old: dict[int, Made] = {}

    def get(self, number: int) -> Made | None:
        """What was made for `number`, where it is still here."""
        found = self._young.get(number)
        return found if found is not None else self._old.get(number)

    def put(self, number: int, made: Made, size: int) -> None:
        """Keep it, of `size` bytes of source."""
        self._young[number] = made
        self._held += size + _OVERHEAD
        if self._held > self._half:
            self._young, self._old, self._held = {}, self._young, 0
            self._half = min(self._half, _OVERFLOWN)
