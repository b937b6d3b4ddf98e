"""A comparison for a pull request: the same records as Markdown, with the lost cases folded away."""

from __future__ import annotations

from collections.abc import Iterable

from runner.comparing.records import Compared, SuiteCompared
from runner.comparing.screen import SHOWN, SIGNS, moved, net, notes, sentence
from runner.gate import Tally
from runner.markdown import code, words
from runner.tables import chance, interval, percent, points


def markdown(compared: Compared, *, every: bool = False) -> str:
    """What GitHub and GitLab render as a table of suites; nothing that a model said is read as markup.

    Args:
        every: all lost cases, not only the first of each suite.
    """
    lines = [
        f"### Probes: {words(sentence(compared))}", "",
        f"before {code(compared.before.name)}, after {code(compared.after.name)}", "",
        *_row("suite", "before", "after", "lost", "gained", "net", "p", "p (Holm)", "negative-flip rate", ""),
        *_row("---", *["---:"] * 8, "---"),
        *(line for suite in compared.suites for line in _suite(suite)),
        "",
    ]  # fmt: skip
    lines += [f"- {words(note)}" for note in notes(compared)]
    numbers = [(suite.suite, number) for suite in compared.suites for number in suite.numbers]
    if numbers:
        lines += ["", *_row("suite", "number", "before", "after", "moved"), *_row("---", "---", *["---:"] * 3)]
        for suite_name, number in numbers:
            lines += _row(words(suite_name), code(number.name), *moved(number))
    for suite in compared.suites:
        lines += _lost(suite, every)
    for word, side in (("before", compared.before), ("after", compared.after)):
        if (kept := side.forgetting) is not None:
            both = f"backward transfer {points(kept.backward_transfer)}, forgetting {points(kept.forgetting)}"
            lines += ["", f"stages of {word}: {both} points over {len(kept.suites)} suites"]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def _suite(suite: SuiteCompared) -> Iterable[str]:
    pair = suite.comparison
    rate = pair.negative_flip_rate
    return _row(
        words(suite.suite), _rate(suite.before), _rate(suite.after), str(len(pair.lost)), str(len(pair.gained)),
        net(pair), chance(suite.p), chance(suite.adjusted), "" if rate is None else percent(rate),
        SIGNS[suite.outcome],
    )  # fmt: skip


def _rate(tally: Tally) -> str:
    if tally.rate is None:
        return "none asked"
    errors = f", {tally.errors} errors" if tally.errors else ""
    return f"{percent(tally.rate)} {interval(tally)}{errors}".replace("[", "\\[")


def _lost(suite: SuiteCompared, every: bool) -> list[str]:
    flips = suite.comparison.lost
    if not flips:
        return []
    shown = flips if every else flips[:SHOWN]
    lines = ["", f"<details><summary>{words(suite.suite)}: {len(flips)} lost</summary>", ""]
    lines += [*_row("case", "asked", "before", "after"), *_row("---", "---", "---", "---")]
    for flip in shown:
        name = code(flip.case_id) + (" (by a hair)" if flip.fragile else "")
        lines += _row(name, code(flip.after.prompt), code(flip.before.reply), code(flip.after.reply))
    if len(shown) < len(flips):
        lines += ["", f"and {len(flips) - len(shown)} more"]
    return [*lines, "", "</details>"]
