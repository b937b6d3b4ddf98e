"""JSON in data files: values with the place of every fault, objects where rows are wanted."""

from __future__ import annotations

import json
from typing import Any

from runner.errors import BadData, Where

Values = dict[str, Any]
"""A row by column."""

TOO_LONG = "a number with more digits than Python reads (4,300)"
"""What `json` says of it is not for who wrote the data."""


def json_value(text: str, start: int, shown: str, line: int) -> tuple[Any, int]:
    """The JSON value at `start`, and where it ends.

    Raises:
        BadData: there is none.
    """
    try:
        return DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        at = Where(shown, line + text.count("\n", start, error.pos), error.colno)
        raise BadData(f"not JSON: {json_fault(error)}", where=at) from None
    except (NotJsonError, RecursionError) as error:
        raise BadData(f"not JSON: {error}", where=Where(shown, line)) from None
    except ValueError:
        raise BadData(TOO_LONG, where=Where(shown, line)) from None


def json_fault(error: json.JSONDecodeError) -> str:
    """What is wrong, in whole sentences: Python's words end in "at" and "starting at", because a place follows them."""
    unended = error.msg.startswith("Unterminated string")
    return "a string that begins here does not end" if unended else error.msg.removesuffix(" at")


def an_object(value: Any, text: str, shown: str, line: int) -> Values:
    """`value`, which `text` says.

    Raises:
        BadData: it is no object, or holds half a character.
    """
    if not isinstance(value, dict):
        raise BadData(
            f"found {json_name(value)}",
            where=Where(shown, line),
            expected='an object with named values, for example {"text": "…"}',
        )
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadData("half of a \\u surrogate pair, which is no character", where=Where(shown, line)) from None
    return value


def json_name(value: object) -> str:
    """What a value is, in words."""
    return _JSON_NAMES.get(type(value), f"a {type(value).__name__}")


class NotJsonError(Exception):
    """A constant that JSON does not have."""


def _constant(name: str) -> object:
    raise NotJsonError(f"{name} is no JSON value")


DECODER = json.JSONDecoder(parse_constant=_constant)
_JSON_NAMES: dict[type, str] = {
    list: "a list", dict: "an object", str: "a string", int: "a number", float: "a number", bool: "true or false",
    type(None): "null",
}  # fmt: skip
