"""The checkpoints of a watched folder beside each other: what each gate says of each, and the exit code of them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.text import Text

from runner import gate, loadable, spec, tables
from runner.errors import EXIT_GATE_FAILED, EXIT_INTERRUPTED, EXIT_TRAINING_FAILED
from runner.gate import Matter, is_significant
from runner.tables import CheckpointRow
from runner.verdicts import SuiteAsked, VerdictFile
from runner.watching.arrivals import FINAL

_STOPPED = {
    EXIT_TRAINING_FAILED: " where it was asked, but a prober died",
    EXIT_INTERRUPTED: " where it was asked, but interrupted",
}


@dataclass(frozen=True)
class _One:
    file: VerdictFile
    loss: float | None


class Sweep:
    """Judges as pytest does that is given the same checkpoints and the same baseline at once."""

    def __init__(self) -> None:
        self.baseline: VerdictFile | None = None
        """What every checkpoint is compared with."""
        self._asked: dict[str, _One] = {}

    @property
    def names(self) -> list[str]:
        """The checkpoints so far, by their numbers; the final weights last."""
        return sorted(self._asked, key=lambda name: (name == FINAL, loadable.natural(name)))

    def put(self, name: str, file: VerdictFile, loss: float | None) -> None:
        """Add the verdicts of a checkpoint, or replace them."""
        self._asked[name] = _One(file, loss)

    def drop(self, names: Iterable[str]) -> None:
        """Leave these out."""
        for name in names:
            del self._asked[name]

    def row(self, name: str) -> CheckpointRow:
        """What is decided at a checkpoint; corrected for as many looks as there were so far."""
        one = self._asked[name]
        matters = [self._matter(asked, one.file) for asked in one.file.suites]
        decisions = gate.judge(matters, looks=self._looks())
        return CheckpointRow(name, one.loss, {decision.suite: decision for decision in decisions})

    def _matter(self, asked: SuiteAsked, file: VerdictFile) -> Matter:
        before = self.baseline.asked(asked.suite) if self.baseline else None
        return Matter(
            asked.suite, _gate(asked), file.of(asked.suite),
            self.baseline.of(asked.suite) if self.baseline and before else None,
            pooled=asked.values, pooled_before=before.values if before else {},
            key=asked.key, key_before=before.key if before else "",
            given=f"the baseline {self.baseline.ckpt}" if self.baseline else None,
        )  # fmt: skip

    def _looks(self) -> int:
        """At how many checkpoints it is tested whether more was lost than chance explains."""
        return sum(any(is_significant(_gate(asked)) for asked in one.file.suites) for one in self._asked.values())

    def lines(self, name: str) -> list[str]:
        """A line per suite: its rate and what its gate says, or why it could not be asked."""
        return [line for line, _ in self._said(name)]

    def _said(self, name: str) -> list[tuple[str, bool]]:
        """With each line whether it fails the watch: a red gate does, and so does an error where there is no gate."""
        said = []
        for suite, decision in self.row(name).decisions.items():
            line = tables.decision_line(name, decision)
            if decision.green is None and decision.tally.errors:
                first = next(one for one in self._asked[name].file.of(suite) if one.outcome == "error")
                line += f" ({decision.tally.errors} in error, the first {first.case_id}: {tables.said(first.reason)})"
            said.append((line, decision.green is False or bool(decision.tally.errors)))
        return said

    def ending(self, console: Console, stopped: int = 0) -> tuple[RenderableType, int]:
        """The matrix as it fits the console, all that is red, and the exit code: 1 where a gate is red or a suite could
        not be asked.

        Args:
            stopped: the exit code of what ended the watch before all was asked, whatever was asked before.
        """
        rows = [self.row(name) for name in self.names]
        if not rows:
            return Text("no checkpoint was asked"), stopped
        suites = list(dict.fromkeys(suite for row in rows for suite in row.decisions))
        made = tables.fitting(rows, suites, console)
        red = [line for name in self.names for line, fails in self._said(name) if fails]
        code = stopped or (EXIT_GATE_FAILED if red else 0)
        words = ("red" if red else "green") + _STOPPED.get(stopped, "")
        last = Text(f"{words}: exit code {code}", style=f"bold {tables.BAD if code else tables.GOOD}")
        return Group(made, Text(), *(Text(f"✗ {line}", style=tables.BAD) for line in red), last), code


def _gate(asked: SuiteAsked) -> spec.Gate | None:
    return spec.Gate.model_validate(dict(asked.gate), strict=False) if asked.gate else None
