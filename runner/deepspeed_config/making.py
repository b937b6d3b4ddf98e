"""What a stage is trained with: made, kept in its folder, and compared where it resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runner import spec
from runner.atomic import publish_text
from runner.deepspeed_config.sharing_out import Shares, shared
from runner.deepspeed_config.written import GATHERS, named, read_file
from runner.errors import UserError

FILE = "deepspeed.json"
"""In a stage's folder: what it is trained with."""
INSTALL = "pip install 'recipe-runner[distributed]'"


def configuration(recipe: spec.Recipe, name: str, root: Path, shares: Shares) -> dict[str, Any]:
    """What DeepSpeed is given for a stage. "auto" stands where the trainer alone knows the number, and fills it in.

    Args:
        recipe: with `launch.deepspeed`, which agrees (see `disagreements`).
        name: of the stage.
        root: where the recipe's paths start.
        shares: how its global batch is divided.
    """
    how, stage = recipe.launch.deepspeed or "", recipe.stages[name]
    micro, accumulation = shared(stage, shares)
    dtype = recipe.model.dtype
    own: dict[str, Any] = {
        "train_batch_size": stage.global_batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": stage.max_grad_norm,
        "bf16": {"enabled": "auto" if dtype == "auto" else dtype == "bfloat16"},
        "fp16": {"enabled": "auto" if dtype == "auto" else dtype == "float16"},
        "steps_per_print": 10**9,  # the journal has the losses
    }
    if how in spec.DEEPSPEED:
        return {**own, "zero_optimization": named(how)}
    # optimizer and schedule agree with the recipe's, and are the trainer's
    given = {key: value for key, value in read_file(root / how, how).values.items() if key not in _TRAINERS}
    for key in ("bf16", "fp16"):
        own[key] = {**given.get(key, {}), **own[key]}
    zero = dict(given["zero_optimization"])
    return {**given, **own, "zero_optimization": {**zero, GATHERS: True} if zero["stage"] == 3 else zero}


_TRAINERS = ("optimizer", "scheduler")


def write(folder: Path, made: Mapping[str, Any]) -> str:
    """Keep a stage's configuration in its folder; gives the name it has there."""
    publish_text(folder / FILE, json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    return FILE


def kept(folder: Path, name: str) -> dict[str, Any]:
    """The configuration that a job names, from the stage's folder; nothing where it names none.

    Raises:
        UserError: it is gone, or damaged.
    """
    if not name:
        return {}
    try:
        found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / name} cannot be read: {error}", hint=f"move {folder} away; the stage is then trained again"
        ) from error
    return found


def check_resumes(
    folder: Path, stage: str, before: tuple[int, Mapping[str, Any]], now: tuple[int, Mapping[str, Any]]
) -> None:
    """Whether state that some processes saved can be gone on with by others. The state of plain data parallel training
    is whole; that of DeepSpeed is cut into as many pieces as there were processes.

    Args:
        folder: of the stage.
        stage: its name.
        before: how many processes began it, and their DeepSpeed configuration.
        now: the same, of those that are to go on.

    Raises:
        UserError: it cannot.
    """
    if (not before[1] and not now[1]) or before == now:
        return
    keys = [key for key in dict.fromkeys([*before[1], *now[1]]) if before[1].get(key) != now[1].get(key)]
    changed = f"; other {', '.join(keys)}" if before[1] and now[1] and keys else ""
    raise UserError(
        f"stage {stage} was begun on {_in_words(*before)}, and is to go on on {_in_words(*now)}{changed}",
        expected="what it was begun on: the state of DeepSpeed is cut into pieces, one for each process",
        hint=f"go on as it was begun, or move {folder} away: the stage is then trained again",
    )


def _in_words(processes: int, config: Mapping[str, Any]) -> str:
    many = f"{processes} process" + ("es" if processes != 1 else "")
    if not config:
        return f"{many} without DeepSpeed"
    zero = config["zero_optimization"]
    return f"{many} with ZeRO-{zero['stage']}" + (" and offloading" if "offload_param" in zero else "")


def check_installed() -> None:
    """Whether DeepSpeed is there to train with.

    Raises:
        UserError: it is not.
    """
    if find_spec("deepspeed") is None:
        raise UserError("launch.deepspeed: DeepSpeed is not installed", hint=INSTALL)
