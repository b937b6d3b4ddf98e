"""Checks of `model:` against what is on this machine: the folders it names, and the settings transformers knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import Problem, Where
from runner.recipe.layers import Layered, did_you_mean, dotted, near_file
from runner.recipe.model_configs import causal_types, model_types, settings_of
from runner.recipe.trainer_args import expected_type
from runner.recipe.wording import hint_for, shown
from runner.yaml_marks import Path as ValuePath

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""`name` or `org/name`; anything else can only be a folder."""


@dataclass
class ModelBlock:
    """Checks the block; what is wrong is added to `problems`."""

    layered: Layered
    root: Path
    problems: list[Problem]

    def check(self) -> None:
        """Reports folders that are not there, and settings of `config` that the model type does not have."""
        model = self.layered.values.get("model")
        if not isinstance(model, dict):
            return
        for key in ("path", "tokenizer"):
            if isinstance(model.get(key), str):
                self._folder(model[key], ("model", key))
        if isinstance(config := model.get("config"), dict) and isinstance(kind := config.get("model_type"), str):
            self._config(kind, {key: value for key, value in config.items() if key != "model_type"})

    def _report(self, message: str, where: Where, expected: str | None = None, hint: str | None = None) -> None:
        self.problems.append(Problem(message, where, expected, hint))

    def _folder(self, text: str, path: ValuePath) -> None:
        found = self.root / text
        if found.is_dir():
            return
        near = near_file(found, text)
        # what may be an id is left for the hub to know, but not where it is plainly a slip in a folder's name
        slip = "/" in text and found.parent.is_dir() and near
        if found.exists():
            what, near = f"{text} is a file", None
        elif _HUB_ID.fullmatch(text) and not slip:
            return
        else:
            what = f"there is no folder {text}"
        holds = "weights and their tokenizer" if path[-1] == "path" else "a tokenizer"
        self._report(what, self.layered.mark(path).at_value(), f"a folder with {holds}, from the project root", near)

    def _config(self, kind: str, config: dict[Any, Any]) -> None:
        known = causal_types()
        if known and kind not in known:
            where = self.layered.mark(("model", "config", "model_type")).at_value()
            if kind in model_types():
                self._report(f"{shown(kind)} is no language model", where, "a model that predicts the next token")
            else:
                hint = did_you_mean(kind, sorted(known)) or "the names are those of transformers, for example qwen3"
                self._report(f"transformers has no model type {shown(kind)}", where, None, hint)
            return
        settings = settings_of(kind)
        if settings is None:
            return
        for key, value in config.items():
            mark = self.layered.mark(path := ("model", "config", key))
            if key not in settings.types and key not in settings.others:
                hint = did_you_mean(str(key), settings.types) or f"the names are those of transformers' {kind} config"
                self._report(f"`{kind}` has no setting `{key}`", mark.at_key(), None, hint)
            elif expected := expected_type(settings.types.get(key, ""), value):
                self._report(
                    f"`{dotted(path)}` is {shown(value)}", mark.at_value(), expected, hint_for(value, expected)
                )
