"""Verdicts: what a probe concluded about a case at a checkpoint, and the files they are kept in.

A verdict file is JSON lines. The first row says what the file is and which weights it is about; then comes one row per
suite that was asked, then one row per verdict. It is written under a temporary name and renamed: a reader sees all or
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runner.atomic import publish_text
from runner.errors import UserError, Where

FORMAT_VERSION = 2
Outcome = Literal["pass", "miss", "error", "not_asked"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one case of one suite at one checkpoint."""

    suite: str
    """Name of the suite; of a probe that no suite names, the function's."""
    probe: str
    """`file.py::function`, the file relative to the project."""
    case_id: str
    """The case's `id`: ASCII, and the same at every checkpoint."""
    outcome: Outcome
    """`pass`; `miss`: its assert failed; `error`: anything else went wrong; `not_asked`: its control missed."""
    reply: str = ""
    """What the model said; of several samples the first."""
    reason: str = ""
    """Why it missed or failed: the last line of the assertion or error, or why it was not asked."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Numbers the probe recorded."""
    ckpt: str = ""
    """`qa@96` inside a run, else the folder."""
    weights_sha256: str = ""
    """Of the checkpoint's weights; empty where a server answered."""
    prompt: str = ""
    """The exact rendered prompt."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """How the reply was decoded, key by key as in `asking.Decoding` (of a closed question instead `choices`, each with
    its log probability), then stop_reason, dtype and engine; where there are any, `others` (the replies of further
    samples), `thinking`, and `again` (asked once more, alone in fp32)."""
    tokens: int = 0
    """Tokens generated; like the reply, of the first sample."""
    margin: float | None = None
    """Smallest difference between the two best logits over the generated tokens; of a closed question, between the log
    probabilities of the two most likely choices."""
    logprob: float | None = None
    """Sum of the natural log probabilities of the generated tokens."""
    question: str = ""
    """Digest of what the author asks: prompt or messages before any chat template, and the decoding. Where it differs
    from the baseline's the case has changed and is not compared; empty in files of format 1: unknown."""
    cluster: str = ""
    """The fact that the case is about: flips of one cluster are counted once. Empty: the case is a fact of its own."""
    expected: str = ""
    """Of a closed question with a key: the right choice."""
    answered: str = ""
    """Of a closed question: the choice that was most likely."""
    leak: str = ""
    """`question`: the rendered question stands in the rows this checkpoint was trained on; `facts`: its key does, in
    other words; empty: neither, or the recipe is not known."""
    row: str = ""
    """Digest of the case's row, of which the assert may read more than the question does, such as the right answer.
    Where it differs from the baseline's the case has changed; empty: unknown."""

    @property
    def identity(self) -> tuple[str, str]:
        """What makes two verdicts of a suite comparable: the probe and the case."""
        return (self.probe, self.case_id)


@dataclass(frozen=True)
class SuiteAsked:
    """What was asked of a checkpoint under one suite's name."""

    suite: str
    """Its name."""
    key: str
    """Digest of the probe files, the cases and the decoding: where it changed, the suite is asked again."""
    probes: tuple[str, ...]
    """`file.py::function` of each probe."""
    gate: Mapping[str, Any] | None
    """The gate written in the probe file, as a mapping; the recipe's replaces it."""
    cases: int
    """Number of verdicts."""
    generation_s: float = 0.0
    """Seconds of generation this suite took part in."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Numbers about the suite as a whole: what `pooled=` computed, and of closed questions with a key accuracy,
    precision, recall and f1 (macro)."""


@dataclass(frozen=True)
class VerdictFile:
    """All verdicts of one checkpoint."""

    ckpt: str
    weights_sha256: str
    suites: tuple[SuiteAsked, ...]
    verdicts: tuple[Verdict, ...]

    def of(self, suite: str) -> tuple[Verdict, ...]:
        """The verdicts of one suite, in the order they were asked."""
        return tuple(verdict for verdict in self.verdicts if verdict.suite == suite)

    def asked(self, suite: str) -> SuiteAsked | None:
        """What was asked under `suite`, or None."""
        return next((asked for asked in self.suites if asked.suite == suite), None)

    def replaced_by(self, newer: VerdictFile) -> VerdictFile:
        """These verdicts, with those suites exchanged that `newer` asked too."""
        names = {asked.suite for asked in newer.suites}
        suites = tuple(asked for asked in self.suites if asked.suite not in names)
        kept = tuple(verdict for verdict in self.verdicts if verdict.suite not in names)
        return VerdictFile(newer.ckpt, newer.weights_sha256, suites + newer.suites, kept + newer.verdicts)


def write(path: Path, file: VerdictFile) -> None:
    """Publish `file` at `path`, whole or not at all."""
    head = {
        "format_version": FORMAT_VERSION,
        "kind": "verdicts",
        "ckpt": file.ckpt,
        "weights_sha256": file.weights_sha256,
    }
    rows: Sequence[dict[str, Any]] = [
        head,
        *({"kind": "suite", **vars(asked)} for asked in file.suites),
        *({"kind": "verdict", **vars(verdict)} for verdict in file.verdicts),
    ]
    publish_text(path, "".join(_line(row) + "\n" for row in rows))


_encode = json.JSONEncoder(ensure_ascii=False).encode


def _line(row: Mapping[str, Any]) -> str:
    """A row as JSON. Surrogates can come out of a broken tokenizer; they are escaped, so that the file is always valid
    UTF-8."""
    line = _encode(row)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row)
    return line


def read(path: Path) -> VerdictFile:
    """Read a verdict file.

    Raises:
        UserError: it is not one, is damaged, or was written by a newer version.
    """
    head: tuple[str, str] | None = None
    suites: list[SuiteAsked] = []
    verdicts: list[Verdict] = []
    number = 0
    try:
        for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n"):
            number += 1
            row = json.loads(line)
            kind = row.pop("kind")
            if kind == "verdicts":
                _check_version(row["format_version"], path)
                head = row["ckpt"], row["weights_sha256"]
            elif kind == "suite":
                suites.append(SuiteAsked(**{**row, "probes": tuple(row["probes"])}))
            elif kind == "verdict":
                verdicts.append(Verdict(**row))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"not a readable verdict file ({type(error).__name__}: {error})",
            where=Where(str(path), number or None),
            expected="JSON lines as written by recipe run or pytest --probe-verdicts",
        ) from error
    if head is None:
        raise UserError("not a verdict file: its first row does not say so", where=Where(str(path), 1))
    return VerdictFile(*head, tuple(suites), tuple(verdicts))


def _check_version(found: int, path: Path) -> None:
    if found > FORMAT_VERSION:
        raise UserError(
            f"this verdict file has format {found}, this version reads up to {FORMAT_VERSION}",
            where=Where(str(path), 1),
            hint="read it with a newer version of recipe-runner",
        )
