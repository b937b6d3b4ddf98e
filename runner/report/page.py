"""Runs as one HTML file that needs nothing but a browser, or as Markdown for a pull request."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from runner import __version__
from runner.atomic import publish_text
from runner.errors import UserError
from runner.gate import Decision, Flip, wilson
from runner.markdown import code, words
from runner.report.cases import compressed, packed, shown, table
from runner.report.charts import Chart, charts
from runner.report.gathering import At, Run, gather, runs_at
from runner.report.repeated import spans
from runner.tables import interval, number_words, percent

NAME = "report.html"
_WATCHED = 12
"""A suite of at most so many cases is shown case by case, its replies side by side."""
_LOST = 5
"""Lost cases that are shown beside a red gate; all are a click away."""


@dataclass(frozen=True)
class Written:
    """A report that was written."""

    path: Path
    size_bytes: int


def write(folders: Sequence[Path], out: Path | None = None) -> Written:
    """Write the report of one run, or of several beside each other; of a recipe with variants, of all of them.

    Args:
        folders: of runs.
        out: where to; default: `report.html` in the first folder.

    Raises:
        UserError: a folder is none of a run, or a file of it is damaged.
    """
    runs = [gather(path) for folder in folders for path in runs_at(folder)]
    environment = Environment(
        loader=PackageLoader("runner.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    shows = [Shown(number, run) for number, run in enumerate(runs)]
    text = environment.get_template("report.html.j2").render(
        title=", ".join(run.name for run in runs),
        runs=shows,
        suites=tuple(dict.fromkeys(suite for run in runs for suite in run.suites)),
        data=packed([show.data for show in shows]),
        library=_plotly() if any(show.charts for show in shows) else "",
        version=__version__,
    )
    path = out or folders[0] / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_text(path, text)
    return Written(path, path.stat().st_size)


@lru_cache(maxsize=1)
def _plotly() -> str:
    """The library that draws, compressed, as its Python package carries it; that is not imported for it."""
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise UserError("a report needs plotly, which is not installed", hint="pip install plotly")
    return compressed((Path(found.origin).parent / "package_data" / "plotly.min.js").read_bytes())


@dataclass(frozen=True)
class Cell:
    """A suite at a checkpoint."""

    rate: str
    sign: str
    """`✓`, `✗` or `·`: colours are a second signal only."""
    state: str
    """`green`, `red` or `recorded`."""
    interval: str
    moved: str
    """`-3 +1` against the baseline, or empty."""
    says: str
    """All of it in words, for who hears the page."""


@dataclass(frozen=True)
class Said:
    """What a model said to a watched prompt at a checkpoint."""

    label: str
    outcome: str
    parts: Sequence[tuple[str, bool]]
    """Each with whether it repeats what it said before."""


class Shown:
    """A run as the page's template asks for it."""

    def __init__(self, number: int, run: Run) -> None:
        self.number, self.run = number, run

    @property
    def data(self) -> dict[str, object]:
        """What the page unpacks when it is clicked or drawn."""
        figures = {chart.name: dict(chart.figure) for chart in self.charts}
        labels = [at.label for at in self.run.checkpoints]
        return {"name": self.run.name, "labels": labels, "figures": figures, **table(self.run.checkpoints)}

    @cached_property
    def charts(self) -> list[Chart]:
        """See `charts`."""
        return charts(self.run)

    def cell(self, at: At, suite: str) -> Cell | None:
        """None where the suite was not asked."""
        decision = at.decisions.get(suite)
        return _cell(decision, f"{suite} at {at.label}") if decision else None

    def result_cell(self, suite: str) -> Cell | None:
        """The suite at the run's result."""
        found = [decision for decision in self.decisions if decision.suite == suite]
        return _cell(found[0], f"{suite} at the result of {self.run.name}") if found else None

    @property
    def decisions(self) -> Sequence[Decision]:
        """Those of the result."""
        return self.run.result.decisions if self.run.result else ()

    @property
    def state(self) -> str:
        """`green`, `red`, or `unfinished`."""
        if self.run.result is None or not self.run.result.is_asked:
            return "unfinished"
        return "red" if self.run.result.exit_code else "green"

    def sentence(self, decision: Decision) -> str:
        """`97.7 % of 300 [95.3–98.9]`."""
        return _sentence(decision)

    def lost(self, decision: Decision) -> Sequence[Flip]:
        """The first cases that were lost, of a suite that is red."""
        return decision.lost[:_LOST] if decision.green is False else ()

    def numbers(self, decision: Decision) -> str:
        """What its cases recorded."""
        return "  ".join(map(number_words, decision.numbers))

    def reds(self) -> list[tuple[At, Decision]]:
        """Every red gate of the run."""
        return [(at, found) for at in self.run.checkpoints for found in at.decisions.values() if found.green is False]

    def watched(self) -> Iterator[tuple[str, Sequence[str], Sequence[tuple[str, Sequence[Said]]]]]:
        """Suites of few cases: their name, the checkpoints, and each prompt with its replies at them."""
        for suite in self.run.suites:
            asked = [at for at in self.run.checkpoints if suite in at.decisions and at.file is not None]
            if not asked or max(len(at.file.of(suite)) for at in asked if at.file) > _WATCHED:
                continue
            yield suite, [at.label for at in asked], _transcripts(suite, asked)

    def text(self, what: str) -> str:
        """What others wrote, safe to be shown."""
        return shown(what)


def _transcripts(suite: str, asked: Sequence[At]) -> list[tuple[str, Sequence[Said]]]:
    prompts: dict[tuple[str, str], str] = {}
    found: dict[tuple[str, str], list[Said]] = {}
    for at in asked:
        assert at.file is not None
        for verdict in at.file.of(suite):
            prompts.setdefault(verdict.identity, verdict.prompt or verdict.case_id)
            said = Said(at.label, verdict.outcome, list(spans(shown(verdict.reply))))
            found.setdefault(verdict.identity, []).append(said)
    return [(shown(prompts[identity]), found[identity]) for identity in prompts]


def _cell(decision: Decision, about: str) -> Cell:
    tally = decision.tally
    state = {True: "green", False: "red", None: "recorded"}[decision.green]
    rate = "none asked" if tally.rate is None else percent(tally.rate)
    moved = f"−{len(decision.lost)} +{len(decision.gained)}" if decision.comparison else ""
    sign = {"green": "✓", "red": "✗", "recorded": "·"}[state]
    return Cell(rate, sign, state, interval(tally) if tally.asked else "", moved, f"{about}: {rate}, {state}")


def _sentence(decision: Decision) -> str:
    tally = decision.tally
    if tally.rate is None:
        return "not asked"
    low, high = wilson(tally.passed, tally.asked)
    errors = f", {tally.errors} errors" if tally.errors else ""
    return f"{percent(tally.rate)} of {tally.asked} [{percent(low)} – {percent(high)}]{errors}"


# --- Markdown ---


def markdown(folders: Sequence[Path]) -> str:
    """The results of runs for a pull request or a model card: their gates, the matrix, the lost cases.

    Raises:
        UserError: a folder is none of a run, or a file of it is damaged.
    """
    runs = [gather(path) for folder in folders for path in runs_at(folder)]
    return "\n".join(line for number, run in enumerate(runs) for line in _run_lines(Shown(number, run))) + "\n"


def _run_lines(show: Shown) -> Iterator[str]:
    run = show.run
    sign = {"green": "✅", "red": "❌", "unfinished": "⏳"}[show.state]
    yield f"### {sign} {words(run.name)}"
    yield ""
    if run.result is None:
        yield f"Not finished: {words(run.unfinished)}"
    elif not run.result.is_asked:
        yield f"Not judged: {words(run.result.label)} has not been asked"
    else:
        against = f" against {words(run.result.baseline)}" if run.result.baseline else ""
        yield f"Result {words(run.result.label)}{against}."
    yield ""
    for decision in show.decisions:
        mark = {True: "✓", False: "✗", None: "·"}[decision.green]
        reasons = "".join(f"; {words(reason)}" for reason in decision.reasons)
        yield f"- {mark} **{words(decision.suite)}** {words(show.sentence(decision))}{reasons}"
        yield from (
            f"  - lost {code(flip.case_id)}: {code(flip.before.reply[:200])} became {code(flip.after.reply[:200])}"
            for flip in show.lost(decision)
        )
    yield ""
    yield "| " + " | ".join(["checkpoint", "loss", *map(words, run.suites)]) + " |"
    yield "|---|---:|" + "---:|" * len(run.suites)
    for at in run.checkpoints:
        cells = (show.cell(at, suite) for suite in run.suites)
        shown_cells = [f"{cell.rate} {cell.sign}" if cell else "" for cell in cells]
        loss = "" if at.loss is None else f"{at.loss:.4f}"
        yield "| " + " | ".join([words(at.label), loss, *shown_cells]) + " |"
    yield ""
