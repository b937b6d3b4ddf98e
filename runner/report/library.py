"""The JavaScript that draws the charts, as plotly's Python package carries it; that package is never imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from runner.errors import UserError


def plotly_js() -> Path:
    """Where it lies.

    Raises:
        UserError: plotly is not installed.
    """
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise UserError("a report needs plotly, which is not installed", hint="pip install plotly")
    return Path(found.origin).parent / "package_data" / "plotly.min.js"
