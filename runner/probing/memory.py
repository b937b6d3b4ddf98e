"""What the reply store knows about one checkpoint, asked in one way: read before it is loaded, added to afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from runner.probing.fingerprint import fingerprint
from runner.probing.questions import Question
from runner.probing.store import Kept, Store


class Memory:
    """The answers of the checkpoint at `path`; without a store there are none."""

    def __init__(self, store: Store | None, path: Path, settings: Mapping[str, object]) -> None:
        """`settings`: see `fingerprint`."""
        self._store, self._path, self._settings = store, path, settings
        self._fingerprint = self._now()

    def recall(self, questions: Sequence[Question]) -> dict[Question, Kept]:
        """Those of the questions whose answers are known."""
        if self._store is None:
            return {}
        found = self._store.get(self._fingerprint, questions)
        return {question: kept for question, kept in zip(questions, found, strict=True) if kept is not None}

    def keep(self, pairs: Iterable[tuple[Question, Kept]]) -> None:
        """Keep answers, unless the checkpoint was replaced while it was asked: then nobody knows whose they are."""
        if self._store is not None and self._now() == self._fingerprint:
            self._store.put(self._fingerprint, pairs)

    def _now(self) -> str:
        return fingerprint(self._path, self._settings, sha256=self._store.sha256) if self._store is not None else ""
