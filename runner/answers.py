"""What a free reply answers: the last pieces of it that look like an answer, compared with a key."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

NUMBER = r"(?<!\d)-?\d+(?:\.\d+)?"
"""A number in digits; the minus of a range such as 6-8 is no sign."""
WORD = r"[a-z]+"
"""A word in Latin letters."""


def last(reply: str, pattern: str = NUMBER, count: int = 1) -> tuple[str, ...]:
    """The last `count` pieces of `reply` that match the regular expression `pattern`; fewer where there are fewer.

    The reply is read in Unicode's form NFKC and in lower case: full-width １２ is 12, Mork is mork. Whoever reasons
    before answering is judged by the end: of `5 - 4 = 1` the last number is 1.
    """
    read = unicodedata.normalize("NFKC", reply).lower()
    return tuple(found.group() for found in re.finditer(pattern, read))[-count:]


def says(reply: str, key: Sequence[str], pattern: str = NUMBER) -> bool:
    """Whether the last pieces of `reply` that match `pattern` are those of `key`, in any order.

    It is exact on purpose. `6 or 8` answers 6 and 8; `8, as there are 10 trees` answers 10. A question that is judged
    so says what to answer with: "Answer with the number only."
    """
    return sorted(last(reply, pattern, len(key))) == sorted(key)
