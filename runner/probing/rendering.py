"""What a case asks, in the author's words: the templates of a probe filled in from its row, before any chat template.

Pure: a probe, its decoding and a case in, questions out. A row that a template cannot be filled in from gives an error
of its own, and the other cases are asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from runner.asking import Case, Decoding, Probe, row_of, whole_column
from runner.errors import BadProbe, nearest
from runner.probing.questions import Message, Question
from runner.templates import TemplateProblem, compile_template

_DIGITS = 16
_encode = json.JSONEncoder(sort_keys=True).encode  # made once: it is called for every case
_CHOICES = "one or more different texts"


@dataclass(frozen=True)
class Rendered:
    """What one case asks."""

    questions: tuple[Question, ...] = ()
    """One for each sample."""
    digest: str = ""
    """Of prompt or messages, choices, and everything that decides how they are answered."""
    cluster: str = ""
    """The fact it is about."""
    expected: str = ""
    """Of a closed question: the right choice."""
    error: str = ""
    """Why it cannot be asked."""


class _Unwritable(Exception):
    """A template cannot be filled in from a row."""


class Form:
    """The templates of a probe, compiled.

    Raises:
        BadProbe: the syntax of one is wrong.
    """

    def __init__(self, probe: Probe, decoding: Decoding) -> None:
        self._probe, self._decoding = probe, decoding
        self._prompt = self._field("prompt", probe.prompt)
        self._system = self._field("system", probe.system)
        self._answer = self._field("answer", probe.answer)
        self._cluster = self._field("cluster", probe.cluster) if "{" in (probe.cluster or "") else None
        turns = probe.messages if isinstance(probe.messages, tuple) else ()
        self._turns = [(role, self._field("content of a message", content)) for role, content in turns]
        choices = probe.choices if isinstance(probe.choices, tuple) else ()
        self._choices = [self._field("choice", choice) for choice in choices]
        self._asked_with = _asked_with(decoding) if probe.choices is None else Decoding()
        # defaults are left out: a later version that knows more ways to ask does not make every question a new one
        changed = {name: value for name, value in vars(decoding).items() if value != getattr(Decoding(), name)}
        self._fixed = _encode({"raw": probe.raw, "template": probe.template_kwargs, "decoding": changed})

    def write(self, case: Case) -> Rendered:
        """What the case asks."""
        try:
            prompt, messages = self._question(case)
            choices = self._choices_of(case)
            expected = self._answer_of(case, choices)
            cluster = self._cluster_of(case)
        except _Unwritable as problem:
            return Rendered(error=str(problem))
        question = Question(
            prompt, messages, self._probe.raw, self._probe.template_kwargs, self._asked_with, choices
        )  # fmt: skip
        asked = _encode([prompt, [(message.role, message.content) for message in messages], choices])
        digest = hashlib.sha256((self._fixed + asked).encode()).hexdigest()[:_DIGITS]
        return Rendered(self._samples(question, case), digest, cluster, expected)

    def _samples(self, question: Question, case: Case) -> tuple[Question, ...]:
        decoding = self._decoding
        if self._asked_with.temperature == 0:
            return (question,)
        seeds = (seed_of(decoding.seed, case.id, number) for number in range(decoding.samples))
        return tuple(replace(question, seed=seed) for seed in seeds)

    def _question(self, case: Case) -> tuple[str, tuple[Message, ...]]:
        """Prompt, or messages where there is more than one turn."""
        system = (Message("system", self._system.fill(case)),) if self._system is not None else ()
        if self._prompt is not None:
            prompt = self._prompt.fill(case)
            return ("", (*system, Message("user", prompt))) if system else (prompt, ())
        if isinstance(self._probe.messages, str):
            turns = _turns_of(case, self._probe.messages)
        else:
            turns = tuple(Message(role, content.fill(case)) for role, content in self._turns if content is not None)
        if system and turns[0].role == "system":
            raise _Unwritable(f"case {case.id} begins with a system message, and the probe gives one too")
        return "", (*system, *turns)

    def _choices_of(self, case: Case) -> tuple[str, ...]:
        given = self._probe.choices
        if given is None:
            return ()
        if isinstance(given, str):
            value = _column(case, given, "choices")
            choices = tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()
        else:
            value = choices = tuple(choice.fill(case) for choice in self._choices if choice is not None)
        if not choices or len(set(choices)) < len(choices) or "" in choices:
            raise _Unwritable(f"the choices of case {case.id} are {value!r}; expected: {_CHOICES}")
        return choices

    def _answer_of(self, case: Case, choices: Sequence[str]) -> str:
        if self._answer is None:
            return ""
        answer = self._answer.fill(case)
        if answer not in choices:
            shown = ", ".join(repr(choice) for choice in choices)
            raise _Unwritable(f"the answer {answer!r} of case {case.id} is not among its choices: {shown}")
        return answer

    def _cluster_of(self, case: Case) -> str:
        if self._cluster is not None:
            return self._cluster.fill(case)
        if self._probe.cluster is None:
            return case.id
        value = _column(case, self._probe.cluster, "cluster", whole=False)
        return case.id if _is_empty(value) else str(value)

    def _field(self, what: str, source: str | None) -> _Field | None:
        try:
            return _Field(what, source) if source is not None else None
        except TemplateProblem as problem:
            raise BadProbe(
                f"{what} {source!r}: {problem}", where=self._probe.where, expected="a Jinja template"
            ) from None


class _Field:
    """One template, named as the author knows it.

    Raises:
        TemplateProblem: its syntax is wrong.
    """

    def __init__(self, what: str, source: str) -> None:
        self._what, self._source = what, source
        self._template = compile_template(source)
        self._names = tuple(self._template.names)
        # most systems and choices have no names: they are filled in once
        self._text = self._template.render({}) if not self._names else None

    def fill(self, case: Case) -> str:
        if self._text is not None:
            return self._text
        row = row_of(case)
        try:
            text = self._template.render(row)
        except TemplateProblem as problem:
            raise self._unwritable(case, f"{problem}; {_has(row, self._names)}") from None
        for name in self._names:
            if _is_empty(row.get(name)) and str(row.get(name)) in text and self._writes(row, name):
                raise self._unwritable(case, f"{name!r} has no value there ({row.get(name)})")
        return text

    def _writes(self, row: Mapping[str, Any], name: str) -> bool:
        """Whether the value of a column gets into the text; one that is only looked at may be empty."""
        try:
            self._template.render({**row, name: _Absent()})
        except TemplateProblem:
            return True
        return False

    def _unwritable(self, case: Case, why: str) -> _Unwritable:
        return _Unwritable(f"the {self._what} {self._source!r} cannot be written for case {case.id}: {why}")


class _Absent:
    """An empty value that cannot be written."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        raise ValueError


@cache
def form_of(probe: Probe, decoding: Decoding) -> Form:
    """The compiled templates of a probe.

    Raises:
        BadProbe: the syntax of one is wrong.
    """
    return Form(probe, decoding)


def seed_of(seed: int, case_id: str, sample: int) -> int:
    """The seed of one sample, above 0 and below 2⁶³: it depends on nothing but these three, so on no order, selection
    or batch."""
    digest = hashlib.sha256(f"{seed}:{case_id}:{sample}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 1) or 1


def _asked_with(decoding: Decoding) -> Decoding:
    """The decoding of one sample, in which what changes nothing has its default: equal questions are asked once."""
    single = replace(decoding, samples=1, seed=0)
    return replace(single, top_p=1.0) if decoding.temperature == 0 else single


def _turns_of(case: Case, source: str) -> tuple[Message, ...]:
    turns = _column(case, source, "messages")
    try:
        found = tuple(Message(_text(turn["role"]), _text(turn["content"])) for turn in turns)
    except (TypeError, KeyError, AttributeError):
        found = ()
    if not found or found[-1].role == "assistant":
        raise _Unwritable(
            f"the messages of case {case.id} are {turns!r}; expected: a list of role and content, the last not the "
            "assistant's"
        )
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _column(case: Case, source: str, what: str, *, whole: bool = True) -> Any:
    """The value of the column that `source`, a name or a whole `{{ name }}`, means."""
    name = (whole_column(source) if whole else source) or source
    row = row_of(case)
    if name not in row:
        raise _Unwritable(f"{what}: case {case.id} has no column {name!r}; {_has(row, (name,))}")
    return row[name]


def _has(row: Mapping[str, Any], names: Sequence[str]) -> str:
    close = next((found for name in names if name not in row and (found := nearest(name, row))), None)
    return (f"did you mean {close!r}? " if close else "") + f"the case has {', '.join(row)}"


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)
