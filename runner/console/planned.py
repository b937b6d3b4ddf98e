"""The plan of a run, at 80 columns and more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runner.console.words import UNKNOWN
from runner.tables import BAD, DIM, GOOD, MARK, percent, said

if TYPE_CHECKING:  # they bring numpy, and pytest shows what is under way from the same package
    from runner.data.accounts import Account
    from runner.data.counts import Source
    from runner.memory import Memory
    from runner.plan import Plan, StagePlan


def plan_screen(plan: Plan, above: Sequence[Plan] = ()) -> RenderableType:
    """The whole plan, at 80 columns and more.

    Args:
        above: plans of other variants that were shown before: what they said already is left out.
    """
    known = {said_above for other in above for said_above in (other.path, other.model, other.parameters, other.device,
             other.attention, *other.missing, *other.warnings)}  # fmt: skip
    accounts = [account for account in plan.data if not any(account in other.data for other in above)]
    warnings = tuple(warning for warning in plan.warnings if warning not in known)
    plan = replace(plan, warnings=warnings, missing=tuple(line for line in plan.missing if line not in known))
    head = Table.grid(padding=(0, 2))
    for name, value in (("recipe", plan.path), ("writes", plan.out), ("model", plan.model), ("", plan.parameters),
                        ("runs on", plan.device), ("attention", plan.attention)):  # fmt: skip
        if not value:
            continue
        if value not in known:
            head.add_row(Text(name, style=DIM), Text(value))
    if plan.vocabulary:
        head.add_row(Text("vocabulary", style=DIM), Text(said(plan.vocabulary, 400)))
    stages = Table(box=None, padding=(0, 1), header_style=DIM, pad_edge=False)
    for title in ("stage", "kind"):
        stages.add_column(title, no_wrap=True)
    stages.add_column("from", overflow="fold")
    for title in ("rows", "batch", "steps", "tokens"):
        stages.add_column(title, justify="right", no_wrap=True)
    stages.add_column("seen by loss", justify="right")
    stages.add_column("state", overflow="fold")
    for stage in plan.stages:
        numbers, counts, bound = stage.arithmetic, stage.counts, stage.bound
        rows = f"{bound}{numbers.rows:,}" if numbers.rows is not None else UNKNOWN
        given = "" if bound == "?" else bound
        tokens = given + _tokens(counts.tokens) if counts else UNKNOWN
        seen = percent(counts.supervised / max(counts.tokens, 1)) if counts else UNKNOWN
        stages.add_row(
            Text(stage.name, style=MARK), stage.kind, stage.start, rows, _batch(stage),
            f"{'' if stage.steps_bound == '?' else stage.steps_bound}{numbers.total_steps:,}", tokens, seen,
            stage.state.partition(":")[0],
        )  # fmt: skip
    rehearsal = _rehearsal([line for line in plan.rehearsal if not any(line in other.rehearsal for other in above)])
    parts = (*_plan_data(accounts), *_plan_memory(plan), *_plan_notes(plan))
    return Group(head, Text(), *rehearsal, stages, Text(), *parts)


def _rehearsal(lines: Sequence[str]) -> list[RenderableType]:
    """How the recipe was cut down."""
    if not lines:
        return []
    head = Text.assemble(("a rehearsal (--scale): ", MARK), "it judges no model, and is otherwise than the recipe:")
    return [head, *(Text(f"  {said(line, 400)}") for line in lines), Text()]


def _plan_data(accounts: Sequence[Account]) -> list[RenderableType]:
    """What the stages train on: its rows, what was left out, and how varied its texts are."""
    if not accounts:
        return []
    table = Table(box=None, padding=(0, 1), header_style=DIM, pad_edge=False)
    table.add_column("data", no_wrap=True, overflow="ellipsis")
    for title in ("rows", "left out", "duplicates", "distinct-1, -2", "zlib"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("written as", overflow="fold")
    for account in accounts:
        left_out = sum(sum(left.rows.values()) for left in account.left_out)
        varied = account.diversity
        table.add_row(
            Text(account.ref, style=MARK), f"{account.rows:,}", f"{left_out:,}", f"{account.duplicates:,}",
            f"{varied.distinct_1:.2f}, {varied.distinct_2:.2f}", f"{varied.compression:.1f}×", account.written_as,
        )  # fmt: skip
    said_once = dict.fromkeys(line for account in accounts for line in account.lines())
    lines = [Text(f"  {said(line, 400)}", style=BAD) for line in said_once]
    return [table, *lines, Text()]


def _batch(stage: StagePlan) -> str:
    numbers = stage.arithmetic
    if numbers.accumulation_steps == 1 or numbers.processes > 1:  # those of several stand in a line of their own
        return str(stage.global_batch_size)
    return f"{numbers.per_device_batch_size}×{numbers.accumulation_steps}={stage.global_batch_size}"


def _product(stage: StagePlan) -> str:
    numbers = stage.arithmetic
    factors = numbers.per_device_batch_size, numbers.accumulation_steps, numbers.processes
    return f"{' × '.join(map(str, factors))} = {stage.global_batch_size}"


def _plan_memory(plan: Plan) -> list[RenderableType]:
    """What each stage takes of a device; of devices that are elsewhere, in every way, and what fits there."""
    measured = [stage for stage in plan.stages if stage.memory is not None]
    if not measured:
        return []
    if not any(stage.fits for stage in measured):
        most = max((stage.memory for stage in measured if stage.memory), key=lambda memory: memory.total)
        words = f"at most {_gigabytes(most.total)} to train ({_parts(most)})"
        return [Text.assemble(("memory: ", MARK), words), Text()]
    table = Table(box=None, padding=(0, 1), header_style=DIM, pad_edge=False)
    table.add_column("GB of a device", no_wrap=True)
    for title in ("rows", "weights", "grads", "optim", "activations", "in all", "most"):
        table.add_column(title, justify="right", no_wrap=True)
    for stage in measured:
        for fit in stage.fits:
            took, fine = fit.planned, fit.most_rows >= fit.planned.rows
            table.add_row(
                Text(f"{'›' if fit.is_launched else ' '} {stage.name} {fit.way}", MARK if fit.is_launched else ""),
                str(took.rows),
                *(_number_of_gb(part) for part in (took.weights, took.gradients, took.optimizer,
                                                   took.activations + took.logits)),
                Text(f"{_number_of_gb(took.total)} {'✓' if fine else '✗'}", style=GOOD if fine else BAD),
                f"{fit.most_rows:,}" if fit.most_rows else "none",
            )  # fmt: skip
    legend = "› as launched; rows: of a micro-batch, and the most that fit; activations: with logits"
    return [table, Text(legend, style=DIM), Text()]


def _number_of_gb(size: int) -> str:
    return f"{size / 1e9:.1f}" if size >= 1e8 else f"{size / 1e9:.3f}"


def _parts(memory: Memory) -> str:
    parts = (("weights", memory.weights), ("gradients", memory.gradients), ("optimizer", memory.optimizer),
             ("activations", memory.activations), ("logits", memory.logits))  # fmt: skip
    return ", ".join(f"{name} {_gigabytes(size)}" for name, size in parts if size)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _tokens(count: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return str(count)


def _plan_notes(plan: Plan) -> list[RenderableType]:
    notes: list[RenderableType] = [Text(f"not here: {said(line, 400)}", style=BAD) for line in plan.missing]
    notes += [
        Text.assemble((f"{name}: ", MARK), f"as in {variant}, where it is trained")
        for name, variant in plan.trained_in.items()
    ]
    for stage in plan.stages:
        steps = stage.arithmetic.publish_steps
        at = ", ".join(f"{step:,}" for step in steps) if len(steps) <= 8 else f"{len(steps)} steps to {steps[-1]:,}"
        asked = ", ".join(stage.suites) if stage.suites else "no suite"
        notes.append(Text.assemble((f"{stage.name}: ", MARK), f"checkpoints at {at}; asked: {asked}"))
        if stage.arithmetic.processes > 1:
            notes.append(Text(f"  batch: {_product(stage)} (of a device × accumulated × devices)"))
        notes += [Text(f"  {words}") for words in stage.ends]
        if ":" in stage.state:
            notes.append(Text(f"  {stage.state}"))
        notes += [Text(f"  {note}") for note in stage.notes]
        counts = stage.counts
        if counts is None:
            continue
        for count, what in ((counts.truncated, "rows truncated to max_length"), (counts.dropped, "rows dropped"),
                            (counts.unknown, "tokens are <unk>"), (counts.left_out, "rows too long, and left out"),
                            (counts.pieces, "rows too long, and cut into several")):  # fmt: skip
            if count:
                notes.append(Text(f"  {count:,} {what}", style=BAD))
        if counts.sources:
            notes.append(Padding(_mixture(counts.sources), (0, 0, 0, 2), expand=False))
    notes += [Text(f"warning: {warning}", style=BAD) for warning in plan.warnings]
    notes.append(Text.assemble(("result: ", MARK), plan.result))
    return notes


def _mixture(sources: Sequence[Source]) -> RenderableType:
    """What each data set of a stage is of its rows, and of what it learns."""
    table = Table(box=None, padding=(0, 1), header_style=DIM, pad_edge=False)
    table.add_column("data", no_wrap=True, overflow="ellipsis")
    for title in ("rows an epoch", "of", "share", "seen by loss", "passes"):
        table.add_column(title, justify="right", no_wrap=True)
    for source in sources:
        passes = f"{source.passes:,.1f}" if source.passes < 100 else f"{source.passes:,.0f}"
        table.add_row(
            f"replay {source.name}" if source.replayed else source.name, f"{source.per_epoch:,.0f}",
            f"{source.available:,}", percent(source.rows), percent(source.supervised), passes,
        )  # fmt: skip
    return table
