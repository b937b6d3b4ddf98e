"""What the variants of a recipe will train, and which of their stages are one and the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from runner import plan
from runner.checkpoints import Parent
from runner.data import samples
from runner.plan import Plan
from runner.preparation import Look, Prepared, make_plan, start_of
from runner.spec import parse_ref
from runner.standings import Standings


@dataclass(frozen=True)
class MatrixPlan:
    """The plans of all variants, in their order; each leaves out the stages that one before it trains."""

    plans: tuple[tuple[str, Plan], ...]

    @property
    def trained(self) -> int:
        """Stages that are not shared."""
        return sum(len(made.stages) for _, made in self.plans)


def make_plans(prepared: Sequence[Prepared], look: Look | None = None) -> MatrixPlan:
    """The plan of every variant.

    Args:
        prepared: the variants.
        look: at their models, in this order.

    Raises:
        UserError: one of them cannot be done.
    """
    shared = common(prepared)
    looks = [partial(look.seen, place) if look is not None else None for place in range(len(prepared))]
    made = (make_plan(one, trained_in, seen) for one, trained_in, seen in zip(prepared, shared, looks, strict=True))
    return MatrixPlan(tuple((one.loaded.variant, plan) for one, plan in zip(prepared, made, strict=True)))


def common(prepared: Sequence[Prepared]) -> list[Mapping[str, str]]:
    """For each variant the stages that an earlier one trains, with its name.

    A stage is the same where everything that its weights depend on is, the stages above it included. The weights of
    those are not known before they are trained; what they depend on is, and stands for them here.
    """
    first: dict[str, str] = {}
    found: list[Mapping[str, str]] = []
    for one in prepared:
        shapes: dict[str, str] = {}
        for name in one.recipe.stages:
            shapes[name] = _shape(one, name, shapes)
        found.append({name: first[shape] for name, shape in shapes.items() if shape in first})
        for shape in shapes.values():
            first.setdefault(shape, one.loaded.variant)
    return found


def _shape(prepared: Prepared, name: str, above: Mapping[str, str]) -> str:
    recipe, reference = prepared.recipe, prepared.recipe.stages[name].from_
    ref = parse_ref(reference) if reference else None
    start: Parent | None = None
    if reference is not None and ref is None:
        start, _ = start_of(prepared, Standings(recipe, prepared.run), name)
    elif reference is not None:
        # what @best and @last mean depends on what the probes say there
        suites = recipe.model_dump_json(include={"probes", "best"})
        start = Parent(reference, "", hashlib.sha256(suites.encode()).hexdigest())
    inputs = plan.stage_inputs(
        recipe,
        name,
        data=prepared.digests,
        start=start,
        start_key=above[ref.stage] if ref else "",
        tokenizer=prepared.digests["tokenizer"],
        weights=prepared.weights if start is None else "",
    )
    sampled = [parse_ref(how.sample) for _, _, how in samples.entries(prepared.data, recipe.stages[name].data)]
    return plan.key(inputs | {f"asked {ref.stage}": above[ref.stage] for ref in sampled if ref is not None})
