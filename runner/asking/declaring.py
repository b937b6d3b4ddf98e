"""The decorator `probe`, and everything that can be wrong with its arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import isfunction, signature
from pathlib import Path
from typing import Any, TypeVar

from runner.asking.records import Decoding, Probe, Reply, decoding_fault, whole_column
from runner.errors import BadProbe, Problem, Where, nearest

F = TypeVar("F", bound=Callable[..., object])
_ATTRIBUTE = "__recipe_probe__"
_ROWS = 'a file name, or rows such as {"char": "心"}'
_MESSAGES = 'a list of {"role": …, "content": …}, or one column that holds such lists, "{{ column }}"'
_CHOICES = 'one or more different texts, or one column that holds such lists, "{{ column }}"'


def probe(
    *,
    cases: str | Path | Iterable[Mapping[str, Any]] | None = None,
    prompt: str | None = None,
    messages: str | Sequence[Mapping[str, str]] | None = None,
    system: str | None = None,
    raw: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_new_tokens: int = 64,
    stop: str | Iterable[str] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    samples: int = 1,
    seed: int = 0,
    choices: str | Sequence[str] | None = None,
    answer: str | None = None,
    gate: Mapping[str, Any] | None = None,
    given: Callable[..., object] | None = None,
    cluster: str | None = None,
    pooled: Mapping[str, Callable[[Sequence[Reply]], float]] | None = None,
) -> Callable[[F], F]:
    """Make a test function a probe: it is run once per case and checkpoint. The function itself stays as it was.

    The function may take the fixtures `case` (a `Case`), `reply` (a `Reply`), `replies` (all samples, a tuple) and
    `record` (called as `record(name=number)`), beside any other pytest fixture. Templates are Jinja, over the columns
    of a case.

    Args:
        cases: a data file, relative to the probe file, or the rows themselves. May be left out where a recipe's suite
            names its `cases:`.
        prompt: a template. Exactly one of `prompt` and `messages` is given.
        messages: a dialogue whose contents are templates, or one column that holds such lists.
        system: a template of a system message before them.
        raw: continue the prompt as it is, never through a chat template.
        chat_template_kwargs: arguments of the chat template, for example `{"enable_thinking": False}`.
        max_new_tokens: at most so many tokens are generated.
        stop: strings that end a reply; what was matched is not part of it.
        temperature: 0 is greedy; above it, tokens are drawn, with a seed of the case's own.
        top_p: draw from the most likely tokens that have this share of the probability together.
        repetition_penalty: above 1, tokens that already occurred become less likely.
        samples: replies per case.
        seed: of drawing.
        choices: a closed question. Nothing is generated: the most likely of these continuations is the reply.
        answer: template of the right choice; accuracy, precision, recall and F1 follow from it.
        gate: the same keys as `gate:` in a recipe, which replaces it.
        given: another probe function, the control: a case it did not pass is not asked here.
        cluster: the fact that a case is about, a column's name or a template: flips of one cluster count once.
        pooled: numbers about the suite as a whole: by name, a function of the list of all replies.

    Raises:
        BadProbe: an argument is not what it should be.
    """
    # a generator gives its rows once: they are taken here
    rows = _rows(cases)
    stops = _one_or_many(stop)
    decoding = Decoding(max_new_tokens, stops, temperature, top_p, repetition_penalty, samples, seed)

    def decorate(function: F) -> F:
        where = _where(function)
        faults = [
            *_faults_of_question(prompt, messages, system, raw, chat_template_kwargs),
            *_faults_of_decoding(decoding, closed=choices is not None),
            *_faults_of_choices(choices, answer),
            *_faults_of_judging(rows, gate, given, cluster, pooled),
        ]
        if not isfunction(function):
            faults.insert(0, (f"@probe stands above {function!r}", "a function"))
        if faults:
            raise BadProbe([Problem(found, where, expected) for found, expected in faults])
        made = Probe(
            rows, prompt, _as_messages(messages), system, raw, _as_json(chat_template_kwargs) or "{}", decoding,
            choices if isinstance(choices, str) or choices is None else tuple(choices),
            answer, gate, given, cluster, dict(pooled or {}), where,
        )  # fmt: skip
        setattr(function, _ATTRIBUTE, made)
        return function

    return decorate


def declared(function: object) -> Probe | None:
    """What `probe` was given for this function, or None where it is no probe."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, Probe) else None


def misdeclared(error: BaseException) -> BadProbe | None:
    """What Python's own error about a call of `probe` means: an argument that there is not, or no name before one."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if not isinstance(error, TypeError) or place is None or place.tb_frame.f_globals.get("probe") is not probe:
        return None
    said = re.match(
        r"probe\(\) (?:got an unexpected keyword argument '(\w+)'|takes 0 positional arguments)", str(error)
    )
    if said is None:
        return None
    where = Where(place.tb_frame.f_code.co_filename, place.tb_lineno)
    if said[1] is None:
        return BadProbe(
            "@probe takes arguments with names only", where=where, expected='for example @probe(prompt="…")'
        )
    known = list(signature(probe).parameters)
    close = nearest(said[1], known)
    hint = f"did you mean {close}?" if close else None
    return BadProbe(f"@probe has no argument {said[1]!r}", where=where, expected=", ".join(known), hint=hint)


Fault = tuple[str, str]
"""What was found, and what was expected."""


def _rows(cases: object) -> Any:
    """A file's name, rows as a tuple, None; anything else as it was given."""
    if isinstance(cases, (str, Path)):
        return str(cases)
    return tuple(cases) if isinstance(cases, Iterable) and not isinstance(cases, (Mapping, bytes)) else cases


def _one_or_many(texts: object) -> Any:
    if isinstance(texts, str):
        return (texts,)
    return tuple(texts) if isinstance(texts, Iterable) else (texts,)


def _faults_of_question(
    prompt: object, messages: object, system: object, raw: object, kwargs: object
) -> Iterator[Fault]:
    if (prompt is None) == (messages is None):
        given = "neither prompt nor messages" if prompt is None else "both prompt and messages"
        yield f"{given} is given" if prompt is None else f"{given} are given", "one of them"
    if prompt is not None and not isinstance(prompt, str):
        yield f"prompt is {type(prompt).__name__}", "a template, a string"
    if messages is not None:
        yield from _faults_of_messages(messages, with_system=system is not None)
    if system is not None and not isinstance(system, str):
        yield f"system is {type(system).__name__}", "a template, a string"
    if not isinstance(raw, bool):
        yield f"raw is {raw!r}", "True or False"
    if kwargs is not None and _as_json(kwargs) is None:
        yield (
            f"chat_template_kwargs is {kwargs!r}",
            'a mapping that JSON can hold, for example {"enable_thinking": False}',
        )
    if raw is True:
        named = {"messages": messages, "system": system, "chat_template_kwargs": kwargs}
        for name in (name for name, value in named.items() if value is not None):
            yield f"raw=True and {name} are given", "one of them: a raw prompt goes through no chat template"


def _faults_of_messages(messages: object, *, with_system: bool) -> Iterator[Fault]:
    if isinstance(messages, str):
        if whole_column(messages) is None:
            yield f"messages is {messages!r}", _MESSAGES
        return
    found = _as_messages(messages)
    if not found:
        yield f"messages is {messages!r}", _MESSAGES
    elif found[-1][0] == "assistant":
        yield "the last message is the assistant's", "another's: the reply is what the assistant says next"
    elif with_system and found[0][0] == "system":
        yield "both system and a first message of the system are given", "one of them"


def _faults_of_decoding(decoding: Decoding, *, closed: bool) -> Iterator[Fault]:
    fault = decoding_fault(decoding)
    if fault is not None:
        yield fault
    elif closed and decoding != Decoding():
        changed = [name for name, default in vars(Decoding()).items() if getattr(decoding, name) != default]
        yield f"choices and {changed[0]} are given", "one of them: a closed question generates nothing"
    elif decoding.top_p != 1 and decoding.temperature == 0:
        yield f"top_p is {decoding.top_p} and temperature is 0", "a temperature above 0: greedy decoding draws nothing"


def _faults_of_choices(choices: object, answer: object) -> Iterator[Fault]:
    if isinstance(choices, str):
        if whole_column(choices) is None:
            yield f"choices is {choices!r}", _CHOICES
    elif choices is not None and not _is_choices(choices):
        yield f"choices is {choices!r}", _CHOICES
    if answer is not None and not isinstance(answer, str):
        yield f"answer is {answer!r}", 'a template, for example "{{ radical }}"'
    elif answer is not None and choices is None:
        yield "answer is given without choices", "choices, of which the answer is one"


def _is_choices(choices: object) -> bool:
    if not isinstance(choices, (list, tuple)) or not all(isinstance(text, str) and text for text in choices):
        return False
    return bool(choices) and len(set(choices)) == len(choices)


def _faults_of_judging(rows: object, gate: object, given: object, cluster: object, pooled: object) -> Iterator[Fault]:
    if rows is not None and not isinstance(rows, (str, tuple)):
        yield f"cases is {rows!r}", _ROWS
    if isinstance(rows, tuple):
        wrong = next(
            (row for row in rows if not isinstance(row, Mapping) or not all(isinstance(k, str) for k in row)), None
        )
        if wrong is not None:
            named = "has a column that is not named by text" if isinstance(wrong, Mapping) else "is not a mapping"
            yield f"a case {named}: {wrong!r}", _ROWS
    if gate is not None and not isinstance(gate, Mapping):
        yield f"gate is {gate!r}", 'a mapping, for example {"min_pass_rate": 0.95}'
    if given is not None and declared(given) is None:
        yield "given is not a probe", "a function decorated with @probe, defined above"
    if cluster is not None and not (isinstance(cluster, str) and cluster):
        yield f"cluster is {cluster!r}", "a column's name, or a template"
    if pooled is not None and not (
        isinstance(pooled, Mapping) and all(isinstance(name, str) and callable(f) for name, f in pooled.items())
    ):
        yield f"pooled is {pooled!r}", "a mapping of names to functions of the list of replies"


def _as_messages(messages: object) -> str | tuple[tuple[str, str], ...] | None:
    """Roles with contents; a string as it is; None where it is no list of messages."""
    if messages is None or isinstance(messages, str):
        return messages
    if not isinstance(messages, (list, tuple)):
        return None
    for message in messages:
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            return None
        if not all(isinstance(text, str) for text in message.values()) or not message["role"]:
            return None
    return tuple((message["role"], message["content"]) for message in messages)


def _as_json(kwargs: object) -> str | None:
    """JSON with sorted keys; None where that cannot be written."""
    if kwargs is None:
        return "{}"
    try:
        return json.dumps(dict(kwargs), sort_keys=True, ensure_ascii=False)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None


def _where(function: object) -> Where:
    code = getattr(function, "__code__", None)
    return Where(code.co_filename, code.co_firstlineno) if code else Where(str(getattr(function, "__module__", "?")))
