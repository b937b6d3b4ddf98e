"""What servers of OpenAI's protocol say, read without trust: the list of models, an answer, a refusal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from runner.asking import Decoding
from runner.errors import first_line, printable
from runner.probing.questions import Answer, EndReason, Question

_SERVERS = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}
"""What `owned_by` in the list of models says."""


class Nonsense(Exception):
    """An answer that is none in this protocol."""


@dataclass(frozen=True)
class Served:
    """A model that a server offers."""

    model: str
    server: str
    """vLLM, SGLang or llama.cpp; empty for others."""

    def settings(self, decoding: Decoding) -> dict[str, Any]:
        """The part of the decoding that the protocol has no words for, in this server's own.

        Where the server is known everything is said, because it takes what is left out from the checkpoint's own
        generation settings. Others would refuse a word they do not know: they are told what is not the default.
        """
        penalty = decoding.repetition_penalty
        if self.server in ("vLLM", "SGLang"):
            return {"repetition_penalty": penalty, "top_k": -1, "min_p": 0.0}
        if self.server == "llama.cpp":
            return {"repeat_penalty": penalty, "repeat_last_n": -1, "top_k": 0, "min_p": 0.0}
        return {"repetition_penalty": penalty} if penalty != 1 else {}


class _Model(BaseModel):
    id: str
    owned_by: str | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """What newer vLLM calls it."""


class _Choice(BaseModel):
    finish_reason: str
    text: str | None = None
    message: _Message | None = None
    stop_reason: int | str | None = None
    """vLLM: the string or token that ended it, None for the model's own end."""
    matched_stop: int | str | None = None
    """The same from SGLang, whose own end is a token."""


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


T = TypeVar("T", bound=BaseModel)


def served(body: bytes) -> list[Served]:
    """The models of an answer of `/models`.

    Raises:
        Nonsense: it is none.
    """
    listed = _read(_Models, body).data
    return [Served(one.id, _SERVERS.get(one.owned_by or "", "")) for one in listed]


def answer_of(body: bytes, question: Question) -> Answer:
    """The answer in the body of a completion; its prompt is not known here.

    What a server split off as reasoning is put back before the text as `<think>…</think>`, where a local model would
    have said it.

    Raises:
        Nonsense: there is none in it.
    """
    choice = _read(_Completion, body).choices[0]
    said = choice.message.content if choice.message else choice.text
    thought = (choice.message.reasoning_content or choice.message.reasoning) if choice.message else None
    if choice.finish_reason not in ("stop", "length"):
        raise Nonsense(f"the reply ended with {printable(choice.finish_reason)[:100]!r}, not with stop or length")
    if said is None and thought is None:
        raise Nonsense("an answer without a text")
    text, reason = _cut(said or "", choice, question.decoding.stop)
    if thought:
        text = f"<think>{thought}</think>{text}" if said is not None or reason != "length" else f"<think>{thought}"
    return Answer(text=text, stop_reason=reason)


def _cut(text: str, choice: _Choice, stops: tuple[str, ...]) -> tuple[str, EndReason]:
    """The text up to a stop string, and why it ended.

    vLLM and SGLang say what ended it. Some servers leave the stop string in the text, which shows it. For the others a
    reply that ended by itself, where stop strings were given, counts as stopped: it is not known that the model ended.
    """
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    if found:
        return text[: min(found)], "stop"
    if choice.finish_reason == "length":
        return text, "length"
    told = {"stop_reason", "matched_stop"} & choice.model_fields_set
    matched = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
    ended_by_string = isinstance(matched, str) if told else bool(stops)
    return text, "stop" if ended_by_string else "eos"


def explanation(body: bytes) -> str:
    """The reason in the body of a refusal, on one line."""
    text = body.decode("utf-8", "replace")
    try:
        row: Any = json.loads(text)
    except (ValueError, RecursionError):
        return printable(first_line(text))[:200] or "nothing"
    for name in ("error", "message", "detail"):
        if isinstance(row, dict) and row.get(name):
            row = row[name]
    return printable(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False))[:500]


def _read(kind: type[T], body: bytes) -> T:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {first['msg']}" if where else "no JSON"
        begins = printable(body[:80].decode("utf-8", "replace"))
        raise Nonsense(f"an answer that is none in OpenAI's protocol ({what}): {begins or 'empty'}") from None
