"""The curves of a report, as figures of plotly (https://plotly.com/javascript): plain maps, drawn by the page and, by
`pictures`, into files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.errors import printable
from runner.gate import Tally, wilson
from runner.report.gathering import At, Run, Stage

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F", "#B8A200")
"""Okabe and Ito's, told apart by every common kind of colour blindness, and readable on light and on dark."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hexagon")
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
"""Above the axes: beside them it would leave a phone no room for the curve."""
_WIDE = 50
"""From so many times its smallest value on, a loss is drawn on a logarithmic axis: else its end looks like a zero."""
_PREFERENCE = {"rewards/margins": "margin", "rewards/accuracies": "accuracy"}


@dataclass(frozen=True)
class Chart:
    """A figure, and what a reader who cannot see it is told."""

    name: str
    title: str
    says: str
    figure: Mapping[str, Any]


def stage_charts(run: Run) -> list[Chart]:
    """The first of `charts` once more for each stage alone, where there are several: a short one after a long one is
    a few millimetres of the whole, and in a file nobody can zoom."""
    if len(run.stages) < 2:
        return []
    alone = [
        replace(run, stages=[stage], checkpoints=[at for at in run.checkpoints if at.stage == stage.name])
        for stage in run.stages
    ]
    found = [(_training(one, run.suites), one.stages[0].name) for one in alone]
    return [replace(chart, name=f"{chart.name}-{name}") for chart, name in found if chart is not None]


def charts(run: Run) -> list[Chart]:
    """Those that there is something to draw for."""
    found = [_training(run, run.suites), _numbers(run), *(_preference(stage) for stage in run.stages)]
    return [chart for chart in found if chart is not None]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _training(run: Run, suites: Sequence[str]) -> Chart | None:
    """Loss, learning rate, gradient norm and pass rates, on one axis of steps.

    Args:
        run: or a stage of it.
        suites: of the whole run: each has its colour by its place among them.
    """
    points = [point for stage in run.stages for point in stage.points]
    if not points and not run.checkpoints:
        return None
    panels = [("loss", "loss", 0), ("gradient norm", "grad_norm", 2), ("learning rate", "learning_rate", 4)]
    traces: list[dict[str, Any]] = []
    for axis, (title, field, colour) in enumerate(panels, start=2):
        x: list[int | None] = []
        y: list[float | None] = []
        for stage in run.stages:  # None: a line is not drawn from one stage to the next
            x += [point.x for point in stage.points] + [None]
            y += [_finite(getattr(point.logged, field)) for point in stage.points] + [None]
        traces.append(
            {"type": "scatter", "mode": "lines", "name": title, "x": x, "y": y, "yaxis": f"y{axis}",
             "line": {"color": COLOURS[colour], "width": 1.5}, "showlegend": False}
        )  # fmt: skip
    traces += [_rates(run.checkpoints, suite, number) for number, suite in enumerate(suites) if suite in run.suites]
    names = ", ".join(stage.name for stage in run.stages)
    says = f"Pass rates with 95 % intervals, loss, gradient norm and learning rate over the steps of {names}."
    layout = _panels(run.stages, [point.logged.loss for point in points])
    return Chart("training", "Training and probes", says, {"data": traces, "layout": layout})


def _panels(stages: Sequence[Stage], losses: Sequence[float]) -> dict[str, Any]:
    """Four panels above each other, over the steps of the stages, each of which begins at a line with its name."""
    domains = {"yaxis": [0.60, 1.0], "yaxis2": [0.38, 0.55], "yaxis3": [0.19, 0.33], "yaxis4": [0.0, 0.14]}
    titles = {"yaxis": "pass rate, %", "yaxis2": "loss", "yaxis3": "gradient norm", "yaxis4": "learning rate"}
    axes: dict[str, dict[str, Any]] = {
        name: {"domain": domain, "title": {"text": titles[name]}, "rangemode": "tozero", "nticks": 5}
        for name, domain in domains.items()
    }
    axes["yaxis"]["range"] = [-3, 103]
    axes["yaxis2"] |= loss_axis(losses)
    axes["yaxis4"] |= {"nticks": 4, "exponentformat": "e"}
    boundaries = [stage for stage in stages if stage.begins > 0]
    return {
        **axes,
        "height": 860,
        "xaxis": {"title": {"text": "steps, stage after stage"}, "anchor": "y4", "ticklabelstandoff": 4},
        "shapes": [
            {"type": "line", "x0": stage.begins, "x1": stage.begins, "yref": "paper", "y0": 0, "y1": 1,
             "line": {"color": "#888888", "width": 1, "dash": "dot"}} for stage in boundaries
        ],
        "annotations": [
            {"x": stage.begins, "y": 1.0, "yref": "paper", "text": stage.name, "showarrow": False, "xanchor": "left",
             "yanchor": "bottom"} for stage in stages
        ],
        "legend": LEGEND | {"y": 1.04},
        "hovermode": "x",
    }  # fmt: skip


def _rates(checkpoints: Sequence[At], suite: str, number: int) -> dict[str, Any]:
    asked = [at for at in checkpoints if suite in at.decisions and at.decisions[suite].tally.asked]
    tallies = [at.decisions[suite].tally for at in asked]
    return {
        "type": "scatter", "mode": "lines+markers", "name": suite, "yaxis": "y",
        "x": [at.x for at in asked], "text": [at.label for at in asked], **rates(tallies),
        "line": {"color": COLOURS[number % len(COLOURS)], "width": 2},
        "marker": {"symbol": SYMBOLS[number % len(SYMBOLS)], "size": 8},
        "hovertemplate": "%{text}: %{y:.1f} %<extra>" + plain(suite) + "</extra>",
    }  # fmt: skip


def rates(tallies: Sequence[Tally]) -> dict[str, Any]:
    """Pass rates in percent and their 95 % Wilson intervals, as a trace has them; every suite was asked something."""
    middles = [100 * tally.passed / tally.asked for tally in tallies]
    ends = [wilson(tally.passed, tally.asked) for tally in tallies]
    return {
        "y": middles,
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3,
            "array": [max(100 * high - rate, 0) for (_, high), rate in zip(ends, middles, strict=True)],
            "arrayminus": [max(rate - 100 * low, 0) for (low, _), rate in zip(ends, middles, strict=True)],
        },
    }  # fmt: skip


def loss_axis(losses: Sequence[float]) -> dict[str, Any]:
    """What the axis of these losses has besides its title: a logarithm where they span far."""
    known = [loss for loss in losses if math.isfinite(loss)]
    if not known or min(known) <= 0 or max(known) < _WIDE * min(known):
        return {}
    return {"type": "log", "dtick": 1, "exponentformat": "e"}


def plain(text: str) -> str:
    """A text that plotly takes for no markup of its own."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")


def _numbers(run: Run) -> Chart | None:
    """What probes recorded against the training loss, a point per checkpoint: does it loop less as the loss falls?

    Without the checkpoints of dpo stages: the loss of a pair is another quantity than that of a token.
    """
    lines: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    pairs = {stage.name for stage in run.stages if stage.kind == "dpo"}
    comparable = [at for at in run.checkpoints if at.stage not in pairs]
    for at in comparable:
        for suite, decision in at.decisions.items():
            for number in decision.numbers:
                if (loss := _finite(at.loss)) is not None and math.isfinite(number.mean):
                    lines.setdefault((suite, number.name), []).append((loss, number.mean, at.label))
    drawn = {name: found for name, found in lines.items() if len(found) > 1}
    if not drawn:
        return None
    looping = any(_is_repetition(name) for _, name in drawn)
    # what is shown at first comes first: then no two of them share a colour while there are few
    drawn = dict(sorted(drawn.items(), key=lambda item: not _is_repetition(item[0][1])))
    traces = []
    for place, ((suite, name), found) in enumerate(drawn.items()):
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "name": f"{suite}: {plain(name)}",
             "x": [loss for loss, _, _ in found], "y": [mean for _, mean, _ in found],
             "text": [label for _, _, label in found], "hovertemplate": "%{text}: loss %{x:.4g}, %{y:.4g}",
             "line": {"color": COLOURS[place % len(COLOURS)], "width": 1, "dash": "dot"},
             "marker": {"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 9},
             "visible": True if not looping or _is_repetition(name) else "legendonly"}
        )  # fmt: skip
    axis = loss_axis([loss for found in drawn.values() for loss, _, _ in found])
    layout = {
        "height": 440,
        "xaxis": {"title": {"text": "training loss (falling to the right)"}, **axis, "autorange": "reversed"},
        "yaxis": {"title": {"text": "mean over the suite's cases"}, "rangemode": "tozero"},
        "legend": LEGEND,
        "showlegend": True,
    }
    title = "Repetition against loss" if looping else "Recorded numbers against loss"
    says = "One point per checkpoint, dpo stages left out: what the probes recorded, against the training loss."
    return Chart("numbers", title, says, {"data": traces, "layout": layout})


def _is_repetition(name: str) -> bool:
    """Whether a recorded number is a share of what was said again."""
    return "seq_rep" in name


def _preference(stage: Stage) -> Chart | None:
    """Margins and accuracies of a preference stage."""
    traces = []
    for place, (key, name) in enumerate(_PREFERENCE.items()):
        found = [(point.logged.step, point.logged.more[key]) for point in stage.points if key in point.logged.more]
        if found:
            traces.append(
                {"type": "scatter", "mode": "lines", "name": name, "x": [step for step, _ in found],
                 "y": [_finite(value) for _, value in found], "yaxis": "y" if place == 0 else "y2",
                 "line": {"color": COLOURS[place], "dash": "solid" if place == 0 else "dash"}}
            )  # fmt: skip
    if not traces:
        return None
    layout = {
        "height": 360,
        "xaxis": {"title": {"text": f"steps of {stage.name}"}},
        "yaxis": {"title": {"text": "margin of chosen over rejected"}, "rangemode": "tozero"},
        "yaxis2": {
            "title": {"text": "accuracy"},
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.03],
            "showgrid": False,
            "tickmode": "auto",  # plotly's default takes the places of the other axis, wherever they fall
            "nticks": 6,
        },
        "legend": LEGEND,
    }
    title = f"Preferences in {stage.name}"
    return Chart(f"preference-{stage.name}", title, "Margin and accuracy of the pairs, over the steps of the stage.",
                 {"data": traces, "layout": layout})  # fmt: skip
