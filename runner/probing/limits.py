"""How long the tests of a suite may take inside a run (`timeout_s`): one that does not return is ended with its prober.

By hand nobody is ended: whoever waits there can press Ctrl-C.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from runner.atomic import publish_text
from runner.children import EXIT_LATE, below, late_path
from runner.probing.fixtures import ASKED
from runner.probing.planning import Sitting

_LOOK_EVERY_S = 0.1


class Limits:
    """A plugin of pytest, and a thread that watches it.

    Args:
        verdicts: where the session's verdicts go; which suite took too long is said beside them (`late_path`).
    """

    def __init__(self, verdicts: Path) -> None:
        self._verdicts = verdicts
        self._used_s: dict[Sitting, float] = {}
        self._at: tuple[Sitting, float, float] | None = None
        """What is asked now, since when, and until when it may be."""
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="limits", daemon=True).start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """The time of its suite runs from here; replies were generated before."""
        asked = item.stash.get(ASKED, None)
        if asked is None or (run := asked.ask.sitting.target.run) is None:
            return
        sitting = asked.ask.sitting
        if (suite := run.recipe.probes.get(sitting.suite)) is None:
            return
        now = time.monotonic()
        self._at = sitting, now, now + max(suite.timeout_s - self._used_s.get(sitting, 0.0), 0.0)

    @pytest.hookimpl
    def pytest_runtest_logfinish(self) -> None:
        """It returned."""
        if self._at is not None:
            sitting, began, _ = self._at
            self._at = None
            self._used_s[sitting] = self._used_s.get(sitting, 0.0) + time.monotonic() - began

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        """Nothing is watched any more."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            at = self._at
            if at is not None and time.monotonic() > at[2]:
                self._end(at[0].suite)

    def _end(self, suite: str) -> None:
        """Say where it is, end what it started, and leave without a word to pytest, which waits for the test."""
        publish_text(late_path(self._verdicts), suite)
        sys.stderr.flush()
        faulthandler.dump_traceback(file=2)
        for pid in below(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(EXIT_LATE)
