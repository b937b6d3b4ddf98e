"""Which parameters a stage trains: `freeze` and `train_only`, patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch

from runner import spec
from runner.errors import BadRecipe, nearest


def choose(network: torch.nn.Module, stage: spec.Stage) -> tuple[str, ...]:
    """Take the gradient of what the stage does not train; what is worth a word about it.

    A parameter that has several names, as tied embeddings have, is frozen, or trained, by any of them.

    Raises:
        BadRecipe: a pattern matches no parameter, or nothing is left to train.
    """
    patterns = stage.freeze or stage.train_only
    if not patterns:
        return ()
    key = "freeze" if stage.freeze else "train_only"
    named = dict(network.named_parameters(remove_duplicate=False))
    matched = {id(named[name]) for name in _matching(key, patterns, list(named))}
    for parameter in named.values():
        parameter.requires_grad_((id(parameter) in matched) == (key == "train_only"))
    if not any(parameter.requires_grad for parameter in named.values()):
        raise BadRecipe(f"{key} leaves nothing to train")
    return _shared(named, matched, "not trained" if key == "freeze" else "trained")


def _matching(key: str, patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        own = [name for name in names if fnmatchcase(name, pattern)]
        if not own:
            near = _near(pattern, names)
            ends = ", ".join(_some(names))
            raise BadRecipe(
                f"{key}: no parameter of the model matches {pattern!r}",
                expected=f"a pattern of names such as {ends}",
                hint=f"did you mean {near}?" if near else "* stands for any characters, dots too",
            )
        found += own
    return found


def _near(pattern: str, names: Sequence[str]) -> str | None:
    """The name, or the beginning of names, that a pattern was most likely meant to have."""
    starts: dict[str, str] = {name: name for name in names}
    for name in names:
        parts = name.split(".")
        starts |= {".".join(parts[:upto]): ".".join(parts[:upto]) + ".*" for upto in range(1, len(parts))}
    found = nearest(pattern.strip("*."), starts)
    return starts[found] if found else None


def _some(names: Sequence[str]) -> list[str]:
    """The first and the last names, which are unlike each other."""
    return [*names[:3], *names[-2:]] if len(names) > 5 else list(names)


def _shared(named: dict[str, torch.nn.Parameter], matched: set[int], said: str) -> tuple[str, ...]:
    names: dict[int, list[str]] = {}
    for name, parameter in named.items():
        names.setdefault(id(parameter), []).append(name)
    return tuple(
        f"{' and '.join(several)} are one tensor (tied weights): {said}"
        for one, several in names.items()
        if len(several) > 1 and one in matched
    )
