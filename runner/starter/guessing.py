"""What columns mean that have no known format: by their names in English and Chinese, else by what they hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from runner.spec.row_formats import FormatName

NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "query", "instruction", "input", "source", "src", "problem", "ask", "q", "user",
               "human", "问题", "提问", "问", "指令", "输入", "题目", "原文"),
    "completion": ("completion", "answer", "response", "output", "reply", "target", "tgt", "solution", "a", "assistant",
                   "label", "gold", "答案", "回答", "答", "回复", "输出", "标签", "译文", "标准答案"),
    "chosen": ("chosen", "better", "accepted", "preferred", "good", "positive", "win"),
    "rejected": ("rejected", "worse", "dispreferred", "bad", "negative", "lose"),
    "text": ("text", "content", "body", "document", "article", "story", "正文", "文本", "内容", "文章"),
}  # fmt: skip
"""What columns are called that hold a field, the surest names first."""
CLASSES = ("label", "category", "class", "sentiment", "intent", "标签", "类别", "情感")
"""What the column beside a `text` is called where the text is to be classified."""


class Held(Protocol):
    """What a guess needs to know of a column."""

    @property
    def name(self) -> str:
        """As the file has it."""

    @property
    def kind(self) -> str:
        """What its values are."""

    @property
    def is_scalar(self) -> bool:
        """Whether it holds texts or numbers."""

    @property
    def filled(self) -> float:
        """Share of the rows that have it."""

    @property
    def distinct(self) -> int:
        """Different values."""


@dataclass(frozen=True)
class Guess:
    """Which column is used as which field; no fields where nothing was to be guessed."""

    fields: Mapping[str, str]
    why: str
    """How it was guessed: `by their names`."""


def guess(columns: Sequence[Held], known: FormatName | None) -> Guess:
    """What the columns mean.

    Args:
        columns: those of the file.
        known: the format that was recognised from their names; texts beside a class are looked at again.
    """
    usable = [column for column in columns if column.is_scalar and column.filled >= 0.5]
    names = {column.name.strip().casefold(): column.name for column in usable}
    if known == "text":
        label = next((names[name] for name in CLASSES if name in names), None)
        return Guess({"prompt": "text", "completion": label}, "a text with its class") if label else Guess({}, "")
    if known is not None or {"prompt", "completion"} <= {column.name for column in columns}:
        return Guess({}, "")
    named = {field: found for field, of in NAMES.items() if (found := _first(of, names)) is not None}
    for wanted in (("chosen", "rejected"), ("prompt", "completion"), ("text",)):
        if set(wanted) <= named.keys():
            fields = ("prompt", *wanted) if wanted[0] == "chosen" and "prompt" in named else wanted
            return Guess({field: named[field] for field in fields if named[field] != field}, "by their names")
    return _by_contents(usable, named)


def _first(of: Collection[str], names: Mapping[str, str]) -> str | None:
    return next((names[name] for name in of if name in names), None)


def _by_contents(usable: Sequence[Held], named: Mapping[str, str]) -> Guess:
    """The most varied column is asked about, the next one is the answer, texts before numbers; a single one is a
    document."""
    by_variety = [column.name for column in sorted(usable, key=lambda one: (one.kind != "text", -one.distinct))]
    by_variety = [name for name in by_variety if name.casefold() not in ("id", "idx", "index")]
    if not by_variety:
        return Guess({}, "")
    if len(by_variety) == 1:
        return Guess({"text": by_variety[0]}, "the only column of texts")
    asked = named.get("prompt") or next(name for name in by_variety if name != named.get("completion"))
    said = named.get("completion") or next(name for name in by_variety if name != asked)
    return Guess({"prompt": asked, "completion": said}, "a guess: the two columns that vary most")
