"""Runs as the template of the page and the Markdown ask for them: cells, sentences, rows of tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from runner.gate import Decision, Flip, wilson
from runner.report.cases import shown, table
from runner.report.charts import Chart, charts
from runner.report.gathering import At, Run, Stage
from runner.report.repeated import spans
from runner.spec import AnyStage, Causal
from runner.tables import forgetting_lines, interval, number_words, percent

_WATCHED = 12
"""A suite of at most so many cases is shown case by case, its replies side by side."""
_LOST = 6
"""Lost cases that are shown beside a red gate; all are a click away."""


@dataclass(frozen=True)
class Cell:
    """A suite at a checkpoint."""

    rate: str
    sign: str
    """`✓`, `✗` or `·`: colours are a second signal only."""
    state: str
    """`green`, `red` or `recorded`."""
    interval: str
    moved: str
    """`-3 +1` against the baseline, or empty."""
    says: str
    """All of it in words, for who hears the page."""


@dataclass(frozen=True)
class StageRow:
    """A stage, in words: what it was made of."""

    name: str
    kind: str
    start: str
    data: str
    """Data sets with their rows, and how often they come where that is not once an epoch."""
    steps: str
    """Those that were taken, of how many."""
    batch: int
    learning_rate: str
    tokens: str
    """Real tokens that it has trained on; empty where nothing is logged yet."""


@dataclass(frozen=True)
class Said:
    """What a model said to a watched prompt at a checkpoint."""

    label: str
    outcome: str
    parts: Sequence[tuple[str, bool]]
    """Each with whether it repeats what it said before."""


class Shown:
    """A run as the page's template asks for it."""

    def __init__(self, number: int, run: Run) -> None:
        self.number, self.run = number, run

    @property
    def data(self) -> dict[str, object]:
        """What the page unpacks when it is clicked or drawn."""
        figures = {chart.name: dict(chart.figure) for chart in self.charts}
        labels = [at.label for at in self.run.checkpoints]
        return {"name": self.run.name, "labels": labels, "figures": figures, **table(self.run.checkpoints)}

    @property
    def stage_spans(self) -> list[tuple[str, int, int]]:
        """Of each stage that has begun: its name, and where it begins and ends on the axis of steps."""
        ends = [*(stage.begins for stage in self.run.stages[1:]), None]
        found = []
        for stage, end in zip(self.run.stages, ends, strict=True):
            seen = [point.x for point in stage.points] + [at.x for at in self.run.checkpoints if at.stage == stage.name]
            last = max(seen, default=stage.begins) if end is None else end
            if last > stage.begins:
                found.append((stage.name, stage.begins, last))
        return found

    @cached_property
    def charts(self) -> list[Chart]:
        """See `charts`."""
        return charts(self.run)

    def cell(self, at: At, suite: str) -> Cell | None:
        """None where the suite was not asked."""
        decision = at.decisions.get(suite)
        return _cell(decision, f"{suite} at {at.label}") if decision else None

    def result_cell(self, suite: str) -> Cell | None:
        """The suite at the run's result."""
        found = [decision for decision in self.decisions if decision.suite == suite]
        return _cell(found[0], f"{suite} at the result of {self.run.name}") if found else None

    @property
    def decisions(self) -> Sequence[Decision]:
        """Those of the result."""
        return self.run.result.decisions if self.run.result else ()

    @property
    def state(self) -> str:
        """`green`, `red`, `unfinished`, or `rehearsal`, which judges no model."""
        if self.run.result is None or not self.run.result.is_asked:
            return "unfinished"
        if self.run.result.rehearsal and not self.run.result.broken:
            return "rehearsal"
        return "red" if self.run.result.exit_code else "green"

    def sentence(self, decision: Decision) -> str:
        """`97.7 % of 300 [95.3–98.9]`."""
        return _sentence(decision)

    def lost(self, decision: Decision) -> Sequence[Flip]:
        """The first cases that were lost, of a suite that is red."""
        return decision.lost[:_LOST] if decision.green is False else ()

    def numbers(self, decision: Decision) -> str:
        """What its cases recorded."""
        return "  ".join(map(number_words, decision.numbers))

    def tags(self, at: At) -> list[str]:
        """What a checkpoint is in its run, besides one of many."""
        result = self.run.result.checkpoint.label if self.run.result else ""
        return [tag for tag, label in (("result", result), ("baseline", self.run.baseline)) if label == at.label]

    def stages(self) -> list[StageRow]:
        """The stages, and the mixture that each was trained on."""
        return [_stage_row(self.run, stage) for stage in self.run.stages]

    @property
    def forgetting(self) -> str:
        """What later stages cost the suites of earlier ones, in a sentence."""
        assert self.run.forgetting is not None
        return "; ".join(line.plain.strip() for line in forgetting_lines(self.run.forgetting)) + "."

    def reds(self) -> list[tuple[At, Decision]]:
        """Every red gate of the run."""
        return [(at, found) for at in self.run.checkpoints for found in at.decisions.values() if found.green is False]

    def watched(self) -> Iterator[tuple[str, Sequence[str], Sequence[tuple[str, Sequence[Said]]]]]:
        """Suites of few cases: their name, the checkpoints, and each prompt with its replies at them."""
        for suite in self.run.suites:
            asked = [at for at in self.run.checkpoints if suite in at.decisions and at.file is not None]
            if not asked or max(len(at.file.of(suite)) for at in asked if at.file) > _WATCHED:
                continue
            yield suite, [at.label for at in asked], _transcripts(suite, asked)

    def text(self, what: str) -> str:
        """What others wrote, safe to be shown."""
        return shown(what)


def _stage_row(run: Run, stage: Stage) -> StageRow:
    said = run.recipe.stages[stage.name]
    adapter = " with LoRA" if said.lora is not None and said.kind != "lora" else ""
    logged = stage.points[-1].logged if stage.points else None
    total = stage.job.total_steps if stage.job else 0
    done = max(stage.job.steps_done if stage.job else 0, logged.step if logged else 0)
    return StageRow(
        stage.name, f"{said.kind}{adapter}", said.from_ or "the model", "; ".join(_mixture(run, said)),
        f"{done:,} of {total:,}" if total else "not begun", said.global_batch_size, f"{said.learning_rate:g}",
        f"{logged.tokens:,}" if logged else "",
    )  # fmt: skip


def _mixture(run: Run, stage: AnyStage) -> Iterator[str]:
    mix = stage.mix if isinstance(stage, Causal) else {}
    for ref in stage.data:
        rows = f", {run.rows[ref]['rows']:,} rows" if ref in run.rows else ""
        amounts = mix[ref].model_dump(exclude_none=True) if ref in mix else {}
        yield ref + rows + "".join(f", {name} {value}" for name, value in amounts.items())
    if isinstance(stage, Causal) and stage.replay is not None:
        within = f" of {stage.replay.buffer:,} chosen ones" if stage.replay.buffer else ""
        yield f"replay of {', '.join(stage.replay.of)}, {stage.replay.ratio:g} rows{within} per row"


def _transcripts(suite: str, asked: Sequence[At]) -> list[tuple[str, Sequence[Said]]]:
    prompts: dict[tuple[str, str], str] = {}
    found: dict[tuple[str, str], list[Said]] = {}
    for at in asked:
        assert at.file is not None
        for verdict in at.file.of(suite):
            prompts.setdefault(verdict.identity, verdict.prompt or verdict.case_id)
            said = Said(at.label, verdict.outcome, list(spans(shown(verdict.reply))))
            found.setdefault(verdict.identity, []).append(said)
    return [(shown(prompts[identity]), found[identity]) for identity in prompts]


def _cell(decision: Decision, about: str) -> Cell:
    tally = decision.tally
    state = {True: "green", False: "red", None: "recorded"}[decision.green]
    rate = "none asked" if tally.rate is None else percent(tally.rate)
    moved = f"−{len(decision.lost)} +{len(decision.gained)}" if decision.lost or decision.gained else ""
    sign = {"green": "✓", "red": "✗", "recorded": "·"}[state]
    return Cell(rate, sign, state, interval(tally) if tally.asked else "", moved, f"{about}: {rate}, {state}")


def _sentence(decision: Decision) -> str:
    tally = decision.tally
    if tally.rate is None:
        return "not asked"
    low, high = wilson(tally.passed, tally.asked)
    errors = f", {tally.errors} errors" if tally.errors else ""
    return f"{percent(tally.rate)} of {tally.asked} [{percent(low)} – {percent(high)}]{errors}"
