"""Runs as one HTML file that needs nothing but a browser, or as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from runner import __version__
from runner.atomic import publish_text
from runner.markdown import code, words
from runner.report.cases import compressed, packed
from runner.report.gathering import Run, gather_all
from runner.report.library import plotly_js
from runner.report.rates import beside
from runner.report.shows import Shown

NAME = "report.html"
_NAMED = 3
"""Runs that a title names; of more it says how many."""


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
    runs = gather_all(folders)
    compared = beside(runs)
    environment = Environment(
        loader=PackageLoader("runner.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    shows = [Shown(number, run) for number, run in enumerate(runs)]
    text = environment.get_template("report.html.j2").render(
        title=_title(runs),
        runs=shows,
        suites=tuple(dict.fromkeys(suite for run in runs for suite in run.suites)),
        beside=compared,
        data=packed(
            {
                "runs": [show.data for show in shows],
                "beside": dict(compared.figure) if compared else None,
            }
        ),
        library=_library() if compared or any(show.charts for show in shows) else "",
        version=__version__,
    )
    path = out or folders[0] / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_text(path, text)
    return Written(path, path.stat().st_size)


def _title(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(run.name if run.short == run.name else run.record.recipe for run in runs)
    return ", ".join(names) if len(names) <= _NAMED else f"{len(runs)} runs"


@lru_cache(maxsize=1)
def _library() -> str:
    """What draws the charts, compressed."""
    return compressed(plotly_js().read_bytes())


# --- Markdown ---


def markdown(folders: Sequence[Path]) -> str:
    """The results of runs for a pull request or a model card: their gates, the matrix, the lost cases.

    Raises:
        UserError: a folder is none of a run, or a file of it is damaged.
    """
    runs = gather_all(folders)
    return "\n".join(line for number, run in enumerate(runs) for line in _run_lines(Shown(number, run))) + "\n"


def _run_lines(show: Shown) -> Iterator[str]:
    run = show.run
    sign = {"green": "✅", "red": "❌", "unfinished": "⏳", "rehearsal": "·"}[show.state]
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
