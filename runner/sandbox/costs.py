"""What an operation of a template can make at most, in characters: told by what it is given, before it is done."""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, KeysView, Mapping, MappingView, Sized, ValuesView
from typing import Any

from jinja2.utils import Namespace

CHARS = 64
"""Characters of a step."""
ITEM = 64
"""Characters that an item counts as where it is looked into, besides what it holds."""
REFERENCE = 8
"""Characters that an item counts as where a list is only copied or counted."""
CALL = 9 * CHARS
FILTER = 3 * CHARS
ATOMS = (str, int, float, type(None))
LOOKING = frozenset(
    ("in", "eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan", "ge", ">=",
     "upper", "lower", "divisibleby")
)  # fmt: skip
"""Tests that look through a text, a list or the digits of a number."""
_SHALLOW = frozenset(
    ("length", "count", "first", "last", "default", "d", "list", "batch", "slice", "reverse", "items", "attr", "abs",
     "float", "int")
)  # fmt: skip
"""Filters that do not look at the items of what they are given."""
_EACH = frozenset(("map", "select", "reject", "selectattr", "rejectattr", "sum"))
"""Those that look at every item, and not into it."""
_SLOW = {
    **dict.fromkeys(("urlize", "striptags", "pprint", "title", "wordcount", "xmlattr", "tojson"), 20),
    **dict.fromkeys(("truncate", "sort", "groupby", "unique"), 20),
    "wordwrap": 100,
}
"""Filters that take longer for a character than others, and how many times."""
_PADDING = frozenset(("center", "ljust", "rjust", "zfill", "to_bytes"))
_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\d+|\*)?(?:\.(\d+|\*))?")
_BRACES = re.compile(r"\{[^{}]*:([^{}]*)(\{)?")
_DIGITS = 9
"""Of a width; more of them say nothing more."""
MAX_BITS = 50_000
"""Of an integer: the power of a power would otherwise be computed for hours."""


def length(value: Any) -> int:
    """What copying or counting `value` costs."""
    if isinstance(value, (str, bytes)):
        return len(value)
    return len(value) * REFERENCE if isinstance(value, (list, tuple, dict, set, range, MappingView)) else 0


def size(value: Any, most: int) -> int:
    """What `value` takes as a text, with each part as often as it holds it. Counting ends at `most`: a list that holds
    another twice, which holds another twice, and so on, has no end."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, ATOMS):
        return REFERENCE
    found, waiting = 0, [value]
    while waiting and found <= most:
        one = waiting.pop()
        found += ITEM
        if isinstance(one, (str, bytes)):
            found += len(one)
        elif isinstance(one, range):
            found += len(one) * ITEM
        elif isinstance(one, Namespace):
            waiting.append(one._Namespace__attrs)
        elif isinstance(one, Mapping):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)):
            waiting += one
    return found


def of_filter(name: str, given: list[Any], most: int) -> int:
    """A filter: the first of `given` is what it is applied to."""
    if name in _SHALLOW:
        return FILTER + sum(map(length, given)) + sum(_widths(given[1:])) * REFERENCE
    if name == "sum" and any(not isinstance(one, ATOMS) for one in given[1:]):
        # lists are joined one after the other, and what is there is copied each time
        times = length(given[0]) // REFERENCE if isinstance(given[0], Sized) else most
        return FILTER + sum(size(one, most) for one in given) * times
    if name in _EACH:
        return FILTER + sum(map(length, given)) * (ITEM // REFERENCE)
    whole = FILTER + sum(size(one, most) for one in given)
    if name == "round":
        return whole + _of_rounding(given, most)
    if name == "format":
        return whole + of_percent(str(given[0]), given[1:], most)
    return (whole + growth(name, given[0] if given else "", given[1:], most)) * _SLOW.get(name, 1)


def of_percent(text: str, given: Iterable[Any], most: int) -> int:
    """`text % given`."""
    values = list(given)
    starred = sum(_widths(values))
    fields = _PERCENT.findall(text)
    widths = sum(starred if part == "*" else int(part[:_DIGITS]) for field in fields for part in field if part)
    return len(text) + len(fields) * _longest(values, most) + widths


def of_braces(text: str, given: list[Any], most: int) -> int:
    """`text.format(…)`; a width can be a value itself: `{:{width}}`."""
    widths = 0
    for spec, is_nested in _BRACES.findall(text):
        widths += _numbers(spec) + (sum(_numbers(str(one)) for one in given) if is_nested else 0)
    return len(text) + text.count("{") * _longest(given, most) + widths


def growth(name: str, text: Any, given: list[Any], most: int) -> int:
    """What a filter or a method of a text can add to it."""
    widths, longest = sum(_widths(given)), _longest([one for one in given if not isinstance(one, int)], most)
    if name in _PADDING:
        return widths
    if name == "truncate":
        return widths // CHARS
    if name == "replace" and given:
        return _places(text, given[0]) * longest
    if name == "join":
        is_method = isinstance(text, (str, bytes))
        items, between = (given[:1], [text]) if is_method else (text, given[:1])
        return (size(items, most) // ITEM + 1) * _longest(between, most)
    if name == "wordwrap":
        chars, narrow = size(text, most), max(min(_widths(given), default=1), 1)
        # a word that is too long is cut off at its front again and again, a hundred times faster than all else
        return chars * longest + widths + chars * chars // (CHARS * _SLOW[name] * narrow)
    if name == "indent":
        return (_places(text, "\n") + 1) * (widths + longest)
    if name == "expandtabs":
        return _places(text, "\t") * widths
    # for each letter, address or value, what stands there instead or besides
    return size(text, most) * (widths + longest) if name in ("translate", "urlize", "xmlattr", "tojson") else 0


def _of_rounding(given: list[Any], most: int) -> int:
    """Jinja multiplies by `10 ** precision`, whatever is given: a text or a list too."""
    value, widths = given[0], sum(_widths(given[1:]))
    if isinstance(value, (int, float)):
        return (bits(value) + widths) ** 2
    return size(value, most) * int(10 ** min(widths, _DIGITS))


def bits(value: Any) -> int:
    """Of an integer; of anything else 0."""
    return value.bit_length() if isinstance(value, int) else 0


def _places(text: Any, part: Any) -> int:
    is_text = isinstance(text, str) and isinstance(part, str)
    return text.count(part) if is_text else length(text)


def _widths(values: Iterable[Any]) -> list[int]:
    return [abs(one) for one in values if isinstance(one, int)]


def _longest(values: Iterable[Any], most: int) -> int:
    return max((size(one, most) for one in values), default=0)


def _numbers(text: str) -> int:
    return sum(int(digits[:_DIGITS]) for digits in re.findall(r"\d+", text))
