"""The outcomes of a campaign as a table in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MARKS = ("<!-- campaign: written by make faults -->", "<!-- campaign ends -->")
"""Between these a page holds the table."""


def markdown(rows: Sequence[Mapping[str, Any]], phases: Sequence[str], signals: Sequence[str]) -> str:
    """How many runs were hit in which phase by what, and what was wrong.

    Args:
        rows: of `kills.jsonl`.
        phases: the rows of the table.
        signals: its columns.
    """
    hits = [row for row in rows if row["hit"][0] != "missed"]
    counted = Counter((row["hit"][0], row["aim"]["signal"]) for row in hits)
    shown = [*phases, *sorted({phase for phase, _ in counted} - set(phases))]
    lines = [
        "| hit in | " + " | ".join(signals) + " | all |",
        "|---" * (len(signals) + 2) + "|",
        *(_line(phase, [counted[phase, name] for name in signals]) for phase in shown),
        _line("all", [sum(counted[phase, name] for phase in shown) for name in signals]),
        "",
    ]
    wrong = [row for row in hits if row["wrong"]]
    orphans = sum("left running" in row["wrong"] for row in wrong)
    half = sum("was listed" in row["wrong"] for row in wrong)
    looks, loaded = sum(row["looks"] for row in hits), sum(row["loaded"] for row in hits)
    lines += [
        f"{len(hits)} runs were hit. {len(wrong)} came to something else than the undisturbed run, {orphans} left a "
        f"process behind, {half} showed a half checkpoint to the reader beside them, which listed everything "
        f"{looks:,} times and loaded {loaded:,} checkpoints.",
    ]
    if missed := len(rows) - len(hits):
        lines.append(f"{missed} aims were missed: the phase was over too soon, time after time.")
    lines += ["", *(f"- wrong: {row['aim']}: {row['wrong']}" for row in wrong)] if wrong else []
    return "\n".join(lines) + "\n"


def _line(name: str, numbers: Sequence[int]) -> str:
    return f"| {name} | " + " | ".join(str(number) if number else "–" for number in (*numbers, sum(numbers))) + " |"
