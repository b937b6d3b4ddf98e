"""Pass rates as figures: the matrix of a run, and the results of several runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.gate import Decision
from runner.report.charts import COLOURS, LEGEND, SYMBOLS, Chart, plain, rates
from runner.report.gathering import Run
from runner.tables import interval, percent

_STATES: Mapping[bool | None, tuple[str, str, float]] = {
    None: ("", "#eceff2", 0.0),
    False: (" ✗", "#fdd9bd", 0.5),
    True: (" ✓", "#cfe3f6", 1.0),
}
"""Of a gate: its sign, its colour (blue and orange, as in the page), and its place on the scale of colours."""
_ROW, _BELOW = 46, 24
"""Pixels that a checkpoint takes, and those below the last of them: nothing stands there."""
_HEAD = 130
"""Pixels at the left, at the least: the head of the checkpoints' column needs them, however short their names are."""


def matrix(run: Run) -> Chart | None:
    """Checkpoints and suites, a cell each with its rate, its interval and the sign of its gate.

    The page has the same cells as a table that can be clicked: this is for files.
    """
    if not run.suites:
        return None
    asked = [at for at in run.checkpoints if at.decisions]
    cells = [[at.decisions.get(suite) for suite in run.suites] for at in asked]
    trace = {
        "type": "heatmap", "xgap": 3, "ygap": 3, "showscale": False, "hoverinfo": "skip", "zmin": 0, "zmax": 1,
        "x": list(run.suites),
        "y": [at.label if at.loss is None else f"{at.label}   {at.loss:.4f}" for at in asked],
        "z": [[_STATES[cell.green][2] if cell else None for cell in row] for row in cells],
        "text": [[_words(cell) for cell in row] for row in cells],
        "texttemplate": "%{text}", "textfont": {"color": "#1a1c1f", "size": 13},
        "colorscale": [[place, colour] for _, colour, place in _STATES.values()],
    }  # fmt: skip
    head = {
        "text": "checkpoint, loss" if any(at.loss is not None for at in asked) else "checkpoint", "showarrow": False,
        "xref": "paper", "x": 0, "xanchor": "right", "xshift": -2,
        "yref": "paper", "y": 1, "yanchor": "bottom", "yshift": 2,
    }  # fmt: skip
    layout = {
        "height": 24 + _BELOW + _ROW * len(asked),  # 24: what `on_paper` takes off for the title it puts above
        "margin": {"l": _HEAD, "b": _BELOW},
        "annotations": [head],  # in the line of the suites' names: a title of the axis would stand on its side
        "xaxis": {"side": "top", "showgrid": False, "type": "category", "ticks": ""},
        "yaxis": {"autorange": "reversed", "showgrid": False, "type": "category", "ticks": "", "automargin": True},
    }  # fmt: skip
    says = "Pass rates of every suite at every checkpoint, with 95 % intervals and what their gates say."
    return Chart("matrix", "Checkpoints and suites", says, {"data": [trace], "layout": layout})


def _words(cell: Decision | None) -> str:
    if cell is None:
        return ""
    if cell.tally.rate is None:
        return "none asked" + _STATES[cell.green][0]
    return f"{percent(cell.tally.rate)}{_STATES[cell.green][0]}<br><sub>{interval(cell.tally)}</sub>"


def beside(runs: Sequence[Run]) -> Chart | None:
    """The results of several runs: a point per run and suite, with its interval."""
    found = [(run, run.result.decisions if run.result else ()) for run in runs]
    suites = list(dict.fromkeys(one.suite for _, decisions in found for one in decisions if one.tally.asked))
    if len(runs) < 2 or not suites:
        return None
    traces = []
    for number, (run, decisions) in enumerate(found):
        asked = [one for one in decisions if one.tally.asked]
        colour, symbol = COLOURS[number % len(COLOURS)], SYMBOLS[number % len(SYMBOLS)]
        traces.append(
            {"type": "scatter", "mode": "markers", "name": plain(run.short), "offsetgroup": str(number),
             "x": [one.suite for one in asked], **rates([one.tally for one in asked]),
             "marker": {"color": colour, "symbol": symbol, "size": 10},
             "hovertemplate": "%{x}: %{y:.1f} %<extra>" + plain(run.short) + "</extra>"}
        )  # fmt: skip
    layout = {
        "height": 420,
        "scattermode": "group",  # runs stand side by side at a suite
        "xaxis": {"type": "category", "categoryorder": "array", "categoryarray": suites},
        "yaxis": {"title": {"text": "pass rate, %"}, "range": [-3, 103]},
        "legend": LEGEND,
        "showlegend": True,
    }
    says = f"Pass rates of {', '.join(run.name for run in runs)} at their results, with 95 % intervals."
    return Chart("beside", "Results of the runs", says, {"data": traces, "layout": layout})
