"""Rows of the named formats as fields: what people's data sets hold, in the words of the recipe.

======================  ============================================================================================
`alpaca`                `instruction`, `output`, and `input`, `system`, `history` where they are (Taori et al. 2023,
                        https://github.com/tatsu-lab/stanford_alpaca): a prompt in one of its two wordings, with and
                        without input; with a chat template, instruction and input are what the user says.
`sharegpt`              `conversations`: turns `{from: human, value: …}`; names of roles differ between its users.
`messages`              `messages`: turns `{role: user, content: …}`, as in OpenAI's API.
`preference`            `chosen` and `rejected`, with `prompt` or without; texts, or conversations. Without a prompt,
                        what both conversations begin with in whole messages was asked; texts have no such beginning.
`text`                  `text`: a document.
======================  ============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from runner.data.json_text import json_name
from runner.data.texts import Message
from runner.spec.row_formats import FormatName

Values = Mapping[str, Any]

ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
"""The published wording of a prompt with an input."""
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
"""The published wording of a prompt without one."""

ROLES: Mapping[str, str] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bing", "bard", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
}
"""What data sets call those who speak → what a chat template calls them."""


class Unfit(ValueError):
    """A row is not what its format wants: what was found, and what was expected."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found)
        self.expected = expected


def fields(name: FormatName, values: Values, *, chat: bool) -> dict[str, Any]:
    """The fields that a row has besides its columns: `prompt`, `completion`, `chosen`, `rejected`, and `messages`, a
    tuple of Message.

    Args:
        chat: whether a chat template will write what is asked and said.

    Raises:
        Unfit: the row is not of this format.
    """
    if name == "alpaca":
        return _alpaca(values, chat)
    return _FIELDS[name](values)


# --- alpaca ---


def _alpaca(values: Values, chat: bool) -> dict[str, Any]:
    instruction, given = _text(values, "instruction"), _text(values, "input", "")
    completion = _text(values, "output")
    system, history = _text(values, "system", ""), _history(values.get("history"))
    asked = f"{instruction}\n{given}" if given.strip() else instruction
    if system.strip() or history:
        before = (Message("system", system),) if system.strip() else ()
        said = (*before, *history, Message("user", asked), Message("assistant", completion))
        return {"prompt": asked, "completion": completion, "messages": said}
    if not chat:
        asked = (ALPACA_WITH_INPUT if given.strip() else ALPACA).format(instruction=instruction, input=given)
    return {"prompt": asked, "completion": completion}


def _history(value: object) -> tuple[Message, ...]:
    """Earlier rounds: `[[question, answer], …]`."""
    if value is None or value == "":
        return ()
    found: list[Message] = []
    for number, turn in enumerate(_sequence(value, "history"), start=1):
        if not (isinstance(turn, Sequence) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise Unfit(f"history: round {number} is {json_name(turn)}", "[question, answer]")
        found += (Message("user", turn[0]), Message("assistant", turn[1]))
    return tuple(found)


# --- conversations ---


def _messages(values: Values) -> dict[str, Any]:
    return _conversation(values, "messages")


def _sharegpt(values: Values) -> dict[str, Any]:
    return _conversation(values, "conversations" if "conversations" in values else "conversation")


def _conversation(values: Values, column: str) -> dict[str, Any]:
    said = turns(values.get(column), column)
    system = _text(values, "system", "")
    if system.strip() and said[0].role != "system":
        said = (Message("system", system), *said)
    if not any(message.role == "assistant" for message in said):
        raise Unfit(f"{column}: the assistant says nothing", "a turn of the assistant, to be learned")
    return {"messages": said, **last_round(said)}


def last_round(said: Sequence[Message]) -> dict[str, str]:
    """The last thing that the user says and the assistant's answer to it, as `prompt` and `completion`."""
    if len(said) > 1 and said[-1].role == "assistant" and said[-2].role == "user":
        return {"prompt": said[-2].content, "completion": said[-1].content}
    return {}


def turns(value: object, column: str) -> tuple[Message, ...]:
    """The turns of a conversation.

    A turn is `{role, content}` or `{from, value}`, or a round `{human, assistant}`; its content is a text, or a list of
    `{type: text, text: …}`.

    Raises:
        Unfit: it is something else.
    """
    found: list[Message] = []
    for number, turn in enumerate(_sequence(value, column), start=1):
        found += _turn(turn, f"{column}: turn {number}")
    if not found:
        raise Unfit(f"{column} is empty", "turns of a conversation")
    return tuple(found)


def _turn(turn: object, where: str) -> list[Message]:
    if not isinstance(turn, Mapping):
        raise Unfit(f"{where} is {json_name(turn)}", "{role: user, content: …} or {from: human, value: …}")
    for speaker, said in (("role", "content"), ("from", "value"), ("role", "value"), ("from", "content")):
        if speaker in turn and said in turn:
            return [Message(_role(turn[speaker], where), _content(turn, said, where))]
    if "human" in turn and "assistant" in turn:
        return [
            Message("user", _content(turn, "human", where)),
            Message("assistant", _content(turn, "assistant", where)),
        ]
    raise Unfit(f"{where} has {', '.join(map(str, turn)) or 'no keys'}", "role and content, or from and value")


def _role(name: object, where: str) -> str:
    role = ROLES.get(str(name).strip().lower())
    if role is None:
        raise Unfit(f"{where} is said by {name!r}", f"one of {', '.join(ROLES)}")
    return role


def _content(turn: Mapping[str, Any], key: str, where: str) -> str:
    content = turn[key]
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
                 for part in content]  # fmt: skip
        if parts and all(isinstance(part, str) for part in parts):
            return "".join(str(part) for part in parts)
        raise Unfit(f"{where} has parts that are no text", "text alone: pictures and sounds are not trained on")
    if content is None and turn.get("tool_calls"):
        raise Unfit(f"{where} calls tools and says nothing", "text: write calls of tools into the content")
    raise Unfit(f"{where}: {key} is {json_name(content)}", "text")


# --- preferences ---


def _preference(values: Values) -> dict[str, Any]:
    chosen, rejected = values.get("chosen"), values.get("rejected")
    told = [_told(side) for side in (chosen, rejected)]
    if not any(told):
        several = isinstance(rejected, list) and all(isinstance(text, str) for text in rejected)
        wrong = rejected if several else _text(values, "rejected")
        return {**_asked(values), "chosen": _text(values, "chosen"), "rejected": wrong}
    if not all(told):
        one, other = ("chosen", "rejected") if told[0] else ("rejected", "chosen")
        raise Unfit(f"{one} is a conversation, {other} is {json_name(values.get(other))}", "both of one kind")
    right, wrong_turns = (turns([side] if isinstance(side, Mapping) else side, name)
                          for side, name in ((chosen, "chosen"), (rejected, "rejected")))  # fmt: skip
    return _answers(_before(values), right, wrong_turns, values)


def _told(side: object) -> bool:
    """Whether a side of a preference is a conversation, or a turn of one."""
    return isinstance(side, Mapping) or (isinstance(side, list) and any(isinstance(turn, Mapping) for turn in side))


def _asked(values: Values) -> dict[str, Any]:
    """What was asked, beside two texts: a text, a conversation, or nothing."""
    before = _before(values)
    if before:
        return {"prompt": "", "messages": before}
    return {"prompt": _text(values, "prompt", "")}


def _before(values: Values) -> tuple[Message, ...]:
    """The conversation before the answer, where a column of its own has it."""
    for column in ("prompt", "messages", "conversations"):
        if isinstance(values.get(column), list):
            return turns(values[column], column)
    return ()


def _answers(
    before: tuple[Message, ...], right: tuple[Message, ...], wrong: tuple[Message, ...], values: Values
) -> dict[str, Any]:
    """Two conversations that differ in their last message alone; never do they share a part of one."""
    limit = min(len(right), len(wrong)) - 1
    shared = next((at for at in range(limit) if right[at] != wrong[at]), limit)
    if len(right) != shared + 1 or len(wrong) != shared + 1:
        raise Unfit(
            f"chosen and rejected part after {shared} of {len(right)} and {len(wrong)} messages",
            "conversations that differ in their last message alone",
        )
    if right[-1].role != "assistant" or wrong[-1].role != "assistant":
        raise Unfit("the last message of chosen or rejected is not the assistant's", "two answers of the assistant")
    said = right[:-1]
    if before and said[: len(before)] != before:
        said = (*before, *said)
    said = _with_prompt(said or before, values)
    if not said:
        raise Unfit("nothing was asked before the answers", "prompt, or what the user says in chosen and rejected")
    return {"prompt": "", "messages": said, "chosen": right[-1].content, "rejected": wrong[-1].content}


def _with_prompt(said: tuple[Message, ...], values: Values) -> tuple[Message, ...]:
    """The conversation before the answer, where `prompt` is a text: alone, or said again in it."""
    prompt = values.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        return said
    asked = [message.content.strip() for message in said if message.role == "user"]
    if not asked:
        return (*said, Message("user", prompt))
    if prompt.strip() not in asked:
        raise Unfit("prompt is not what the user says in chosen", "the same question in both, or one of them alone")
    return said


# --- single texts ---


def _document(values: Values) -> dict[str, Any]:
    return {"text": _text(values, "text")}


def _text(values: Values, column: str, otherwise: str | None = None) -> str:
    value = values.get(column)
    if value is None and otherwise is not None:
        return otherwise
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Unfit(f"{column} is {'nothing' if value is None else json_name(value)} in this row", "text")
    return value


def _sequence(value: object, column: str) -> Sequence[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    raise Unfit(f"{column} is {'nothing' if value is None else json_name(value)} in this row", "a list of turns")


_FIELDS: Mapping[FormatName, Callable[[Values], dict[str, Any]]] = {
    "sharegpt": _sharegpt,
    "messages": _messages,
    "preference": _preference,
    "text": _document,
}
