"""Recipes that nobody would write: shipped and bad ones changed, ones grown from the JSON Schema, and random bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from runner import recipe
from runner.check import load_variants
from tests.fuzz.mutating import ODD, mutated, other_value

_HERE = Path(__file__).parents[2]
_ROOTS = {"shipped": _HERE, "bad": _HERE / "tests" / "bad_recipes"}
"""Where the paths of the seeds start, by the name that an input gives."""
_DEEPEST = 7


def written(draw: random.Random) -> Mapping[str, bytes]:
    """A recipe, the root its paths start at, and lines for `--set`."""
    root = draw.choice(tuple(_ROOTS))
    how = draw.random()
    if how < 0.45:
        text = mutated(draw, draw.choice(_seeds(root)), _words(), _seeds(root))
    elif how < 0.75:
        text = _dumped(other_value(draw, draw.choice(_parsed(root)), lambda: _any(draw)))
    elif how < 0.97:
        grown = _grown(draw, _schema(), 0)
        text = _dumped(grown)
        if draw.random() < 0.3:
            text = mutated(draw, text, _words(), _seeds(root))
    else:
        text = draw.randbytes(draw.randint(0, 300))
    sets = [_set(draw) for _ in range(draw.choice((0, 0, 0, 1, 3)))]
    return {"recipe.yaml": text, "about.json": json.dumps({"root": root, "sets": sets}).encode()}


def ask(folder: Path) -> None:
    """What `recipe check` does, in this process; what it takes must be the same once it was written and read again.

    Raises:
        UserError: it is refused.
    """
    about = json.loads((folder / "about.json").read_bytes())
    root = _ROOTS[about["root"]]
    for found in load_variants(folder / "recipe.yaml", about["sets"], root):
        again = folder / "again.yaml"
        again.write_text(recipe.dump(found), encoding="utf-8")
        assert recipe.dump(recipe.load(again, root=root)) == recipe.dump(found)


def _set(draw: random.Random) -> str:
    path = ".".join(
        draw.choice(("stages", "qa", "base", "data", "chars", "seed", "learning_rate", "model", "", "0", "心"))
        for _ in range(draw.randint(1, 3))
    )
    return path + draw.choice(("=", "", "==")) + draw.choice(("1", "[", "{a: 1}", "null", "{{", "2e-5", "- a", "\x00"))


# --- seeds ---


@cache
def _seeds(root: str) -> tuple[bytes, ...]:
    folder = _HERE / "recipes" if root == "shipped" else _ROOTS[root]
    return tuple(path.read_bytes() for path in sorted(folder.glob("*.yaml")))


@cache
def _parsed(root: str) -> tuple[Any, ...]:
    found = []
    for text in _seeds(root):
        try:
            found.append(yaml.safe_load(text))
        except (yaml.YAMLError, ValueError):
            continue  # a bad recipe may be no YAML at all
    return tuple(found)


@cache
def _words() -> tuple[bytes, ...]:
    """Names of the language, its values, and what YAML and Jinja make something of."""
    blocks = _schema()["$defs"].values()
    names = {name for block in blocks for name in block.get("properties", {})}
    names |= {value for block in blocks for field in block.get("properties", {}).values() for value in _enum(field)}
    marks = ("&a ", "*a", "<<: ", "!!int ", "!x ", "? ", "- ", ": ", "|\n", ">-\n", "---\n", "...\n",
    "%YAML 9\n", "{", "[", "#", "\t",
             "{{ ", " }}", "{% ", " %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "\x85", "\u2028",
             "\ufeff", "'", '"')  # fmt: skip
    values = tuple(repr(value)[:80] for value in ODD)
    return tuple(word.encode("utf-8", "replace") for word in (*sorted(names), *marks, *values))


def _enum(field: Mapping[str, Any]) -> list[str]:
    ways = [field, *field.get("anyOf", ())]
    return [value for way in ways for value in way.get("enum", ()) if isinstance(value, str)]


# --- the grammar ---


@cache
def _schema() -> dict[str, Any]:
    return recipe.schema()


def _grown(draw: random.Random, node: Mapping[str, Any], depth: int) -> Any:
    """A value that a schema allows, or seldom one that it does not."""
    if draw.random() < 0.02 or depth > _DEEPEST:
        return _any(draw)
    if "$ref" in node:
        return _grown(draw, _schema()["$defs"][node["$ref"].rpartition("/")[2]], depth)
    if ways := node.get("anyOf") or node.get("oneOf"):
        return _grown(draw, draw.choice(ways), depth + 1)
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return draw.choice(node["enum"])
    kind = node.get("type")
    if kind == "object" or "properties" in node:
        return _object(draw, node, depth)
    if kind == "array":
        return [_grown(draw, node.get("items", {}), depth + 1) for _ in range(draw.choice((0, 1, 1, 2, 3)))]
    if kind in _SIMPLE:
        return draw.choice(_SIMPLE[kind])
    return _any(draw)


def _object(draw: random.Random, node: Mapping[str, Any], depth: int) -> dict[str, Any]:
    required = set(node.get("required", ()))
    fields = node.get("properties", {})
    share = draw.choice((0.05, 0.15, 0.4))
    made = {
        name: _grown(draw, field, depth + 1)
        for name, field in fields.items()
        if (name in required and draw.random() < 0.97) or draw.random() < share
    }
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        for name in draw.sample(
            ("base", "qa", "prefer", "chars", "rows", "questions", "a.b", "心"), draw.randint(1, 3)
        ):
            made[name] = _grown(draw, more, depth + 1)
    return made


_SIMPLE: Mapping[str, tuple[Any, ...]] = {
    "string": (
        "base", "qa", "chars", "rows", "questions.train", "base@last", "qa@best", "recipes/data/zhdict.tsv",
        "data/good.jsonl", "char",
        "{{ char }}", "{{ radical }}部", "{{ other.char }}", "probes/test_radicals.py", "r", "1.0", "",
    ),
    "integer": (0, 1, 2, 3, 8, 32, 1000, -1, 10**12),
    "number": (0, 0.1, 0.5, 0.9, 1, 1.0e-4, 3.0, -0.5, 1e300),
    "boolean": (True, False),
    "null": (None,),
}  # fmt: skip


def _any(draw: random.Random) -> Any:
    return draw.choice(ODD) if draw.random() < 0.7 else draw.choice(_SIMPLE["string"])


def _dumped(value: Any) -> bytes:
    text = yaml.dump(value, allow_unicode=True, sort_keys=False, default_flow_style=None)
    return text.encode("utf-8", "surrogatepass")
