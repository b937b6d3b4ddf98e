"""Where a run stands, read from its folder: checkpoints, verdicts, what `qa@best` means now, what each gate decides.

The same code judges inside a run and by hand (`pytest --ckpt` on a checkpoint of a run), so both come to one verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner import checkpoints, gate, jobs, recipe, spec, verdicts
from runner.errors import UserError, printable
from runner.events import Follower, Logged
from runner.folder import RunRecord, read_run
from runner.forgetting import Forgetting, measure
from runner.gate import Decision, Matter
from runner.recipe import Loaded
from runner.spec import parse_ref
from runner.stage_ends import End, Look, first_end
from runner.verdicts import Verdict, VerdictFile


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint of the run."""

    stage: str
    step: int
    path: Path

    @property
    def label(self) -> str:
        """`qa@96`."""
        return f"{self.stage}@{self.step}"


_HELD = 8
"""Verdict files that are held whole: a checkpoint is compared with a few others, and a run may have hundreds."""

Version = tuple[int, int, int]
"""What tells a verdict file from the one that it replaced: inode, size and time."""


@dataclass(frozen=True)
class _Told:
    """What is kept of every verdict file, which is small: all but the verdicts."""

    version: Version
    file: VerdictFile
    """Without verdicts."""
    tallies: Mapping[str, gate.Tally]
    """By suite."""
    broken: Mapping[str, Verdict]
    """Of each suite the first case that ended in an error."""


@dataclass(frozen=True)
class OpenRun:
    """A run that is read: its resolved recipe, what `run.json` says, and where it stands."""

    loaded: Loaded
    record: RunRecord
    standings: Standings


def open_run(run: Path) -> OpenRun:
    """A run in its folder.

    Raises:
        UserError: it is none, nothing of it was begun, or a file of it cannot be read.
    """
    record = read_run(run)
    path = run / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{run} has no recipe.yaml: nothing of the run was begun", hint="recipe run writes it")
    loaded = replace(recipe.load(path, root=Path(record.project_root)), rehearsal=record.rehearsal)
    return OpenRun(loaded, record, Standings(loaded.spec, run, record.looks))


class Standings:
    """The state of a run's folder at the moment of each call; nothing is written.

    A verdict file is only ever replaced by another file, which its inode, size and time tell. What it says in all is
    kept; its verdicts are read again where they are wanted again after others.
    """

    def __init__(self, recipe: spec.Recipe, run: Path, looks: int = 1) -> None:
        """`looks` is what `run.json` says; see `plan.looks`."""
        self._recipe, self._run, self._looks = recipe, run, looks
        self._held: dict[Path, tuple[Version, VerdictFile]] = {}
        self._told: dict[Path, _Told] = {}
        self._reds: dict[Path, tuple[tuple[Version | None, ...], tuple[str, ...]]] = {}

    def checkpoints(self, stage: str) -> list[Checkpoint]:
        """The published checkpoints of a stage, first to last."""
        return [Checkpoint(stage, step, path) for step, path in checkpoints.published(self._run / stage)]

    def all_checkpoints(self) -> list[Checkpoint]:
        """The published checkpoints of every stage, in the order of the recipe."""
        return [checkpoint for stage in self._recipe.stages for checkpoint in self.checkpoints(stage)]

    # --- where a stage ends ---

    def end(self, stage: str) -> End | None:
        """Where and why a stage ends before its last step, as far as its checkpoints are probed; None where it goes
        on. The places are those of `checkpoints`."""
        rule = self._recipe.stages[stage].stop_when
        return first_end([self._look(checkpoint, rule) for checkpoint in self.checkpoints(stage)], rule)

    def _look(self, checkpoint: Checkpoint, rule: spec.StopWhen | None) -> Look:
        told = self._tell(checkpoint)
        if told is None:
            return Look(checkpoint.label)
        rules = {asked.suite: self.gate_of(asked.suite, told.file) for asked in told.file.suites}
        says = {suite: found.on_fail for suite, found in rules.items() if found is not None}
        red = self._red(checkpoint, rules.values()) if set(says.values()) - {"continue"} else ()
        stop, rollback = (tuple(name for name in red if says.get(name) == word) for word in ("stop", "rollback"))
        counted = told.tallies.get(rule.suite, gate.Tally()) if rule else None
        return Look(checkpoint.label, stop, rollback, None if counted is None or counted.errors else counted.rate)

    def _red(self, checkpoint: Checkpoint, rules: Iterable[spec.Gate | None]) -> tuple[str, ...]:
        """The suites that are red; judged again only where a file that is compared is another one. A stage is looked at
        anew at each of its checkpoints."""
        bases = (self.baseline_of(checkpoint, rule) for rule in rules)
        compared = (_version(checkpoint), *(_version(base) if base else None for base in bases))
        if self._reds.get(checkpoint.path, ((), ()))[0] != compared:
            found = tuple(decision.suite for decision in self.decisions(checkpoint) if decision.green is False)
            self._reds[checkpoint.path] = compared, found
        return self._reds[checkpoint.path][1]

    def kept(self, stage: str) -> list[Checkpoint]:
        """The checkpoints of a stage that count: up to the one where it ended, or to which it went back."""
        published, end = self.checkpoints(stage), self.end(stage)
        if end is None:
            return published
        return published[: (end.place if end.keeps is None else end.keeps) + 1]

    # --- what is there ---

    def verdicts(self, checkpoint: Checkpoint) -> VerdictFile | None:
        """What was asked of a checkpoint, or None where nothing was."""
        path, version = checkpoints.verdict_path(checkpoint.path), _version(checkpoint)
        if version is None:
            return None
        held = self._held.pop(path, None)
        if held is None or held[0] != version:
            try:
                held = version, verdicts.read(path)
            except FileNotFoundError:  # it is moved aside in this moment
                return None
        self._held[path] = held  # the one that was asked for last is the last
        if len(self._held) > _HELD:
            del self._held[next(iter(self._held))]
        return held[1]

    def _tell(self, checkpoint: Checkpoint) -> _Told | None:
        """What is kept of its verdict file; None where nothing was asked of it."""
        version = _version(checkpoint)
        told = self._told.get(checkpoint.path)
        if version is None or (told is not None and told.version == version):
            return told if version is not None else None
        file = self.verdicts(checkpoint)
        if file is None:
            return None
        by_suite: dict[str, list[Verdict]] = {}
        for verdict in file.verdicts:
            by_suite.setdefault(verdict.suite, []).append(verdict)
        broken = {one.suite: one for one in reversed(file.verdicts) if one.outcome == "error"}
        tallies = {suite: gate.count(found) for suite, found in by_suite.items()}
        self._told[checkpoint.path] = told = _Told(version, replace(file, verdicts=()), tallies, broken)
        return told

    def resolve(self, reference: str) -> Checkpoint:
        """The checkpoint a reference means now.

        Raises:
            UserError: no checkpoint bears it.
        """
        ref = parse_ref(reference)
        if ref is None:
            raise UserError(f"{reference} is not a reference to a checkpoint of this run")
        published = self.checkpoints(ref.stage)
        if not published:
            raise UserError(f"{reference}: stage {ref.stage} has no checkpoint", hint="did it finish?")
        found = self._find(ref, published, self.kept(ref.stage))
        if found is None:
            have = ", ".join(checkpoint.label for checkpoint in published)
            raise UserError(f"{reference}: no such checkpoint was published", expected=f"one of {have}")
        return found

    def _find(self, ref: spec.Ref, published: Sequence[Checkpoint], kept: Sequence[Checkpoint]) -> Checkpoint | None:
        """Among those published; `@last` and `@best` among those that the stage keeps."""
        if not published:
            return None
        if ref.which == "last":
            return kept[-1]
        if ref.which == "best":
            return self._best(kept)
        for checkpoint in published:
            if ref.which == "step" and checkpoint.step == ref.number:
                return checkpoint
            if ref.which == "epoch" and abs(checkpoints.read_manifest(checkpoint.path).epoch - ref.number) < 1e-6:
                return checkpoint
        return None

    def _best(self, published: Sequence[Checkpoint]) -> Checkpoint:
        """Highest pass rate of the `best:` suite; ties go to the earlier checkpoint.

        Raises:
            UserError: the suite cannot tell: it ended in errors, or has no verdicts at all.
        """
        suite = self._recipe.best
        assert suite is not None  # checked where the recipe is loaded
        rates = []
        for checkpoint in published:
            told = self._tell(checkpoint)
            broken = told.broken.get(suite) if told else None
            if broken is not None:
                raise UserError(
                    f"{checkpoint.stage}@best cannot be chosen: suite {suite} ended in an error at {checkpoint.label}, "
                    f"case {broken.case_id}: {printable(broken.reason)}",
                    hint="mend the probe and run again: only it is asked again",
                )
            rate = told.tallies.get(suite, gate.Tally()).rate if told else None
            rates.append(-1.0 if rate is None else rate)
        if max(rates) < 0:
            raise UserError(f"{published[0].stage}@best cannot be chosen: suite {suite} has no verdicts there")
        return published[rates.index(max(rates))]

    def baseline_of(self, checkpoint: Checkpoint, rule: spec.Gate | None) -> Checkpoint | None:
        """What a checkpoint is compared with: the gate's own baseline, else the one its stage started from.

        None where that is not published before `checkpoint`: recorded then, and not failed.
        """
        if rule is not None and rule.baseline is not None:
            ref = parse_ref(rule.baseline)
            order = list(self._recipe.stages)
            if ref is None or ref.stage not in order[: order.index(checkpoint.stage) + 1]:
                return None
            published = self.checkpoints(ref.stage)
            # where its own stage ends is decided by judging its checkpoints: it cannot be asked while one is judged
            kept = published if ref.stage == checkpoint.stage else self.kept(ref.stage)
            found = self._find(ref, published, kept)
            return found if found and self._order(found) < self._order(checkpoint) else None
        parent = checkpoints.read_manifest(checkpoint.path).parent
        ref = parse_ref(parent.label) if parent else None
        if ref is None or ref.stage not in self._recipe.stages:
            return None
        return next((found for found in self.checkpoints(ref.stage) if found.step == ref.number), None)

    def _order(self, checkpoint: Checkpoint) -> tuple[int, int]:
        return list(self._recipe.stages).index(checkpoint.stage), checkpoint.step

    def gate_of(self, suite: str, file: VerdictFile) -> spec.Gate | None:
        """The gate in force: the recipe's, else the one written in the probe file."""
        if suite in self._recipe.probes and (own := self._recipe.probes[suite].gate) is not None:
            return own
        asked = file.asked(suite)
        return spec.Gate.model_validate(dict(asked.gate), strict=False) if asked and asked.gate else None

    def judge(
        self, checkpoint: Checkpoint, file: VerdictFile, baseline: Checkpoint | None = None
    ) -> tuple[Decision, ...]:
        """What is decided about the suites that were asked of a checkpoint and that the recipe asks there now. Verdicts
        of a suite that left the recipe stay in the file and decide nothing.

        Args:
            baseline: compare every suite with this one instead.
        """
        wanted = self._recipe.asked_at(checkpoint.stage)
        matters = []
        for asked in file.suites:
            if asked.suite not in wanted:
                continue
            rule = self.gate_of(asked.suite, file)
            base = baseline or self.baseline_of(checkpoint, rule)
            before = self.verdicts(base) if base else None
            then = before.asked(asked.suite) if before else None
            matters.append(
                Matter(
                    asked.suite, rule, file.of(asked.suite), before.of(asked.suite) if before and then else None,
                    pooled=asked.values, pooled_before=then.values if then else {},
                    key=asked.key, key_before=then.key if then else "",
                )
            )  # fmt: skip
        return gate.judge(matters, looks=self._looks)

    def decisions(self, checkpoint: Checkpoint, baseline: Checkpoint | None = None) -> tuple[Decision, ...]:
        """What the run decides at a checkpoint."""
        file = self.verdicts(checkpoint)
        return self.judge(checkpoint, file, baseline) if file else ()

    def line(self, checkpoint: Checkpoint) -> tuple[Checkpoint, ...]:
        """The checkpoints that `checkpoint` came of, one per stage of this run, the first stage's first; and itself."""
        found = [checkpoint]
        while (start := self.baseline_of(found[-1], None)) is not None:
            found.append(start)
        return tuple(reversed(found))

    def forgetting(self, checkpoint: Checkpoint) -> Forgetting | None:
        """What the line of stages that ends in `checkpoint` has kept of what its suites ask."""
        ends = []
        for end in self.line(checkpoint):
            file = self.verdicts(end)
            asked = [one.suite for one in file.suites if one.suite in self._recipe.probes] if file else []
            rates = {suite: gate.count(file.of(suite)).rate for suite in asked} if file else {}
            ends.append({suite: rate for suite, rate in rates.items() if rate is not None})
        return measure(ends)

    def suite_at(self, checkpoint: Checkpoint, suite: str) -> tuple[Verdict, ...] | None:
        """The verdicts of a suite at a checkpoint, or None where it was not asked there."""
        file = self.verdicts(checkpoint)
        return file.of(suite) if file and file.asked(suite) else None

    def losses(self) -> dict[str, float]:
        """The training loss recorded last at or before each checkpoint, by label."""
        found: dict[str, float] = {}
        for stage in self._recipe.stages:
            for stamped in Follower(self._run / "events" / f"train-{stage}.jsonl").new():
                if isinstance(stamped.event, Logged):
                    found[f"{stage}@{stamped.event.step}"] = stamped.event.loss
        return found

    def job(self, stage: str) -> jobs.Job | None:
        """The job file of a stage."""
        return jobs.read(self._run / stage)


def _version(checkpoint: Checkpoint) -> Version | None:
    """Of a checkpoint's verdict file; None where nobody has asked."""
    try:
        found = checkpoints.verdict_path(checkpoint.path).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
