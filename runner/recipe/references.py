"""Checks between the blocks of a recipe: does what one names exist in another, and can it be used that way.

They work on plain values, so that they are reported together with the errors inside blocks; what has the wrong type is
passed over here, the models report it.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.errors import Problem, Where
from runner.recipe.adapter_blocks import AdapterBlocks
from runner.recipe.chat_blocks import ChatBlocks
from runner.recipe.checkpoint_refs import CheckpointRefs
from runner.recipe.deepspeed_blocks import DeepspeedBlocks
from runner.recipe.launch_blocks import LaunchBlocks
from runner.recipe.layers import Layered, blocks_of, did_you_mean, dotted, near_file, strings_of
from runner.recipe.mixture_blocks import MixtureBlocks
from runner.recipe.model_block import ModelBlock
from runner.recipe.negative_blocks import NegativeBlocks
from runner.recipe.penalty_blocks import PENALTIES, PenaltyBlocks
from runner.recipe.probing_blocks import ProbingBlocks
from runner.recipe.run_blocks import RunBlocks
from runner.recipe.shapes import Shape, shape_of, splits_of
from runner.recipe.trainer_args import OWNED, RENAMED, UNDER, argument_types, expected_type, instead, stage_keys
from runner.recipe.wording import hint_for, shown
from runner.yaml_marks import Path as ValuePath

SHIPPED = {
    "test_radicals.py": "radicals",
    "test_novel_rules.py": "novel_rules",
    "test_repetition.py": "repetition",
    "test_repetition_penalised.py": "repetition",
    "test_forgetting.py": "forgetting",
    "test_forgetting_texts.py": "forgetting",
    "test_watched.py": "watched",
}
"""Probe files that `recipe new --suites` writes, with the suite that it takes; `starter.SUITES` has the rest."""

RESERVED = ("data", "events", "exports", "lock", "nodes", "slurm", "superseded", "tokenizer", "trackers")
"""Names of a run's own files and folders; a stage's folder would stand in their place."""

TAKES: dict[str, tuple[tuple[Shape, ...], str]] = {
    "pretrain": (("text", "prompt", "messages"), "documents (`text`), or `prompt` with `completion`"),
    "sft": (("prompt", "messages"), "`prompt` with `completion`"),
    "dpo": (("pairs",), "pairs: a data set with `prompt`, `chosen` (or `completion`) and `rejected`"),
    "contrast": (("pairs",), "a data set with `prompt`, `chosen` (or `completion`) and `rejected`"),
    "tokenizer": (("text", "prompt", "messages", "pairs"), "documents (`text`), or `prompt` with `completion`"),
}
TAKES |= dict.fromkeys((*PENALTIES, "replay"), TAKES["pretrain"]) | {"lora": TAKES["sft"]}
HOLDS: dict[Shape, str] = {
    "text": "documents (`text`)",
    "prompt": "`prompt` with `completion`",
    "messages": "conversations",
    "pairs": "pairs of `chosen` and `rejected`",
    "rows": "rows that no template writes",
}


def check_references(layered: Layered, root: Path, files: bool) -> list[Problem]:
    """Every reference that leads nowhere or to the wrong thing.

    `files` also looks whether named files exist, and whether the model can be made by the transformers installed.
    """
    checks = _Checks(layered, root, files)
    if files:
        ModelBlock(layered, root, checks.problems).check()
    ChatBlocks(layered, root, files, checks.problems).check()
    checks.data()
    checks.stages()
    checks.probes()
    checks.top()
    RunBlocks(layered, files, checks.problems).check()
    ProbingBlocks(layered, checks.problems).check()
    DeepspeedBlocks(layered, root, files, checks.problems).check()
    LaunchBlocks(layered, checks.problems).check()
    return checks.problems


@dataclass
class _Checks:
    layered: Layered
    root: Path
    files: bool
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        values = self.layered.values
        self.checkpoints = CheckpointRefs(self.layered, self.root, self.files, self.problems)
        self.sources, self.steps, self.suites = (blocks_of(values, key) for key in ("data", "stages", "probes"))
        self.mixtures = MixtureBlocks(self.layered, self.sources, self.steps, self.problems, self._data_ref)
        self.penalties = PenaltyBlocks(self.layered, self.sources, self.problems, self._data_ref)
        self.adapters = AdapterBlocks(self.layered, self.root, self.files, self.steps, self.problems, self._data_ref)

    def _report(self, message: str, where: Where, expected: str | None = None, hint: str | None = None) -> None:
        self.problems.append(Problem(message, where, expected, hint))

    def _value(self, *path: str | int) -> Where:
        return self.layered.mark(path).at_value()

    # data ------------------------------------------------------------------------------------------------------------

    def data(self) -> None:
        for name, block in self.sources.items():
            path: ValuePath = ("data", name, "rows")
            if isinstance(block.get("rows"), str) and self._data_ref(block["rows"], path):
                self._no_circle(name, path)
        NegativeBlocks(
            self.layered, self.root, self.files, self.sources, self.steps, self.checkpoints, self.problems
        ).check()
        model = self.layered.values.get("model")
        tokenizer = model.get("tokenizer") if isinstance(model, dict) else None
        if isinstance(tokenizer, dict):
            for ref, at in strings_of(tokenizer.get("from_data"), ("model", "tokenizer", "from_data")):
                self._data_ref(ref, at)
        self.adapters.vocabulary()

    def _data_ref(self, ref: str, path: ValuePath) -> bool:
        """Whether `ref` names a data set, or a split of one; reports where it does not."""
        name, dot, side = ref.partition(".")
        known = self.layered.values.get("data")
        if not isinstance(known, dict):
            return False
        if name not in known:
            hint = did_you_mean(name, known) or f"there are: {', '.join(known)}"
            self._report(f"no data set `{name}`", self._value(*path), "a name under `data:`", hint)
            return False
        if dot:
            splits = splits_of(self.sources, name)
            if splits is None:
                return False
            if not splits:
                self._report(
                    f"`{name}` has no splits", self._value(*path), None, f"write {name}, or give its rows a `split:`"
                )
                return False
            if side not in splits:
                hint = did_you_mean(side, splits) or f"there are: {', '.join(f'{name}.{split}' for split in splits)}"
                self._report(f"`{name}` has no split `{side}`", self._value(*path), None, hint)
                return False
        return name in self.sources

    def _circular(self, name: str) -> list[str]:
        """The names on a circle of `rows` that starts at `name`, or nothing."""
        seen: list[str] = []
        while name in self.sources and name not in seen:
            seen.append(name)
            name = str(self.sources[name].get("rows", "")).partition(".")[0]
        return [*seen[seen.index(name) :], name] if name in seen else []

    def _no_circle(self, name: str, path: ValuePath) -> None:
        circle = self._circular(name)
        if circle and name == next(other for other in self.sources if other in circle):
            self._report(
                f"rows in a circle: {' → '.join(circle)}",
                self._value(*path),
                "rows that lead to a data set with `path`",
            )

    # stages ----------------------------------------------------------------------------------------------------------

    def stages(self) -> None:
        above: list[str] = []
        for name, block in self.steps.items():
            if name in RESERVED:
                where = self.layered.mark(("stages", name)).at_key()
                self._report(
                    f"a stage cannot be named `{name}`", where, None, "it is a name of a run's own files; take another"
                )
            self._start(name, block, above)
            self._stage_data(name, block)
            self.penalties.check(name, block, first=not above)
            self.adapters.check(name, block)
            self.mixtures.check(name, block, above)
            if isinstance(block.get("trainer_args"), dict):
                self._trainer_args(name, str(block.get("kind")), block["trainer_args"])
            above.append(name)

    def _start(self, name: str, block: dict[str, Any], above: list[str]) -> None:
        path: ValuePath = ("stages", name, "from")
        start = block.get("from")
        if "from_" in block:
            where = self.layered.mark(("stages", name, "from_")).at_key()
            self._report(f"unknown key `from_` in `stages.{name}`", where, None, "did you mean from?")
        elif not above and start is not None:
            where = self.layered.mark(path).at_key()
            self._report(
                "the first stage starts from `model`",
                where,
                None,
                "remove `from`; weights to start from are `model: {path: …}`",
            )
        elif above and start is None:
            where = self.layered.mark(("stages", name)).at_key()
            hint = f"for example from: {above[-1]}@last"
            self._report(f"`stages.{name}` does not say which checkpoint it starts `from`", where, None, hint)
        elif above and isinstance(start, str):
            self.checkpoints.check(start, path, above)

    def _stage_data(self, name: str, block: dict[str, Any]) -> None:
        kind = block.get("kind")
        for ref, path in strings_of(block.get("data"), ("stages", name, "data")):
            if not self._data_ref(ref, path) or kind not in ("pretrain", "sft", "lora", "dpo", "contrast"):
                continue
            data = ref.partition(".")[0]
            shape = shape_of(self.sources, data)
            takes, words = TAKES[kind]
            if shape is None or shape in takes:
                continue
            others = [other for other in self.sources if shape_of(self.sources, other) in takes]
            hint = f"such are: {', '.join(others)}" if others else "the recipe has no such data set"
            self._report(
                f"`{kind}` cannot train on `{ref}`, which holds {HOLDS[shape]}", self._value(*path), words, hint
            )

    def _trainer_args(self, name: str, kind: str, arguments: dict[str, Any]) -> None:
        keys, known = stage_keys(kind), argument_types(kind)
        for key, value in arguments.items():
            path: ValuePath = ("stages", name, "trainer_args", key)
            where = self.layered.mark(path).at_key()
            if key in keys:
                self._report(f"`{key}` is a key of the stage", where, None, f"write it in `stages.{name}` itself")
            elif RENAMED.get(key, "").endswith(UNDER):
                self._report(f"`{key}` is an old name", where, None, f"write {RENAMED[key].removesuffix(UNDER)}")
            elif key in OWNED:
                hint = instead(OWNED[key], "instead, write")
                self._report(f"`{key}` is decided by the recipe", where, None, hint)
            elif known and key not in known:
                library = "TRL's DPOConfig" if kind == "dpo" else "transformers' TrainingArguments"
                self._report(
                    f"`{key}` is not an argument of {library}", where, None, did_you_mean(key, [*known, *keys])
                )
            elif key in known and (expected := expected_type(known[key], value)):
                self._report(
                    f"`{dotted(path)}` is {shown(value)}", self._value(*path), expected, hint_for(value, expected)
                )

    # probes ----------------------------------------------------------------------------------------------------------

    def probes(self) -> None:
        stages = self.layered.values.get("stages")
        for name, block in self.suites.items():
            path: ValuePath = ("probes", name)
            if isinstance(block.get("cases"), str):
                self._data_ref(block["cases"], (*path, "cases"))
            for stage, at in strings_of(block.get("stages"), (*path, "stages")):
                if isinstance(stages, dict) and stage not in stages:
                    hint = did_you_mean(stage, stages) or f"there are: {', '.join(stages)}"
                    self._report(f"no stage `{stage}`", self._value(*at), "a name under `stages:`", hint)
            gate = block.get("gate")
            if isinstance(gate, dict) and isinstance(gate.get("baseline"), str):
                self.checkpoints.check(gate["baseline"], (*path, "gate", "baseline"))
            if self.files and isinstance(block.get("file"), str):
                self._probe_file(block["file"], (*path, "file"))

    def _probe_file(self, text: str, path: ValuePath) -> None:
        file, _, function = text.partition("::")
        found = self.root / file
        if not found.is_file():
            what = "is a folder" if found.is_dir() else "does not exist"
            suite = SHIPPED.get(Path(file).name)
            shipped = f"recipe new --suites {suite} writes {Path(file).name} and its data" if suite else None
            self._report(
                f"probe file {file} {what}",
                self._value(*path),
                "a pytest file, from the project root",
                shipped or near_file(found, file),
            )
            return
        source = found.read_text("utf-8", "replace")
        try:
            ast.parse(source)
        except SyntaxError as error:
            what = f"probe file {file} is not Python: {error.msg} in line {error.lineno}"
            self._report(what, self._value(*path), None, f"pytest {file} shows the line")
            return
        tests = re.findall(r"(?m)^\s*(?:async )?def (test\w*)", source)
        if not tests:
            self._report(f"{file} has no probe", self._value(*path), "a function `def test_…` under @probe")
        elif function and function.partition("[")[0] not in tests:
            hint = did_you_mean(function, tests) or f"it has: {', '.join(tests)}"
            self._report(f"{file} has no probe `{function}`", self._value(*path), "FILE::FUNCTION", hint)

    # best and result -------------------------------------------------------------------------------------------------

    def top(self) -> None:
        values = self.layered.values
        best, result = values.get("best"), values.get("result")
        if isinstance(best, str) and best not in self.suites:
            near = did_you_mean(best, self.suites)
            hint = near or (f"there are: {', '.join(self.suites)}" if self.suites else "the recipe has no `probes:`")
            self._report(f"no suite `{best}`", self._value("best"), "a name under `probes:`", hint)
        for key in ("checkpoint", "baseline"):
            if isinstance(result, dict) and isinstance(result.get(key), str):
                self.checkpoints.check(result[key], ("result", key))
