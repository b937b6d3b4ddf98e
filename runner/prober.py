"""The parent's side of probing: which suites a checkpoint still has to be asked, and their verdicts into the run."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from runner import checkpoints, launch, spec, verdicts
from runner.asking import suite_key
from runner.children import Child, Host
from runner.errors import FolderTaken, Interrupted, TrainingFailed, UserError, printable
from runner.events import Probed
from runner.folder import Superseded, writing
from runner.standings import Checkpoint, Standings
from runner.verdicts import VerdictFile

_NOTHING: Mapping[str, str] = MappingProxyType({})


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold the right to write verdicts into a run, which is not the run's own lock: another process may train in it.

    Raises:
        FolderTaken: another process asks its checkpoints.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(writing(run / "events"))
        except FolderTaken as error:
            message = error.problems[0].message
            raise FolderTaken(
                message.replace(
                    f"{run / 'events'} is being written by", f"the checkpoints of {run} are being asked by"
                ),
                hint="wait for it, or stop it",
            ) from error
        yield


@dataclass(frozen=True)
class Asking:
    """A checkpoint that is being asked."""

    checkpoint: Checkpoint
    due: tuple[str, ...]
    child: Child
    began: float = field(default_factory=time.monotonic)


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

    def start(
        self, host: Host, checkpoint: Checkpoint, due: tuple[str, ...], environment: Mapping[str, str] = _NOTHING
    ) -> Asking:
        """Have a child ask these suites.

        Args:
            host: forks it.
            checkpoint: who is asked.
            due: which suites.
            environment: what is different for the child.
        """
        log = self._run / "events" / f"probe-{checkpoint.stage}-{checkpoint.step}.log"
        return Asking(checkpoint, due, host.start("probe", self.argv(checkpoint, due), log, environment))

    def finish(self, asking: Asking) -> Probed:
        """Put the verdicts of a child that has ended into the run.

        Raises:
            TrainingFailed: it died.
            Interrupted: it was told to stop.
            UserError: see `take`; this raises what that does.
        """
        child, checkpoint, due = asking.child, asking.checkpoint, asking.due
        if child.exit_code == -signal.SIGTERM:  # by a scheduler, which tells every process of a job
            raise Interrupted("interrupted while probing: the same command resumes")
        if child.exit_code not in (0, 1, 5):  # 5: nothing was collected, which the verdicts say
            raise TrainingFailed(
                f"probing {checkpoint.label} {child.how_it_ended()}; the end of {child.log}:\n{child.log_tail()}"
            )
        file = self.take(checkpoint, due, child.log_tail())
        generating = sum(asked.generation_s for asked in file.suites if asked.suite in due)
        wall = time.monotonic() - asking.began
        return Probed(checkpoint.stage, checkpoint.step, due, round(generating, 3), round(wall, 3))

    def discard(self, asking: Asking) -> None:
        """Forget what a child that has ended wrote."""
        self._fresh(asking.checkpoint).unlink(missing_ok=True)

    def unasked(self) -> list[Checkpoint]:
        """The checkpoints of the run that some suite has still to be asked of."""
        return [checkpoint for checkpoint in self._standings.all_checkpoints() if self.due(checkpoint)]

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
