"""Collecting: a test per suite, checkpoint and case, and a gate for every suite that is asked whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner.asking import Probe, declared
from runner.errors import first_line
from runner.gate import Decision
from runner.probing.fixtures import ASKED, PARAMETER, unknown_argument
from runner.probing.gates import GateItem
from runner.probing.judging import Baselines, Judge
from runner.probing.misses import Escaped
from runner.probing.outcomes import Asked, Outcomes
from runner.probing.planning import Ask, Defined, Planner, Sitting
from runner.probing.targets import Target

Place = tuple[type | None, object]
"""A probe as it was collected: its class, if any, and its function. A class hands it down to others."""

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
    probe_ids: dict[Place, str] = field(default_factory=dict)
    waiting: dict[Target, list[Asked]] = field(default_factory=dict)
    """Cases whose replies are still to be generated."""
    uncollected: dict[Path, str] = field(default_factory=dict)
    """Files that could not be collected, with the reason."""

    def judged(self) -> list[tuple[Sitting, Decision]]:
        """What every suite came to at every checkpoint, in the order they were asked."""
        return [
            (sitting, decision)
            for target in self.planner.targets
            for sitting, decision in self.judge.at(target).items()
            if not self.planner.planned[sitting].suite.is_control
        ]

    def control_of(self, item: pytest.Item, probe: Probe) -> Place | None:
        """Where the control of a test was collected: in the test's own class, else outside of all, else in another."""
        there = [place for place in self.probe_ids if place[1] is probe.given]
        own = getattr(item, "cls", None)
        return min(there, key=lambda place: (place[0] is not own, place[0] is not None), default=None)


class Collecting:
    """From probe functions to what is asked."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ids: dict[Ask, str] = {}
        """Their part of a test's id."""
        self._made: dict[tuple[Place, str, str], list[pytest.Item]] = {}
        """Tests by probe, label of the checkpoint and id of the case."""
        self._classes: dict[str, Path] = {}
        """The file of every class with probes, by node id."""
        self._opened: set[str] = set()
        """Node ids of the classes that were looked into."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> None:
        """Note that a class is looked into; pytest leaves those out that it was given a narrower id than."""
        self._opened.add(collector.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test per suite, checkpoint and case."""
        probe = declared(metafunc.function)
        if probe is None:
            return
        # the one place where pytest hands over a path: it may lead through links
        file = metafunc.definition.path.resolve()
        code = getattr(metafunc.function, "__code__", None)
        source = Path(code.co_filename).resolve() if code else file
        patterns = metafunc.config.getini("python_files")
        is_imported = source != file and any(fnmatch(source.name, pattern) for pattern in patterns)
        defined = Defined(probe, file, _written(metafunc.cls, metafunc.function), is_imported)
        followers = _followers(metafunc.module, metafunc.cls, metafunc.function, file)
        asks = self._session.planner.asks(defined, followers)
        if asks:
            self._session.probe_ids[metafunc.cls, metafunc.function] = asks[0].probe_id
            ids = _distinct([ask.id for ask in asks])
            self._ids.update(zip(asks, ids, strict=True))
            metafunc.parametrize(PARAMETER, asks, indirect=True, ids=ids)
        elif self._session.planner.has_nothing_to_ask(defined):
            self._session.outcomes.notes[
                f"{file.name}::{defined.function} is not asked: it has no cases of its own, and no recipe's suite "
                "gives it any; @probe(cases=…) does"
            ] = None

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makeitem(self, obj: object) -> Generator[None, Any, Any]:
        """Count a probe's tests; one that is asked nothing has none."""
        made = yield
        if isinstance(made, pytest.Class) and any(_probes_in(made.obj)):
            self._classes[made.nodeid] = made.path.resolve()
        if not isinstance(made, list) or declared(obj) is None:
            return made
        tests = self._session.outcomes.tests
        items = []
        for item in made:
            ask = _ask_of(item)
            if ask is not None:
                tests[ask.sitting] = tests.get(ask.sitting, 0) + 1
                items.append(item)
                same = (item.cls, item.function), ask.sitting.target.label, ask.case.id
                self._made.setdefault(same, []).append(item)
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
        self._session.uncollected[path] = first_line(lines[0].removeprefix("E ").strip() if lines else "")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None]:
        """Controls come before the probes that are asked only where they passed; they come too where pytest was given
        the id of such a probe. What is deselected by word or mark stays so."""
        self._add_controls(items)
        yield
        depth = {id(item): _depth(item) for item in items}
        seen = 0
        for item in items:
            if depth[id(item)] < seen:
                items.sort(key=lambda item: depth[id(item)])  # stable: everything else keeps its place
                return
            seen = depth[id(item)]

    def _add_controls(self, items: list[pytest.Item]) -> None:
        chosen = {id(item) for item in items}
        added: dict[object, list[pytest.Item]] = {}
        waiting = list(items)
        while waiting:
            for control in self._controls(waiting.pop()):
                if id(control) not in chosen:
                    chosen.add(id(control))
                    added.setdefault(control.getparent(pytest.Module), []).append(control)
                    waiting.append(control)  # it may have one itself
        whole: list[pytest.Item] = []
        for item in items if added else ():
            whole += [*added.pop(item.getparent(pytest.Module), ())[::-1], item]
        items[:] = whole or items

    def _controls(self, item: pytest.Item) -> list[pytest.Item]:
        """The tests that ask the control of this one about the same case; they stand in the same file."""
        ask = _ask_of(item)
        place = self._session.control_of(item, ask.probe) if ask is not None and ask.probe.given is not None else None
        if ask is None or place is None:
            return []
        return self._made.get((place, ask.sitting.target.label, ask.case.id), [])

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what is to be asked, and append a gate for every suite that is asked whole.

        Raises:
            pytest.UsageError: a suite of `--probe-suite` is none.
        """
        here = self._session
        if not here.uncollected and (unknown := here.planner.unknown()) is not None:
            raise pytest.UsageError(unknown.screen())
        unseen = {file for node, file in self._classes.items() if node not in self._opened}
        here.outcomes.partial.update(
            sitting
            for sitting, plan in here.planner.planned.items()
            if plan.suite.function is None and plan.suite.file in unseen
        )
        selected: dict[Sitting, list[pytest.Item]] = {}
        for item in session.items:
            ask = _ask_of(item)
            if ask is not None:
                unfit = item.stash.get(_UNFIT, "")
                asked = Asked(replace(ask, problem=unfit) if unfit else ask, self._case_id(item, ask))
                item.stash[ASKED] = asked
                here.waiting.setdefault(ask.sitting.target, []).append(asked)
                selected.setdefault(ask.sitting, []).append(item)
        for sitting, items in selected.items():
            rule = here.planner.gate(sitting)
            whole = sitting not in here.outcomes.partial and len(items) == here.outcomes.tests[sitting]
            if rule is not None and whole:
                here.judge.gated[sitting] = rule
                module = items[0].getparent(pytest.Module)
                assert module is not None  # a probe is a function, and stands in a module
                name = f"{sitting.suite}-{sitting.target.label}"
                session.items.append(GateItem.build(module, name, partial(here.judge.decide, sitting)))

    def _case_id(self, item: pytest.Item, ask: Ask) -> str:
        """The case's id, with what `parametrize` added to the test's."""
        parts: list[str] = item.callspec._idlist  # type: ignore[attr-defined]
        return "-".join([ask.case.id, *(part for part in parts if part != self._ids[ask])])


def _ask_of(item: object) -> Ask | None:
    callspec = getattr(item, "callspec", None)
    ask = callspec.params.get(PARAMETER) if callspec else None
    return ask if isinstance(ask, Ask) else None


def _distinct(ids: Sequence[str]) -> list[str]:
    """The same ids, with a number behind those that came before: `a-b` with `c` reads as `a` with `b-c`."""
    taken, found = set(ids), dict.fromkeys(ids, 0)
    made = []
    for name in ids:
        found[name] += 1
        new, number = name, found[name]
        while number > 1 and new in taken:
            new, number = f"{name}_{number}", number + 1
        taken.add(new)
        made.append(new)
    return made


def _written(cls: type | None, function: Callable[..., object]) -> str:
    """A function as pytest writes it, also of a class within a class."""
    return f"{cls.__qualname__.replace('.', '::')}::{function.__name__}" if cls else function.__name__


def _probes_in(holder: object) -> Iterator[tuple[type | None, Callable[..., object], Probe]]:
    """The probes of a module or class, inherited ones and those of classes in it included."""
    for name in dir(holder):
        value = inspect.getattr_static(holder, name, None)
        probe = declared(value)
        if probe is not None and callable(value):
            yield (holder if isinstance(holder, type) else None), value, probe
        elif isinstance(value, type) and not name.startswith("__"):
            yield from _probes_in(value)


def _followers(module: object, cls: type | None, control: object, file: Path) -> list[Defined]:
    """The probes of a file that are asked only where this one passed, and those that follow these."""
    followers: list[Defined] = []
    for holder, function, probe in _probes_in(module):
        if probe.given is control and function is not control and (cls is None or holder in (cls, None)):
            followers.append(Defined(probe, file, _written(holder, function)))
            followers += _followers(module, holder, function, file)
    return followers


def _depth(item: pytest.Item) -> int:
    """How many controls stand before a probe."""
    probe, depth = declared(getattr(item, "obj", None)), 0
    while probe is not None and probe.given is not None:
        probe, depth = declared(probe.given), depth + 1
    return depth
