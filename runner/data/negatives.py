"""Which texts may stand against the right one: those that are wrong for their prompt, and were written on purpose.

A negative that is true is not one: it teaches the model to unlearn a fact. A template whose column was empty writes
`None`, one that was given a list writes its brackets. What is refused is counted by its reason, and never silent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Reason = Literal["chosen", "right", "true", "empty", "unwritten", "twice"]
"""Why a text is no negative."""

REASONS: Mapping[Reason, str] = {
    "chosen": "equal to chosen",
    "right": "right for their prompt",
    "true": "true of another row",
    "empty": "empty",
    "unwritten": "with None, a list or an object in them",
    "twice": "said before of the same row",
}
"""In words, after a number."""

_LEFT_BY_A_TEMPLATE = re.compile(
    r"(?<![A-Za-z0-9_])None(?![A-Za-z0-9_]| of )"  # not `\b`: between a Chinese character and a letter there is none
    r"|\[(?:'[^']*'|\"[^\"]*\"|-?\d+(?:\.\d+)?)(?:, (?:'[^']*'|\"[^\"]*\"|-?\d+(?:\.\d+)?))*\]"
    r"|\{(?:'[^']*'|\"[^\"]*\"): "
)
"""What Python writes for nothing, for a list and for an object."""


@dataclass(frozen=True)
class Fact:
    """A row's prompt and what is right for it."""

    prompt: str
    right: Sequence[str]
    """The chosen text first; the completion too, where they differ."""


class Truth:
    """What is right for each prompt of a data set, and what is right anywhere.

    A right answer that repeats what sets its prompt apart from the others (`x` of `what is x?` in ` x is red`) is a
    fact by itself: it stays true when it is said to another prompt. One that does not, as `Paris`, is not. Where less
    than half of a data set's answers do so, none counts as a fact.
    """

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._for: dict[str, set[str]] = {}
        self._anywhere: set[str] = set()
        for fact in facts:
            self._for.setdefault(fact.prompt, set()).update(text.strip() for text in fact.right)
            self._anywhere.update(text.strip() for text in fact.right)
        self._by_itself: frozenset[str] | None = None

    def why_not(
        self, text: str, prompt: str, chosen: str, *, states_its_row: bool | None = None, templated: bool = True
    ) -> Reason | None:
        """Why `text` is no negative for `prompt`; None where it is one. Blanks at both ends do not count.

        Args:
            states_its_row: whether the text was made to name its own row, so that it must be right nowhere; None where
                nobody knows: then it must not be another row's fact.
            templated: whether it may hold what a template leaves: a model's own words do not.
        """
        said = text.strip()
        if not said:
            return "empty"
        if said == chosen.strip():
            return "chosen"
        if said in self._for.get(prompt, ()):
            return "right"
        if said in (self._facts if states_its_row is None else self._anywhere if states_its_row else ()):
            return "true"
        if templated and _LEFT_BY_A_TEMPLATE.search(text) and not _LEFT_BY_A_TEMPLATE.search(chosen):
            return "unwritten"
        return None

    @property
    def _facts(self) -> frozenset[str]:
        """The right answers that are facts by themselves."""
        if self._by_itself is None:
            start = _common(self._for)
            end = _common([prompt[start:][::-1] for prompt in self._for])
            named = {prompt: prompt[start : len(prompt) - end].strip() for prompt in self._for}
            naming = [prompt for prompt, subject in named.items() if subject and self._says(prompt, subject)]
            facts = (text for prompt in naming for text in self._for[prompt] if named[prompt] in text)
            # a few may hold their subject by chance, as `Ankara` the `a` of `capital of a?`
            self._by_itself = frozenset(facts if 2 * len(naming) > len(named) else ())
        return self._by_itself

    def _says(self, prompt: str, subject: str) -> bool:
        return any(subject in text for text in self._for[prompt])


def _common(texts: Iterable[str]) -> int:
    """Characters that all texts begin with."""
    first, last = min(texts, default=""), max(texts, default="")  # all others lie between these two
    return next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def repeated(text: str, times: int, last: int | None) -> str:
    """`text` said `times` times on end; with `last`, once whole and then only its last so many characters."""
    return text * times if last is None else text + text[-last:] * (times - 1)
