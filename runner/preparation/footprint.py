"""What the stages of a plan take of a device, from the numbers of their networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from runner import dividing, loadable, memory, plan, spec
from runner.gpus import visible_gpus
from runner.memory import Devices, Fits, Memory, Network, Training
from runner.plan import StagePlan
from runner.preparation.looked import Seen, StageSeen
from runner.preparation.prepared import Prepared


def networks(prepared: Prepared, seen: Seen) -> Mapping[str, StageSeen]:
    """Of every stage that could be looked at, with as many tokens as its tokenizer has, where that is here."""
    tokens = vocabulary(prepared)
    return {name: found.with_vocabulary(tokens) for name, found in seen.stages.items()}


def vocabulary(prepared: Prepared) -> int | None:
    """Rows of the first stage's embeddings; None where the model's configuration says it."""
    first = prepared.recipe.model
    if not prepared.has_tokenizer or first.path is not None:
        return None
    tokens: int = max(prepared.tokenizer.tokenizer.get_vocab().values()) + 1
    return spec.embedding_rows(first.config or {}, tokens)


def of_stage(prepared: Prepared, seen: Seen, name: str, found: StageSeen) -> tuple[Memory, tuple[Fits, ...]]:
    """The memory of a stage as it is launched, and, where devices are planned for, every way to divide it."""
    how = _training(prepared, seen, name, found)
    numbers = prepared.arithmetic[name]
    rows, count = numbers.per_device_batch_size, numbers.processes
    way = _way(prepared.recipe.launch)
    planned = memory.estimate(found.network, how, rows, way, count)
    if prepared.devices is None:
        return planned, ()
    shared = Devices(count, prepared.devices.bytes_each)
    ways = memory.WAYS if count > 1 else ("", "offload")
    tried = (memory.fits(found.network, how, rows, one, shared) for one in ways)
    return planned, tuple(replace(fit, is_launched=fit.way == way) for fit in tried)


def _training(prepared: Prepared, seen: Seen, name: str, found: StageSeen) -> Training:
    root = prepared.loaded.root
    return memory.training(
        prepared.recipe.stages[name],
        prepared.recipe.trained_adapter(name, lambda place: loadable.is_adapter(root / place)),
        half=seen.half,
        eager=seen.eager,
        whole=found.base,
        trained=found.network.trained,
        accumulates=prepared.arithmetic[name].accumulation_steps > 1,
        on_cpu=prepared.devices is None and not visible_gpus(),
    )


def _way(how: spec.Launch) -> str:
    """Of `memory.WAYS`; a file of one's own is taken for what it divides nothing of."""
    return how.deepspeed if how.deepspeed in memory.WAYS and how.deepspeed else ""


def too_large(prepared: Prepared, stages: tuple[StagePlan, ...]) -> Iterator[str]:
    """Warnings about stages that do not fit on the devices that are planned for."""
    devices = prepared.devices
    if devices is None:
        return
    for stage in stages:
        own = next((fit for fit in stage.fits if fit.is_launched), None)
        if own is None or own.most_rows >= own.planned.rows:
            continue
        can = [f"deepspeed: {fit.way}" for fit in stage.fits if fit.way and fit.most_rows >= own.planned.rows]
        fewer = [f"micro_batch_size: {own.most_rows}"] if own.most_rows else []
        ways = f"; what fits: {' or '.join([*fewer, *can[:1]])}" if fewer or can else "; nothing here makes it fit"
        yield (
            f"stages.{stage.name}: {own.planned.rows} rows at a time take about {own.planned.total / 1e9:.0f} GB of a "
            f"device with {devices.bytes_each / 1e9:g} GB{ways}"
        )


def left_over(prepared: Prepared) -> Iterator[str]:
    """Warnings about stages whose batch the planned devices cannot share."""
    for name, numbers in prepared.arithmetic.items():
        batch, count = prepared.recipe.stages[name].global_batch_size, prepared.processes
        if numbers.processes != count:
            yield (
                f"stages.{name}: {count} devices cannot share a global batch of {batch}; planned on "
                f"{numbers.processes} of them. What can be: {dividing.which_can(batch, count)}"
            )


def in_words(found: StageSeen) -> str:
    """`998.8 M parameters, 155.6 M of them for a vocabulary of 151,936`."""
    tokens = found.network.vocabulary
    of_tokens = plan.count(found.each * tokens)
    return f"{plan.count(found.base)} parameters, {of_tokens} of them for a vocabulary of {tokens:,}"


def trained_words(network: Network) -> tuple[str, ...]:
    """A line where not all is trained."""
    if network.trained == network.total:
        return ()
    share = network.trained / max(network.total, 1)
    return (f"trains {plan.count(network.trained)} of {plan.count(network.total)} parameters ({share:.2%})",)


def device_words(devices: Devices, dtype: str, half: bool) -> str:
    """What a plan is made for.

    Args:
        devices: that are planned for.
        dtype: what the recipe says.
        half: whether it computes in half precision there.
    """
    name = "bfloat16" if dtype == "auto" else dtype
    return f"{devices}, not here{f', {name}' if half else ''}"
