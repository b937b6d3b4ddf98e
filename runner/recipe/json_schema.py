"""The JSON Schema of the language, as a recipe's file may be written, for editors that complete and explain it.

A file may say more than the models hold: one text where a list is meant, a template where a number is, only what
differs where it `extends` another, and the same in the variants of `matrix`. Hover texts are the docs of the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from runner.spec import Recipe

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TEMPLATE = {"type": "string", "pattern": r"\{\{|\{%", "description": "A template, rendered with `vars`."}
_EXTENDS = {
    "type": "string",
    "description": "Another recipe, from the project's root: this one says what differs. Maps are merged, lists are "
    "replaced, null deletes, new stages come last.",
}
_PART = "Part-of-"
"""Before the name of a block of which only what differs is said."""
_NOT_VARIED = ("recipe", "extends", "matrix")


def schema() -> Schema:
    """The JSON Schema of the language."""
    made = Recipe.model_json_schema(by_alias=True, schema_generator=_AsWritten, ref_template="#/$defs/{model}")
    blocks: Schema = made.pop("$defs")
    whole = {key: made.pop(key) for key in ("type", "properties", "required", "additionalProperties")}
    whole["properties"]["extends"] = _EXTENDS
    blocks = {name: _with_templates(block) for name, block in blocks.items()}
    whole = _with_templates(whole)
    parts = {_PART + name: _partial(block) for name, block in blocks.items()}
    part = _partial(whole)
    variant = {**part, "properties": {k: v for k, v in part["properties"].items() if k not in _NOT_VARIED}}
    for block in (whole, part):
        matrix = block["properties"]["matrix"]
        matrix.pop("patternProperties", None)
        block["properties"]["matrix"] = {**matrix, "additionalProperties": {"$ref": "#/$defs/Variant"}}
    definitions = {
        **blocks,
        **parts,
        "Template": _TEMPLATE,
        "Recipe": whole,
        "Part-of-Recipe": part,
        "Variant": variant,
    }
    return {
        "$schema": _DIALECT,
        "title": "recipe",
        "description": made.get("description", ""),
        "type": "object",
        "if": {"required": ["extends"]},
        "then": {"$ref": "#/$defs/Part-of-Recipe"},
        "else": {"$ref": "#/$defs/Recipe"},
        "$defs": definitions,
    }


class _AsWritten(GenerateJsonSchema):
    """Values as YAML may hold them."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """A list whose single item may stand for it."""
        made = super().function_before_schema(schema)
        if "items" in made and _takes_one(schema["function"]["function"]):
            return {"anyOf": [made["items"], made]}
        return made

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Without defaults that say nothing: a field that is not given, an empty map."""
        made = super().default_schema(schema)
        return {key: value for key, value in made.items() if key != "default" or value not in (None, {}, [])}


def _takes_one(validator: Callable[..., object]) -> bool:
    """Whether it makes a list of a single text."""
    return validator("x") == ("x",)


def _with_templates(block: Any) -> Any:
    """A copy in which a template may stand for every value that is no text, and lists are counted as lists are."""
    if isinstance(block, list):
        return [_with_templates(item) for item in block]
    if not isinstance(block, Mapping):
        return block
    made = {key: _with_templates(value) for key, value in block.items()}
    if made.get("type") == "array" and "minLength" in made:
        made["minItems"] = made.pop("minLength")
    if "anyOf" in made and (least := made.pop("minLength", None)) is not None:  # of the list that a text may stand for
        made["anyOf"] = [{**one, "minItems": least} if one.get("type") == "array" else one for one in made["anyOf"]]
    made.pop("discriminator", None)  # it is OpenAPI's
    if isinstance(made.get("properties"), dict):
        named = {name: _hovered(field) for name, field in made["properties"].items()}
        # which kind of stage it is decides all else about it
        made["properties"] = {name: _or_template(field) if name != "kind" else field for name, field in named.items()}
    return made


def _hovered(field: Schema) -> Schema:
    """Without the title that is its name once more, and its doc without the line ends of the source."""
    made = {key: value for key, value in field.items() if key != "title"}
    return {**made, "description": " ".join(made["description"].split())} if "description" in made else made


def _or_template(field: Schema) -> Schema:
    """A field of numbers or fixed words, with a template as another choice; its words stay where an editor looks."""
    choices = field.get("anyOf", [field])
    plain = [
        one for one in choices if one.get("type") in ("integer", "number", "boolean") or {"enum", "const"} & one.keys()
    ]
    if not plain or any(one.get("type") == "string" and not {"enum", "const"} & one.keys() for one in choices):
        return field
    kept: Schema = {key: field[key] for key in ("description", "default") if key in field}
    inner = [{key: value for key, value in one.items() if key not in kept} for one in choices]
    return {**kept, "anyOf": [*inner, {"$ref": "#/$defs/Template"}]}


def _partial(block: Schema) -> Schema:
    """A block of which nothing is required, null may stand for any value, and the blocks in it are the same."""
    made = _pointing_to_parts(deepcopy(block))
    made.pop("required", None)
    for where in ("properties", "patternProperties"):
        made[where] = {name: _or_null(field) for name, field in made.get(where, {}).items()}
    return {key: value for key, value in made.items() if value != {}}


def _or_null(field: Schema) -> Schema:
    kept: Schema = {key: field[key] for key in ("description", "default") if key in field}
    if field.get("type") == "object":  # a map by names: null takes one away
        inner = {name: _or_null(entry) for name, entry in field.get("patternProperties", {}).items()}
        field = {**field, **({"patternProperties": inner} if inner else {})}
    return {**kept, "anyOf": [{key: value for key, value in field.items() if key not in kept}, {"type": "null"}]}


def _pointing_to_parts(block: Any) -> Any:
    if isinstance(block, list):
        return [_pointing_to_parts(item) for item in block]
    if not isinstance(block, dict):
        return block
    made = {("anyOf" if key == "oneOf" else key): _pointing_to_parts(value) for key, value in block.items()}
    ref = made.get("$ref")
    return {**made, "$ref": ref.replace("#/$defs/", f"#/$defs/{_PART}")} if isinstance(ref, str) else made
