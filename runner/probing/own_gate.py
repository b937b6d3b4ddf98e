"""A gate that stands in a probe file: the same keys as in a recipe, checked by the same rules, as a person wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from runner import spec
from runner.errors import BadProbe, Where, nearest

_KEYS = tuple(spec.Gate.model_fields)
_BOUNDS = tuple(spec.Bound.model_fields)


def gate_of(written: Mapping[str, Any], where: Where) -> spec.Gate:
    """The gate.

    Raises:
        BadProbe: it is none.
    """
    try:
        return spec.Gate.model_validate(dict(written))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        place = tuple(str(part) for part in found["loc"])
    key = place[0] if place else ""
    if key and key not in _KEYS and not isinstance(written[key], Mapping):
        raise _unknown(f"gate has the unknown key {key!r}", key, _KEYS, where, "; or bounds on a recorded number")
    if found["type"] == "extra_forbidden":
        raise _unknown(f"gate: {key} has the unknown key {place[-1]!r}", place[-1], _BOUNDS, where)
    said = found["msg"].removeprefix("Value error, ")
    shown = f" is {written[key]!r}" if key in written else ""
    raise BadProbe(
        f"gate: {key}{shown}: {said}" if key else f"gate: {said}", where=where, expected="the keys of gate: in a recipe"
    )


def _unknown(message: str, key: str, known: tuple[str, ...], where: Where, more: str = "") -> BadProbe:
    close = nearest(key, known)
    return BadProbe(
        message,
        where=where,
        expected=f"{', '.join(known)}{more}",
        hint=f"did you mean {close}?" if close else None,
    )


def as_json(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """A gate from a probe file as it is written to a verdict file."""
    return json.loads(json.dumps(written, default=list))  # type: ignore[no-any-return]
