"""Who answers: a server, the reply store, and of what it does not know the checkpoint itself, loaded here and freed."""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner import underway
from runner.errors import nearest
from runner.probing.memory import Memory
from runner.probing.questions import Answer, Question
from runner.probing.store import Kept, Store
from runner.probing.targets import Target

Doubts = Callable[[Mapping[Question, Kept]], list[Question]]
"""Which of these questions are to be asked again, each alone in fp32."""

NOTHING_TOLD: Mapping[Question, Kept] = {}


@dataclass(frozen=True)
class How:
    """How replies are generated."""

    dtype: str
    batch_tokens: int | None
    store: Store | None = None
    """Knows the answers of earlier sessions; servers are never looked up, their weights are not known."""

    def deciding(self) -> dict[str, object]:
        """What of this decides a reply; part of the key it is kept under."""
        return {name: value for name, value in vars(self).items() if name not in ("batch_tokens", "store")}


@dataclass(frozen=True)
class Answered:
    """Every question's answer and what gave it."""

    by_question: Mapping[Question, Kept]
    notes: list[str] = field(default_factory=list)
    """What answered, and what the author should know besides."""


def memory_of(target: Target, how: How) -> Memory:
    """What the reply store knows about a local checkpoint that is asked in this way."""
    # stores hold replies of earlier versions, which asked the checkpoints of runs without their chat template
    return Memory(how.store, target.path, {**how.deciding(), "chat": True})


def answer(
    target: Target, questions: list[Question], how: How, doubts: Doubts, told: Mapping[Question, Kept] = NOTHING_TOLD
) -> Answered:
    """The answers of one checkpoint or server to distinct questions.

    Args:
        told: answers that it gave already, in a batch with its siblings.

    Raises:
        UserError: the checkpoint cannot be loaded, or the server does not answer.
    """
    if target.endpoint is not None:
        engine = target.endpoint.describe()
        answers = target.endpoint.generate(questions)
        return Answered({q: Kept(answer, "", engine) for q, answer in zip(questions, answers, strict=True)}, [engine])
    memory = memory_of(target, how)
    known = {**memory.recall(questions), **told}
    unknown = [question for question in questions if question not in known]
    doubted = doubts(known)
    if not unknown and not doubted:
        return Answered(known)
    made = fresh(target.path, unknown, doubted, how, doubts)
    memory.keep(made.by_question.items())
    return Answered({**known, **made.by_question}, made.notes)


def fresh(path: Path, questions: list[Question], doubted: list[Question], how: How, doubts: Doubts) -> Answered:
    """Answers of the model at `path` to `questions`, and once more to those among them and `doubted` that hang by a
    hair.

    Raises:
        UserError: it cannot be loaded.
    """
    first = "torch" not in sys.modules
    from runner.probing import engine  # torch, only now that it is needed

    if first:
        gc.freeze()  # torch's million objects are no garbage: pytest looks through them several times as it ends

    batch_tokens = how.batch_tokens or engine.DEFAULT_BATCH_TOKENS
    with underway.work("loading"):
        local = engine.Engine(path, how.dtype, batch_tokens)
    try:
        template = getattr(local.tokenizer, "chat_template", None)
        arguments = {question.template_kwargs for question in questions}
        notes = [local.describe(), *_unknown_arguments(str(template or ""), arguments)]

        def kept(answer: Answer) -> Kept:
            return Kept(answer, local.dtype, engine.NAME)

        found = {q: kept(answer) for q, answer in zip(questions, local.generate(questions), strict=True)}
        if again := [*doubted, *doubts(found)]:
            found |= {q: kept(answer) for q, answer in zip(again, local.alone(again), strict=True)}
        return Answered(found, notes)
    finally:
        local.close()


def _unknown_arguments(template: str, given: Iterable[str]) -> list[str]:
    """A note for every argument that the chat template never looks at."""
    names = {name: None for kwargs in sorted(given) for name in json.loads(kwargs)}
    words = set(re.findall(r"[A-Za-z_]\w*", template))
    notes = []
    for name in names:
        if name not in words:
            close = nearest(name, words)
            hint = f"; did you mean {close}?" if close else ""
            what = "the chat template never mentions it" if template else "the tokenizer has no chat template"
            notes.append(f"chat_template_kwargs: {name} changes nothing: {what}{hint}")
    return notes
