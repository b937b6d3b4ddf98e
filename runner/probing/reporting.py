"""Reporting: gated misses by their own name, verdict files, and the table at the end."""

from __future__ import annotations

import pytest

from runner import verdicts
from runner.errors import printable
from runner.probing import alike
from runner.probing.collecting import Session
from runner.probing.outcomes import write
from runner.probing.planning import Suite
from runner.probing.store import Store
from runner.probing.targets import Target
from runner.refused import refusal

Status = tuple[str, str, tuple[str, dict[str, bool]]]
"""Category, letter, and word with its colours."""


class Reporting:
    """From verdicts to files and screens."""

    def __init__(self, session: Session, store: Store | None) -> None:
        self._session = session
        self._store = store

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Status | None:
        """A gated miss is a category of its own."""
        if getattr(report, "probe_missed", False):
            return "missed", "m", ("MISS", {"yellow": True})
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gated misses enter the memory of --lf."""
        if getattr(report, "probe_missed", False):
            memory = self._session.config.pluginmanager.get_plugin("lfplugin")
            if memory is not None:
                memory.lastfailed[getattr(report, "id", report.nodeid)] = True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the verdicts, unless the session was broken off; before pytest shows what failed."""
        config = self._session.config
        alike.show_once(config)
        path = config.getoption("--probe-verdicts")
        if path is None or exitstatus not in (
            pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED
        ):  # fmt: skip
            return
        asked = [target for target in self._session.planner.targets if not target.is_baseline]
        try:
            write([(target, self._file(target)) for target in asked], config.invocation_params.dir / path)
        except OSError as error:
            if (refused := refusal(error)) is None:
                raise
            pytest.exit(f"no verdicts were written: {refused.screen()}", pytest.ExitCode.INTERNAL_ERROR)

    def _file(self, target: Target) -> verdicts.VerdictFile:
        planner, outcomes, uncollected = self._session.planner, self._session.outcomes, self._session.uncollected
        planned = [
            (sitting, plan)
            for sitting, plan in planner.planned.items()
            if sitting.target == target
            and not plan.suite.is_control
            # of a file that could not be collected to its end, nothing was asked
            and (plan.suite.file not in uncollected or outcomes.of(sitting))
        ]
        there = {sitting.suite for sitting, _ in planned}
        missing = {
            suite: uncollected.get(suite.file, "no probe of it was collected")
            for suite in planner.wanted(target)
            if suite.name not in there
        }
        if target.run is None:  # no recipe says which suites a file has: the file stands for them
            asked = {plan.suite.file for _, plan in planned}
            missing |= {Suite.of_file(file): reason for file, reason in uncollected.items() if file not in asked}
        return outcomes.file(target, planned, missing)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of suites and checkpoints, and what the author should know besides."""
        from runner.probing.summary import show

        session = self._session
        if judged := session.judged():
            show(judged, terminalreporter)
        notes = [*session.outcomes.notes, *(self._store.report() if self._store is not None else ())]
        for note in notes:
            terminalreporter.write_line(printable(note))
