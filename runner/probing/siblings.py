"""Siblings: LoRA adapters of one base that are asked in one session, answered in one batch by one copy of the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.errors import BadCheckpoint
from runner.probing.answerers import How, memory_of
from runner.probing.questions import Question
from runner.probing.store import Kept
from runner.probing.targets import Target

Known = Mapping[Question, Kept]


def siblings_of(target: Target, waiting: Sequence[Target]) -> list[Target]:
    """The adapter `target` and those of `waiting` that can share its batches; empty where it would be alone."""
    candidates = [one for one in waiting if _is_adapter(one)]
    if not _is_adapter(target) or not candidates:
        return []
    from runner.probing import engine  # torch, only now that it is needed

    family = [target]
    for one in candidates:
        try:
            if not engine.why_apart([target.path, one.path]):
                family.append(one)
        except BadCheckpoint:
            continue  # asked by itself it says what ails it
    return family if len(family) > 1 else []


def answered_together(asked: Mapping[Target, Sequence[Question]], how: How) -> dict[Target, Known]:
    """The answers of adapters that can share batches, kept in the store of each; without those that it knew before.

    Empty where one of them cannot be loaded: asked by itself, each says what ails it.
    """
    memories = {target: memory_of(target, how) for target in asked}
    known = {target: memories[target].recall(questions) for target, questions in asked.items()}
    unknown = {target: [one for one in asked[target] if one not in known[target]] for target in asked}
    unknown = {target: questions for target, questions in unknown.items() if questions}
    if len(unknown) < 2:
        return {}
    found = _ask(unknown, how)
    for target, answers in found.items():
        memories[target].keep(answers.items())
    return found


def _is_adapter(target: Target) -> bool:
    served = target.endpoint is not None or bool(target.problem)
    return not served and (target.path / "adapter_config.json").is_file()


def _ask(asked: Mapping[Target, Sequence[Question]], how: How) -> dict[Target, Known]:
    from runner.probing import engine

    pairs = [(number, question) for number, target in enumerate(asked) for question in asked[target]]
    batch_tokens = how.batch_tokens or engine.DEFAULT_BATCH_TOKENS
    try:
        together = engine.Engine.with_adapters([one.path for one in asked], how.dtype, batch_tokens)
    except BadCheckpoint:
        return {}
    try:
        answers = together.generate([question for _, question in pairs], adapters=[number for number, _ in pairs])
        made: list[dict[Question, Kept]] = [{} for _ in asked]
        for (number, question), answer in zip(pairs, answers, strict=True):
            made[number][question] = Kept(answer, together.dtype, engine.NAME)
        return dict(zip(asked, made, strict=True))
    finally:
        together.close()
