"""`--scale tiny`: a recipe cut down to a rehearsal of a minute on two cores.

It changes the values of a recipe before they are validated, as `--set` does, so that everything after sees an ordinary
recipe: the same stages, masks, schedules, losses and probes, on a small model and few rows.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import loadable, spec
from runner.recipe import absent_data, few_steps, small_models
from runner.recipe.few_steps import Course
from runner.recipe.layers import Layered

ROWS, BATCH, LENGTH, NEW_TOKENS = 48, 8, 256, 64
_OF_A_SPLIT = 8
"""Rows that even the smallest split of a data set is to have, as far as its files reach."""
_STAND_INS = "results/stand-ins"
_HARDWARE = frozenset({
    "optim", "optim_args", "tf32", "torch_compile", "torch_compile_backend", "torch_compile_mode",
    "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor", "activation_checkpointing",
})  # fmt: skip
"""Arguments of the Trainer that speak of a device which may not be here."""


@dataclass(frozen=True)
class StandIn:
    """Rows that stand in for files that are not here."""

    data: str
    """The data set."""
    path: str
    """Where they are written, from the project's root."""
    columns: Mapping[str, str]
    """What stands in which column; see `absent_data.columns`."""
    rows: int
    seed: int


@dataclass(frozen=True)
class Scaled:
    """What became of a recipe."""

    notes: tuple[str, ...]
    """What is otherwise than in the recipe, a line each."""
    stand_ins: tuple[StandIn, ...]


def tiny(layered: Layered, recipe: spec.Recipe, root: Path) -> Scaled:
    """Cut the values of a recipe down, in place.

    Args:
        layered: its values, with everything rendered.
        recipe: the same, valid.
        root: where relative paths start.
    """
    return _Tiny(layered, recipe, root).cut()


class _Tiny:
    def __init__(self, layered: Layered, recipe: spec.Recipe, root: Path) -> None:
        self._values: dict[str, Any] = layered.values
        self._marks = layered.marks
        self._recipe, self._root = recipe, root
        self._notes: list[str] = []
        self._left_out: set[str] = set()
        self._shortened: dict[str, int] = {}
        self._stand_ins: list[StandIn] = []
        self._courses = {name: few_steps.course(recipe, name) for name in recipe.stages}

    def cut(self) -> Scaled:
        """Every block in turn."""
        self._values["recipe"] = f"{self._recipe.recipe}-tiny"
        small = self._model()
        self._launch()
        for name, block in self._recipe.data.items():
            if block.path is not None:
                self._source(name, block)
            self._negatives(name, block)
        for name, stage in self._recipe.stages.items():
            self._stage(name, stage, small)
        for name, suite in self._recipe.probes.items():
            self._suite(name, suite)
        result: dict[str, Any] = self._values.get("result") or {}
        for key in result.keys() & {"checkpoint", "baseline"}:
            result[key] = self._moved(result[key])
        if self._shortened:
            said = ", ".join(f"{name} {longest}" for name, longest in self._shortened.items())
            self._notes.append(f"replies of at most {NEW_TOKENS} tokens instead of: {said}")
        if self._left_out:
            self._notes.append(f"left out: {', '.join(sorted(self._left_out))}")
        return Scaled(tuple(self._notes), tuple(self._stand_ins))

    # --- the model, and where it is trained ---

    def _model(self) -> small_models.Small:
        refs = dict.fromkeys(ref for stage in self._recipe.stages for ref in self._recipe.reads(stage))
        converses = any(self._converses(ref.partition(".")[0]) for ref in refs)
        small = small_models.small(self._recipe, self._root, tuple(refs), converses=converses)
        self._values["model"] = small.block
        self._notes += small.notes
        return small

    def _converses(self, name: str) -> bool:
        """Whether a data set may hold conversations."""
        block = self._recipe.data[name]
        if block.messages is not None or block.system is not None or block.format in ("messages", "sharegpt"):
            return True
        if block.rows is not None:
            return not block.writes and self._converses(block.rows.partition(".")[0])
        file = self._root / (block.path or "")
        if block.format is not None or block.writes or not file.is_file():
            return False
        with file.open("rb") as stream:
            return re.search(rb'"(messages|conversations)"\s*:', stream.read(2**16)) is not None

    def _launch(self) -> None:
        """What was said on this command line is of this machine; all else is of another one."""
        block: dict[str, Any] = self._values.get("launch") or {}
        for key in list(block):
            mark = self._marks.get(("launch", key))
            if mark is None or not mark.source.file.startswith("--"):
                del block[key]
                self._left_out.add("launch")
        self._values["launch"] = {"processes": 1, **block}
        if sent := [name for name in self._recipe.report_to if name != "tensorboard"]:
            self._values["report_to"] = [name for name in self._recipe.report_to if name == "tensorboard"]
            self._left_out |= {f"report_to {name}" for name in sent}

    def _batch(self, stage: spec.Stage) -> int:
        """A global batch that the processes asked for can share."""
        launch = self._values.get("launch", {})
        counts = [launch.get(key) for key in ("processes", "nodes")]
        processes = math.prod(count for count in counts if isinstance(count, int))
        return min(stage.global_batch_size, max(BATCH // processes * processes, processes))

    # --- data ---

    def _source(self, name: str, block: spec.Data) -> None:
        values, path = self._values["data"][name], block.path or ""
        values.pop("num_rows", None)
        smallest = min((share for share in (block.split.shares if block.split else {}).values() if share), default=1.0)
        rows = max(ROWS, math.ceil(_OF_A_SPLIT / smallest))
        if absent_data.is_here(path, self._root):
            values["take"] = min(block.take or rows, rows)
            self._notes.append(f"{name}: at most {values['take']:,} rows of {path}")
            return
        rows = min(rows, block.take or rows, block.num_rows or rows)
        columns = absent_data.columns(self._recipe, name, self._root)
        digest = hashlib.sha256(json.dumps([columns, rows, self._recipe.seed]).encode()).hexdigest()[:8]
        file = f"{_STAND_INS}/{self._recipe.recipe}/{name}-{digest}.jsonl"
        self._stand_ins.append(StandIn(name, file, columns, rows, self._recipe.seed))
        for key in ("take", "separator", "subset", "from_split"):
            values.pop(key, None)
        values["path"] = file
        self._notes.append(f"{name}: {rows:,} stand-in rows instead of {path}, which is not here ({file})")

    def _negatives(self, name: str, block: spec.Data) -> None:
        values = self._values["data"][name]
        if block.filter is not None and (block.filter.min_chars or block.filter.max_chars):
            kept = {key: value for key, value in values["filter"].items() if key not in ("min_chars", "max_chars")}
            values.pop("filter")
            values |= {"filter": kept} if kept else {}
            self._left_out.add("filter by length")
        if not any(isinstance(way, (spec.Sample, spec.FromFile)) for way in block.rejected or ()):
            return
        ways = values["rejected"] if isinstance(values["rejected"], list) else [values["rejected"]]
        for index, way in enumerate(block.rejected or ()):
            if isinstance(way, spec.Sample):
                ways[index]["sample"] = self._moved(way.sample)
                ways[index]["max_new_tokens"] = min(way.max_new_tokens, NEW_TOKENS)
            elif isinstance(way, spec.FromFile) and not (self._root / way.file).is_file():
                ways[index] = {"repeat": "{{ completion }}", "times": 2}
                self._notes.append(f"{name}: looping negatives instead of {way.file}, which is not here")
        values["rejected"] = ways

    # --- stages ---

    def _stage(self, name: str, stage: spec.Stage, small: small_models.Small) -> None:
        values, course = self._values["stages"][name], self._courses[name]
        batch = self._batch(stage)
        values["global_batch_size"] = batch
        if stage.micro_batch_size is not None:
            accumulates = stage.micro_batch_size < stage.global_batch_size
            values["micro_batch_size"] = max(batch // 2, 1) if accumulates else batch
        values["max_length"] = min(stage.max_length, LENGTH)
        values["logging_steps"] = min(stage.logging_steps, 2)
        total = few_steps.total_steps(self._recipe, name)
        if stage.warmup_steps >= 1:
            values["warmup_steps"] = min(stage.warmup_steps / total, 0.5) if total else 0.1
        self._steps(values, stage, course)
        self._methods(values, stage, small)
        if stage.from_ is not None:
            values["from"] = self._start(stage.from_)
        if stage.adapter is not None and self._hands_over_no_more(stage):
            del values["adapter"]
            self._left_out.add("adapter")
        self._say(name, stage, total)

    def _say(self, name: str, stage: spec.Stage, total: int | None) -> None:
        """What became of the size of a stage."""
        course, batch = self._courses[name], self._batch(stage)
        epochs = f"{stage.num_train_epochs:g} epoch" + ("s" if stage.num_train_epochs != 1 else "")
        said = [f"{name}: {course.steps} steps" if course.steps else f"{name}: {epochs}"]
        said[0] += f" instead of {total:,}" if course.steps and total else ""
        said += [f"batch {batch} instead of {stage.global_batch_size:,}"] if batch < stage.global_batch_size else []
        said += [f"max_length {LENGTH} instead of {stage.max_length:,}"] if stage.max_length > LENGTH else []
        were, most = few_steps.checkpoints(self._recipe, name), few_steps.CHECKPOINTS
        said += [f"{most} checkpoints instead of {were}"] if were > most else []
        self._notes.append(", ".join(said))

    def _steps(self, values: dict[str, Any], stage: spec.Stage, course: Course) -> None:
        if course.steps is None:
            values.pop("max_steps", None)
            return
        values["max_steps"] = course.steps
        values.pop("num_train_epochs", None)
        if course.saves:
            values |= {"save_strategy": "steps", "save_steps": list(course.saves)}
        else:
            values["save_strategy"] = "no"
            values.pop("save_steps", None)

    def _methods(self, values: dict[str, Any], stage: spec.Stage, small: small_models.Small) -> None:
        """What a stage adds to plain training, as far as it speaks of sizes."""
        if values.pop("stop_when", None) is not None:
            self._left_out.add("stop_when")
        if stage.lora is not None and stage.lora.quantize is not None:
            del values["lora"]["quantize"]
            self._left_out.add("lora.quantize")
        if small.is_guess and stage.lora is not None and values.get("lora", {}).pop("targets", None) is not None:
            self._left_out.add("lora.targets")
        for key in ("freeze", "train_only"):
            patterns = getattr(stage, key)
            if patterns and small.is_guess:
                del values[key]
                self._left_out.add(key)
            elif patterns:
                values[key] = [small_models.in_few_layers(pattern, small.layers) for pattern in patterns]
        if own := _HARDWARE & stage.trainer_args.keys():
            values["trainer_args"] = {key: value for key, value in stage.trainer_args.items() if key not in own}
            self._left_out |= {f"trainer_args.{key}" for key in own}
        if isinstance(stage, spec.Causal):
            for block, key, most in (("kl", "rows", BATCH), ("ewc", "rows", ROWS), ("replay", "buffer", ROWS)):
                if isinstance(values.get(block), dict) and isinstance(values[block].get(key), int):
                    values[block][key] = min(values[block][key], most)
            if stage.chunk_overlap > LENGTH // 4:
                values["chunk_overlap"] = LENGTH // 4
            for part in values.get("mix", {}).values():
                part |= {"rows": min(part["rows"], ROWS)} if "rows" in part else {}

    def _moved(self, ref: str) -> str:
        return few_steps.moved(self._recipe, self._courses, ref)

    def _start(self, ref: str) -> str:
        """What a stage starts from: weights from elsewhere become those of the first stage."""
        if spec.parse_ref(ref) is not None:
            return self._moved(ref)
        first = f"{next(iter(self._recipe.stages))}@last"
        self._notes.append(f"from {first} instead of {ref}")
        return first

    def _hands_over_no_more(self, stage: spec.Stage) -> bool:
        """Whether a stage began with an adapter from elsewhere, instead of which there are now whole weights."""
        place = stage.from_ or self._recipe.model.path
        return place is not None and spec.parse_ref(place) is None and loadable.is_adapter(self._root / place)

    # --- probes ---

    def _suite(self, name: str, suite: spec.Suite) -> None:
        values = self._values["probes"][name]
        gate = values.get("gate")
        if isinstance(gate, dict):
            if gate.pop("on_fail", "continue") != "continue":
                self._left_out.add("on_fail")
            if isinstance(gate.get("baseline"), str):
                gate["baseline"] = self._moved(gate["baseline"])
        if values.get("leaks") == "fail":
            values["leaks"] = "warn"
        own = suite.decoding.max_new_tokens if suite.decoding is not None else None
        file = self._root / suite.file.partition("::")[0]
        text = file.read_text("utf-8", "replace") if file.is_file() else ""
        longest = own or max(map(int, re.findall(r"\bmax_new_tokens\s*=\s*(\d+)", text)), default=0)
        if longest > NEW_TOKENS:
            values["decoding"] = {**(values.get("decoding") or {}), "max_new_tokens": NEW_TOKENS}
            self._shortened[name] = longest
