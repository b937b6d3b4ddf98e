"""Verdicts of a suite from a word with a letter per case, as tests of comparisons and gates need them."""

from collections.abc import Mapping, Sequence
from typing import Any

from runner.verdicts import Outcome, Verdict

OUTCOMES: dict[str, Outcome] = {"p": "pass", "m": "miss", "e": "error", "n": "not_asked"}


def verdicts(
    outcomes: str,
    ckpt: str = "qa@8",
    *,
    clusters: Sequence[str] = (),
    question: str = "",
    margin: float | None = None,
    generation: Mapping[str, Any] | None = None,
    **values: float,
) -> list[Verdict]:
    """One verdict per letter: p(ass), m(iss), e(rror), n(ot asked)."""
    return [
        Verdict(
            "held_out", "t.py::test", f"c{number}", OUTCOMES[letter], ckpt=ckpt, values=values, reply=letter,
            cluster=clusters[number] if clusters else "", question=question, margin=margin,
            generation=generation or {"dtype": "float32"},
        )
        for number, letter in enumerate(outcomes)
    ]  # fmt: skip
