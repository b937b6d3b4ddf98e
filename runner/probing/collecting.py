"""Collecting: a test per suite, checkpoint and case, and a gate for every suite that is asked whole."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner.asking import declared
from runner.errors import first_line
from runner.gate import Decision
from runner.probing.fixtures import ASKED, PARAMETER, unknown_argument
from runner.probing.gates import GateItem
from runner.probing.judging import Baselines, Judge
from runner.probing.misses import Escaped
from runner.probing.outcomes import Asked, Outcomes
from runner.probing.planning import Ask, Planner, Sitting
from runner.probing.targets import Target

_UNFIT = pytest.StashKey[str]()
"""Why the function of a test cannot be called."""


@dataclass
class Session:
    """What is known of one pytest session; collecting, asking and reporting share it."""

    config: pytest.Config
    planner: Planner
    outcomes: Outcomes
    baselines: Baselines
    judge: Judge
    baseline: Target | None = None
    """The checkpoint that `--probe-baseline` names."""
    probe_ids: dict[object, str] = field(default_factory=dict)
    """By function."""
    waiting: dict[Target, list[Asked]] = field(default_factory=dict)
    """Cases whose replies are still to be generated."""
    uncollected: dict[Path, str] = field(default_factory=dict)
    """Files that could not be collected, with the reason."""

    def judged(self) -> list[tuple[Sitting, Decision]]:
        """What every suite came to at every checkpoint, in the order they were asked."""
        return [found for target in self.planner.targets for found in self.judge.at(target).items()]


class Collecting:
    """From probe functions to what is asked."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test per suite, checkpoint and case."""
        probe = declared(metafunc.function)
        if probe is None:
            return
        name = metafunc.function.__name__
        # a class within a class is written as pytest writes it
        function = f"{metafunc.cls.__qualname__.replace('.', '::')}::{name}" if metafunc.cls else name
        asks = self._session.planner.asks(probe, metafunc.definition.path, function)
        if asks:
            self._session.probe_ids[metafunc.function] = asks[0].probe_id
            metafunc.parametrize(PARAMETER, asks, indirect=True, ids=[ask.id for ask in asks])

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self, obj: object) -> Generator[None, Any, Any]:
        """Count a probe's tests; one that is asked nothing has none."""
        made = yield
        if not isinstance(made, list) or declared(obj) is None:
            return made
        tests = self._session.outcomes.tests
        items = []
        for item in made:
            ask = _ask_of(item)
            if ask is not None:
                tests[ask.sitting] = tests.get(ask.sitting, 0) + 1
                items.append(item)
        unfit = unknown_argument(items[0]) if items else ""
        for item in items if unfit else ():
            item.stash[_UNFIT] = unfit
        return items

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember which files could not be collected: their suites get a verdict that says so."""
        if not report.failed:
            return
        path = (self._session.config.rootpath / report.nodeid.partition("::")[0]).resolve()
        said = report.longreprtext
        # a traceback ends with the error, what this project says of a probe begins with it
        lines = said.splitlines() if isinstance(report.longrepr, Escaped) else said.splitlines()[-1:]
        self._session.uncollected[path] = first_line(lines[0] if lines else "")

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
        here = self._session
        selected: dict[Sitting, list[pytest.Item]] = {}
        for item in session.items:
            ask = _ask_of(item)
            if ask is not None:
                unfit = item.stash.get(_UNFIT, "")
                asked = Asked(replace(ask, problem=unfit) if unfit else ask, _case_id(item, ask))
                item.stash[ASKED] = asked
                here.waiting.setdefault(ask.sitting.target, []).append(asked)
                selected.setdefault(ask.sitting, []).append(item)
        for sitting, items in selected.items():
            rule = here.planner.gate(sitting)
            if rule is not None and len(items) == here.outcomes.tests[sitting]:
                here.judge.gated[sitting] = rule
                module = items[0].getparent(pytest.Module)
                assert module is not None  # a probe is a function, and stands in a module
                name = f"{sitting.suite}-{sitting.target.label}"
                session.items.append(GateItem.build(module, name, partial(here.judge.decide, sitting)))


def _ask_of(item: object) -> Ask | None:
    callspec = getattr(item, "callspec", None)
    ask = callspec.params.get(PARAMETER) if callspec else None
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
