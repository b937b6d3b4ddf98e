"""The parent's side of probing: which suites a checkpoint still has to be asked, and their verdicts into the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner import checkpoints, launch, spec, verdicts
from runner.asking import suite_key
from runner.errors import TrainingFailed, UserError, printable
from runner.folder import Superseded
from runner.standings import Checkpoint, Standings
from runner.verdicts import VerdictFile


class Prober:
    """Knows the suites of a run, and keeps its verdict files."""

    def __init__(
        self, recipe: spec.Recipe, root: Path, run: Path, standings: Standings, superseded: Superseded
    ) -> None:
        self._recipe, self._root, self._run = recipe, root, run
        self._standings, self._superseded = standings, superseded
        self._keys = {name: self._key(suite) for name, suite in recipe.probes.items()}

    def _key(self, suite: spec.Suite) -> str:
        file, _, function = suite.file.partition("::")
        cases = self._run / "data" / f"{suite.cases}.jsonl" if suite.cases else None
        return suite_key(self._root / file, function or None, cases, suite.decoding.changes if suite.decoding else None)

    def due(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """The suites asked at this checkpoint's stage that have no verdicts there, or verdicts of another version."""
        file = self._standings.verdicts(checkpoint)
        asked = {done.suite: done.key for done in file.suites} if file else {}
        return tuple(name for name in self._recipe.asked_at(checkpoint.stage) if asked.get(name) != self._keys[name])

    def argv(self, checkpoint: Checkpoint, suites: Sequence[str]) -> list[str]:
        """Arguments of pytest that ask these suites."""
        files = list(dict.fromkeys(str(self._root / self._recipe.probes[name].file) for name in suites))
        return launch.probe_argv(checkpoint.path, files, suites, self._fresh(checkpoint), self._root)

    def _fresh(self, checkpoint: Checkpoint) -> Path:
        path = checkpoints.verdict_path(checkpoint.path)
        return path.with_name(f".{path.name}.fresh")

    def take(self, checkpoint: Checkpoint, suites: Sequence[str], log_tail: str) -> VerdictFile:
        """Put the verdicts that the prober wrote into the run; those they replace are kept in `superseded/`.

        Raises:
            UserError: a probe file cannot be collected; the verdicts of the other suites are kept.
            TrainingFailed: the prober wrote none, or not for every suite, or not for every case of one.
        """
        fresh, path = self._fresh(checkpoint), checkpoints.verdict_path(checkpoint.path)
        asked = verdicts.read(fresh) if fresh.exists() else None
        fresh.unlink(missing_ok=True)  # what is refused now must not be taken for the next prober's
        missing = [name for name in suites if asked is None or asked.asked(name) is None]
        if asked is None or missing:
            raise TrainingFailed(
                f"probing {checkpoint.label} gave no verdicts for {', '.join(missing)}; the end of its log:\n{log_tail}"
            )
        partly = [name for name in suites if not _asked_whole(asked, name)]
        if partly:
            raise TrainingFailed(
                f"probing {checkpoint.label} left out cases of {', '.join(partly)}: something chose among the tests "
                f"or ended them early, for example a conftest.py; the end of its log:\n{log_tail}"
            )
        before = self._standings.verdicts(checkpoint)
        if before is not None:
            if any(before.asked(name) for name in suites):
                self._superseded.copy(path)
            asked = before.replaced_by(asked)
        verdicts.write(path, asked)
        for name in suites:
            uncollected = next((found for found in asked.of(name) if found.case_id == "collection"), None)
            if uncollected is not None:  # nothing was asked, so no gate could speak: that must not pass for green
                raise UserError(
                    f"suite {name} could not be asked of {checkpoint.label}: {self._recipe.probes[name].file} cannot "
                    f"be collected: {printable(uncollected.reason)}",
                    hint="mend the probe file and run again: training goes on where it was",
                )
        return asked


def _asked_whole(file: VerdictFile, suite: str) -> bool:
    """Whether every case of a suite was asked; one that could not be collected or asked is all errors, and is red."""
    asked = file.asked(suite)
    if asked is not None and asked.key:
        return True
    outcomes = {verdict.outcome for verdict in file.of(suite)}
    return outcomes == {"error"}
