"""What a run will do, in numbers, before anything trains: rows, tokens, steps, batches, checkpoints, gates."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from runner import spec
from runner.checkpoints import Parent
from runner.data.epochs import Counts
from runner.gate import ALPHA, is_significant
from runner.spec import parse_ref


@dataclass(frozen=True)
class Arithmetic:
    """Steps and batches of a stage."""

    rows: int
    steps_per_epoch: int
    total_steps: int
    publish_steps: tuple[int, ...]
    per_device_batch_size: int
    accumulation_steps: int


@dataclass(frozen=True)
class StagePlan:
    """A stage of the plan."""

    name: str
    kind: str
    start: str
    arithmetic: Arithmetic
    counts: Counts
    global_batch_size: int
    suites: tuple[str, ...]
    """Suites that are asked at its checkpoints."""
    state: str
    """`to do`, `done`, `resumes at step 96`, or `changed: learning_rate`."""


@dataclass(frozen=True)
class Plan:
    """The whole plan."""

    recipe: str
    path: str
    out: str
    model: str
    device: str
    stages: tuple[StagePlan, ...]
    result: str
    warnings: tuple[str, ...]


def arithmetic(stage: spec.Stage, rows: int) -> Arithmetic:
    """Steps and batches as transformers' Trainer counts them: an epoch's last, smaller batch is a step too.

    Args:
        rows: rows (for dpo: pairs) of one epoch.
    """
    batch = stage.global_batch_size
    cap = min(stage.micro_batch_size or batch, batch)
    per_device = max(size for size in range(1, cap + 1) if batch % size == 0)
    steps_per_epoch = max(math.ceil(rows / batch), 1)
    total = stage.max_steps or math.ceil(stage.num_train_epochs * steps_per_epoch)
    return Arithmetic(
        rows, steps_per_epoch, total, _publish_steps(stage, steps_per_epoch, total), per_device, batch // per_device
    )


def _publish_steps(stage: spec.Stage, steps_per_epoch: int, total: int) -> tuple[int, ...]:
    wanted: Sequence[int] = ()
    if stage.save_strategy == "epoch":
        wanted = range(steps_per_epoch, total, steps_per_epoch)
    elif stage.save_strategy == "steps" and isinstance(stage.save_steps, int):
        wanted = range(stage.save_steps, total, stage.save_steps)
    elif stage.save_strategy == "steps" and not isinstance(stage.save_steps, int):
        wanted = [step for step in sorted(set(stage.save_steps)) if step < total]
    return (*wanted, total)


def significant(recipe: spec.Recipe, stage: str, own: Collection[str] = ()) -> tuple[str, ...]:
    """The suites whose gate tests at the checkpoints of a stage whether something was lost beyond chance.

    Without a baseline nothing is tested: at a stage that starts from no other one, unless the gate names a baseline.

    Args:
        own: suites without a gate in the recipe whose probe file may have one with `max_regression: significant`.
    """
    order = list(recipe.stages)
    start = recipe.stages[stage].from_
    has_start = start is not None and parse_ref(start) is not None
    found = []
    for name in recipe.asked_at(stage):
        gate = recipe.probes[name].gate
        ref = parse_ref(gate.baseline) if gate is not None and gate.baseline is not None else None
        compared = order.index(ref.stage) <= order.index(stage) if ref is not None else has_start
        if compared and (is_significant(gate) if gate is not None else name in own):
            found.append(name)
    return tuple(found)


def looks(recipe: spec.Recipe, publish_steps: Mapping[str, Sequence[int]], own: Collection[str] = ()) -> int:
    """At how many checkpoints of the run any suite is tested for losses beyond chance; once more where the result is
    compared with a baseline of its own. ALPHA is divided by it: each look is one more chance of a false alarm.

    Args:
        publish_steps: of each stage.
        own: see `significant`.
    """
    looked = sum(len(steps) for stage, steps in publish_steps.items() if significant(recipe, stage, own))
    return looked + bool(recipe.result and recipe.result.baseline and looked)


def stage_inputs(
    recipe: spec.Recipe,
    name: str,
    *,
    data: Mapping[str, str],
    start: Parent | None,
    start_key: str,
    tokenizer: str,
    weights: str,
) -> dict[str, str]:
    """Everything the weights of a stage depend on, by name, each as short text; `key` digests it.

    Args:
        data: digest of each data set the stage names.
        start_key: the key of the stage that `start` belongs to: where that changed, this one counts as changed.
        tokenizer: digest of the tokenizer that the first stage's model is made with.
        weights: digest of the weights that it starts from; empty where it starts from nothing.
    """
    stage = recipe.stages[name]
    # how often a loss is recorded changes no weight
    settings = stage.model_dump(mode="json", by_alias=True, exclude={"logging_steps", "from_", "data"})
    inputs = {field: json.dumps(value, ensure_ascii=False) for field, value in settings.items()}
    inputs |= {f"data {ref}": data[ref] for ref in stage.data}
    inputs["seed"] = str(recipe.seed)
    if start is None:
        inputs["model"] = recipe.model.model_dump_json(exclude={"tokenizer"})
        inputs["tokenizer"] = tokenizer
        inputs["weights"] = weights
    else:
        inputs["from"] = f"{start.label} {start.weights_sha256} {start_key}"
        inputs["attention"] = f"{recipe.model.attn_implementation} {recipe.model.dtype}"
    libraries = ("torch", "transformers", "trl") if isinstance(stage, spec.Dpo) else ("torch", "transformers")
    inputs |= {f"version of {library}": library_version(library) for library in libraries}
    return inputs


def key(inputs: Mapping[str, str]) -> str:
    """Digest of a stage's inputs."""
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between two stages' inputs, in words: `learning_rate 0.0003 -> 0.001, data questions.train`."""
    words = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        short = old is not None and new is not None and len(old) < 20 and len(new) < 20
        words.append(f"{name} {old} -> {new}" if short else name)
    return ", ".join(words)


def library_version(library: str) -> str:
    """The installed version, without importing the library."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def warnings(
    recipe: spec.Recipe, looked: int, cases: Mapping[str, int], own_gates: Collection[str], own: Collection[str] = ()
) -> tuple[str, ...]:
    """What is allowed, but probably not meant.

    Args:
        looked: see `looks`.
        cases: number of cases of the suites whose cases the recipe names.
        own_gates: suites whose probe file may have a gate of its own.
        own: see `significant`.
    """
    found = []
    families = [family for stage in recipe.stages if (family := significant(recipe, stage, own))]
    for name in dict.fromkeys(name for family in families for name in family):
        # where nothing else is lost at a checkpoint, Holm asks this suite for an equal part of the level
        alpha = ALPHA / max(looked, 1) / min(len(family) for family in families if name in family)
        # if every case is lost and none gained, p is 2**-cases; where cases share a fact it takes more of them
        needed = math.floor(-math.log2(alpha)) + 1
        if (count := cases.get(name)) is not None and count < needed:
            found.append(
                f"probes.{name}: its gate cannot fire: of {count} cases not even all lost is beyond chance "
                f"(p < {alpha:.2g} takes {needed}); pin them, or give a number: max_regression: 0"
            )
    if recipe.best and (suite := recipe.probes.get(recipe.best)) and suite.gate:
        found.append(f"probes.{recipe.best} both chooses @best and gates: choosing by it flatters its own result")
    ref = parse_ref(recipe.result.checkpoint) if recipe.result else None
    stage = ref.stage if ref else next(reversed(recipe.stages))
    if not any(recipe.probes[name].gate or name in own_gates for name in recipe.asked_at(stage)):
        found.append(f"result: no suite gates the checkpoints of {stage}, so the exit code will be 0 whatever happens")
    return tuple(found)
