"""What checkpoints said to the prompts of a data set, for `{sample: …}`: files of a run, named by their inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner import spec
from runner.atomic import publish_text
from runner.data.datasets import Datasets
from runner.data.pairs import Samples
from runner.errors import BadData

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Request:
    """The prompts of a data set, which a checkpoint is to answer wrongly."""

    data: str
    """Data set or split."""
    number: int
    """Of the entry in its `rejected`."""
    how: spec.Sample
    label: str
    """The checkpoint: `qa@96`, or a folder as the recipe names it."""
    path: str
    """Its folder."""
    weights_sha256: str

    @property
    def input(self) -> tuple[str, str]:
        """What a stage that takes them depends on: a name, and short text. Prompts and decoding stand in the digest of
        the data set."""
        return _input(self.data, self.number), f"{self.label} {self.weights_sha256}"


def entries(data: Datasets, refs: Iterable[str]) -> Iterator[tuple[str, int, spec.Sample]]:
    """The `{sample: …}` of some data sets: data set, number of the entry, and what it says."""
    for ref in refs:
        for number, how in enumerate(data.get(ref).rejected):
            if isinstance(how, spec.Sample):
                yield ref, number, how


def place(run: Path, inputs: Mapping[str, str], ref: str, number: int) -> Path | None:
    """Where the replies lie for a stage with these inputs; None where they name no checkpoint for them."""
    asked = inputs.get(_input(ref, number))
    if asked is None:
        return None
    key = hashlib.sha256(f"{FORMAT_VERSION} {asked} {inputs[f'data {ref}']} {number}".encode()).hexdigest()
    return run / "data" / "samples" / f"{ref}-{key[:16]}.jsonl"


def read(run: Path, data: Datasets, refs: Sequence[str], inputs: Mapping[str, str]) -> Samples:
    """What was said, as far as it was asked.

    Raises:
        BadData: a file is damaged, or a newer version wrote it.
    """
    found = {}
    for ref, number, _ in entries(data, refs):
        path = place(run, inputs, ref, number)
        if path is not None and path.is_file():
            found[ref, number] = replies(path)
    return found


def write(path: Path, rows: Iterable[tuple[int, str, Sequence[str]]], label: str) -> None:
    """Keep replies: for each row its index, the prompt as it was asked, and what was said."""
    lines: list[Mapping[str, object]] = [{"format_version": FORMAT_VERSION, "checkpoint": label}]
    lines += [{"row": row, "prompt": prompt, "replies": list(replies)} for row, prompt, replies in rows]
    publish_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def replies(path: Path) -> Mapping[int, tuple[str, ...]]:
    """What a file holds, by the row's index. Raises BadData as `read`."""
    try:
        head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if head["format_version"] > FORMAT_VERSION:
            raise BadData(f"{path} has format {head['format_version']}, this version reads up to {FORMAT_VERSION}")
        return {row["row"]: tuple(row["replies"]) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(
            f"{path} is damaged ({type(error).__name__}: {error})",
            hint="move it away: the checkpoint is then asked again",
        ) from error


def _input(ref: str, number: int) -> str:
    return f"sample data.{ref}.rejected[{number}]"
