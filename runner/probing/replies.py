"""Replies: all prompts of a checkpoint, rendered once and generated in few large batches when its first case runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.errors import UserError
from runner.probing.planning import Ask
from runner.probing.targets import Target
from runner.templates import TemplateProblem, compile_template


@dataclass(frozen=True)
class How:
    """How replies are generated."""

    dtype: str
    batch_tokens: int | None


@dataclass(frozen=True)
class Generated:
    """One reply, or why there is none."""

    prompt: str
    """As the model was given it, chat template and all."""
    text: str = ""
    tokens: tuple[int, ...] = ()
    stop_reason: str = ""
    margin: float | None = None
    dtype: str = ""
    engine: str = ""
    seconds: float = 0.0
    error: str = ""


def generate(target: Target, asks: Sequence[Ask], how: How) -> list[Generated]:
    """The replies of one checkpoint, in the order of `asks`; equal questions are generated once.

    The checkpoint is loaded here and freed before this returns. A checkpoint that cannot be loaded, or a prompt that
    cannot be rendered, gives replies with an `error`, so that others still get their verdicts.
    """
    prompts = [_render(ask) for ask in asks]
    questions = {
        (prompt.prompt, ask.probe.max_new_tokens, ask.probe.stop): place
        for place, (ask, prompt) in enumerate(zip(asks, prompts, strict=True))
        if not prompt.error
    }
    if not questions:
        return prompts
    from runner.probing import engine  # torch, only now that it is needed

    try:
        # a recipe's stages train on prompts as they are written, so its checkpoints are asked so too
        chat = target.run is None
        local = engine.Engine(target.path, how.dtype, how.batch_tokens or engine.DEFAULT_BATCH_TOKENS, chat=chat)
    except UserError as error:
        return [prompt if prompt.error else Generated(prompt.prompt, error=error.screen()) for prompt in prompts]
    answers = local.generate([engine.Question(*question) for question in questions])
    dtype = local.dtype
    local.close()
    by_question = dict(zip(questions, answers, strict=True))
    done = []
    for place, (ask, prompt) in enumerate(zip(asks, prompts, strict=True)):
        if prompt.error:
            done.append(prompt)
            continue
        question = (prompt.prompt, ask.probe.max_new_tokens, ask.probe.stop)
        answer = by_question[question]
        # a reply that several cases share took its time once
        seconds = answer.seconds if questions[question] == place else 0.0
        done.append(
            Generated(
                answer.prompt, answer.text, answer.tokens, answer.stop_reason if not answer.error else "",
                answer.margin, dtype, engine.NAME, seconds, answer.error,
            )
        )  # fmt: skip
    return done


def _render(ask: Ask) -> Generated:
    if ask.problem:
        return Generated("", error=ask.problem)
    try:
        return Generated(compile_template(ask.probe.prompt).render({name: ask.case[name] for name in ask.case}))
    except TemplateProblem as problem:
        has = ", ".join(ask.case)
        why = f"{problem}; the case has {has}"
        return Generated("", error=f"the prompt {ask.probe.prompt!r} cannot be written for case {ask.case.id}: {why}")
