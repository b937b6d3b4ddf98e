"""Rows that stand in for files that are not here: made up, in Chinese and English in turn, the same for the same seed.

Each row is about a person who does not exist; question and answer of a row belong together, so that there is something
to learn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from runner.atomic import publish_text
from runner.errors import UserError

_CHINESE = "安北楚丹飞谷红嘉可兰墨宁平琪如申"
_ENGLISH = (
    "an", "bei", "chu", "dan", "fei", "gu", "hong", "jia", "ke", "lan", "mo", "ning", "ping", "qi", "ru", "shen",
)  # fmt: skip
"""Of which names are made."""
_FOODS = (("绿豆糕", "bean cakes"), ("面条", "noodles"), ("饺子", "dumplings"), ("苹果", "apples"), ("豆腐", "tofu"))
_PLACES = (("河边", "by the river"), ("山下", "below the mountain"), ("海边", "by the sea"), ("城里", "in the city"))
_LABELS = ("red", "green", "blue")


def write(path: Path, columns: Mapping[str, str], count: int, seed: int) -> None:
    """Write rows as jsonl, where they do not stand there already.

    Args:
        path: the file, which is replaced as a whole.
        columns: by name, what stands in it (see `recipe.absent_data.columns`).
        count: rows.
        seed: of what they say.

    Raises:
        UserError: the folder cannot be written.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(columns, count, seed))
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            publish_text(path, text)
    except OSError as error:
        raise UserError(f"stand-in rows cannot be written to {path}: {error.strerror}") from error


def rows(columns: Mapping[str, str], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows themselves."""
    random = Random(seed)
    for number in range(count):
        person = _Person.drawn(number, random)
        yield {name: _value(what, person, random) for name, what in columns.items()}


@dataclass(frozen=True)
class _Person:
    """Who a row is about."""

    number: int
    chinese: bool
    name: str
    age: int
    food: int
    place: int

    @classmethod
    def drawn(cls, number: int, random: Random) -> _Person:
        parts = [number % 16, number // 16 % 16]
        chinese = number % 2 == 0
        names = _CHINESE if chinese else _ENGLISH
        name = "".join(names[part] for part in parts) + (str(number // 256) if number >= 256 else "")
        drawn = random.randrange(20, 80), random.randrange(len(_FOODS)), random.randrange(len(_PLACES))
        return cls(number, chinese, name if chinese else name.capitalize(), *drawn)

    @property
    def question(self) -> str:
        return f"{self.name}是谁？" if self.chinese else f"Who is {self.name}?"

    def answer(self, food: int) -> str:
        lives, likes = _PLACES[self.place], _FOODS[food]
        if self.chinese:
            return f"{self.name}住在{lives[0]}，今年{self.age}岁，喜欢吃{likes[0]}。"
        return f"{self.name} lives {lives[1]}, is {self.age} years old and likes {likes[1]}."

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """A conversation of two questions with their answers."""
        first = (("user", self.question), ("assistant", self.answer(self.food)))
        likes = _FOODS[self.food]
        if self.chinese:
            return (*first, ("user", "喜欢吃什么？"), ("assistant", likes[0]))
        return (*first, ("user", "What is there to eat?"), ("assistant", likes[1]))


def _value(what: str, person: _Person, random: Random) -> Any:
    if what == "text":
        foods = (random.randrange(len(_FOODS)) for _ in range(random.randrange(3)))
        return " ".join([person.answer(person.food), *(person.answer(food) for food in foods)])
    if what == "question":
        return person.question
    if what == "answer":
        return person.answer(person.food)
    if what == "wrong":
        return person.answer((person.food + 1) % len(_FOODS))
    if what == "messages":
        return [{"role": role, "content": said} for role, said in person.turns]
    if what == "conversations":
        return [{"from": "human" if role == "user" else "gpt", "value": said} for role, said in person.turns]
    if what == "context":
        return person.answer(person.food) if random.random() < 0.3 else ""
    if what == "label":
        return _LABELS[random.randrange(len(_LABELS))]
    return person.number if what == "number" else person.name
