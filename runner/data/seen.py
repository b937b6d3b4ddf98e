"""What training saw, small enough to be looked up at every checkpoint: digests of its questions and of its keys, and a
few rows as they were written.

A probe's question that stands in the training rows is a leak: its answer may be recited. Facts about the case's key in
other words are not a leak, but worth knowing. Both are found by digest, so that a run over a million rows leaves files
of a few megabytes, in which a question is found by bisection.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from runner import underway
from runner.atomic import publish_bytes, publish_text
from runner.data.examples import Dataset, Example
from runner.errors import BadData

FORMAT_VERSION = 1
SAMPLE = 64
"""Rows kept as they were written, spread over the data set."""

Seen = Literal["question", "facts", ""]


@dataclass(frozen=True)
class Row:
    """A row as it was trained on."""

    columns: Mapping[str, Any]
    prompt: str
    """What was asked; of a conversation, what its user said first."""
    text: str
    """Prompt and completion, or the document; of a conversation, what its user said first."""
    turns: tuple[str, ...] = ()
    """Of a conversation, what was asked before each of its answers; see `question_of`."""


@dataclass(frozen=True)
class TrainedOn:
    """What one data set, or a split of it, showed to training."""

    ref: str
    questions: array[int]
    """Sorted digests of every prompt, every document, and every line of a document of several."""
    keys: array[int]
    """Sorted digests of the ids of its rows: the value of the split's column, or the id."""
    rows: tuple[Row, ...]
    """A sample, of rows that have a prompt."""

    def holds(self, question: str, key: str) -> Seen:
        """Whether it held this question, or at least a row with this key."""
        if _among(question, self.questions):
            return "question"
        return "facts" if _among(key, self.keys) else ""


def gather(data: Dataset) -> TrainedOn:
    """What training on `data` sees, in all the ways its rows can be written."""
    questions, keys = array("Q"), array("Q")
    rows: list[Row] = []
    every = max(len(data) // SAMPLE, 1)
    ids = underway.each(data.ids(), f"noting what {data.name} asks", len(data))
    for position, case_id in enumerate(ids):
        keys.append(_digest(case_id))
        variants = data.variants(position)
        for example in variants:
            questions.extend(_digest(text) for text in _questions(example))
        if position % every == 0 and len(rows) < SAMPLE and (row := _row(data.columns(position), variants[0])):
            rows.append(row)
    return TrainedOn(data.name, _distinct(questions), _distinct(keys), tuple(rows))


def write(found: TrainedOn, folder: Path) -> None:
    """Keep it in `folder` as REF.json and REF.u64."""
    about = {
        "format_version": FORMAT_VERSION,
        "questions": len(found.questions),
        "keys": len(found.keys),
        "rows": [[dict(row.columns), row.prompt, row.text, row.turns] for row in found.rows],
    }
    publish_bytes(folder / f"{found.ref}.u64", found.questions.tobytes() + found.keys.tobytes())
    publish_text(folder / f"{found.ref}.json", json.dumps(about, ensure_ascii=False, default=str) + "\n")


def read(ref: str, folder: Path) -> TrainedOn | None:
    """What `write` kept of a data set; None where the run kept nothing.

    Raises:
        BadData: the files are damaged, or a newer version wrote them.
    """
    path = folder / f"{ref}.json"
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["format_version"] > FORMAT_VERSION:
            raise BadData(f"{path} has format {about['format_version']}, this version reads up to {FORMAT_VERSION}")
        digests = array("Q", path.with_suffix(".u64").read_bytes())
        if len(digests) != about["questions"] + about["keys"]:
            raise ValueError(f"{len(digests)} digests")
        rows = tuple(Row(columns, prompt, text, *map(tuple, more)) for columns, prompt, text, *more in about["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            hint="move the run's data/ away: the next recipe run writes it again",
        ) from error
    return TrainedOn(ref, digests[: about["questions"]], digests[about["questions"] :], rows)


def differs(rows: Iterable[tuple[str, Row]], *, chat: bool = False) -> tuple[str, str] | None:
    """A probe's prompt and the prompt that training saw, where no row of the sample is asked as the probe asks.

    Args:
        rows: the probe's prompt, rendered with a row's columns, and the row.
        chat: prompts are a user's whole messages, through a chat template; else a row's text begins with them.
    """
    first: tuple[str, str] | None = None
    for asked, row in rows:
        if asked in (row.turns or (row.prompt,)) if chat else row.text.startswith(asked):
            return None
        first = first or (asked, row.prompt)
    return first


class Said(Protocol):
    """A turn of a conversation, as data sets and probes have it."""

    @property
    def role(self) -> str:
        """Who speaks."""

    @property
    def content(self) -> str:
        """What is said."""


def question_of(messages: Sequence[Said]) -> str:
    """What a conversation asks: its one message, or all that was said, as many conversations end alike. A system's
    message is no part of it."""
    return "\n".join(message.content for message in messages if message.role != "system")


def _row(columns: Mapping[str, Any], example: Example) -> Row | None:
    """What is kept of a row as it was written; nothing of a document."""
    if turns := _turns(example):
        # as a case has them: before the last answer
        before = example.messages[:-1] if example.messages[-1].role == "assistant" else example.messages
        said = [{"role": message.role, "content": message.content} for message in before]
        return Row({**columns, "messages": said}, turns[0], turns[0], turns)
    return Row(columns, example.prompt, example.prompt + example.completion) if example.prompt else None


def _turns(example: Example) -> tuple[str, ...]:
    answers = [place for place, message in enumerate(example.messages) if message.role == "assistant"]
    return tuple(question for place in answers if (question := question_of(example.messages[:place])))


def _questions(example: Example) -> set[str]:
    if example.messages:
        return set(_turns(example))
    return {example.prompt} if example.prompt else {example.completion, *example.completion.splitlines()}


def _distinct(digests: array[int]) -> array[int]:
    """Digests sorted, each once; in the memory of arrays, as there may be tens of millions."""
    import numpy as np  # only where a run is made: a session whose replies are known starts without

    found = array("Q")
    found.frombytes(np.unique(np.frombuffer(digests, np.uint64)).tobytes())
    return found


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.strip().encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _among(text: str, digests: array[int]) -> bool:
    wanted = _digest(text)
    place = bisect_left(digests, wanted)
    return place < len(digests) and digests[place] == wanted
