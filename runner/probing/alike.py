"""Errors that say the same, at the end of pytest: shown once, with how many more there are.

A typing error in a probe's body fails every case in the same way. The short summary and JUnit's file name each of them.
"""

from __future__ import annotations

import pytest

KEY = "probe_error"
"""The attribute of a report: what the error says and where it was raised. Misses have none: each is of its own case."""
_CATEGORIES = ("failed", "error")
_EVERY_ONE = 2
"""Verbosity (`-vv`) from which each is shown."""


def mark(report: pytest.TestReport) -> None:
    """Note on the report of a probe's case, one that failed for another reason than a miss, what it says."""
    crash = getattr(report.longrepr, "reprcrash", None)
    setattr(report, KEY, f"{crash.path}:{crash.lineno}: {crash.message}" if crash else report.longreprtext)


def show_once(config: pytest.Config) -> None:
    """Leave all but the first of those that say the same out of what is shown in full."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or config.get_verbosity() >= _EVERY_ONE:
        return
    for category in _CATEGORIES:
        alike: dict[str, list[pytest.TestReport]] = {}
        for report in terminal.stats.get(category, ()):
            if key := getattr(report, KEY, ""):
                alike.setdefault(key, []).append(report)
        for first, *others in alike.values():
            for other in others:
                # what pytest marks a report with that its debugger has shown already
                other._pdbshown = True  # type: ignore[attr-defined]
            if others:
                first.sections.append((f"and {len(others):,} more alike", "-vv shows each"))
