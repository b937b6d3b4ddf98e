"""What the language expects at a field, in words, taken from the field's own type and documentation."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from runner import spec
from runner.spec import blocks

_SIMPLE = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

_NAMES = ("data", "from_data", "stages")
"""Fields whose texts are names given elsewhere in the recipe."""
_LIST_OF = "a list, each item "


def keys_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys of a block as they are written."""
    return tuple(info.alias or name for name, info in model.model_fields.items())


def describe_block(model: type[BaseModel]) -> str:
    """What a block is, by its keys."""
    return "a map with " + ", ".join(keys_of(model))


def describe_field(model: type[BaseModel] | None, name: str, with_name: bool = False) -> str | None:
    """What is expected at `name`; `with_name` adds the key and the first sentence of its documentation."""
    info = _field(model, name)
    if info is None:
        return "a number from 0 to 1" if model is spec.Split else None
    words = _describe(info.annotation, info.metadata)
    if name in _NAMES:
        words = words.replace("text", "a name", 1)
    if not with_name:
        return words
    about = " ".join((info.description or "").split())
    return f"{name}: {words} ({about.split('. ')[0].rstrip('.')})" if about else f"{name}: {words}"


def options_of(model: type[BaseModel] | None, name: str) -> tuple[str, ...]:
    """The words a field allows, where it is a choice."""
    info = _field(model, name)
    return tuple(_options(info.annotation)) if info else ()


def _field(model: type[BaseModel] | None, name: str) -> FieldInfo | None:
    for attribute, info in (model.model_fields if model else {}).items():
        if name == (info.alias or attribute):
            return info
    return None


def _options(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [option for part in get_args(annotation) if part is not Ellipsis for option in _options(part)]


def _describe(annotation: Any, metadata: Any = ()) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe(parts[0], _flat(parts[1:]))
    if origin in (Union, types.UnionType):
        return _either([_describe(part) for part in parts if part is not type(None)])
    if origin is Literal:
        options = [str(part) for part in parts]
        return options[0] if len(options) == 1 else ", ".join(options[:-1]) + " or " + options[-1]
    if origin is tuple:
        single = any(getattr(item, "func", None) is blocks.one_or_many for item in _flat(metadata))
        item = _describe(parts[0])
        return f"{item}, or a list of them" if single else _LIST_OF + item
    if origin is dict or annotation is dict:
        return "a map"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return describe_block(annotation)
    return _SIMPLE.get(annotation, "a value") + _limits(_flat(metadata))


def _either(words: list[str]) -> str:
    if len(words) == 2 and words[1] == _LIST_OF + words[0]:
        return f"{words[0]}, or a list of them"
    return " or ".join(dict.fromkeys(words))


def _flat(metadata: Any) -> list[Any]:
    """The constraints themselves: a `Field(ge=0)` inside Annotated carries its own in its metadata."""
    return [inner for item in metadata for inner in ((*item.metadata,) if isinstance(item, FieldInfo) else (item,))]


def _limits(metadata: list[Any]) -> str:
    words: dict[str, Any] = {}
    for item in metadata:
        if getattr(item, "pattern", None) == spec.NAME_PATTERN:
            return " (a letter, then letters, digits, _ and -)"
        if getattr(item, "pattern", None) == spec.RENDEZVOUS_PATTERN:
            return ", HOST:PORT"
        if getattr(item, "pattern", None) == spec.SLURM_TIME_PATTERN:
            return " as sbatch reads it: 90 (minutes), 12:00:00 (hours), 2-00:00:00 (days and hours), UNLIMITED"
        for kind, key in ((Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt")):
            if isinstance(item, kind):
                words[key] = getattr(item, key)
    if "ge" in words and "le" in words:
        return f" from {words['ge']} to {words['le']}"
    names = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    said = [f"{names[key]} {value}" for key, value in words.items()]
    return " " + " and ".join(said) if said else ""
