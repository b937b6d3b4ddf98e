"""A whole recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from runner.spec.blocks import Block, Name, one_or_many
from runner.spec.data import Data
from runner.spec.launching import Launch
from runner.spec.methods import Lora
from runner.spec.models import Model
from runner.spec.probes import Result, Suite
from runner.spec.refs import parse_ref
from runner.spec.stages import AnyStage, Causal


class Recipe(Block):
    """A whole recipe."""

    recipe: Name
    """Its name; the run is written to `results/NAME`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of weights, splits, templates, shuffling and dropout."""
    vars: dict[str, Any] = Field(default_factory=dict)
    """Values for `{{ name }}` in strings of the recipe; the texts of a data set take their names from its rows."""
    model: Model
    """The model the first stage starts from."""
    data: dict[Name, Data] = Field(min_length=1)
    """Named data sets."""
    stages: dict[Name, AnyStage] = Field(min_length=1)
    """Training stages, in the order they run."""
    probes: dict[Name, Suite] = Field(default_factory=dict)
    """Named probe suites."""
    best: str | None = None
    """The suite whose pass rate decides what `@best` means; it should gate nothing."""
    launch: Launch = Launch()
    """How the processes of training are started: how many, on how many machines, with DeepSpeed or without."""
    report_to: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] = ()
    """Trackers by the names transformers has for them, for example `tensorboard`: losses and pass rates go there."""
    matrix: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Variants by name: what each changes, merged over the recipe as `extends` does. They run as siblings, share the
    stages they have in common, and end in one table."""
    result: Result | None = None
    """The checkpoint whose gates set the exit code. Default: the last one of the last stage."""

    def lineage(self, stage: str) -> tuple[str, ...]:
        """A stage and those that its weights came through, the latest first."""
        found = [stage]
        while (start := self.stages[found[-1]].from_) and (ref := parse_ref(start)) and ref.stage in self.stages:
            found.append(ref.stage)
        return tuple(found)

    def reads(self, stage: str) -> tuple[str, ...]:
        """The data sets and splits on which the weights of a stage depend: what it learns and replays, and what its
        terms against forgetting compare or measure."""
        block = self.stages[stage]
        compared = (ref for refs in block.penalty_data.values() for ref in refs)
        return tuple(dict.fromkeys([*block.data, *self.replayed(stage), *compared]))

    def replayed(self, stage: str) -> tuple[str, ...]:
        """The data sets and splits that a stage replays, those of an earlier stage by their own names."""
        block = self.stages[stage]
        named = block.replay.of if isinstance(block, Causal) and block.replay is not None else ()
        refs = (self.stages[name].data if name in self.stages else (name,) for name in named)
        return tuple(dict.fromkeys(ref for found in refs for ref in found))

    def trained_on(self, stage: str) -> tuple[str, ...]:
        """The data sets and splits that the checkpoints of a stage were trained on, the latest stage's first; those
        that a term against forgetting reads count too: what is asked of them tells nothing of what was never seen."""
        return tuple(dict.fromkeys(ref for name in self.lineage(stage) for ref in self.reads(name)))

    def handover(self, stage: str, is_adapter: Callable[[str], bool]) -> Literal["continue", "merge"] | None:
        """What becomes of the adapter that a stage starts from; None where it starts from none.

        Args:
            stage: its name.
            is_adapter: of a folder or hub id that the recipe names, whether an adapter lies there.
        """
        block = self.stages[stage]
        ref = parse_ref(block.from_) if block.from_ else None
        if ref is not None and ref.stage in self.stages:
            above = self.stages[ref.stage].lora is not None or self.handover(ref.stage, is_adapter) == "continue"
        else:
            place = block.from_ or self.model.path
            above = place is not None and is_adapter(place)
        return block.adapter or ("continue" if block.lora else "merge") if above else None

    def trained_adapter(self, stage: str, is_adapter: Callable[[str], bool]) -> Lora | None:
        """The adapter that a stage trains: its own, or that of the stage which it goes on with.

        Args:
            stage: its name.
            is_adapter: of a folder or hub id that the recipe names, whether an adapter lies there.
        """
        for above in self.lineage(stage):
            if (own := self.stages[above].lora) is not None:
                return own
            if self.handover(above, is_adapter) != "continue":
                return None
        return None

    def asked_at(self, stage: str) -> tuple[str, ...]:
        """The suites that are asked at the checkpoints of a stage."""
        return tuple(name for name, suite in self.probes.items() if suite.stages is None or stage in suite.stages)
