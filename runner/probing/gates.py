"""The test that stands for a gate: one per suite and checkpoint, after all cases, red with reasons and lost cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import UserError, printable
from runner.gate import Decision
from runner.probing.misses import Crash

_SHOWN = 10
"""Lost cases shown in full; the rest are in the verdict file."""


class GateRed(Exception):
    """A gate did not hold."""

    def __init__(self, decision: Decision) -> None:
        super().__init__("; ".join(decision.reasons))
        self.decision = decision


class GateItem(pytest.Item):
    """`gate[suite-checkpoint]`."""

    judge: Callable[[], Decision]

    @classmethod
    def build(cls, parent: pytest.Collector, name: str, judge: Callable[[], Decision]) -> GateItem:
        """The item `gate[name]` of a probe file; `judge` is called once all cases have run."""
        item: GateItem = cls.from_parent(parent, name=f"gate[{name}]")
        item.judge = judge
        return item

    def runtest(self) -> None:
        """Judge, and fail where the gate is red, or was called before its cases."""
        decision = self.judge()
        if decision.broken_off:
            raise UserError(decision.notes[0])
        if decision.green is False:
            raise GateRed(decision)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Reasons and lost cases instead of a traceback."""
        if isinstance(excinfo.value, GateRed):
            return RedGate(str(self.path), self.name, excinfo.value.decision)
        if isinstance(excinfo.value, UserError):
            return excinfo.value.screen()
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it is listed: with its probe file."""
        return self.path, None, self.name


class RedGate:
    """How pytest shows a red gate."""

    def __init__(self, path: str, name: str, decision: Decision) -> None:
        self._decision = decision
        self.reprcrash = Crash(path, 1, f"red: {printable('; '.join(decision.reasons))}")

    def __str__(self) -> str:
        decision = self._decision
        lines = [f"suite {decision.suite}", *(f"E   {printable(reason)}" for reason in decision.reasons)]
        lines += [f"    {note}" for note in decision.notes]
        for flip in decision.lost[:_SHOWN]:
            lines += [
                f"lost {flip.case_id}{' (by a hair)' if flip.fragile else ''}   {printable(flip.after.prompt)}",
                f"    {flip.before.ckpt or 'before'}: {printable(flip.before.reply)}",
                f"    {flip.after.ckpt or 'now'}: {printable(flip.after.reply)}",
            ]
        if len(decision.lost) > _SHOWN:
            lines.append(f"… and {len(decision.lost) - _SHOWN} more lost cases")
        return "\n".join(lines)
