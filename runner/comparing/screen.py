"""A comparison in the terminal, at 80 columns and more."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runner.comparing.records import Compared, SuiteCompared
from runner.gate import ALPHA, EDITED, REJUDGED, Comparison, Number, Tally
from runner.tables import (
    BAD,
    DIM,
    GOOD,
    MARK,
    chance,
    flip_lines,
    forgetting_lines,
    interval,
    percent,
    said,
)

SHOWN = 10
"""Lost cases of a suite that are shown without `--all`."""
SIGNS = {"worse": "✗ worse", "better": "✓ better", "same": "· same", "not compared": "! not compared"}
_STYLES = {"worse": BAD, "better": GOOD, "same": DIM, "not compared": BAD}


def screen(compared: Compared, *, every: bool = False) -> RenderableType:
    """The table of suites, what was recorded, the lost cases, and the verdict in words.

    Args:
        every: show all lost cases, not only the first of each suite.
    """
    head = Table.grid(padding=(0, 2))
    for word, side in (("before", compared.before), ("after", compared.after)):
        head.add_row(Text(word, style=DIM), Text(said(side.name)))
    parts: list[RenderableType] = [head, Text(), _table(compared.suites), Text(legend(compared), style=DIM)]
    parts += [Text(said(note, 400), style=DIM) for note in notes(compared)]
    if (numbers := _numbers(compared.suites)) is not None:
        parts += [Text(), numbers]
    for suite in compared.suites:
        if suite.comparison.lost:
            most = None if every else SHOWN
            parts += [Text(), Text(said(f"lost of {suite.suite}"), style=MARK)]
            parts += flip_lines("", suite.comparison.lost, most, prompts=True)
    for word, side in (("before", compared.before), ("after", compared.after)):
        if side.forgetting is not None:
            parts += [Text(), Text(f"stages of {word}", style=DIM), *forgetting_lines(side.forgetting)]
    return Group(*parts, Text(), Text(said(sentence(compared), 2000), style=f"bold {BAD if compared.is_red else GOOD}"))


def _table(suites: Sequence[SuiteCompared]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    table.add_column("suite", overflow="fold")
    for title in ("before", "after", "lost", "gained", "net", "p"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for suite in suites:
        pair = suite.comparison
        rate = pair.negative_flip_rate
        table.add_row(
            Text(said(suite.suite), style=MARK), _rate(suite.before), _rate(suite.after),
            _over(str(len(pair.lost)), "" if rate is None else percent(rate)), Text(str(len(pair.gained))),
            Text(net(pair)), _over(chance(suite.p), chance(suite.adjusted)),
            Text(SIGNS[suite.outcome], style=_STYLES[suite.outcome]),
        )  # fmt: skip
    return table


def _rate(tally: Tally) -> Text:
    if tally.rate is None:
        return Text("none asked", style=DIM)
    errors = f" {tally.errors}!" if tally.errors else ""
    return _over(f"{percent(tally.rate)}{errors}", interval(tally))


def _over(above: str, below: str) -> Text:
    return Text.assemble(above, "\n", (below, DIM))


def _numbers(suites: Sequence[SuiteCompared]) -> Table | None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=DIM, pad_edge=False)
    for title in ("suite", "number"):
        table.add_column(title, overflow="fold")
    for title in ("before", "after", "moved"):
        table.add_column(title, justify="right", no_wrap=True)
    for suite in suites:
        for number in suite.numbers:
            table.add_row(Text(said(suite.suite)), Text(said(number.name)), *(Text(value) for value in moved(number)))
    return table if table.row_count else None


# --- words that the terminal and Markdown share ---


def moved(number: Number) -> tuple[str, str, str]:
    """A number before, after, and by how much it moved; empty where the first side has none."""
    if number.before is None or number.rise is None:
        return "", f"{number.mean:.4g}", ""
    return f"{number.before:.4g}", f"{number.before + number.rise:.4g}", f"{number.rise:+.2g}"


def net(pair: Comparison) -> str:
    """Gained less lost, with its sign."""
    return f"{pair.net:+d}" if pair.net else "0"


def legend(compared: Compared) -> str:
    """What the second line of each row is, and what the words mean."""
    of = f"{len(compared.suites)} suites" if len(compared.suites) > 1 else "one suite"
    return (
        "below: [95 % Wilson interval], negative-flip rate, p after Holm over "
        f"{of}\nsame: no difference beyond chance at {ALPHA:.0%}"
    )


def notes(compared: Compared) -> list[str]:
    """What could not be compared, what hangs by a hair, and what is on one side only."""
    found = []
    for suite in compared.suites:
        pair = suite.comparison
        if pair.differences:
            found.append(f"{suite.suite}: {pair.common} cases compared; {pair.differences}")
        if suite.edited:
            found.append(f"{suite.suite}: {EDITED}")
        if pair.rejudged:
            found.append(f"{suite.suite}: {len(pair.rejudged)} {REJUDGED}")
        if pair.facts != (len(pair.lost), len(pair.gained)):
            found.append(f"{suite.suite}: counted by fact {pair.facts[0]} lost, {pair.facts[1]} gained; p is of these")
        hanging = sum(flip.fragile for flip in pair.lost)
        if hanging:
            found.append(f"{suite.suite}: {hanging} of the {len(pair.lost)} lost hang by a hair")
    for word, names in (("before", compared.only_before), ("after", compared.only_after)):
        if names:
            found.append(f"only {word}: {', '.join(names)}")
    if compared.same_weights:
        found.append("both sides have the same weights: what differs comes from decoding, probes or precision")
    return found


def sentence(compared: Compared) -> str:
    """The verdict in words."""
    told = {"worse": "worse", "better": "better", "not compared": "not compared", "same": "no difference beyond chance"}
    groups = {
        word: [one.suite for one in compared.suites if one.outcome == outcome and not one.unasked]
        for outcome, word in told.items()
    }
    groups["could not be asked after: every case is an error"] = list(compared.unasked)
    named = [f"{', '.join(names)}: {word}" for word, names in groups.items() if names]
    return "; ".join(named)
