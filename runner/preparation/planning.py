"""The plan of a recipe: every number counted on the rows that training will see."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from runner import amounts, handover, plan, pulls, spec, underway
from runner.asking import ascii_id
from runner.data import chat, vocabulary
from runner.data.declared import Bound
from runner.data.penalty_rows import penalty_epochs
from runner.errors import BadRecipe, Problem
from runner.gpus import visible_gpus
from runner.leaks import Leak
from runner.plan import Plan, StagePlan
from runner.preparation import footprint, missing
from runner.preparation.looked import NOT_LOOKED, Seen, StageSeen
from runner.preparation.prepared import PREFERENCE, Prepared, probe_files_with
from runner.preparation.stage_jobs import DONE_IN, states

DROPPED = 0.05
"""A larger share of rows without anything supervised is warned of."""


def elsewhere(state: Mapping[str, str]) -> dict[str, str]:
    """Of the states of a variant's stages: those that another variant has trained, and which."""
    return {name: words.removeprefix(DONE_IN) for name, words in state.items() if words.startswith(DONE_IN)}


def make_plan(
    prepared: Prepared, trained_in: Mapping[str, str] | None = None, look: Callable[[], Seen] | None = None
) -> Plan:
    """The whole plan; this tokenises every row of every epoch, as training will see them.

    Args:
        trained_in: stages that another variant of the recipe trains, with its name: they are not counted again.
        look: waits for what a look at the model has found; without one nothing is said of parameters and memory.

    Raises:
        UserError: something cannot be done as written.
    """
    with underway.work("planning"):
        return _planned(prepared, trained_in or {}, look)


def _planned(prepared: Prepared, trained_in: Mapping[str, str], look: Callable[[], Seen] | None) -> Plan:
    recipe = prepared.recipe
    prepared.check_steps()
    prepared.check_deepspeed()
    prepared.check_leaks()
    state = states(prepared)
    pulled = {name: _penalty_rows(prepared, name) for name in recipe.stages if name not in trained_in}
    stages = tuple(_stage(prepared, name, state[name], pulled[name]) for name in pulled)
    _check_supervised(prepared, stages)
    seen = look() if look is not None else NOT_LOOKED
    seen.check()
    found = footprint.networks(prepared, seen)
    stages = tuple(_measured(prepared, seen, stage, found.get(stage.name)) for stage in stages)
    last = next(reversed(recipe.stages))
    result = recipe.result.checkpoint if recipe.result else f"{last}@last"
    against = recipe.result.baseline if recipe.result else None
    gpus = visible_gpus()
    return Plan(
        recipe=recipe.recipe,
        path=os.path.relpath(prepared.loaded.path, prepared.loaded.root),
        out=os.path.relpath(prepared.run),
        model=_model_words(recipe.model, prepared.chat),
        device=_device_words(prepared, gpus, seen),
        stages=stages,
        trained_in=trained_in,
        data=prepared.accounts,
        missing=(*missing.words(prepared), *_unseen(seen)),
        attention=seen.attention,
        parameters=next((footprint.in_words(one) for one in found.values()), ""),
        rehearsal=prepared.loaded.scaled.notes if prepared.loaded.scaled is not None else (),
        result=_result_words(prepared, result, against),
        warnings=_warnings(prepared, stages, pulled),
        vocabulary=_vocabulary_words(prepared),
    )


def _stage(prepared: Prepared, name: str, state: str, pulled: Mapping[str, int]) -> StagePlan:
    """A stage, before anything is known of its network."""
    recipe = prepared.recipe
    stage, bound = recipe.stages[name], _bound(prepared, name)
    return StagePlan(
        name=name,
        kind=stage.kind,
        start=stage.from_ or "model",
        arithmetic=prepared.arithmetic[name],
        counts=prepared.counts(name),
        global_batch_size=stage.global_batch_size,
        suites=recipe.asked_at(name),
        state=state,
        ends=plan.ends(recipe, name),
        notes=(
            *handover.words(recipe, name, prepared.loaded.root),
            *_negative_words(prepared, name),
            *_pull_words(prepared, name, pulled),
        ),
        bound=bound,
        steps_bound="" if stage.max_steps is not None else bound,
    )


def _result_words(prepared: Prepared, result: str, against: str | None) -> str:
    """What sets the exit code."""
    compared = f" against {against}" if against else ""
    if not plan.has_gates(prepared.recipe, probe_files_with(prepared, b"gate")):
        return f"{result}{compared}; nothing gates it"
    return f"the gates of {result}{compared} set the exit code"


def _warnings(
    prepared: Prepared, stages: tuple[StagePlan, ...], pulled: Mapping[str, Mapping[str, int]]
) -> tuple[str, ...]:
    """What is allowed, but probably not meant."""
    recipe = prepared.recipe
    cases = {name: len(prepared.data.get(ref)) for name, ref in _suites_with_cases(prepared)}
    return (
        *plan.warnings(recipe, prepared.looks, cases, probe_files_with(prepared, b"gate"), prepared.own_significant),
        *plan.idle_ends(recipe, {name: numbers.publish_steps for name, numbers in prepared.arithmetic.items()}),
        *_mostly_dropped(stages),
        *_odd_amounts(prepared, stages, pulled),
        *footprint.left_over(prepared),
        *footprint.too_large(prepared, stages),
        *_repeated_cases(prepared),
        *_shared_ids(prepared),
        *(f"probes.{leak.suite}: {leak.words}" for leak in prepared.leaks if _unexpected(recipe, leak)),
    )


def _measured(prepared: Prepared, seen: Seen, stage: StagePlan, found: StageSeen | None) -> StagePlan:
    """A stage with what it takes of a device."""
    if found is None:
        return stage
    takes, fits = footprint.of_stage(prepared, seen, stage.name, found)
    notes = (*stage.notes, *footprint.trained_words(found.network))
    return replace(stage, memory=takes, fits=fits, notes=notes)


def _unseen(seen: Seen) -> tuple[str, ...]:
    return (f"parameters and memory are unknown: {seen.why}",) if seen.why else ()


def _check_supervised(prepared: Prepared, stages: Sequence[StagePlan]) -> None:
    """Whether every stage has something to learn.

    Raises:
        BadRecipe: of some stage every row loses all that the loss would see.
    """
    problems = [
        Problem(
            f"stage {stage.name} has nothing to learn: all of its {stage.counts.rows:,} rows are cut off before "
            "anything that is supervised",
            prepared.loaded.marks["stages", stage.name].at_key(),
            f"rows whose prompts are shorter than max_length, {prepared.recipe.stages[stage.name].max_length}",
            "raise max_length, or keep the ends of rows: truncation: keep_end",
        )
        for stage in stages
        if stage.counts is not None and stage.counts.rows and stage.counts.dropped == stage.counts.rows
    ]
    if problems:
        raise BadRecipe(problems)


def _mostly_dropped(stages: Sequence[StagePlan]) -> Iterator[str]:
    """Stages of which a good part of the rows teaches nothing."""
    for stage in stages:
        share = stage.counts.dropped / max(stage.counts.rows, 1) if stage.counts is not None else 0.0
        if share > DROPPED:
            yield f"stages.{stage.name}: {share:.0%} of its rows are cut off before anything that is supervised"


def _negative_words(prepared: Prepared, name: str) -> tuple[str, ...]:
    """What was left out of the pairs of a stage, and what is yet to come."""
    stage = prepared.recipe.stages[name]
    if not isinstance(stage, PREFERENCE) or not prepared.is_seen(name):
        return ()
    found = zip(stage.data, prepared.preferences(name), strict=True)
    return tuple(f"{ref}: {line}" for ref, one in found for line in one.lines())


def _vocabulary_words(prepared: Prepared) -> str:
    """What is added, and what it saves on the texts that the recipe names, else on those of the first stage."""
    block = prepared.recipe.model.extend_vocabulary
    extended = prepared.extended if prepared.has_tokenizer else None
    if block is None or extended is None:
        return ""
    refs = block.text or next(iter(prepared.recipe.stages.values())).data
    refs = tuple(ref for ref in refs if prepared.data.missing(ref) is None)
    texts = (text for ref in refs for text in prepared.data.get(ref).texts())
    return vocabulary.in_words(extended, vocabulary.beginning(texts))


def _repeated_cases(prepared: Prepared) -> Iterator[str]:
    """Suites that ask the same more than once: their rates and gates count it as if it were several questions."""
    for name, ref in _suites_with_cases(prepared):
        if repeats := prepared.data.get(ref).repeats:
            cases = len(prepared.data.get(ref))
            same = f"{repeats:,} of its {cases:,} cases are the same as an earlier one"
            yield f"probes.{name}: {same}, and count all the same"


def _shared_ids(prepared: Prepared) -> Iterator[str]:
    """Suites with rows whose column `id` says the same: what their cases are called depends on their order."""
    for name, ref in _suites_with_cases(prepared):
        data = prepared.data.get(ref)
        given = (data.columns(position).get("id") for position in range(len(data)))
        ids = Counter(ascii_id(str(one)) for one in given if one not in (None, ""))
        if shared := [one for one, count in ids.items() if count > 1]:
            yield (
                f"probes.{name}: {sum(ids[one] for one in shared):,} rows of {ref} share their id with another; the "
                f"second {shared[0]} is called {shared[0]}-2, by the order of the rows: give each an id of its own"
            )


def _suites_with_cases(prepared: Prepared) -> Iterator[tuple[str, str]]:
    """Suites whose cases the recipe names, and are here; with the data set."""
    for name, suite in prepared.recipe.probes.items():
        if suite.cases and prepared.data.missing(suite.cases) is None:
            yield name, suite.cases


def _bound(prepared: Prepared, name: str) -> Bound:
    """What the number of a stage's rows is of the right one."""
    if not prepared.is_seen(name):
        return prepared.rows(name).bound
    pending = isinstance(prepared.recipe.stages[name], PREFERENCE) and any(
        one.pending_pairs for one in prepared.preferences(name)
    )
    return "≤" if pending else ""


def _penalty_rows(prepared: Prepared, name: str) -> Mapping[str, int]:
    """How many rows each term against forgetting has; none where they are not here."""
    if not prepared.is_seen(name):
        return {}
    rows = penalty_epochs(prepared.recipe, name, prepared.data, prepared.tokenizer_of(name), prepared.chat)
    return {penalty: len(epochs) for penalty, epochs in rows.items()}


def _odd_amounts(
    prepared: Prepared, stages: Sequence[StagePlan], pulled: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    for stage in stages:
        if stage.counts is not None:
            block = prepared.recipe.stages[stage.name]
            yield from amounts.odd(stage.name, block, stage.counts.sources, pulled[stage.name])


def _pull_words(prepared: Prepared, name: str, counted: Mapping[str, int]) -> tuple[str, ...]:
    if not prepared.is_seen(name):
        return ()
    return pulls.words(prepared.recipe.stages[name], prepared.arithmetic[name].total_steps, counted)


def _unexpected(recipe: spec.Recipe, leak: Leak) -> bool:
    return recipe.probes[leak.suite].leaks != "expected"


def _device_words(prepared: Prepared, gpus: Sequence[str], seen: Seen) -> str:
    if prepared.devices is not None:
        return footprint.device_words(prepared.devices, prepared.recipe.model.dtype, seen.half)
    dtype, count = prepared.recipe.model.dtype, prepared.processes
    sharing = f", {count} processes" if count > 1 else ""
    if not gpus:
        return f"the CPU, {os.cpu_count()} cores, {'float32' if dtype == 'auto' else dtype}{sharing}"
    return "one GPU" + (f" of {len(gpus)}" if len(gpus) > 1 else "") if count == 1 else f"{count} GPUs{sharing}"


def _model_words(model: spec.Model, template: chat.ChatTemplate | None) -> str:
    written = ""
    if template is not None:
        written = f"; chat template {template.origin}" if template.chosen else "; its chat template"
    if model.path is not None:
        return model.path + written
    assert model.config is not None
    sizes = (f"{name} {model.config[name]}" for name in ("hidden_size", "num_hidden_layers") if name in model.config)
    return ", ".join([f"new {model.config['model_type']}", *sizes]) + written
