"""What pytest shows while a checkpoint is asked: how far it is, in a terminal drawn again, in a log in rare lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest


@contextmanager
def waiting(config: pytest.Config) -> Iterator[None]:
    """Show what is under way, for as long as the block lasts, on what pytest reports to."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # -p no:terminal
        yield
        return
    from rich.console import Console

    from runner import console as show
    from runner import underway

    # tests print into pytest's capture; this is the file behind it
    file = config.get_terminal_writer()._file
    console = Console(file=file, force_terminal=reporter.isatty, highlight=False, emoji=False, markup=False, width=160)
    if not show.is_live(console):
        with show.LogLines(console, reporter.ensure_newline):
            yield
        return

    def fit() -> None:
        with suppress(OSError, ValueError):  # not a terminal after all
            console.size = os.get_terminal_size(file.fileno())

    fit()
    reporter.ensure_newline()

    with show.LiveView(console, lambda: show.works_screen(underway.now(), console.width), fit=fit, redirects=False):
        yield
