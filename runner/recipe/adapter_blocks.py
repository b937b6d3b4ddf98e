"""Checks of what a stage trains: `lora:`, `adapter:`, `freeze:`, `train_only:`, `dropout:`; and `extend_vocabulary:`.

What the model's own parts are called is known where it is made, in the trainer, which looks before anything trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import loadable, spec
from runner.errors import Problem
from runner.recipe.layers import Layered, near_file, strings_of
from runner.recipe.model_configs import settings_of
from runner.yaml_marks import Path as ValuePath

_SHAPE = ("r", "alpha", "targets", "bias", "use_rslora", "use_dora")
"""What an adapter that goes on has from its first stage."""
_FREEZING = ("freeze", "train_only")


@dataclass
class AdapterBlocks:
    """Checks one stage after the other; what is wrong is added to `problems`."""

    layered: Layered
    root: Path
    files: bool
    """Whether to look into the folders that are named."""
    stages: Mapping[str, Mapping[str, Any]]
    problems: list[Problem]
    known: Callable[[str, ValuePath], bool]
    """Whether a reference names a data set; reports where it does not."""

    def check(self, name: str, block: Mapping[str, Any]) -> None:
        """Reports what cannot be done with the adapter of a stage, or beside it."""
        handed = self._handed(block)
        if block.get("adapter") in ("continue", "merge") and handed == "":
            start = block.get("from") or "model"
            self._report(
                f"`{start}` is no adapter, so there is none to {block['adapter']}", ("stages", name, "adapter"),
                None, "remove it: lora: {} gives the stage an adapter of its own",
            )  # fmt: skip
        goes_on = (
            bool(handed) and (block.get("adapter") or ("continue" if _lora(block) is not None else "")) == "continue"
        )
        if goes_on and handed:
            self._same_shape(name, block, handed)
        for key in _FREEZING if goes_on or _lora(block) is not None else ():
            if block.get(key):
                self._report(
                    f"`{key}` chooses among the model's own parameters, and `{name}` trains an adapter",
                    ("stages", name, key), None, "remove it; lora.targets says which modules get one",
                )  # fmt: skip
        self._dropout(name, block)

    def _report(self, message: str, path: ValuePath, expected: str | None = None, hint: str | None = None) -> None:
        self.problems.append(Problem(message, self.layered.mark(path).at_value(), expected, hint))

    # hand-over -------------------------------------------------------------------------------------------------------

    def _handed(self, block: Mapping[str, Any], below: tuple[str, ...] = ()) -> str | None:
        """The stage that made the adapter which a stage starts from, or the folder of one; empty where it starts from
        none; None where that cannot be known."""
        start = block.get("from")
        ref = spec.parse_ref(start) if isinstance(start, str) else None
        if ref is None or ref.stage not in self.stages:
            return self._outside(start)
        if ref.stage in below:
            return None  # a circle, which is reported where references are
        above = self.stages[ref.stage]
        handed, own = self._handed(above, (*below, ref.stage)), _lora(above) is not None
        if handed != "" and _goes_on(above):
            return handed
        return ref.stage if own else ""

    def _outside(self, start: object) -> str | None:
        model = self.layered.values.get("model")
        place = start if start is not None else model.get("path") if isinstance(model, dict) else None
        if not isinstance(place, str):
            return ""
        return (
            None
            if not self.files or not (self.root / place).is_dir()
            else (place if loadable.is_adapter(self.root / place) else "")
        )

    def _same_shape(self, name: str, block: Mapping[str, Any], handed: str) -> None:
        first, own = _lora(self.stages.get(handed, {})), _lora(block) or {}
        if first is None:
            return  # one from elsewhere is looked at where it is loaded
        for key in _SHAPE:
            before = first.get(key, _default(key))
            if key in own and _many(own[key]) != _many(before):
                self._report(
                    f"`{name}` goes on with the adapter of `{handed}`, which has {key} {_said(before)}",
                    ("stages", name, "lora", key), None,
                    "remove it, or write adapter: merge to begin a new adapter on what that one learned",
                )  # fmt: skip

    # dropout ---------------------------------------------------------------------------------------------------------

    def _dropout(self, name: str, block: Mapping[str, Any]) -> None:
        lora = _lora(block) or {}
        arguments = block.get("trainer_args")
        kept = isinstance(arguments, dict) and arguments.get("disable_dropout") is False
        for key, value in (("dropout", block.get("dropout")), ("lora.dropout", lora.get("dropout"))):
            if block.get("kind") == "dpo" and value and not kept:
                self._report(
                    f"`dpo` trains without dropout, so `{key}` does nothing", ("stages", name, *key.split(".")), None,
                    "remove it, or write trainer_args: {disable_dropout: false} too",
                )  # fmt: skip
        if block.get("kind") in ("dpo", "contrast") and lora.get("l2"):
            what = f"`lora.l2` belongs to stages that predict the next token; `{name}` is {block['kind']}"
            self._report(what, ("stages", name, "lora", "l2"), None, "remove it; weight_decay pulls on an adapter too")
        model = self.layered.values.get("model")
        config = model.get("config") if isinstance(model, dict) else None
        kind = config.get("model_type") if isinstance(config, dict) else None
        known = settings_of(kind) if block.get("dropout") is not None and self.files and isinstance(kind, str) else None
        if known is not None and not any("drop" in setting for setting in known.types):
            self._report(f"a {kind} has no dropout", ("stages", name, "dropout"), None, "remove it")

    # vocabulary ------------------------------------------------------------------------------------------------------

    def vocabulary(self) -> None:
        """Reports files and data sets of `extend_vocabulary` that are not there."""
        model = self.layered.values.get("model")
        block = model.get("extend_vocabulary") if isinstance(model, dict) else None
        if not isinstance(model, dict) or not isinstance(block, dict):
            return
        path: ValuePath = ("model", "extend_vocabulary")
        for ref, at in strings_of(block.get("text"), (*path, "text")):
            self.known(ref, at)
        file, place = block.get("file"), model.get("path")
        if self.files and isinstance(file, str) and not (self.root / file).is_file():
            near = near_file(self.root / file, file)
            self._report(f"there is no file {file}", (*path, "file"), "a text file with a term per line", near)
        if self.files and isinstance(place, str) and loadable.is_adapter(self.root / place):
            hint = "recipe export writes the merged weights of an adapter"
            self._report(f"{place} is an adapter: tokens are added to whole weights", ("model", "path"), None, hint)


def _lora(block: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The `lora:` block of a stage, empty where the kind alone asks for one."""
    written = block.get("lora")
    if isinstance(written, dict):
        return written
    return {} if block.get("kind") == "lora" else None


def _goes_on(block: Mapping[str, Any]) -> bool:
    """Whether a stage trains on the adapter that it starts from, if it starts from one."""
    wanted = block.get("adapter")
    return wanted == "continue" or (wanted is None and _lora(block) is not None)


def _default(key: str) -> object:
    return spec.Lora.model_fields[key].default


def _many(value: object) -> object:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
