"""Thinking aloud: what a reply says between `<think>` and `</think>`, apart from what it answers."""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


def split_thinking(text: str, prompt: str = "") -> tuple[str, str]:
    """A generated text as (thinking, reply).

    Only thinking that stands first counts: a reply may quote the tags later on. Thinking that never closes is all there
    is, and the reply is empty.

    Args:
        text: what was generated.
        prompt: the rendered prompt. Some chat templates end it in `<think>`, so that the text begins inside; where the
            prompt is not known, a `</think>` that nothing opened tells the same.

    >>> split_thinking("<think>\\n2 + 2\\n</think>\\n\\n4")
    ('2 + 2', '4')
    >>> split_thinking("2 + 2</think>4", prompt="Q: 2 + 2? <think>\\n")
    ('2 + 2', '4')
    >>> split_thinking("<think>2 + 2, let me see")
    ('2 + 2, let me see', '')
    >>> split_thinking("4")
    ('', '4')
    """
    opened = prompt.rstrip().endswith(_OPEN)
    if not opened and _CLOSE not in text and _OPEN not in text:
        return "", text
    start = text.lstrip()
    if start.startswith(_OPEN):
        opened, inside = True, start.removeprefix(_OPEN)
    else:
        inside = text
    thinking, closed, reply = inside.partition(_CLOSE)
    # a `<think>` before the first `</think>` was opened in the middle of a reply: it is quoted, not thought
    if not opened and (not closed or _OPEN in thinking):
        return "", text
    return thinking.strip("\n"), reply.lstrip("\n")
