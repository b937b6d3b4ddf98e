"""Records of asking: a case, how a reply is decoded, the reply, and what the decorator was given."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.errors import Where, nearest

StopReason = Literal["eos", "stop", "length", "choice"]
_WHOLE = re.compile(r"\s*\{\{\s*([^\W\d]\w*)\s*\}\}\s*")


class Case:
    """One row a probe is asked about: its `id`, its columns as attributes (`case.char`) or items (`case["char"]`)."""

    __slots__ = ("_row", "id")
    id: str
    """ASCII, unique within its cases, the same in every process."""

    def __init__(self, id: str, row: Mapping[str, Any]) -> None:
        self.id = id
        self._row = row

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        if name.startswith("__") or name == "_row":
            raise AttributeError(name)
        try:
            return self._row[name]
        except KeyError:
            close = nearest(name, self._row)
            hint = f"; did you mean {close!r}?" if close else f"; it has {', '.join(self._row)}"
            raise AttributeError(f"case {self.id} has no column {name!r}{hint}") from None

    def __getitem__(self, name: str) -> Any:
        return self._row[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __len__(self) -> int:
        return len(self._row)

    def __repr__(self) -> str:
        return f"Case({self.id}: {dict(self._row)!r})"


def row_of(case: Case) -> Mapping[str, Any]:
    """The columns of a case; no method of it, because every name may be a column's."""
    return case._row


@dataclass(frozen=True)
class Decoding:
    """How a reply is decoded: greedy, and nothing is ever taken from the checkpoint's own generation settings."""

    max_new_tokens: int = 64
    """At most so many tokens are generated."""
    stop: tuple[str, ...] = ()
    """Strings that end a reply; what was matched is not part of it."""
    temperature: float = 0.0
    """0 is greedy; above it, tokens are drawn with a generator of the case's own."""
    top_p: float = 1.0
    """Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751); 1 draws from all tokens."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens that already occurred (Keskar et al. 2019,
    arXiv:1909.05858); 1 changes nothing."""
    samples: int = 1
    """Replies per case; a probe gets all of them as `replies`."""
    seed: int = 0
    """Of sampling, together with the case's id and the number of the sample."""


def decoding_fault(decoding: Decoding) -> tuple[str, str] | None:
    """What is wrong with a decoding, and what was expected; None where nothing is."""
    whole = "a whole number, at least 1"
    if not _whole(decoding.max_new_tokens, 1):
        return f"max_new_tokens is {decoding.max_new_tokens!r}", whole
    if not all(isinstance(text, str) and text for text in decoding.stop):
        return f"stop is {list(decoding.stop)!r}", "one or more strings that are not empty"
    if not _number(decoding.temperature) or decoding.temperature < 0:
        return f"temperature is {decoding.temperature!r}", "a number, 0 (greedy) or above"
    if not _number(decoding.top_p) or not 0 < decoding.top_p <= 1:
        return f"top_p is {decoding.top_p!r}", "a number above 0 and at most 1"
    if not _number(decoding.repetition_penalty) or decoding.repetition_penalty <= 0:
        return f"repetition_penalty is {decoding.repetition_penalty!r}", "a number above 0; 1 changes nothing"
    if not _whole(decoding.samples, 1):
        return f"samples is {decoding.samples!r}", whole
    if not _whole(decoding.seed, 0):
        return f"seed is {decoding.seed!r}", "a whole number, at least 0"
    if decoding.samples > 1 and decoding.temperature == 0:
        return (
            f"samples is {decoding.samples} and temperature is 0",
            "a temperature above 0: greedy samples are all the same",
        )
    return None


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Reply(str):
    """What the model said, as a string, and how it came to an end."""

    tokens: tuple[int, ...]
    """Generated token ids, the stop token included."""
    stop_reason: StopReason
    """`eos`: the model ended it; `stop`: a stop string came (it is cut off); `length`: max_new_tokens were spent;
    `choice`: it is the most likely of the `choices`, nothing was generated."""
    margin: float | None
    """Smallest difference between the two best logits over the generated tokens: near 0, the reply hung by a hair. Of a
    closed question: the difference between the log probabilities of the two most likely choices."""
    logprob: float | None
    """Sum of the natural log probabilities of `tokens`; None where a server does not tell."""
    thinking: str
    """What stood between `<think>` and `</think>`, which is not part of the reply."""

    def __new__(
        cls,
        text: str,
        tokens: tuple[int, ...] = (),
        stop_reason: StopReason = "eos",
        margin: float | None = None,
        logprob: float | None = None,
        thinking: str = "",
    ) -> Reply:
        """A reply with this text; called with only the text, a probe function can be tried by hand."""
        reply = super().__new__(cls, text)
        reply.tokens = tokens
        reply.stop_reason = stop_reason
        reply.margin = margin
        reply.logprob = logprob
        reply.thinking = thinking
        return reply

    def __getattr__(self, name: str) -> Any:
        __tracebackhide__ = True
        close = None if name.startswith("_") else nearest(name, (*Reply.__annotations__, *dir(str)))
        raise AttributeError(f"a reply has no {name!r}" + (f"; did you mean {close!r}?" if close else ""))


@dataclass(frozen=True, eq=False)
class Probe:
    """What the decorator `probe` was given. Equal to itself alone."""

    cases: str | tuple[Mapping[str, Any], ...] | None
    """A file, or rows."""
    prompt: str | None
    """A template. Exactly one of `prompt` and `messages` is given."""
    messages: str | tuple[tuple[str, str], ...] | None
    """Roles with templates, or a column's whole `{{ name }}` that holds such a list."""
    system: str | None
    raw: bool
    template_kwargs: str
    """JSON with sorted keys: what `chat_template_kwargs` were given."""
    decoding: Decoding
    choices: str | tuple[str, ...] | None
    """Templates, or a column's whole `{{ name }}` that holds a list; None where the question is open."""
    answer: str | None
    """Template of the key among the choices."""
    gate: Mapping[str, Any] | None
    given: Callable[..., object] | None
    cluster: str | None
    """A column's name, or a template."""
    pooled: Mapping[str, Callable[[Sequence[Reply]], float]]
    """Numbers about the suite as a whole, by name, each from all replies."""
    where: Where
    """Where it is decorated."""


def whole_column(template: str) -> str | None:
    """The column that a template names and nothing else, `char` of `{{ char }}`; None for any other."""
    match = _WHOLE.fullmatch(template)
    return match[1] if match else None
