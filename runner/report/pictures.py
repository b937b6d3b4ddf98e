"""The charts of a report as files for a paper or a slide: SVG, PNG or PDF, on white, with titles.

They are the figures of the page, drawn by the same JavaScript in a Chrome or Chromium that kaleido
(https://github.com/plotly/Kaleido) drives. Nothing is fetched: plotly's own file is given, and MathJax is left out.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from runner.atomic import publish_bytes
from runner.errors import UserError
from runner.report.charts import Chart, charts, plain, stage_charts
from runner.report.gathering import gather_all
from runner.report.library import plotly_js
from runner.report.rates import beside, matrix

Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[str, ...] = get_args(Format)
_WIDTH = 960
"""Pixels: at 6.5 inches, the text width of a page, the letters then have about 7 points."""
_LEGEND_ROW = 24
"""Pixels."""
_SCALE = 2
"""Of a PNG: 1,920 pixels wide."""
_FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', 'Segoe UI Symbol', 'Zapf Dingbats', " \
        "'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', 'WenQuanYi Micro Hei', sans-serif"  # fmt: skip
"""An SVG names them, and each letter is shown with the first that has it. ✓ and ✗ come from one of the three in the
middle, both from the same: a Chinese font may have the one and not the other. Chinese text needs one of the last."""


@dataclass(frozen=True)
class _Picture:
    path: Path
    figure: Mapping[str, Any]


def pictures(folders: Sequence[Path], into: Path, kind: Format = "svg") -> list[Path]:
    """Write the charts of runs: `RUN-matrix.svg`, `RUN-training.svg`, `RUN-training-STAGE.svg` where there are several
    stages, `RUN-numbers.svg`, `RUN-preference-STAGE.svg`; and of several runs `beside.svg`.

    Returns:
        The files that were written; none where there is nothing to draw yet.

    Raises:
        UserError: a folder is none of a run, a file of it is damaged, or kaleido or a browser is missing.
    """
    drawn = list(_drawn(folders, into, kind))
    if drawn:
        for picture, content in zip(drawn, _rendered([one.figure for one in drawn], kind), strict=True):
            publish_bytes(picture.path, content)
    return [picture.path for picture in drawn]


def _drawn(folders: Sequence[Path], into: Path, kind: Format) -> Iterator[_Picture]:
    runs = gather_all(folders)
    if (chart := beside(runs)) is not None:
        yield _Picture(into / f"{chart.name}.{kind}", on_paper(chart))
    for run in runs:
        found = [matrix(run), *charts(run), *stage_charts(run)]
        name = run.name.replace("/", "-")
        for chart in (one for one in found if one is not None):
            yield _Picture(into / f"{name}-{chart.name}.{kind}", on_paper(chart, run.name))


def on_paper(chart: Chart, about: str = "") -> dict[str, Any]:
    """The figure of a chart with a title, on white, without anything that only a pointer would show."""
    figure: dict[str, Any] = copy.deepcopy(dict(chart.figure))
    layout = figure["layout"]
    figure["data"] = [trace for trace in figure["data"] if trace.get("visible", True) is True]
    for name in [name for name in layout if name.startswith(("xaxis", "yaxis"))]:
        axis = {"gridcolor": "#e3e6ea", "zerolinecolor": "#c3c8ce", "linecolor": "#5b6068", **layout[name]}
        layout[name] = axis | {"title": {**axis.get("title", {}), "font": {"size": 14}}}
    if chart.name == "numbers":
        _label_ends(figure["data"][0])
    head = f"<b>{chart.title}</b>" + (f" — {plain(about)}" if about else "")
    top = 76 + _LEGEND_ROW * _legend_rows(figure["data"])
    layout |= {
        "title": {"text": head, "x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 20, "t": 16},
                  "y": 1, "yref": "container", "yanchor": "top", "font": {"size": 17}},
        "width": _WIDTH, "height": layout["height"] + top - 24,
        "margin": {"l": 76, "r": 60, "t": top, "b": 76} | layout.get("margin", {}),
        "paper_bgcolor": "#ffffff", "plot_bgcolor": "#ffffff",
        "font": {"family": _FONT, "size": 14, "color": "#1a1c1f"},
    }  # fmt: skip
    return figure


def _label_ends(trace: dict[str, Any]) -> None:
    """Name the first and the last checkpoint: there is no pointer to ask which end is which."""
    between = len(trace["x"]) - 2
    trace |= {
        "mode": "lines+markers+text", "text": [trace["text"][0], *[""] * between, trace["text"][-1]],
        "textposition": ["top center", *["top right"] * (between + 1)], "cliponaxis": False,
    }  # fmt: skip


def _legend_rows(traces: Sequence[Mapping[str, Any]]) -> int:
    """About how many rows the legend takes above the axes; plotly makes room for it, but not for a title above it."""
    names = [str(trace["name"]) for trace in traces if trace.get("showlegend", "name" in trace)]
    widest = max((sum(1 if letter.isascii() else 2 for letter in name) for name in names), default=0)
    per_row = max(_WIDTH // (50 + 8 * widest), 1) if widest else 1
    return -(-len(names) // per_row)


def _rendered(figures: Sequence[Mapping[str, Any]], kind: Format) -> list[bytes]:
    try:
        import kaleido
        from kaleido import errors
    except ImportError as error:
        raise UserError(
            f"pictures of charts need kaleido, which is not installed ({error})",
            hint="pip install 'recipe-runner[plots]', of a checkout pip install -c constraints.txt -e '.[plots]'",
        ) from error

    async def render() -> list[bytes]:
        async with kaleido.Kaleido(plotlyjs=plotly_js(), mathjax=False) as browser:
            options = {"format": kind, "scale": _SCALE if kind == "png" else 1}
            return [await browser.calc_fig(figure, opts=options) for figure in figures]

    try:
        return asyncio.run(render())
    except errors.ChromeNotFoundError as error:
        given = os.environ.get("BROWSER_PATH")
        raise UserError(
            f"BROWSER_PATH is {given}, where no browser is" if given else "no Chrome or Chromium was found",
            expected="a browser: kaleido draws the charts in one",
            hint="apt install chromium, brew install --cask chromium, or kaleido_get_chrome, which downloads one; "
            "BROWSER_PATH names another",
        ) from error
    except (errors.BrowserFailedError, errors.BrowserClosedError, TimeoutError) as error:
        raise UserError(
            f"the browser that draws the charts did not start, or ended, or did not answer ({type(error).__name__})",
            hint="does `chromium --headless --dump-dom about:blank` run here? BROWSER_PATH names another browser",
        ) from error
