"""Running: replies before the first test of a checkpoint, then test by test what it asks for and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import replace

import pytest

from runner.errors import UserError, first_line, printable
from runner.gate import compare, is_pinned
from runner.probing import alike
from runner.probing.answerers import How
from runner.probing.collecting import Session
from runner.probing.fixtures import ASKED, Fixtures, hand_over
from runner.probing.misses import escaped, miss, shown_safely
from runner.probing.outcomes import Asked
from runner.probing.planning import Ask, Sitting
from runner.probing.replies import Said, generate, questions_of
from runner.probing.siblings import Known, answered_together, siblings_of
from runner.probing.store import Store
from runner.probing.targets import Target
from runner.probing.training_rows import look
from runner.probing.waiting import waiting
from runner.probing.workers import NO_WORKERS, NoWorkers, Workers, number_wanted


class Running(Fixtures):
    """From what is asked to verdicts."""

    def __init__(self, session: Session, store: Store | None) -> None:
        self._session = session
        self._store = store
        self._concise = session.config.getoption("tbstyle") in ("auto", "no", "line")
        self._opened: list[logging.Logger] = []
        self._told: dict[Target, Known] = {}
        """What adapters answered in one batch with others, until their turn comes."""
        self._workers: Workers | NoWorkers | None = None
        self._said: dict[tuple[str, str, str], Said] = {}
        """By suite, probe and case: what the baseline said in this session."""
        self._recorded: dict[Sitting, dict[tuple[str, str], Said]] = {}
        """By probe and case: what was recorded of it before."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Generate all replies of a checkpoint before its first test starts, so that no test is blamed for the time."""
        asked = item.stash.get(ASKED, None)
        if asked is None or asked.ask.sitting.target not in self._session.waiting:
            return
        baseline = self._session.baseline
        for target in dict.fromkeys((baseline, asked.ask.sitting.target)):  # what is compared with comes first
            if target is not None and target in self._session.waiting:
                with waiting(self._session.config):
                    self._generate(target, self._session.waiting.pop(target))
        self._open_loggers()

    def _generate(self, target: Target, waiting: list[Asked]) -> None:
        option = self._session.config.getoption
        how = How(option("--probe-dtype"), option("--probe-batch-tokens"), self._store)
        asks = [one.ask for one in waiting]
        told = self._told_by_workers(target, asks, how) or self._told_together(target, asks, how)
        made = generate(target, asks, how, lambda place: self._before(waiting[place]), told)
        self._session.outcomes.notes.update((note, None) for note in made.notes)
        for one, generated in zip(waiting, made.made, strict=True):
            one.generated = generated
        self._look_for_leaks(target, waiting)
        if target is self._session.baseline:
            for one in waiting:
                if one.generated.replies:
                    said = Said(one.generated.rendered.digest, str(one.generated.replies[0]))
                    self._said[(one.ask.sitting.suite, one.ask.probe_id, one.case_id)] = said

    def _told_by_workers(self, target: Target, asks: list[Ask], how: How) -> Known:
        """What a process with a device of its own was told by this checkpoint, where there are several of them."""
        if self._workers is None:
            here = {target: asks, **{one: [ask.ask for ask in of] for one, of in self._session.waiting.items()}}
            local = {one: questions_of(of) for one, of in here.items() if one.endpoint is None and not one.problem}
            number = min(number_wanted(self._session.config.getoption("--probe-workers")), len(local))
            self._workers = Workers(number, local, how) if number > 1 else NO_WORKERS
        known, notes = self._workers.answers(target)
        self._session.outcomes.notes.update(dict.fromkeys(notes))
        return known

    def _told_together(self, target: Target, asks: list[Ask], how: How) -> Known:
        """What this adapter answered in one batch with those of the same base that still wait; all are asked now."""
        if (
            self._workers is NO_WORKERS
            and target not in self._told
            and (family := siblings_of(target, list(self._session.waiting)))
        ):
            questions = {one: questions_of([ask.ask for ask in self._session.waiting[one]]) for one in family[1:]}
            told = answered_together({target: questions_of(asks), **questions}, how)
            self._told |= told
            if told:
                self._session.outcomes.notes[f"{len(told)} adapters of one base were asked in one batch"] = None
        return self._told.pop(target, {})

    def _look_for_leaks(self, target: Target, waiting: list[Asked]) -> None:
        """Note which questions stand in the rows of training; where a suite forbids it, that is an error."""
        suites = {one.ask.sitting.suite: self._session.planner.planned[one.ask.sitting].suite for one in waiting}
        expected = {name for name, suite in suites.items() if suite.leaks == "expected"}
        found = look(target, [one.ask for one in waiting], [one.generated.rendered for one in waiting], expected)
        self._session.outcomes.notes.update((note, None) for note in found.notes)
        for one, (leak, ref) in zip(waiting, found.leaks, strict=True):
            one.leak = leak
            if leak == "question" and suites[one.ask.sitting.suite].leaks == "fail" and not one.generated.error:
                error = f"leaked: its question stands in {ref}, which this checkpoint was trained on"
                one.generated = replace(one.generated, error=error)

    def _before(self, asked: Asked) -> Said | None:
        """What the baseline said, asked in this session or before it."""
        sitting, identity = asked.ask.sitting, (asked.ask.probe_id, asked.case_id)
        if (said := self._said.get((sitting.suite, *identity))) is not None:
            return said if sitting.target is not self._session.baseline else None
        if sitting not in self._recorded:
            try:
                found = self._session.baselines.of(sitting, self._session.judge.gated.get(sitting)).verdicts
            except UserError:
                found = ()  # the gate will say so
            self._recorded[sitting] = {one.identity: Said(one.question, one.reply) for one in found}
        return self._recorded[sitting].get(identity)

    def _open_loggers(self) -> None:
        """Let torch's loggers pass on to the root logger until the session ends. pytest attaches two handlers to each
        logger that does not, in every phase of every test: to torch's fifty, a sixth of what a case costs."""
        for name, logger in logging.root.manager.loggerDict.items():
            if name.partition(".")[0] == "torch" and isinstance(logger, logging.Logger) and not logger.propagate:
                logger.propagate = True
                self._opened.append(logger)

    def pytest_unconfigure(self) -> None:
        """Leave everything as it was found."""
        for logger in self._opened:
            logger.propagate = False
        if self._workers is not None:
            self._workers.close()
        if self._store is not None:
            self._store.close()

    @pytest.hookimpl
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Fail where there is no reply, skip where the control missed, else hand the test what it asks for. Markers
        come first: a test that is skipped anyway says so."""
        asked = item.stash.get(ASKED, None)
        if asked is None:
            return
        if asked.generated.error:
            pytest.fail(asked.generated.error, pytrace=False)
        control = asked.ask.probe.given
        if control is not None:
            name, place = getattr(control, "__name__", str(control)), self._session.control_of(item, asked.ask.probe)
            if place is None:
                pytest.fail(f"its control {name} is not asked: define it as a test of the same file", pytrace=False)
            if self._session.outcomes.control_missed(asked, self._session.probe_ids[place]):
                pytest.skip(f"its control {name} did not pass")
        hand_over(item, asked)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn what a test did into a verdict; a miss that only the gate judges does not fail."""
        asked = item.stash.get(ASKED, None)
        if asked is None:
            return (yield)
        error = call.excinfo.value if call.excinfo else None
        if self._concise and isinstance(error, AssertionError) and call.when == "call":
            note = f", pinned, passed at {before}" if (before := self._pinned_and_lost(asked)) else ""
            made = asked.generated
            shown = miss(error, str(item.path), asked.ask.sitting.target.label, made.prompt, made.replies, note)
            item.repr_failure = lambda *_, **__: shown  # type: ignore[method-assign, assignment]
        report = yield
        _escape(report)
        if report.failed and not isinstance(error, AssertionError):
            alike.mark(report)
        self._conclude(asked, call)
        if asked.outcome == "miss" and report.failed and self._excused(asked):
            report.outcome = "skipped"
            report.wasxfail = f"missed: {printable(asked.reason)}"
            report.probe_missed = True  # type: ignore[attr-defined]
        return report

    def _conclude(self, asked: Asked, call: pytest.CallInfo[None]) -> None:
        """Note the outcome of one phase of a test."""
        error = call.excinfo.value if call.excinfo else None
        if error is None:
            if call.when != "call":
                return
            asked.outcome = "pass"
        elif isinstance(error, pytest.skip.Exception):
            asked.outcome, asked.reason = "not_asked", str(error.msg)
        elif call.when == "call" and isinstance(error, (AssertionError, pytest.fail.Exception)):
            asked.outcome, asked.reason = "miss", first_line(str(error)) or "assertion failed"
        else:
            named = "" if isinstance(error, pytest.fail.Exception) else f"{type(error).__name__}: "
            asked.outcome, asked.reason = "error", first_line(f"{named}{error}")
        self._session.outcomes.put(asked)

    def _excused(self, asked: Asked) -> bool:
        """Whether a gate judges this miss, or it was asked only to be compared with."""
        sitting = asked.ask.sitting
        return sitting.target.is_baseline or (sitting in self._session.judge.gated and not self._pinned_and_lost(asked))

    def _pinned_and_lost(self, asked: Asked) -> str:
        """The baseline at which a pinned case passed that missed now; empty where it is not pinned, or not lost."""
        rule = self._session.judge.gated.get(asked.ask.sitting)
        if rule is None or not rule.pinned or not is_pinned(rule, asked.case_id):
            return ""
        try:
            before = self._session.baselines.of(asked.ask.sitting, rule).verdicts
        except UserError:
            return ""  # the gate says so, and is red
        now = asked.verdict("miss")
        # as the gate counts: a case that asks something else now, or whose assert changed, is not lost
        lost = compare([now], [then for then in before if then.identity == now.identity]).lost
        return (lost[0].before.ckpt or "the baseline") if lost else ""


def _escape(report: pytest.TestReport) -> None:
    """Everything that pytest will show of this test, safe for a terminal."""
    if isinstance(report.longrepr, tuple):
        path, line, reason = report.longrepr
        report.longrepr = (path, line, printable(reason))
    elif report.longrepr is not None:
        report.longrepr = shown_safely(report.longrepr)  # type: ignore[assignment]
    if hasattr(report, "wasxfail"):
        report.wasxfail = printable(report.wasxfail)
    if report.sections:
        report.sections = [(name, escaped(content)) for name, content in report.sections]
