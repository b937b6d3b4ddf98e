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
from runner.children import EXIT_LATE, Child, Host, late_path
from runner.errors import FolderTaken, Interrupted, TrainingFailed, UserError, printable
from runner.events import Probed
from runner.folder import Superseded, writing
from runner.standings import Checkpoint, Standings
from runner.verdicts import SuiteAsked, Verdict, VerdictFile

DIED = "prober"
"""Stands for the cases of a suite whose prober died before they had verdicts."""
_FRAMES = 5
"""Of a stack that are shown; behind them come pytest's."""
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
            if "is being written by" not in message:
                raise
            raise FolderTaken(
                message.replace(
                    f"{run / 'events'} is being written by", f"the checkpoints of {run} are being asked by"
                ),
                hint="wait for it, or stop it",
            ) from error
        yield


class ProberDied(TrainingFailed):
    """A prober ended without its verdicts, or had to be ended; suites that it was asked with others may still be asked
    alone."""


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
        self._again: dict[str, str] = {}
        """Checkpoints of which a prober died that asked several suites; and how. The next one asks the same, as other
        batches would have other last digits, and what killed it from outside should leave no trace."""
        self._apart: set[str] = set()
        """Checkpoints that are asked one suite at a time, because a second one died of them too."""
        self._died: dict[str, dict[str, str]] = {}
        """By checkpoint: suites whose own prober died, and how."""
        self._asked: dict[str, set[str]] = {}
        """By checkpoint: suites that a prober of this one has asked, whatever came of it."""

    def _key(self, suite: spec.Suite) -> str:
        file, _, function = suite.file.partition("::")
        cases = self._run / "data" / f"{suite.cases}.jsonl" if suite.cases else None
        return suite_key(self._root / file, function or None, cases, suite.decoding.changes if suite.decoding else None)

    def version(self, suite: str) -> str:
        """Of its file, its cases and its decoding, as they were when this was made."""
        return self._keys[suite]

    def due(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """The suites asked at this checkpoint's stage that have no verdicts there, or verdicts of another version."""
        file = self._standings.verdicts(checkpoint)
        asked = {done.suite: done.key for done in file.suites} if file else {}
        return tuple(name for name in self._recipe.asked_at(checkpoint.stage) if asked.get(name) != self._keys[name])

    def askable(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Which of the suites that are due the next prober asks: all; once two probers died, each alone.

        None is asked twice: where its file was edited meanwhile, it stays due, and the next command asks it again.
        """
        asked = self._asked.get(checkpoint.label, set())
        left = tuple(name for name in self.due(checkpoint) if name not in asked)
        return left[:1] if checkpoint.label in self._apart else left

    def failure(self, checkpoint: Checkpoint) -> TrainingFailed | None:
        """What a prober of a checkpoint died of, where one did. Verdicts that were won since are in the run."""
        if died := self._died.get(checkpoint.label):
            return TrainingFailed("\n".join(died.values()))
        together = self._again.get(checkpoint.label)
        kept = "its suites were then asked again, and have their verdicts: the same command goes on"
        return TrainingFailed(f"{together}\n{kept}") if together else None

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
        limit_s = sum(self._recipe.probes[name].timeout_s for name in due)
        return Asking(checkpoint, due, host.start("probe", self.argv(checkpoint, due), log, environment, limit_s))

    def finish(self, asking: Asking) -> Probed:
        """Put the verdicts of a child that has ended into the run.

        Raises:
            ProberDied: it died, or had to be ended; `askable` then says what is left to be asked.
            Interrupted: it was told to stop.
            UserError: see `take`; this raises what that does.
        """
        child, checkpoint, due = asking.child, asking.checkpoint, asking.due
        if child.exit_code == -signal.SIGTERM:  # by a scheduler, which tells every process of a job
            raise Interrupted("interrupted while probing: the same command resumes")
        late = late_path(self._fresh(checkpoint))
        if child.exit_code == EXIT_LATE and late.is_file():
            suite = late.read_text(encoding="utf-8")
            late.unlink()
            limit = f"{self._recipe.probes[suite].timeout_s:,g} s"
            raise self._lost(asking, suite, f"did not end within its timeout_s, {limit}, and was ended")
        if child.exit_code not in (0, 1, 5):  # 5: nothing was collected, which the verdicts say
            raise self._gone(asking, child.how_it_ended())
        if not self._fresh(checkpoint).exists():
            raise self._gone(asking, f"{child.how_it_ended()}, without verdicts")
        self._asked.setdefault(checkpoint.label, set()).update(due)
        file = self.take(checkpoint, due, child.log_tail())
        generating = sum(asked.generation_s for asked in file.suites if asked.suite in due)
        wall = time.monotonic() - asking.began
        return Probed(checkpoint.stage, checkpoint.step, due, round(generating, 3), round(wall, 3))

    def _gone(self, asking: Asking, how: str) -> ProberDied:
        """Note that a prober died. Where that happens twice, which of several suites it died of is found by asking each
        alone."""
        checkpoint, child = asking.checkpoint, asking.child
        if len(asking.due) == 1:
            return self._lost(asking, asking.due[0], how)
        self.discard(asking)
        words = f"probing {checkpoint.label} {how}; {_last_words(child)}"
        if checkpoint.label in self._again:
            self._apart.add(checkpoint.label)
        self._again[checkpoint.label] = words
        return ProberDied(words)

    def _lost(self, asking: Asking, suite: str, how: str) -> ProberDied:
        """Note the suite that a prober died of, as an error in the run, too; it is asked again by the next command."""
        self.discard(asking)
        checkpoint, child = asking.checkpoint, asking.child
        words = f"probing {checkpoint.label} {how} (suite {suite}); {_last_words(child)}"
        self._died.setdefault(checkpoint.label, {})[suite] = words
        self._asked.setdefault(checkpoint.label, set()).add(suite)
        weights = checkpoints.read_manifest(checkpoint.path).weights_sha256
        file = self._recipe.probes[suite].file
        verdict = Verdict(
            suite, file, DIED, "error", reason=f"its prober {how}", ckpt=checkpoint.label, weights_sha256=weights
        )
        asked = VerdictFile(checkpoint.label, weights, (SuiteAsked(suite, "", (), None, 1),), (verdict,))
        self._put(checkpoint, (suite,), asked)
        return ProberDied(words)

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
            BadCheckpoint: the checkpoint is damaged; no verdict is kept.
            TrainingFailed: the prober wrote none, or not for every suite, or not for every case of one.
        """
        fresh = self._fresh(checkpoint)
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
        if any({verdict.outcome for verdict in asked.of(name)} == {"error"} for name in suites):
            checkpoints.check(checkpoint.path)  # of a damaged one nothing is kept: mended, it is asked again
        asked = self._put(checkpoint, suites, asked)
        for name in suites:
            uncollected = next((found for found in asked.of(name) if found.case_id == "collection"), None)
            if uncollected is not None:  # nothing was asked, so no gate could speak: that must not pass for green
                raise UserError(
                    f"suite {name} could not be asked of {checkpoint.label}: {self._recipe.probes[name].file} cannot "
                    f"be collected: {printable(uncollected.reason)}",
                    hint="mend the probe file and run again: training goes on where it was",
                )
        return asked

    def _put(self, checkpoint: Checkpoint, suites: Sequence[str], asked: VerdictFile) -> VerdictFile:
        """Put verdicts beside those that the run has of a checkpoint; all of them."""
        path, before = checkpoints.verdict_path(checkpoint.path), self._standings.verdicts(checkpoint)
        if before is not None:
            if any(before.asked(name) for name in suites):
                self._superseded.copy(path)
            asked = before.replaced_by(asked)
        verdicts.write(path, asked)
        return asked


def _last_words(child: Child) -> str:
    """The end of a log; where that is how deep Python was when it had to stop, the innermost lines of it."""
    if frames := innermost(child):
        return f"where it was, by {child.log}:\n{frames}"
    return f"the end of {child.log}:\n{child.log_tail()}"


def innermost(child: Child) -> str:
    """Where Python was when a prober had to stop, by its log; nothing where that does not say it."""
    lines = child.log_tail(500).splitlines()
    stacks = [at for at, line in enumerate(lines) if line.endswith("(most recent call first):")]
    return "\n".join(lines[stacks[-1] + 1 : stacks[-1] + 1 + _FRAMES]) if stacks else ""


def _asked_whole(file: VerdictFile, suite: str) -> bool:
    """Whether every case of a suite was asked; one that could not be collected or asked is all errors, and is red."""
    asked = file.asked(suite)
    if asked is not None and asked.key:
        return True
    outcomes = {verdict.outcome for verdict in file.of(suite)}
    return outcomes == {"error"}
