"""Where a case broke (`recipe bisect`): its replies at every checkpoint of a run, and what was being learned then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runner import spec
from runner.errors import UserError, nearest
from runner.standings import Standings
from runner.tables import BAD, DIM, GOOD, MARK, said
from runner.verdicts import Verdict

_TURNS = {("pass", "miss"): "forgotten", ("miss", "pass"): "learned"}
_SIGNS = {"pass": ("✓", GOOD), "miss": ("✗", BAD), "error": ("!", BAD), "not_asked": ("–", DIM)}


@dataclass(frozen=True)
class Moment:
    """A case at a checkpoint."""

    label: str
    stage: str
    loss: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Timeline:
    """A case of one suite and one probe at the checkpoints where it was asked, first to last."""

    suite: str
    probe: str
    case_id: str
    moments: Sequence[Moment]

    @property
    def turns(self) -> list[tuple[Moment, Moment, str]]:
        """Where it was learned or forgotten: the checkpoint before, the one after, and which of the two."""
        asked = [one for one in self.moments if one.verdict.outcome in ("pass", "miss")]
        found = [(before, after, (before.verdict.outcome, after.verdict.outcome)) for before, after in pairwise(asked)]
        return [(before, after, _TURNS[change]) for before, after, change in found if change in _TURNS]

    @property
    def broke(self) -> tuple[Moment, Moment] | None:
        """The first time it was forgotten."""
        return next(((before, after) for before, after, word in self.turns if word == "forgotten"), None)


def timelines(recipe: spec.Recipe, standings: Standings, case: str, suite: str | None = None) -> list[Timeline]:
    """Every suite and probe that asks the case.

    Args:
        recipe: of the run.
        standings: of the run.
        case: its id, as verdicts and test ids have it.
        suite: only this one.

    Raises:
        UserError: no suite asked it.
    """
    losses = standings.losses()
    found: dict[tuple[str, str], list[Moment]] = {}
    ids: set[str] = set()
    suites: set[str] = set()
    for checkpoint in standings.all_checkpoints():
        file = standings.verdicts(checkpoint)
        for verdict in file.verdicts if file else ():
            suites.add(verdict.suite)
            if suite is not None and verdict.suite != suite:
                continue
            ids.add(verdict.case_id)
            if verdict.case_id == case:
                moment = Moment(checkpoint.label, checkpoint.stage, losses.get(checkpoint.label), verdict)
                found.setdefault((verdict.suite, verdict.probe), []).append(moment)
    if suite is not None and suite not in suites:
        raise UserError(f"--suite {suite}: no such suite was asked", expected=f"one of {', '.join(sorted(suites))}")
    if not suites:
        raise UserError("nothing has been asked in this run yet", hint="recipe show says how far it is")
    if not found:
        close = nearest(case, ids)
        raise UserError(
            f"no suite of this run asked a case {case}",
            expected="the id of a case, as recipe compare and pytest show it",
            hint=f"did you mean {close}?" if close else None,
        )
    return [Timeline(*where, case, moments) for where, moments in found.items()]


def screen(recipe: spec.Recipe, lines: Sequence[Timeline]) -> RenderableType:
    """Each timeline, and above it where the case broke."""
    parts: list[RenderableType] = []
    for line in lines:
        parts += [
            Text.assemble((f"{said(line.case_id)} ", MARK), (f"{line.suite}  {line.probe}", DIM)),
            _broke(recipe, line),
        ]
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
        for _ in ("checkpoint", "loss", "sign"):
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        turns = {after.label: word for _, after, word in line.turns}
        for one in line.moments:
            sign, style = {"pass": ("✓", GOOD), "miss": ("✗", BAD), "error": ("!", BAD)}.get(
                one.verdict.outcome, ("–", DIM)
            )
            loss = "" if one.loss is None else f"{one.loss:.4f}"
            word = f"  ← {turns[one.label]}" if one.label in turns else ""
            reply = Text.assemble(said(one.verdict.reply), (word, style))
            table.add_row(Text(one.label), Text(loss, style=DIM), Text(sign, style=style), reply)
        parts += [table, Text()]
    return Group(*parts[:-1])


def _broke(recipe: spec.Recipe, line: Timeline) -> Text:
    if line.broke is None:
        ever = any(one.verdict.outcome == "pass" for one in line.moments)
        return Text("  never broke" if ever else "  was never right", style=DIM)
    before, after = line.broke
    if before.stage == after.stage:
        between = f"between {before.label} and {after.label}"
    else:
        between = f"at the first checkpoint of {after.stage} after {before.label}"
    stage = recipe.stages[after.stage]
    return Text(f"  broke at {after.label}, {between}: {stage.kind} on {', '.join(stage.data)}", style=BAD)
