"""What is said of a server that did not answer: in words, and without the key."""

from __future__ import annotations

import os

from runner.errors import UserError, first_line, printable
from runner.probing.protocol import explanation

KEY = "OPENAI_API_KEY"
"""The environment variable."""
_SHORTEST_KEY = 8
"""What stands in for a key where none is wanted, EMPTY or x, is no secret and may be a word of the text."""


def why(error: Exception) -> str:
    """Why a question has no answer."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__
        return clean(first_line(f"{type(cause).__name__}: {cause}" if cause and str(cause) else error))
    if isinstance(error, openai.APIStatusError) and 300 <= error.status_code < 400:
        to = printable(error.response.headers.get("location", "another address"))[:200]
        return clean(f"the server sends to {to}, where neither the questions nor the key are sent")
    if isinstance(error, openai.APIStatusError):
        return clean(f"the server answered {error.status_code}: {explanation(error.response.content)}")
    if isinstance(error, UnicodeError):
        return f"the prompt is no text that can be sent: {first_line(error)}"
    return clean(str(error))


def secret() -> str:
    """The key, without the line end that a file of keys may add; empty where there is none.

    Raises:
        UserError: it cannot be sent. An error of the library would show it.
    """
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or not key.isprintable():
        raise UserError(f"${KEY} holds characters that no key has", expected="printable ASCII")
    return key


def clean(text: str) -> str:
    """The text without the key."""
    key = secret()
    return text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text


def key_hint(status: int) -> str | None:
    """What to do where the server refuses the key."""
    if status not in (401, 403):
        return None
    return f"is the key in ${KEY} right?" if secret() else f"${KEY} is not set"
