"""A run: for each stage train, probe every checkpoint, judge its gates, hand over; then the result.

Everything that happened is in the run folder, and everything here is decided from it: a stage that is done is skipped,
one that was interrupted resumes, one whose inputs changed is moved to `superseded/` and trained again.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

from runner import checkpoints, jobs, launch, locked, plan, recipe, sampler, sharing, spec
from runner.atomic import publish_text
from runner.children import Child
from runner.data import samples
from runner.ending import ending
from runner.errors import (
    EXIT_INTERRUPTED,
    EXIT_USER_ERROR,
    Interrupted,
    TrainingFailed,
    UserError,
)
from runner.events import Event, Finished, Follower, GateJudged, Journal, Logged, Probed, Published, StageState, Started
from runner.folder import Superseded, check_owner, write_run, writing
from runner.hosting import Hosting
from runner.jobs import Job
from runner.preparation import (
    Prepared,
    elsewhere,
    inputs_of,
    make_plan,
    new_job,
    requests_of,
    run_record,
    start_of,
    states,
    visible_gpus,
    write_data,
)
from runner.prober import Prober
from runner.progress import Screen
from runner.recipe import Loaded
from runner.stage_ends import End
from runner.standings import Checkpoint, Standings
from runner.tables import CheckpointRow

_LOOK_EVERY_S = 0.05


def run(loaded: Loaded, out: Path, screen: Screen, *, only_as_locked: bool = False) -> int:
    """Run a recipe into `out`; the exit code is that of its result's gates.

    Args:
        only_as_locked: refuse where data, versions or the recipe differ from those of the run in `out`.

    Raises:
        UserError: what was asked for cannot be done; raised before anything trains.
        TrainingFailed: a child died; what was won is kept.
        Interrupted: state is saved, the same call resumes.
    """
    prepared = Prepared(loaded, out)
    check_free(prepared)
    if only_as_locked:
        check_locked(prepared)
    with hosting_of([loaded], out / "events" / "host.log") as hosting:
        return run_prepared(prepared, screen, hosting)


def run_prepared(prepared: Prepared, screen: Screen, hosting: Hosting) -> int:
    """The same, with a host that may serve several recipes, into a folder that is free."""
    began = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(writing(prepared.run))
        return _Session(prepared, prepared.run, stack.enter_context(screen), stack, hosting, began).run()


def check_free(prepared: Prepared) -> None:
    """Whether the folder is this recipe's, or nobody's.

    Raises:
        FolderTaken: it is another one's.
    """
    loaded = prepared.loaded
    check_owner(prepared.run, loaded.spec.recipe, os.path.relpath(loaded.path, loaded.root), loaded.variant)


def check_locked(prepared: Prepared) -> None:
    """Whether the recipe, the data and what is installed are those of the run that `run.json` records.

    Raises:
        UserError: they are not, and which.
    """
    locked.check(prepared.run, run_record(prepared, looks=0), prepared.loaded.values)


def hosting_of(recipes: Sequence[Loaded], log: Path) -> Hosting:
    """The host for the stages of these recipes, which is not started yet."""
    preferences = any(isinstance(stage, spec.Dpo) for one in recipes for stage in one.spec.stages.values())
    return Hosting(recipes[0].root, log, preferences=preferences, gpus=visible_gpus())


class _Stopped(Exception):
    """A gate ends the run here; which one is read from the folder again."""


class _Session:
    """One invocation of `recipe run`, which holds the folder's lock."""

    def __init__(
        self, prepared: Prepared, out: Path, screen: Screen, stack: ExitStack, hosting: Hosting, began: float
    ) -> None:
        self._prepared, self._recipe = prepared, prepared.loaded.spec
        self._out, self._screen, self._hosting, self._began = out, screen, hosting, began
        self._superseded = Superseded(out)
        self._journal = Journal(out / "events" / "run.jsonl")
        stack.callback(self._journal.close)
        self._standings = Standings(self._recipe, out)
        self._signals = 0
        self._training_s = self._generating_s = 0.0
        self._losses = self._standings.losses()
        self._shared: set[str] = set()
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, self._note_signal))

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        """Once: save and leave. Twice: leave at once."""
        self._signals += 1
        if self._signals > 1:
            raise Interrupted("interrupted twice: left at once; the last saved state is kept")

    # --- the whole ---

    def run(self) -> int:
        """Every stage, then the result."""
        state = states(self._prepared)
        if any(words != "done" for words in state.values()):
            self._hosting.start(launch.TRAINER)  # it imports torch while the plan is made
            self._prepared.keeps_tokens = True
            looks = self._prepared.looks
            made = make_plan(self._prepared, elsewhere(state))
            write_data(self._prepared, self._superseded)
            self._screen.planned(made)
        else:
            done = {name: job.publish_steps for name in self._recipe.stages if (job := jobs.read(self._out / name))}
            looks = self._prepared.looks_at(done)
            write_data(self._prepared, self._superseded)
            self._screen.nothing_to_train(self._recipe)
        head = f"# The resolved recipe of this run, as recipe run wrote it. format_version: {spec.FORMAT_VERSION}\n"
        publish_text(self._out / "recipe.yaml", head + recipe.dump(self._prepared.loaded))
        write_run(self._out, run_record(self._prepared, looks))
        self._standings = Standings(self._recipe, self._out, looks)
        self._prober = Prober(self._recipe, self._prepared.loaded.root, self._out, self._standings, self._superseded)
        with suppress(_Stopped):
            for name in self._recipe.stages:
                self._stage(name)
        wall = time.monotonic() - self._began
        seconds = {
            "training": self._training_s,
            "generating": self._generating_s,
            "all else": wall - self._training_s - self._generating_s,
        }
        last = ending(self._prepared.loaded, self._standings, self._out, seconds)
        self._screen.ended(last)
        return last.exit_code

    # --- a stage ---

    def _stage(self, name: str) -> None:
        job = self._job(name)
        checkpoints.remove_unfinished(self._out / name)
        for checkpoint in self._standings.checkpoints(name):
            self._probe(checkpoint)
        end = self._standings.end(name)
        if job.state == "done" and (end.keeps is not None if end else self._all_published(job)):
            if name not in self._shared:
                self._tell_stage(name, "skipped", "nothing changed")
            return
        if end is None and not self._all_published(job):
            self._train(job)
            end = self._standings.end(name)
        self._finish(job, end)

    def _job(self, name: str) -> Job:
        """What the stage is to do: as its job file says; where its inputs changed or it never began, decided anew, or
        taken over from another variant that has trained the same."""
        start, start_key = start_of(self._prepared, self._standings, name)
        inputs = inputs_of(self._prepared, name, start, start_key)
        key = plan.key(inputs)
        job = jobs.read(self._out / name)
        if job is not None and job.key == key:
            return job
        if job is not None:
            self._set_aside(name, plan.changed(job.inputs, inputs))
        if (taken := self._taken_over(name, key)) is not None:
            return taken
        self._ask_for_negatives(name, inputs)
        job = new_job(self._prepared, name, start, inputs)
        jobs.write(self._out / name, job)
        return job

    def _taken_over(self, name: str, key: str) -> Job | None:
        if not self._prepared.loaded.variant:
            return None
        sharing.remove_unfinished(self._out, name)
        twin = sharing.find(self._out, name, key)
        if twin is None or not sharing.take_over(twin, self._out):
            return None
        self._losses |= self._standings.losses()
        self._shared.add(name)
        self._tell_stage(name, "shared", f"trained in {twin.parent.name}")
        return jobs.read(self._out / name)

    def _all_published(self, job: Job) -> bool:
        published = self._standings.checkpoints(job.stage)
        return bool(published) and published[-1].step >= job.total_steps

    def _set_aside(self, name: str, why: str) -> None:
        """The stage changed: it and every stage below it are moved, never deleted."""
        names = list(self._recipe.stages)
        for below in names[names.index(name) :]:
            curves = (self._out / "trackers").glob(f"*/{below}")
            for folder in (self._out / below, *curves):
                if folder.exists():
                    self._superseded.take(folder)
        self._tell_stage(name, "changed", why)

    def _finish(self, job: Job, end: End | None) -> None:
        published = self._standings.checkpoints(job.stage)
        folder, last, whole = self._out / job.stage, published[-1], self._all_published(job)
        if end is not None and end.keeps is None:
            # a stage that had taken all its steps stays done: only what comes after it does not run
            jobs.write(folder, job.ended("done" if whole else "stopped", last.step))
            self._tell_stage(job.stage, "stopped", end.why)
            raise _Stopped
        jobs.write(folder, job.ended("done", last.step))
        if whole:  # only resuming needs it; one that ended early may go on once its probes are edited
            shutil.rmtree(folder / "state", ignore_errors=True)
        self._tell_stage(job.stage, "done", end.why if end else "")

    def _tell_stage(self, name: str, state: str, why: str = "") -> None:
        self._journal.write(StageState(name, state, why))
        self._screen.stage(name, state, why)

    # --- its trainer ---

    def _train(self, job: Job) -> None:
        """Train to the last step, or to the checkpoint whose probes end the stage."""
        self._ask_for_negatives(job.stage, job.inputs)
        self._tell_stage(job.stage, "running")
        host = self._hosting.start(launch.TRAINER)
        follower = Follower(self._out / "events" / f"train-{job.stage}.jsonl", from_end=True)
        log = self._out / "events" / f"train-{job.stage}.log"
        child = host.start("train", launch.train_argv(self._out, job.stage), log)
        told = False
        while child.exit_code is None:
            host.poll(_LOOK_EVERY_S)
            if self._signals and not told:
                if child.pid is None:  # the host still imports: there is no trainer yet that could be told, nor state
                    raise Interrupted("interrupted before a step was taken: the same command starts again")
                host.signal(child, signal.SIGTERM)
                told = True
            self._follow(follower)
        self._follow(follower)
        self._check_trainer(child)

    def _ask_for_negatives(self, name: str, inputs: Mapping[str, str]) -> None:
        """Have checkpoints say what the stage is to learn from, as far as they have not been asked yet."""
        for request in requests_of(self._prepared, name):
            file = samples.place(self._out, inputs, request.data, request.number)
            assert file is not None  # inputs_of names every request
            if not file.is_file():
                self._tell_stage(name, "sampling", f"{request.label} is asked for negatives")
                host = self._hosting.start(launch.PROBER)
                sampler.ask(host, self._out, request, file, lambda: bool(self._signals))

    def _follow(self, follower: Follower) -> None:
        for stamped in follower.new():
            self._on_event(stamped.event)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Started):
            self._screen.started(event)
        elif isinstance(event, Logged):
            self._losses[f"{event.stage}@{event.step}"] = event.loss
            self._screen.logged(event)
        elif isinstance(event, Finished):
            self._training_s += event.training_s
        elif isinstance(event, Published) and not self._signals:
            self._screen.published(event)
            checkpoint = Checkpoint(event.stage, event.step, self._out / event.stage / f"ckpt-{event.step}")
            self._probe(checkpoint)
            if event.waits:
                go_on = self._standings.end(event.stage) is None
                jobs.write_decision(self._out / event.stage, event.step, go_on=go_on)

    def _check_trainer(self, child: Child) -> None:
        if self._signals and child.exit_code in (0, EXIT_INTERRUPTED):
            raise Interrupted("interrupted: state is saved, the same command resumes")
        if self._signals and child.exit_code == -signal.SIGTERM:
            raise Interrupted("interrupted before the trainer took a step: the same command starts again")
        if child.exit_code == EXIT_USER_ERROR:
            raise UserError(child.log_tail())
        if child.exit_code == EXIT_INTERRUPTED:
            raise Interrupted("the trainer was asked to stop: state is saved, the same command resumes")
        if child.exit_code != 0:
            raise TrainingFailed(f"the trainer {child.how_it_ended()}; the end of {child.log}:\n{child.log_tail()}")

    # --- its probes ---

    def _probe(self, checkpoint: Checkpoint) -> None:
        """Ask what is due at a checkpoint, and judge its gates."""
        due = self._prober.due(checkpoint)
        if due:
            self._ask(checkpoint, due)
        file = self._standings.verdicts(checkpoint)
        if file is None:
            return
        decisions = {decision.suite: decision for decision in self._standings.decisions(checkpoint)}
        loss = self._losses.get(checkpoint.label)
        self._screen.judged(CheckpointRow(checkpoint.label, loss, decisions), again=not due)
        for suite, decision in decisions.items() if due else ():
            if decision.green is not None:
                self._journal.write(GateJudged(suite, checkpoint.label, decision.green, decision.reasons))

    def _ask(self, checkpoint: Checkpoint, due: tuple[str, ...]) -> None:
        began = time.monotonic()
        host = self._hosting.start(launch.PROBER)
        log = self._out / "events" / f"probe-{checkpoint.stage}-{checkpoint.step}.log"
        child = host.start("probe", self._prober.argv(checkpoint, due), log)
        while child.exit_code is None:
            host.poll(_LOOK_EVERY_S)
            if self._signals:
                host.signal(child, signal.SIGKILL)
        if self._signals:
            raise Interrupted("interrupted while probing: the same command resumes")
        if child.exit_code not in (0, 1, 5):  # 5: nothing was collected, which the verdicts say
            raise TrainingFailed(
                f"probing {checkpoint.label} {child.how_it_ended()}; the end of {log}:\n{child.log_tail()}"
            )
        file = self._prober.take(checkpoint, due, child.log_tail())
        generating = sum(asked.generation_s for asked in file.suites if asked.suite in due)
        self._generating_s += generating
        wall = time.monotonic() - began
        self._journal.write(Probed(checkpoint.stage, checkpoint.step, due, round(generating, 3), round(wall, 3)))
