"""All cases of a run with their replies at every checkpoint, small enough to lie in a page.

Replies repeat: from one checkpoint to the next most stay what they were. So every text is kept once and named by its
number, and the whole is compressed; the page unpacks it when a cell is first opened.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

from runner.errors import printable
from runner.report.gathering import At
from runner.verdicts import Verdict

OUTCOMES = {"pass": "p", "miss": "m", "error": "e", "not_asked": "n"}


class Texts:
    """Every text once, in the order they came."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """The number of a text."""
        return self._places.setdefault(text, len(self._places))

    def all(self) -> list[str]:
        """The texts, safe to be shown."""
        return [shown(text) for text in self._places]


def shown(text: str) -> str:
    """What a model or a file said, its lines kept, its control characters and marks of direction made visible."""
    return text if text.isprintable() else "\n".join(printable(line) for line in text.split("\n"))


def table(checkpoints: Sequence[At]) -> dict[str, Any]:
    """For each suite its cases, and for each checkpoint what became of them, in numbers of `texts`.

    Returns:
        `texts`, and `suites`: a map of a suite's name to `cases` (id, probe, prompt, expected) and `at`: a map of a
        checkpoint's label to `o`, a letter of OUTCOMES per case (`-`: it was not among the cases there), `r`, the
        replies, and `w`, why it is no pass.
    """
    texts = Texts()
    suites: dict[str, Any] = {}
    for suite in dict.fromkeys(suite for at in checkpoints for suite in at.decisions):
        found = {at.label: at.file.of(suite) for at in checkpoints if at.file is not None and suite in at.decisions}
        suites[suite] = _suite(found, texts)
    return {"texts": texts.all(), "suites": suites}


def _suite(found: dict[str, tuple[Verdict, ...]], texts: Texts) -> dict[str, Any]:
    cases: dict[tuple[str, str], Verdict] = {}
    for verdicts in found.values():
        for verdict in verdicts:
            cases.setdefault(verdict.identity, verdict)
    at = {}
    for label, verdicts in found.items():
        by_case = {verdict.identity: verdict for verdict in verdicts}
        row = [by_case.get(identity) for identity in cases]
        at[label] = {
            "o": "".join(OUTCOMES[verdict.outcome] if verdict else "-" for verdict in row),
            "r": [texts(verdict.reply) if verdict else -1 for verdict in row],
            "w": [texts(verdict.reason) if verdict else -1 for verdict in row],
        }
    return {
        "cases": [[texts(one.case_id), texts(one.probe), texts(one.prompt), texts(one.expected)]
                  for one in cases.values()],
        "at": at,
    }  # fmt: skip


def packed(value: Any) -> str:
    """JSON, compressed, in letters that may stand in a page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return compressed(text.encode("utf-8", errors="replace"))


def compressed(content: bytes) -> str:
    """The same of bytes; equal content gives equal letters."""
    return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode("ascii")
