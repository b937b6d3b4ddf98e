"""Replies: all questions of a checkpoint, answered in few large batches when its first case runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runner.asking import Reply, split_thinking
from runner.errors import UserError, first_line
from runner.gate import tolerance
from runner.probing.answerers import NOTHING_TOLD, Answered, How, answer
from runner.probing.planning import Ask
from runner.probing.questions import Answer, Question
from runner.probing.rendering import Rendered, form_of
from runner.probing.store import Kept
from runner.probing.targets import Target

_UNASKED = Rendered()


@dataclass(frozen=True)
class Generated:
    """What came of one case, or why nothing did."""

    rendered: Rendered = _UNASKED
    prompt: str = ""
    """As the model was given it, chat template and all."""
    replies: tuple[Reply, ...] = ()
    """One for each sample."""
    choices: tuple[tuple[str, float], ...] = ()
    """Of a closed question: each choice with its log probability."""
    again: bool = False
    """The answer is that of the model alone in fp32: the first one hung by a hair."""
    dtype: str = ""
    engine: str = ""
    seconds: float = 0.0
    error: str = ""


NOTHING = Generated()


@dataclass(frozen=True)
class Round:
    """What came of all cases of a checkpoint, in their order."""

    made: list[Generated]
    notes: tuple[str, ...] = ()
    """What the author should know besides."""


@dataclass(frozen=True)
class Said:
    """What the baseline was asked and said."""

    digest: str
    """Of the question; empty where an older version did not note it."""
    reply: str


Before = Callable[[int], Said | None]
"""What the baseline said to the case at this place; None where it was not asked."""


def questions_of(asks: Sequence[Ask]) -> list[Question]:
    """The questions that cases come to, each once."""
    return _distinct([_render(ask) for ask in asks])


def generate(
    target: Target, asks: Sequence[Ask], how: How, before: Before, told: Mapping[Question, Kept] = NOTHING_TOLD
) -> Round:
    """The replies of one checkpoint; equal questions are answered once. `told`: see `answer`.

    A checkpoint that cannot be loaded or breaks the engine, or a prompt that cannot be rendered, gives replies with an
    `error`, so that others still get their verdicts. A reply that differs from the baseline's and hangs by a hair, as
    it may outside fp32, is asked again alone in fp32.
    """
    rendered = [_render(ask) for ask in asks]
    questions = _distinct(rendered)
    if not questions:
        return Round([Generated(one, error=one.error) for one in rendered])
    try:
        answered = answer(target, questions, how, lambda found: _doubted(found, rendered, before), told)
    except Exception as error:  # noqa: BLE001 - whatever a checkpoint does to the engine, the others are asked
        said = error.screen() if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
        return Round([Generated(one, error=one.error or said) for one in rendered])
    replies = {question: _reply(question, kept.answer) for question, kept in answered.by_question.items()}
    fresh = set(questions)
    made = []
    for one in rendered:
        # a reply that several cases share took its time once
        seconds = sum(answered.by_question[q].answer.seconds for q in one.questions if q in fresh)
        fresh.difference_update(one.questions)
        made.append(_generated(one, answered, replies, seconds))
    return Round(made, tuple(answered.notes))


def _distinct(rendered: Sequence[Rendered]) -> list[Question]:
    return list(dict.fromkeys(question for one in rendered for question in one.questions))


def _render(ask: Ask) -> Rendered:
    return Rendered(error=ask.problem) if ask.problem else form_of(ask.probe, ask.decoding).write(ask.case)


def _doubted(found: Mapping[Question, Kept], rendered: Sequence[Rendered], before: Before) -> list[Question]:
    """The questions whose answer hangs by less than rounding outside fp32 and would be a change since the baseline."""
    hanging = {question for question, kept in found.items() if _hangs(question, kept)}
    if not hanging:
        return []
    doubted: dict[Question, None] = {}
    for place, one in enumerate(rendered):
        question = one.questions[0] if one.questions else None
        if question is None or question not in hanging or question in doubted:
            continue
        said = before(place)
        same_question = said is not None and said.digest in ("", one.digest)
        if said is not None and same_question and said.reply != _reply(question, found[question].answer):
            doubted[question] = None
    return list(doubted)


def _hangs(question: Question, kept: Kept) -> bool:
    """Whether the batch may have decided a greedy answer."""
    said = kept.answer
    if kept.dtype in ("float32", "float64") or said.again or said.error or question.decoding.temperature:
        return False
    return said.margin is not None and said.margin < tolerance(kept.dtype)


def _reply(question: Question, said: Answer) -> Reply:
    if question.choices:
        return Reply(said.text, said.tokens, "choice", said.margin, said.logprob)
    thinking, text = split_thinking(said.text, said.prompt)
    return Reply(text, said.tokens, said.stop_reason, said.margin, said.logprob, thinking)


def _generated(rendered: Rendered, answered: Answered, replies: Mapping[Question, Reply], seconds: float) -> Generated:
    if not rendered.questions:
        return Generated(rendered, error=rendered.error)
    found = [answered.by_question[question] for question in rendered.questions]
    first = found[0]
    error = next((kept.answer.error for kept in found if kept.answer.error), "")
    return Generated(
        rendered,
        first.answer.prompt,
        tuple(replies[question] for question in rendered.questions) if not error else (),
        tuple(zip(rendered.questions[0].choices, first.answer.choice_logprobs, strict=False)),
        any(kept.answer.again for kept in found),
        first.dtype,
        first.engine,
        seconds,
        error,
    )
