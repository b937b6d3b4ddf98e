"""A run: for each stage train, probe every checkpoint, judge its gates, hand over; then the result.

Everything that happened is in the run folder, and everything here is decided from it: a stage that is done is skipped,
one that was interrupted resumes, one whose inputs changed is moved to `superseded/` and trained again.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from runner import checkpoints, jobs, launch, plan, recipe, spec
from runner.atomic import publish_text
from runner.children import Child, Host
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
from runner.jobs import Job
from runner.preparation import (
    Prepared,
    inputs_of,
    make_plan,
    new_job,
    run_record,
    start_of,
    states,
    visible_gpus,
    write_data,
)
from runner.prober import Prober
from runner.progress import Screen
from runner.recipe import Loaded
from runner.standings import Checkpoint, Standings
from runner.tables import CheckpointRow

_LOOK_EVERY_S = 0.05


def run(loaded: Loaded, out: Path, screen: Screen) -> int:
    """Run a recipe into `out`; the exit code is that of its result's gates.

    Raises:
        UserError: what was asked for cannot be done; raised before anything trains.
        TrainingFailed: a child died; what was won is kept.
        Interrupted: state is saved, the same call resumes.
    """
    began = time.monotonic()
    check_owner(out, loaded.spec.recipe, os.path.relpath(loaded.path, loaded.root))
    prepared = Prepared(loaded, out)
    with ExitStack() as stack:
        stack.enter_context(writing(out))
        return _Session(prepared, out, stack.enter_context(screen), stack, began).run()


class _Stopped(Exception):
    """A gate with `on_fail: stop` is red at a checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        super().__init__(checkpoint.label)


class _Session:
    """One invocation of `recipe run`, which holds the folder's lock."""

    def __init__(self, prepared: Prepared, out: Path, screen: Screen, stack: ExitStack, began: float) -> None:
        self._prepared, self._recipe = prepared, prepared.loaded.spec
        self._out, self._screen, self._stack, self._began = out, screen, stack, began
        self._superseded = Superseded(out)
        self._journal = Journal(out / "events" / "run.jsonl")
        stack.callback(self._journal.close)
        self._standings = Standings(self._recipe, out)
        self._host: Host | None = None
        self._signals = 0
        self._training_s = self._generating_s = 0.0
        self._losses = self._standings.losses()
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
        to_do = [name for name, state in states(self._prepared).items() if state != "done"]
        if to_do:
            self._start_host(launch.TRAINER)  # it imports torch while the plan is made
            looks = self._prepared.looks
            made = make_plan(self._prepared)
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
        stopped_at: Checkpoint | None = None
        try:
            for name in self._recipe.stages:
                self._stage(name)
        except _Stopped as stop:
            stopped_at = stop.checkpoint
        wall = time.monotonic() - self._began
        seconds = {
            "training": self._training_s,
            "generating": self._generating_s,
            "all else": wall - self._training_s - self._generating_s,
        }
        last = ending(self._prepared.loaded, self._standings, self._out, seconds, stopped_at)
        self._screen.ended(last)
        return last.exit_code

    def _start_host(self, first: str) -> Host:
        if self._host is None:
            then = [launch.PROBER] if first != launch.PROBER else []
            if then and any(isinstance(stage, spec.Dpo) for stage in self._recipe.stages.values()):
                then.append(launch.PREFERENCE_TRAINER)
            root = self._prepared.loaded.root
            log = self._out / "events" / "host.log"
            environment = dict(launch.environment())
            if len(visible_gpus()) > 1:  # a trainer takes all it sees, and one process is all this version starts
                environment["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
            self._host = self._stack.enter_context(Host(launch.host_argv(first, then), environment, log, root))
        return self._host

    # --- a stage ---

    def _stage(self, name: str) -> None:
        start, start_key = start_of(self._prepared, self._standings, name)
        inputs = inputs_of(self._prepared, name, start, start_key)
        job = jobs.read(self._out / name)
        if job is not None and job.key != plan.key(inputs):
            self._set_aside(name, plan.changed(job.inputs, inputs))
            job = None
        if job is None:
            job = new_job(self._prepared, name, start, inputs)
            jobs.write(self._out / name, job)
        checkpoints.remove_unfinished(self._out / name)
        go_on = True
        for checkpoint in self._standings.checkpoints(name):
            go_on = self._probe(checkpoint) and go_on
        if go_on and job.state == "done":
            self._tell_stage(name, "skipped", "nothing changed")
            return
        if go_on and not self._all_published(job):
            go_on = self._train(job)
        self._finish(job, go_on)

    def _all_published(self, job: Job) -> bool:
        published = self._standings.checkpoints(job.stage)
        return bool(published) and published[-1].step >= job.total_steps

    def _set_aside(self, name: str, why: str) -> None:
        """The stage changed: it and every stage below it are moved, never deleted."""
        names = list(self._recipe.stages)
        for below in names[names.index(name) :]:
            if (self._out / below).exists():
                self._superseded.take(self._out / below)
        self._tell_stage(name, "changed", why)

    def _finish(self, job: Job, go_on: bool) -> None:
        last = self._standings.checkpoints(job.stage)[-1]
        folder = self._out / job.stage
        if not go_on:
            # a stage that had taken all its steps stays done: only what comes after it does not run
            state: jobs.State = "done" if self._all_published(job) else "stopped"
            jobs.write(folder, job.ended(state, last.step))
            self._tell_stage(job.stage, "stopped", f"a gate with on_fail: stop is red at {last.label}")
            raise _Stopped(last)
        jobs.write(folder, job.ended("done", last.step))
        shutil.rmtree(folder / "state", ignore_errors=True)  # only resuming needs it, and nothing is left to do
        self._tell_stage(job.stage, "done")

    def _tell_stage(self, name: str, state: str, why: str = "") -> None:
        self._journal.write(StageState(name, state, why))
        self._screen.stage(name, state, why)

    # --- its trainer ---

    def _train(self, job: Job) -> bool:
        """Train to the last step; False where a gate ended it."""
        self._tell_stage(job.stage, "running")
        host = self._start_host(launch.TRAINER)
        follower = Follower(self._out / "events" / f"train-{job.stage}.jsonl", from_end=True)
        log = self._out / "events" / f"train-{job.stage}.log"
        child = host.start("train", launch.train_argv(self._out, job.stage), log)
        told, self._go_on = False, True
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
        return self._go_on

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
            self._go_on = self._probe(checkpoint)
            if event.waits:
                jobs.write_decision(self._out / event.stage, event.step, go_on=self._go_on)

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

    def _probe(self, checkpoint: Checkpoint) -> bool:
        """Ask what is due at a checkpoint and judge its gates; False where a red one says stop."""
        due = self._prober.due(checkpoint)
        if due:
            self._ask(checkpoint, due)
        file = self._standings.verdicts(checkpoint)
        if file is None:
            return True
        decisions = {decision.suite: decision for decision in self._standings.decisions(checkpoint)}
        loss = self._losses.get(checkpoint.label)
        self._screen.judged(CheckpointRow(checkpoint.label, loss, decisions), again=not due)
        go_on = True
        for suite, decision in decisions.items():
            if decision.green is None:
                continue
            if due:
                self._journal.write(GateJudged(suite, checkpoint.label, decision.green, decision.reasons))
            rule = self._standings.gate_of(suite, file)
            go_on = go_on and (decision.green or rule is None or rule.on_fail != "stop")
        return go_on

    def _ask(self, checkpoint: Checkpoint, due: tuple[str, ...]) -> None:
        began = time.monotonic()
        host = self._start_host(launch.PROBER)
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
