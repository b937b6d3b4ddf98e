"""Leaks that show before anything trains: cases of a suite whose question stands in the rows of a stage it is asked at.

What a probe file asks is known only when it runs; here a case's question is the prompt that its own data set writes.
The prober looks again, at the questions as they are rendered.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner import spec
from runner.data.datasets import Datasets, Example
from runner.data.seen import TrainedOn, gather, question_of


@dataclass(frozen=True)
class Leak:
    """The cases of a suite that a stage was trained on."""

    suite: str
    stage: str
    """The first stage, as the recipe has them, at whose checkpoints the questions are no longer new."""
    ref: str
    """The data set in which most of them stand."""
    leaked: int
    cases: int
    first: str
    """One of the questions."""

    @property
    def words(self) -> str:
        """What a reader of the plan is told."""
        return f"{self.leaked} of its {self.cases} questions are trained in {self.stage} (they stand in {self.ref})"


def find(recipe: spec.Recipe, data: Datasets) -> tuple[Leak, ...]:
    """A leak for every suite with `cases:` that has one.

    Raises:
        BadData: a row cannot be read or written.
    """
    trained: dict[str, TrainedOn] = {}
    found = []
    for name, suite in recipe.probes.items():
        if suite.cases is None or data.missing(suite.cases) is not None:
            continue
        if data.get(suite.cases).shape not in ("prompt", "messages", "pairs"):
            continue
        cases = data.get(suite.cases)
        questions = [_asked(cases.variants(position)[0]) for position in range(len(cases))]
        for stage in suite.stages or tuple(recipe.stages):
            leaked: dict[str, list[str]] = {}
            for ref in recipe.trained_on(stage):
                if data.missing(ref) is not None:
                    continue
                if ref not in trained:
                    trained[ref] = gather(data.get(ref))
                leaked[ref] = [question for question in questions if trained[ref].holds(question, "") == "question"]
            most = max(leaked, key=lambda ref: len(leaked[ref]), default="")
            if most and leaked[most]:
                found.append(Leak(name, stage, most, len(leaked[most]), len(questions), leaked[most][0]))
                break
    return tuple(found)


def _asked(example: Example) -> str:
    """What a row asks; a conversation, before its last answer."""
    return question_of(example.messages[:-1]) if example.messages else example.prompt
