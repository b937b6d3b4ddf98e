"""What a run will do, in numbers, before anything trains: rows, tokens, steps, batches, checkpoints, gates."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from runner import spec
from runner.checkpoints import Parent
from runner.data.accounts import Account
from runner.data.counts import Counts
from runner.data.declared import Bound
from runner.gate import ALPHA, is_significant
from runner.memory import Fits, Memory
from runner.spec import parse_ref


@dataclass(frozen=True)
class Arithmetic:
    """Steps and batches of a stage."""

    rows: int | None
    """Of an epoch; None where they cannot be known before the data is here."""
    steps_per_epoch: int
    """Where the rows are not known, all of them."""
    total_steps: int
    publish_steps: tuple[int, ...]
    per_device_batch_size: int
    accumulation_steps: int
    processes: int = 1


@dataclass(frozen=True)
class StagePlan:
    """A stage of the plan."""

    name: str
    kind: str
    start: str
    arithmetic: Arithmetic
    counts: Counts | None
    """What the tokenizer makes of its rows; None where they, or the tokenizer, are not here."""
    global_batch_size: int
    suites: tuple[str, ...]
    """Suites that are asked at its checkpoints."""
    state: str
    """`to do`, `done`, `resumes at step 96`, or `changed: learning_rate`."""
    ends: tuple[str, ...] = ()
    """What may end it before its last step, in words."""
    notes: tuple[str, ...] = ()
    """What else there is to know, a line each: what becomes of adapters, what is not trained."""
    bound: Bound = ""
    """Whether rows, steps and tokens are known exactly; `≤` where a checkpoint has yet to be asked for negatives."""
    steps_bound: Bound = ""
    """The same of steps alone, which `max_steps` may say."""
    memory: Memory | None = None
    """Of each device; None where the model could not be looked at."""
    fits: tuple[Fits, ...] = ()
    """With devices that are elsewhere: every way to divide it among them."""


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
    trained_in: Mapping[str, str] = field(default_factory=dict)
    """Stages that another variant of the recipe trains, with its name; they are not among `stages`."""
    vocabulary: str = ""
    """What `extend_vocabulary` does."""
    data: tuple[Account, ...] = ()
    """What the stages train on, once each."""
    missing: tuple[str, ...] = ()
    """What is not here, and what the plan therefore takes from the recipe or cannot say."""
    attention: str = ""
    """The attention implementation, and why; empty where the model was not looked at."""
    parameters: str = ""
    """Of the first stage's model, in words."""
    rehearsal: tuple[str, ...] = ()
    """How the recipe was cut down (`--scale`), a line each; empty where it is as it is written."""


def count(number: int) -> str:
    """`998.8 M`, `15.95 B`, `720 k`, `512`."""
    for size, unit, digits in ((1e9, "B", 2), (1e6, "M", 1), (1e3, "k", 0)):
        if number >= size:
            return f"{number / size:.{digits}f} {unit}"
    return str(number)


def arithmetic(stage: spec.Stage, rows: int | None, processes: int = 1) -> Arithmetic:
    """Steps and batches as transformers' Trainer counts them: an epoch's last, smaller batch is a step too.

    Args:
        rows: rows (for dpo: pairs) of one epoch; None where nobody knows: then `max_steps` says how long it takes.
        processes: that share the global batch, which they divide (see `dividing`).
    """
    batch = stage.global_batch_size
    share = batch // processes
    cap = min(stage.micro_batch_size or share, share)
    per_device = max(size for size in range(1, cap + 1) if share % size == 0)
    if rows is None:
        assert stage.max_steps is not None, "a stage of unknown length"
        steps_per_epoch = total = stage.max_steps
    else:
        steps_per_epoch = max(math.ceil(rows / batch), 1)
        total = stage.max_steps or math.ceil(stage.num_train_epochs * steps_per_epoch)
    publish = _publish_steps(stage, steps_per_epoch, total)
    return Arithmetic(rows, steps_per_epoch, total, publish, per_device, share // per_device, processes)


def _publish_steps(stage: spec.Stage, steps_per_epoch: int, total: int) -> tuple[int, ...]:
    wanted: Sequence[int] = ()
    if stage.save_strategy == "epoch":
        wanted = range(steps_per_epoch, total, steps_per_epoch)
    elif stage.save_strategy == "steps" and isinstance(stage.save_steps, int):
        wanted = range(stage.save_steps, total, stage.save_steps)
    elif stage.save_strategy == "steps" and not isinstance(stage.save_steps, int):
        wanted = [step for step in sorted(set(stage.save_steps)) if step < total]
    return (*wanted, total)


def ends(recipe: spec.Recipe, stage: str) -> tuple[str, ...]:
    """What may end a stage before its last step, in words."""
    found = []
    if (rule := recipe.stages[stage].stop_when) is not None:
        times = "once" if rule.worse_for == 1 else f"{rule.worse_for} checkpoints in a row"
        found.append(f"ends where {rule.suite} is below its best {times}")
    for word, what in (("rollback", "ends where {} is red, and goes back to the checkpoint before"),
                       ("stop", "ends the run where {} is red")):  # fmt: skip
        gates = {name: gate for name in recipe.asked_at(stage) if (gate := recipe.probes[name].gate)}
        names = [name for name, gate in gates.items() if gate.on_fail == word]
        if names:
            found.append(what.format(" or ".join(names)))
    if recipe.stages[stage].on_nan == "rollback":
        found.append("goes back to its last checkpoint where a loss or gradient is not finite, and leaves batches out")
    return tuple(found)


def idle_ends(recipe: spec.Recipe, publish_steps: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Warnings about what cannot end a stage before its last step, because it publishes too few checkpoints.

    Args:
        publish_steps: of each stage.
    """
    for name, stage in recipe.stages.items():
        count = len(publish_steps[name])
        rule = stage.stop_when
        if rule is not None and count < rule.worse_for + 2:
            yield (
                f"stages.{name}.stop_when cannot end it early: {_checkpoints(count)}, and the earliest end is after "
                f"the {_ordinal(rule.worse_for + 1)}; give save_steps or save_strategy: epoch"
            )
        gates = {suite: gate for suite in recipe.asked_at(name) if (gate := recipe.probes[suite].gate)}
        for suite, gate in gates.items():
            if gate.on_fail == "rollback" and count == 1:
                yield (
                    f"probes.{suite}: on_fail: rollback has nothing to go back to at {name}, which publishes one "
                    "checkpoint: it would stop the run"
                )


def _checkpoints(count: int) -> str:
    return f"it publishes {count} checkpoint" + ("s" if count != 1 else "")


def _ordinal(number: int) -> str:
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number if number < 20 else number % 10, 'th') }"


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
    # how often a loss is recorded changes no weight, and where probes end a stage none of those before it
    # what on_nan leaves out stands in the stage's own record (`diverging`), and without a fault it changes nothing
    left_out = {"logging_steps", "stop_when", "on_nan", "from_", "data"}
    settings = stage.model_dump(mode="json", by_alias=True, exclude=left_out)
    inputs = {field: json.dumps(value, ensure_ascii=False) for field, value in settings.items()}
    inputs["data"] = ", ".join(stage.data)  # their order, and how often each is named, decide the order of the rows
    inputs |= {f"data {ref}": data[ref] for ref in recipe.reads(name)}
    if "chat template" in data:
        inputs["chat template"] = data["chat template"]
    inputs["seed"] = str(recipe.seed)
    if start is None:
        inputs["model"] = recipe.model.model_dump_json(exclude={"tokenizer"})
        inputs["tokenizer"] = tokenizer
        inputs["weights"] = weights
    else:
        inputs["from"] = f"{start.label} {start.weights_sha256} {start_key}"
        inputs["attention"] = f"{recipe.model.attn_implementation} {recipe.model.dtype}"
    libraries = ["torch", "transformers", *(["trl"] if isinstance(stage, spec.Dpo) else [])]
    adapters = [lora for above in recipe.lineage(name) if (lora := recipe.stages[above].lora)]
    libraries += ["peft"] if adapters else []
    libraries += ["bitsandbytes"] if any(lora.quantize for lora in adapters) else []
    inputs |= {f"version of {library}": library_version(library) for library in libraries}
    return inputs


def key(inputs: Mapping[str, str]) -> str:
    """Digest of a stage's inputs."""
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between two stages' inputs, in words: `learning_rate 0.0003 -> 0.001, lora.r 8 -> 16, data
    questions.train (rows, or how they are written), version of torch 2.12.0 -> 2.13.0`."""
    words: list[str] = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old != new:
            words += _moved(name, old, new)
    return ", ".join(words)


def _moved(name: str, old: str | None, new: str | None) -> list[str]:
    if old is None or new is None:
        return [name]
    if len(old) < 20 and len(new) < 20:
        return [f"{name} {old} -> {new}"]
    if name.startswith("data "):
        return [f"{name} (rows, or how they are written)"]
    if name == "from" and len(was := old.split(" ")) == len(found := new.split(" ")) == 3:
        if was[0] != found[0]:
            return [f"from {was[0]} -> {found[0]}"]
        return [f"from {was[0]} ({'other weights' if was[1] != found[1] else 'its stage changed'})"]
    one, other = _block(old), _block(new)
    if one is None or other is None:
        return [name]
    words = []
    for key in dict.fromkeys([*one, *other]):
        if one.get(key) != other.get(key):
            sides = (json.dumps(side[key], ensure_ascii=False) if key in side else None for side in (one, other))
            words += _moved(f"{name}.{key}", *sides)
    return words or [name]  # only the order of its keys, which may be that of a mixture


def _block(text: str) -> dict[str, Any] | None:
    """A setting that is a map."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


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
    for name, stages in _never_compared(recipe):
        before = " and ".join(stages)
        found.append(
            f"probes.{name}: its gate cannot fire: it only compares, and nothing is asked before {before}, so that "
            "there is no baseline; give min_pass_rate too"
        )
    if recipe.best and (suite := recipe.probes.get(recipe.best)) and suite.gate:
        found.append(f"probes.{recipe.best} both chooses @best and gates: choosing by it flatters its own result")
    if not has_gates(recipe, own_gates):
        stage = _result_stage(recipe)
        found.append(f"result: no suite gates the checkpoints of {stage}, so the exit code will be 0 whatever happens")
    return tuple(found)


def has_gates(recipe: spec.Recipe, own_gates: Collection[str]) -> bool:
    """Whether a suite may gate the checkpoints of the stage that the result is of.

    Args:
        own_gates: suites whose probe file may have a gate of its own.
    """
    return any(recipe.probes[name].gate or name in own_gates for name in recipe.asked_at(_result_stage(recipe)))


def _result_stage(recipe: spec.Recipe) -> str:
    ref = parse_ref(recipe.result.checkpoint) if recipe.result else None
    return ref.stage if ref else next(reversed(recipe.stages))


def _never_compared(recipe: spec.Recipe) -> Iterator[tuple[str, list[str]]]:
    """Suites whose gate only compares and that have a baseline nowhere, with the stages they are asked at."""
    if recipe.result is not None and recipe.result.baseline is not None:
        return
    for name, suite in recipe.probes.items():
        gate = suite.gate
        if gate is None or gate.min_pass_rate is not None or gate.baseline is not None:
            continue
        alone = any(bound.model_fields_set - {"max_mean_rise"} for bound in gate.bounds.values())
        compares = gate.max_regression is not None or gate.pinned or gate.bounds
        stages = [stage for stage in recipe.stages if name in recipe.asked_at(stage)]
        starts = (recipe.stages[stage].from_ for stage in stages)
        if compares and not alone and not any(start is not None and parse_ref(start) is not None for start in starts):
            yield name, stages
