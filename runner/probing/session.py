"""The plugin while checkpoints are asked: a test per case, replies in batches, verdicts, gates."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner import verdicts
from runner.asking import Case, Reply, declared
from runner.errors import BadProbe, UserError, first_line
from runner.gate import is_pinned
from runner.probing.gates import GateItem
from runner.probing.judging import Baselines, Judge
from runner.probing.misses import miss
from runner.probing.outcomes import Asked, Outcomes, write
from runner.probing.planning import Ask, Planner, Sitting
from runner.probing.replies import How, generate
from runner.probing.targets import Target, find, find_baseline, is_checkpoint

_PARAMETER = "_asking"
_ASKED = pytest.StashKey[Asked]()
Status = tuple[str, str, tuple[str, dict[str, bool]]]
"""Category, letter, and word with its colours."""


def start(config: pytest.Config) -> None:
    """Find the checkpoints that the options name and register the prober.

    Raises:
        UserError: they cannot be asked so.
    """
    invocation, rootdir = config.invocation_params.dir, config.rootpath
    for argument in config.args:
        if is_checkpoint(invocation / argument):
            raise UserError(
                f"{argument} is a checkpoint, and stands where pytest expects a test file",
                hint="give every checkpoint with --ckpt of its own, and quote a glob: --ckpt 'out/checkpoint-*'",
            )
    if hasattr(config, "workerinput") or config.getoption("numprocesses", None):
        raise UserError(
            "probes cannot be spread over processes: each would load the checkpoint and batch a part of the prompts",
            hint="leave -n away for probes; all replies of a checkpoint are generated in a few large batches",
        )
    asked = find(config.getoption("--ckpt"), invocation, rootdir)
    baseline: Target | verdicts.VerdictFile | None = None
    if wanted := config.getoption("--probe-baseline"):
        path = invocation / wanted
        baseline = verdicts.read(path) if path.is_file() else find_baseline(wanted, asked, invocation, rootdir)
        if isinstance(baseline, Target) and baseline not in asked and not baseline.has_verdicts():
            asked = [baseline, *asked]
    only = config.getoption("--probe-suite")
    prober = Prober(config, Planner(asked, only, rootdir), baseline)
    config.pluginmanager.register(prober, "recipe-prober")


class Prober:
    """One pytest session's probing."""

    def __init__(self, config: pytest.Config, planner: Planner, baseline: Target | verdicts.VerdictFile | None) -> None:
        self._config = config
        self._planner = planner
        self._outcomes = Outcomes()
        self._baselines = Baselines(baseline, self._outcomes)
        self.judge = Judge(planner, self._outcomes, self._baselines)
        self._probe_ids: dict[object, str] = {}
        self._tests: dict[Sitting, int] = {}
        """How many tests each suite has at each checkpoint, before anything is deselected."""
        self._waiting: dict[Target, list[Asked]] = {}
        self._uncollected: dict[Path, str] = {}

    # --- collecting ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test per suite, checkpoint and case."""
        probe = declared(metafunc.function)
        if probe is None:
            return
        name = metafunc.function.__name__
        function = f"{metafunc.cls.__name__}::{name}" if metafunc.cls else name
        try:
            asks = self._planner.asks(probe, metafunc.definition.path, function)
        except UserError as error:
            raise pytest.Collector.CollectError(error.screen()) from error
        if asks:
            self._probe_ids[metafunc.function] = asks[0].probe_id
            metafunc.parametrize(_PARAMETER, asks, indirect=True, ids=[ask.id for ask in asks])

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self, obj: object) -> Generator[None, Any, Any]:
        """Count a probe's tests; one that is asked nothing has none."""
        made = yield
        if not isinstance(made, list) or declared(obj) is None:
            return made
        asks = [_ask_of(item) for item in made]
        for ask in asks:
            if ask is not None:
                self._tests[ask.sitting] = self._tests.get(ask.sitting, 0) + 1
        return [item for item, ask in zip(made, asks, strict=True) if ask is not None]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember which files could not be collected: their suites get a verdict that says so."""
        if report.failed:
            path = (self._config.rootpath / report.nodeid.partition("::")[0]).resolve()
            self._uncollected[path] = first_line(report.longreprtext.splitlines()[-1] if report.longreprtext else "")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Controls come before the probes that are asked only where they passed."""
        depth = {id(item): _depth(item) for item in items}
        seen = 0
        for item in items:
            if depth[id(item)] < seen:
                items.sort(key=lambda item: depth[id(item)])  # stable: everything else keeps its place
                return
            seen = depth[id(item)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what is to be asked, and append a gate for every suite that is asked whole."""
        selected: dict[Sitting, list[pytest.Item]] = {}
        for item in session.items:
            ask = _ask_of(item)
            if ask is not None:
                asked = Asked(ask, _case_id(item, ask))
                item.stash[_ASKED] = asked
                self._waiting.setdefault(ask.sitting.target, []).append(asked)
                selected.setdefault(ask.sitting, []).append(item)
        for sitting, items in selected.items():
            rule = self._planner.gate(sitting)
            if rule is not None and len(items) == self._tests[sitting]:
                self.judge.gated[sitting] = rule
                module = items[0].getparent(pytest.Module)
                assert module is not None  # a probe is a function, and stands in a module
                name = f"{sitting.suite}-{sitting.target.label}"
                session.items.append(GateItem.build(module, name, partial(self.judge.decide, sitting)))

    # --- asking ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Generate all replies of a checkpoint before its first test starts, so that no test is blamed for the time."""
        asked = item.stash.get(_ASKED, None)
        waiting = self._waiting.pop(asked.ask.sitting.target, None) if asked else None
        if asked is None or waiting is None:
            return
        how = How(self._config.getoption("--probe-dtype"), self._config.getoption("--probe-batch-tokens"))
        made = generate(asked.ask.sitting.target, [one.ask for one in waiting], how)
        for one, generated in zip(waiting, made, strict=True):
            one.generated = generated

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Fail where there is no reply, skip where the control missed, else hand the test what it asks for."""
        asked = item.stash.get(_ASKED, None)
        if asked is None:
            return
        if asked.generated.error:
            pytest.fail(asked.generated.error, pytrace=False)
        control = asked.ask.probe.given
        if control in self._probe_ids and self._outcomes.control_missed(asked, self._probe_ids[control]):
            pytest.skip(f"its control {getattr(control, '__name__', control)} did not pass")
        _hand_over(item, {_PARAMETER: asked, "case": asked.ask.case, "reply": asked.reply, "record": asked.record})

    @pytest.fixture(name=_PARAMETER, autouse=True)
    def _asking(self, request: pytest.FixtureRequest) -> Asked | None:
        """The case of this test, for fixtures of other names that ask for one of those below."""
        found: Asked | None = request.node.stash.get(_ASKED, None)
        return found

    @pytest.fixture(name="case")
    def _case(self, _asking: Asked | None) -> Case:
        """The row a probe is asked about."""
        return _in_probe(_asking).ask.case

    @pytest.fixture(name="reply")
    def _reply(self, _asking: Asked | None) -> Reply:
        """What the model said: a string with `tokens`, `stop_reason` and `margin`."""
        return _in_probe(_asking).reply

    @pytest.fixture(name="record")
    def _record(self, _asking: Asked | None) -> Callable[..., None]:
        """`record(name=number)` puts a number into the verdict."""
        return _in_probe(_asking).record

    # --- verdicts ---

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn what a test did into a verdict; a miss that only the gate judges does not fail."""
        asked = item.stash.get(_ASKED, None)
        if asked is None:
            return (yield)
        error = call.excinfo.value if call.excinfo else None
        concise = self._config.getoption("tbstyle") in ("auto", "no", "line")
        if concise and isinstance(error, AssertionError) and call.when == "call":
            note = f", pinned, passed at {before}" if (before := self._pinned_and_lost(asked)) else ""
            made = asked.generated
            shown = miss(error, str(item.path), asked.ask.sitting.target.label, made.prompt, made.text, note)
            item.repr_failure = lambda *_, **__: shown  # type: ignore[method-assign, assignment]
        report = yield
        self._conclude(asked, call, report)
        if asked.outcome == "miss" and report.failed and self._excused(asked):
            report.outcome = "skipped"
            report.wasxfail = f"missed: {asked.reason}"
            report.probe_missed = True  # type: ignore[attr-defined]
        return report

    def _conclude(self, asked: Asked, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
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
        self._outcomes.put(asked)

    def _excused(self, asked: Asked) -> bool:
        """Whether a gate judges this miss, or it was asked only to be compared with."""
        sitting = asked.ask.sitting
        return sitting.target.is_baseline or (sitting in self.judge.gated and not self._pinned_and_lost(asked))

    def _pinned_and_lost(self, asked: Asked) -> str:
        """The baseline at which a pinned case passed that missed now; empty where it is not pinned."""
        rule = self.judge.gated.get(asked.ask.sitting)
        if rule is None or not rule.pinned or not is_pinned(rule, asked.case_id):
            return ""
        before = self._baselines.of(asked.ask.sitting, rule) or ()
        same = next((found for found in before if found.identity == (asked.ask.probe_id, asked.case_id)), None)
        return (same.ckpt or "the baseline") if same is not None and same.outcome == "pass" else ""

    # --- reporting ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Status | None:
        """A gated miss is a category of its own."""
        if getattr(report, "probe_missed", False):
            return "missed", "m", ("MISS", {"yellow": True})
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gated misses enter the memory of --lf."""
        memory = self._config.pluginmanager.get_plugin("lfplugin")
        if memory is not None and getattr(report, "probe_missed", False):
            memory.lastfailed[getattr(report, "id", report.nodeid)] = True

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the verdicts, unless the session was broken off."""
        path = self._config.getoption("--probe-verdicts")
        if path is None or exitstatus not in (
            pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED
        ):  # fmt: skip
            return
        asked = [target for target in self._planner.targets if not target.is_baseline]
        write([(target, self._file(target)) for target in asked], self._config.invocation_params.dir / path)

    def _file(self, target: Target) -> verdicts.VerdictFile:
        planned = [
            (sitting, plan, self._tests.get(sitting, 0))
            for sitting, plan in self._planner.planned.items()
            if sitting.target == target
            # of a file that could not be collected to its end, nothing was asked
            and (plan.suite.file not in self._uncollected or self._outcomes.of(sitting))
        ]
        there = {sitting.suite for sitting, _, _ in planned}
        missing = {
            suite: self._uncollected.get(suite.file, "no probe of it was collected")
            for suite in self._planner.wanted(target)
            if suite.name not in there
        }
        return self._outcomes.file(target, planned, missing)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of suites and checkpoints."""
        from runner.probing.summary import show

        sittings = [sitting for sitting in self._planner.planned if self._outcomes.of(sitting)]
        if sittings:
            show([(sitting, self.judge.decide(sitting)) for sitting in sittings], terminalreporter)


def _ask_of(item: object) -> Ask | None:
    callspec = getattr(item, "callspec", None)
    ask = callspec.params.get(_PARAMETER) if callspec else None
    return ask if isinstance(ask, Ask) else None


def _case_id(item: pytest.Item, ask: Ask) -> str:
    """The case's id, with what `parametrize` added to the test's."""
    behind: str = item.callspec.id.removeprefix(ask.id)  # type: ignore[attr-defined]
    return ask.case.id + behind


def _depth(item: pytest.Item) -> int:
    """How many controls stand before a probe."""
    probe, depth = declared(getattr(item, "obj", None)), 0
    while probe is not None and probe.given is not None:
        probe, depth = declared(probe.given), depth + 1
    return depth


def _hand_over(item: pytest.Item, arguments: dict[str, object]) -> None:
    """Give a test its arguments. pytest looks up only those that are not there: this spares four fixtures a case, a
    third of its own cost. A name that somebody has a fixture of their own for is left to pytest."""
    fixtures = getattr(item, "_fixtureinfo", None)
    if fixtures is None:
        return
    known = fixtures.name2fixturedefs
    filled: dict[str, object] = item.funcargs  # type: ignore[attr-defined]
    filled.update((name, value) for name, value in arguments.items() if len(known.get(name, ())) == 1)


def _in_probe(asked: Asked | None) -> Asked:
    if asked is None:
        raise BadProbe("case, reply and record belong to probes", hint="decorate the function with runner.probe")
    return asked
