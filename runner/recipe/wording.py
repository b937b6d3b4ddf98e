"""What pydantic finds wrong with a recipe, worded for the person who wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runner import spec
from runner.errors import Problem, Where, nearest
from runner.recipe.expectations import describe_block, describe_field, keys_of, options_of
from runner.recipe.layers import Layered, did_you_mean, dotted
from runner.recipe.trainer_args import RENAMED, argument_types, instead
from runner.yaml_marks import Path

_NAMED_BLOCKS: Mapping[str, type[BaseModel]] = {"data": spec.Data, "probes": spec.Suite}
_KINDS: Mapping[str, type[spec.Stage]] = {
    "pretrain": spec.Pretrain,
    "sft": spec.Sft,
    "lora": spec.Sft,
    "dpo": spec.Dpo,
    "contrast": spec.Contrast,
}
_BELONGS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("at the top of the recipe", spec.Recipe),
    ("in `model:`", spec.Model),
    ("in `model.tokenizer:`", spec.Tokenizer),
    ("in a stage", spec.Stage),
    ("in a stage of `kind: sft`", spec.Sft),
    ("in a stage of `kind: dpo`", spec.Dpo),
    ("in a stage of `kind: contrast`", spec.Contrast),
    ("in a stage's `lora:`", spec.Lora),
    ("in a stage's `replay:`", spec.Replay),
    ("under a data set's name in a stage's `mix:`", spec.Part),
    ("in `model.extend_vocabulary:`", spec.ExtendVocabulary),
    ("in a suite under `probes:`", spec.Suite),
    ("in a suite's `gate:`", spec.Gate),
    ("in a suite's `decoding:`", spec.DecodingChange),
    ("in a data set's `pick:`", spec.Pick),
    ("in a data set's `split:`", spec.Split),
    ("in a data set's `filter:`", spec.Filter),
    ("in a data set under `data:`", spec.Data),
)


def problems_of(error: ValidationError, layered: Layered) -> list[Problem]:
    """One problem for every faulty place. A union reports once for each of its sides; these become one."""
    places: dict[tuple[Path, str], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        path, name = _place(details, layered.values)
        places.setdefault((path, name), []).append(details)
    problems: list[Problem] = []
    for (path, name), found in places.items():
        deeper = any(other[: len(path)] == path and (other != path or extra) for other, extra in places)
        if not name and deeper and all(details["type"].endswith(("_type", "too_short")) for details in found):
            continue  # the other side of a union: `tokenizer:` could be text too, but it is a map with a fault inside
        problems.append(_problem(path, name, _telling(found), layered))
    return problems


def _telling(found: list[ErrorDetails]) -> ErrorDetails:
    """Of the errors at one place the one that says most: a rule of the block before "not the other type"."""
    return next((details for details in found if details["type"] == "value_error"), found[0])


def _place(details: ErrorDetails, values: Any) -> tuple[Path, str]:
    """The path in the YAML that an error is about, and the name of a key that is missing or unknown there.

    pydantic's locations also hold the tags of unions and indexes into what was written as a single value.
    """
    path: Path = ()
    location = details["loc"]
    for part in location:
        if part == "[key]":
            return path[:-1], str(path[-1])
        inside_map = isinstance(values, dict) and isinstance(part, str) and part in values
        if inside_map or (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            path, values = (*path, part), _at(values, (part,))
    if details["type"] == "missing":
        return path, str(location[-1])
    if details["type"] == "extra_forbidden":
        return path[:-1], str(path[-1])
    return path, ""


def _problem(path: Path, name: str, details: ErrorDetails, layered: Layered) -> Problem:
    kind = details["type"]
    if kind == "missing":
        return _missing(path, name, layered)
    if kind == "extra_forbidden":
        return unknown_key(path, name, layered)
    if kind.startswith("union_tag"):
        return _kind(path, kind, layered)
    if kind == "string_pattern_mismatch" and name:
        where = layered.mark((*path, name)).at_key()
        return Problem(f"`{name}` is not a name", where, "a letter, then letters, digits, _ and -")
    if kind == "value_error":
        return _impossible(path, details, layered)
    return _bad_value(path, layered)


def _missing(path: Path, name: str, layered: Layered) -> Problem:
    model = block_at(path, layered.values)
    what = f"`{dotted(path)}`" if path else "the recipe"
    where = layered.mark(path).at_key()
    if not path:
        where = Where(where.file)
    present = _at(layered.values, path)
    names = [key for key in present if model and key not in keys_of(model)] if isinstance(present, dict) else []
    near = nearest(name, [str(key) for key in names])
    if name == "kind":
        near = near or next((key for key in names if str(present[key]) in _KINDS), None)
    hint = f"is `{near}` meant to be `{name}`?" if near else None
    if name == "kind":
        return Problem(f"{what} does not say its `kind`", where, f"kind: {_either(_KINDS)}", hint)
    return Problem(f"{what} needs `{name}`", where, describe_field(model, name, with_name=True), hint)


def unknown_key(path: Path, name: str, layered: Layered) -> Problem:
    """The problem with a key that its block does not have: the new name, the right place, or the nearest name."""
    model = block_at(path, layered.values)
    keys = keys_of(model) if model else ()
    inside = f"in `{dotted(path)}`" if path else "at the top of the recipe"
    where = layered.mark((*path, name)).at_key()
    message = f"unknown key `{name}` {inside}"
    given = _at(layered.values, path)
    if hint := _moved(path, name, given):
        return Problem(message, where, None, hint)
    if near := nearest(name, keys):
        already = " It stands there already" if near in given else ""
        return Problem(message, where, None, f"did you mean {near}?{already}")
    for place, other in _BELONGS:
        if name in keys_of(other) and other is not model:
            return Problem(message, where, None, f"`{name}` stands {place}")
    return Problem(message, where, "one of: " + ", ".join(keys))


def _moved(path: Path, name: str, block: Mapping[str, Any]) -> str | None:
    """What is written instead of a name of Hugging Face or TRL."""
    in_stage = len(path) == 2 and path[0] == "stages"
    if in_stage and name in RENAMED:
        return instead(RENAMED[name])
    if path == ("model",) and name in ("torch_dtype", "bf16", "fp16"):
        return f"write {RENAMED[name].replace('model.', '')}"
    if path == ("model",) and name in ("model_name_or_path", "name", "pretrained", "model", "model_name", "base_model"):
        return "write path"
    if path in ((), ("model",)) and name in RENAMED and (target := RENAMED[name]).startswith("model."):
        return f"write {target}"
    if in_stage and name in argument_types(str(block.get("kind"))):
        return f"a training argument of transformers or TRL is written under trainer_args: {{{name}: …}}"
    if not path and name in RENAMED and not any(name in keys_of(model) for _, model in _BELONGS):
        return instead(RENAMED[name], "in a stage, write")
    return None


def _kind(path: Path, error: str, layered: Layered) -> Problem:
    if error == "union_tag_not_found":
        return _missing(path, "kind", layered)
    value = _at(layered.values, (*path, "kind"))
    where = layered.mark((*path, "kind")).at_value()
    hint = did_you_mean(str(value), _KINDS)
    return Problem(f"`{dotted(path)}` has the unknown kind {shown(value)}", where, _either(_KINDS), hint)


def _either(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


def _impossible(path: Path, details: ErrorDetails, layered: Layered) -> Problem:
    """A rule between the keys of a block; the caret goes under the first key of the block that the message names."""
    message = details["msg"].removeprefix("Value error, ")
    block = _at(layered.values, path)
    where = layered.mark(path).at_key()
    for word in re.findall(r"\w+", message):
        if isinstance(block, dict) and word in block:
            where = layered.mark((*path, word)).at_key()
            break
    return Problem(f"`{dotted(path)}`: {message}", where)


def _bad_value(path: Path, layered: Layered) -> Problem:
    value = _at(layered.values, path)
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    model = block_at(path, layered.values)
    if model is spec.Bound and (near := did_you_mean(name, keys_of(spec.Gate))):
        where = layered.mark(path).at_key()
        return Problem(f"unknown key `{name}` in `{dotted(path[:-1])}`", where, None, near)
    holder = next((path[:cut] for cut in range(len(path) - 1, -1, -1) if isinstance(path[cut], str)), ())
    around = block_at(holder, layered.values)
    expected: str | None
    if model is not None:
        expected = describe_block(model)
    elif holder == () and name in ("data", "stages", "probes"):
        expected = f"a map of named {'data sets' if name == 'data' else name if name == 'stages' else 'suites'}"
    else:
        expected = describe_field(around, name)
    hint = hint_for(value, expected or "", options_of(around, name))
    if around is spec.Gate and model is spec.Bound:
        hint = "a key of a gate that is no rule is the name of a recorded number with its bounds"
    if value == {} or value == [] or value is None:
        hint = "give it a value, or leave the key out"
    return Problem(f"`{dotted(path)}` is {shown(value)}", layered.mark(path).at_value(), expected, hint)


_NUMBER = re.compile(r"[-+]?[\d_,]*\.?\d+([eE][-+]?\d+)?")


def hint_for(value: object, expected: str, options: tuple[str, ...] = ()) -> str | None:
    """How a value of the wrong type is written rightly, where that can be guessed."""
    if isinstance(value, str):
        if options and (near := did_you_mean(value, options)):
            return near
        if "number" in expected and _NUMBER.fullmatch(value):
            plain = value.replace("_", "").replace(",", "")
            return f"write {plain}, without quotes" if plain == value else f"write {plain}"
        if "number" in expected and (percent := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)):
            return f"write {float(percent[1]) / 100:g}"
        if "true or false" in expected and value.lower() in ("yes", "no", "on", "off"):
            return f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if isinstance(value, float) and "whole number" in expected and value.is_integer() and abs(value) < 1e15:
        return f"write {int(value)}"
    if isinstance(value, (bool, int, float)) and ("text" in expected or "name" in expected):
        return f'write "{shown(value)}", in quotes'
    return None


def shown(value: object) -> str:
    """A found value in a message, cut where it is long."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a map" if value else "an empty map"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]


def block_at(path: Path, values: Any) -> type[BaseModel] | None:
    """The model of the block at `path`, or None where no block stands there."""
    names = [part for part in path if isinstance(part, str)]
    if not names:
        return spec.Recipe
    tail = names[2:] if names[0] in ("data", "stages", "probes") else names[1:]
    model: type[BaseModel] | None = None
    if names[0] == "stages" and len(names) > 1:
        stage = _at(values, path[:2])
        model = _KINDS.get(str(stage.get("kind")) if isinstance(stage, dict) else "", spec.Stage)
    elif names[0] in _NAMED_BLOCKS and len(names) > 1:
        model = _NAMED_BLOCKS[names[0]]
    elif names[0] in ("model", "result", "launch"):
        model = spec.Model if names[0] == "model" else spec.Result if names[0] == "result" else spec.Launch
    inner: Mapping[tuple[type[BaseModel] | None, str], type[BaseModel]] = {
        (spec.Model, "tokenizer"): spec.Tokenizer,
        (spec.Data, "split"): spec.Split,
        (spec.Data, "pick"): spec.Pick,
        (spec.Data, "filter"): spec.Filter,
        (spec.Data, "messages"): spec.Turn,
        (spec.Pick, "of"): spec.Text,
        (spec.Suite, "gate"): spec.Gate,
        (spec.Launch, "slurm"): spec.Slurm,
        (spec.Suite, "decoding"): spec.DecodingChange,
    }
    if names[0] == "data" and tail[:1] == ["rejected"]:
        model, tail = _negative_at(path, values), []
    if names[0] == "stages" and tail[:1] == ["mix"] and len(tail) > 1:
        model, tail = spec.Part, tail[2:]
    for name in tail:
        bound = model is spec.Gate and name not in spec.Gate.model_fields
        model = spec.Bound if bound else inner.get((model, name)) or _only_block(model, name)
    if model in (spec.Text, spec.Turn) and not isinstance(path[-1], int):
        return None  # the list of templates itself
    if model is spec.Tokenizer and not isinstance(_at(values, path), dict):
        return None
    return model


def _only_block(model: type[BaseModel] | None, name: str) -> type[BaseModel] | None:
    """The block that a stage's key holds, where it can hold nothing else."""
    info = model.model_fields.get(name) if model is not None and issubclass(model, spec.Stage) else None
    parts = [
        part for part in (get_args(info.annotation) or (info.annotation,) if info else ()) if part is not type(None)
    ]
    only = parts[0] if len(parts) == 1 else None
    return only if isinstance(only, type) and issubclass(only, BaseModel) else None


def _negative_at(path: Path, values: Any) -> type[BaseModel] | None:
    """The block of one negative, at `rejected` itself or at an item of it; None for a template and a list of them."""
    inside_list = len(path) > 3 and isinstance(path[3], int)
    if len(path) > (4 if inside_list else 3):
        return None  # a field of it
    value = _at(values, path)
    ways: Mapping[str, type[BaseModel]] = {"repeat": spec.Repeat, "sample": spec.Sample, "file": spec.FromFile}
    return next((model for key, model in ways.items() if isinstance(value, dict) and key in value), None)


def _at(values: Any, path: Path) -> Any:
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values
