"""The fixtures of probes, `case`, `reply`, `replies` and `record`, and the quick way a test is handed them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runner.asking import Case, Reply
from runner.errors import BadProbe, nearest
from runner.probing.outcomes import Asked

PARAMETER = "_asking"
ASKED = pytest.StashKey[Asked]()
OWN = ("case", "reply", "replies", "record")


class Fixtures:
    """What the functions of probes, and other fixtures, may take."""

    @pytest.fixture(name=PARAMETER, autouse=True)
    def _asking(self, request: pytest.FixtureRequest) -> Asked | None:
        """The case of this test, for fixtures of other names that ask for one of those below."""
        found: Asked | None = request.node.stash.get(ASKED, None)
        return found

    @pytest.fixture(name="case")
    def _case(self, _asking: Asked | None) -> Case:
        """The row a probe is asked about."""
        return _in_probe(_asking).case

    @pytest.fixture(name="reply")
    def _reply(self, _asking: Asked | None) -> Reply:
        """What the model said: a string with `tokens`, `stop_reason`, `margin`, `logprob` and `thinking`."""
        return _in_probe(_asking).generated.replies[0]

    @pytest.fixture(name="replies")
    def _replies(self, _asking: Asked | None) -> tuple[Reply, ...]:
        """All samples; `reply` is the first of them."""
        return _in_probe(_asking).generated.replies

    @pytest.fixture(name="record")
    def _record(self, _asking: Asked | None) -> Callable[..., None]:
        """`record(name=number)` puts a number into the verdict."""
        return _in_probe(_asking).record


def hand_over(item: pytest.Item, asked: Asked) -> None:
    """Give a test its arguments. pytest looks up only those that are not there: this spares five fixtures a case, a
    third of its own cost. A name that somebody has a fixture of their own for is left to pytest."""
    fixtures = getattr(item, "_fixtureinfo", None)
    if fixtures is None:
        return
    made = asked.generated
    arguments: dict[str, object] = {
        PARAMETER: asked, "case": asked.case, "reply": made.replies[0], "replies": made.replies,
        "record": asked.record,
    }  # fmt: skip
    known = fixtures.name2fixturedefs
    filled: dict[str, object] = item.funcargs  # type: ignore[attr-defined]
    filled.update((name, value) for name, value in arguments.items() if len(known.get(name, ())) == 1)


def unknown_argument(item: pytest.Item) -> str:
    """Why a probe cannot be called, where one of its parameters is no fixture; empty otherwise."""
    fixtures = getattr(item, "_fixtureinfo", None)
    callspec = getattr(item, "callspec", None)
    if fixtures is None or callspec is None:
        return ""
    for name in fixtures.argnames:
        if name not in fixtures.name2fixturedefs and name not in callspec.params and name != "request":
            close = nearest(name, [*OWN, *fixtures.name2fixturedefs])
            return BadProbe(
                f"{item.name.partition('[')[0]} takes {name!r}, which is no fixture",
                expected=f"{', '.join(OWN)}, or a fixture of pytest",
                hint=f"did you mean {close!r}?" if close else None,
            ).screen()
    return ""


def _in_probe(asked: Asked | None) -> Asked:
    if asked is None:
        raise BadProbe(
            "case, reply, replies and record belong to probes", hint="decorate the function with runner.probe"
        )
    return asked
