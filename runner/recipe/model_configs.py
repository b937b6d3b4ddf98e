"""Names of transformers' model types and of their settings, read from its source: importing it would import torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_PAIR = re.compile(r'\("([\w.-]+)",\s*"(\w+)"\)|"([\w.-]+)": "(\w+)"')


@dataclass(frozen=True)
class Settings:
    """What a model's configuration can be given."""

    types: Mapping[str, str]
    """Setting → its annotation as written."""
    others: frozenset[str]
    """Names that it answers to besides, as old configurations do."""


def causal_types() -> frozenset[str]:
    """The model types that are language models; empty where transformers is not installed as it is known here."""
    return frozenset(_table("modeling_auto.py", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"))


def model_types() -> frozenset[str]:
    """Every model type."""
    return frozenset(_config_classes())


@lru_cache
def settings_of(model_type: str) -> Settings | None:
    """The settings of a model type, or None where its source is not as expected: then nothing is said about them."""
    name = _config_classes().get(model_type)
    modules: dict[str, str] = {}
    for file in ("auto_mappings.py", "configuration_auto.py"):
        modules |= _table(file, "SPECIAL_MODEL_TYPE_TO_MODULE_NAME")
    module = modules.get(model_type, model_type.replace("-", "_"))
    folder = _folder()
    if name is None or folder is None:
        return None
    types: dict[str, str] = {}
    others: set[str] = set()
    whole = _collect(folder / "models" / module / f"configuration_{module}.py", name, types, others)
    return Settings(types, frozenset(others)) if whole and types else None


def _folder() -> Path | None:
    located = find_spec("transformers")
    folders = (located.submodule_search_locations if located else None) or ()
    return next((Path(folder) for folder in folders), None)


def _config_classes() -> dict[str, str]:
    """Model type → name of its configuration's class."""
    found = _table("auto_mappings.py", "CONFIG_MAPPING_NAMES")
    return found and found | _table("configuration_auto.py", "CONFIG_MAPPING_NAMES")


@lru_cache
def _table(file: str, name: str) -> dict[str, str]:
    """The pairs of strings in every statement of a file of `models/auto` that begins with `name`."""
    folder = _folder()
    path = folder / "models" / "auto" / file if folder else None
    if path is None or not path.is_file():
        return {}
    statements = re.findall(rf"(?m)^{name}\b.*\n(?:(?:[ )].*)?\n)*", path.read_text("utf-8"))
    pairs = [pair for statement in statements for pair in _PAIR.findall(statement)]
    return {listed or mapped: value or other for listed, value, mapped, other in pairs}


def _collect(path: Path, name: str, types: dict[str, str], others: set[str]) -> bool:
    """Adds what a class and those it is made from declare; whether all of them were found."""
    text = _text(path)
    found = re.search(rf"(?m)^class {name}\b(?:\((?P<bases>[^)]*)\))?:.*\n(?P<body>(?:(?: .*)?\n)*)", text)
    if found is None:
        return False
    body = found["body"]
    for setting, annotation in re.findall(r"(?m)^    (\w+): ([^=\n]+)", body):
        if annotation.startswith("ClassVar"):
            others.add(setting)
        else:
            types.setdefault(setting, annotation.strip())
    others.update(re.findall(r"(?m)^    (?:def )?(\w+)(?: =|\()", body))
    others.update(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", body))
    for arguments in re.findall(r"def __(?:post_)?init__\(([^)]*)\)", body):
        others.update(re.findall(r"(?:^|,)\s*(\w+)", arguments))
    for renamed in re.findall(r"\battribute_map\b[^{\n]*\{([^}]*)\}", body):
        others.update(re.findall(r'"(\w+)"', renamed))
    bases = [base.strip() for base in (found["bases"] or "").split(",") if base.strip() and "=" not in base]
    # what a mixin that lies deeper gives is behaviour, not settings
    return all(_collect(_home(path, text, base), base, types, others) or base.endswith("Mixin") for base in bases)


def _home(path: Path, text: str, name: str) -> Path:
    """The file of a class that `text`, the file at `path`, names."""
    for dots, module, names in re.findall(r"(?m)^from (\.+)([\w.]*) import (\([^)]*\)|.*)", text):
        if re.search(rf"\b{name}\b", names):
            return path.parents[len(dots) - 1].joinpath(*module.split(".")).with_suffix(".py")
    return path


@lru_cache
def _text(path: Path) -> str:
    """A source file without its docstrings. Parsing it would take as long as all the rest of a check."""
    return re.sub(r'r?"""[\s\S]*?"""', "", path.read_text("utf-8")) if path.is_file() else ""
