"""Text that others wrote, as Markdown that a forge renders: nothing in it is taken for markup, a table or a mention."""

from __future__ import annotations

import re

from runner.errors import printable

_ADDRESS = re.compile(r"(www)\.", re.IGNORECASE)
"""Where an address begins that has no colon."""
_MARKUP = frozenset("&<>\\`*_{}[]|~#!@$:\"'")
_NAMING = frozenset("@#")
"""What a forge looks for after the markup is done, in names of people and numbers of issues: a space of no width, which
nobody sees, parts it from them."""


def words(text: str) -> str:
    """`text` on one line, every character that Markdown, a table or HTML reads as more than itself by its number, and
    nobody mentioned; no address becomes a link by itself."""
    made = "".join(_number(char) + ("&#8203;" if char in _NAMING else "") for char in printable(text))
    return _ADDRESS.sub(r"\1&#46;", made)


def code(text: str) -> str:
    """The same as code, in which nobody is mentioned and nothing becomes a link. It is HTML: the text could close
    backquotes itself."""
    return f"<code>{''.join(map(_number, printable(text)))}</code>"


def _number(char: str) -> str:
    return f"&#{ord(char)};" if char in _MARKUP else char
