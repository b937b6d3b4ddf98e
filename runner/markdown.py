"""Text that others wrote, as Markdown that a forge renders: nothing in it is taken for markup, a table or a mention."""

from __future__ import annotations

from runner.errors import printable

_MARKUP = frozenset("&<>\\`*_{}[]|~#!@$:\"'")


def words(text: str) -> str:
    """`text` on one line, every character that Markdown, a table or HTML reads as more than itself by its number."""
    return "".join(f"&#{ord(char)};" if char in _MARKUP else char for char in printable(text))


def code(text: str) -> str:
    """The same as code, in which nobody is mentioned and nothing becomes a link. It is HTML: the text could close
    backquotes itself."""
    return f"<code>{words(text)}</code>"
