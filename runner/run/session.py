"""One invocation of `recipe run`, which holds the folder's lock: stage after stage, then the result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from runner import checkpoints, diverging, jobs, launch, plan, recipe, sharing, spec
from runner.atomic import publish_text
from runner.ending import ending
from runner.errors import EXIT_GATE_FAILED
from runner.events import Event, Finished, Journal, Logged, NotFinite, Published, StageState, Started
from runner.folder import Superseded, write_run
from runner.hosting import Hosting
from runner.interruption import Interruption
from runner.jobs import Job
from runner.preparation import (
    HostedLook,
    Prepared,
    elsewhere,
    inputs_of,
    make_plan,
    new_job,
    relaid,
    run_record,
    start_of,
    states,
    write_data,
)
from runner.prober import Prober
from runner.progress import Screen
from runner.run.probing import Probing
from runner.run.training import Training
from runner.stage_ends import End
from runner.standings import Checkpoint, Standings


class _Stopped(Exception):
    """A gate ends the run here; which one is read from the folder again."""


class Session:
    """What is kept while a recipe runs.

    Args:
        prepared: the recipe, its data and its folder.
        screen: shows what happens.
        stack: closes what this opens.
        hosting: forks trainers and probers.
        began: `time.monotonic()` when the command began.
    """

    def __init__(self, prepared: Prepared, screen: Screen, stack: ExitStack, hosting: Hosting, began: float) -> None:
        self._prepared, self._recipe, self._out = prepared, prepared.loaded.spec, prepared.run
        self._screen, self._hosting, self._began = screen, hosting, began
        self._superseded = Superseded(self._out)
        self._journal = Journal(self._out / "events" / "run.jsonl")
        stack.callback(self._journal.close)
        self._standings = Standings(self._recipe, self._out)
        self._interruption = Interruption(stack, "the last saved state is kept", screen.leaving)
        self._training = Training(prepared, hosting, self._interruption)
        self._training_s = 0.0
        self._shared: set[str] = set()

    # --- the whole ---

    def run(self) -> int:
        """Every stage, then the result."""
        with self._interruption.leaving_at_once("interrupted before anything trained: the same command begins again"):
            looks = self._begin()
        head = f"# The resolved recipe of this run, as recipe run wrote it. format_version: {spec.FORMAT_VERSION}\n"
        publish_text(self._out / "recipe.yaml", head + recipe.dump(self._prepared.loaded))
        write_run(self._out, run_record(self._prepared, looks))
        self._standings = Standings(self._recipe, self._out, looks)
        prober = Prober(self._recipe, self._prepared.loaded.root, self._out, self._standings, self._superseded)
        self._probing = Probing(
            self._prepared, prober, self._standings, self._hosting, self._interruption, self._screen, self._journal
        )
        with suppress(_Stopped):
            for name in self._recipe.stages:
                self._stage(name)
        wall = time.monotonic() - self._began
        seconds = {
            "training": self._training_s,
            "generating": self._probing.generating_s,
            "all else": wall - self._training_s - self._probing.generating_s,
        }
        if self._probing.how == "elsewhere" and (unasked := prober.unasked()):
            self._screen.unasked([checkpoint.label for checkpoint in unasked], self._out)
            return EXIT_GATE_FAILED
        last = ending(self._prepared.loaded, self._standings, self._out, seconds)
        self._screen.ended(last)
        return last.exit_code

    def _begin(self) -> int:
        """Plan what is left to do, and write what stages and probes read; at how many checkpoints gates look."""
        state = states(self._prepared)
        if all(words == "done" for words in state.values()):
            done = {name: job.publish_steps for name in self._recipe.stages if (job := jobs.read(self._out / name))}
            looks = self._prepared.looks_at(done)
            write_data(self._prepared, self._superseded)
            self._screen.nothing_to_train(self._recipe)
            return looks
        host = self._hosting.start(launch.TRAINER)  # it imports torch while the plan is made
        self._prepared.keep_tokens()
        log = self._out / "events" / "look.log"
        with HostedLook(host, [self._prepared.loaded], log) as look:
            looks = self._prepared.looks
            made = make_plan(self._prepared, elsewhere(state), look.seen)
        write_data(self._prepared, self._superseded)
        self._screen.planned(made)
        return looks

    # --- a stage ---

    def _stage(self, name: str) -> None:
        job = self._job(name)
        checkpoints.remove_unfinished(self._out / name)
        for checkpoint in self._standings.checkpoints(name):
            self._probing.add(checkpoint)
        goes_on = job.state == "running" and not self._all_published(job)
        if self._probing.how != "beside" or not goes_on or self._standings.end(name) is not None:
            self._probing.wait()  # what ended it may be judged otherwise now
        end = self._standings.end(name)
        if job.state == "done" and (end.keeps is not None if end else self._all_published(job)):
            if name not in self._shared:
                self._tell_stage(name, "skipped", "nothing changed")
            return
        while end is None and not self._all_published(job):
            self._train(job)
            self._probing.wait()
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
            return self._relaid(job)
        if job is not None:
            self._set_aside(name, plan.changed(job.inputs, inputs))
        if (taken := self._taken_over(name, key)) is not None:
            return taken
        self._ask_for_negatives(name, inputs)
        job = new_job(self._prepared, name, start, inputs)
        jobs.write(self._out / name, job)
        return job

    def _relaid(self, job: Job) -> Job:
        """The job of a stage that goes on, for the processes that there are now."""
        if job.state == "done" or self._all_published(job):
            return job
        now = relaid(self._prepared, job)
        if now != job:
            jobs.write(self._out / job.stage, now)
        return now

    def _taken_over(self, name: str, key: str) -> Job | None:
        if not self._prepared.loaded.variant:
            return None
        sharing.remove_unfinished(self._out, name)
        twin = sharing.find(self._out, name, key)
        if twin is None or not sharing.take_over(twin, self._out):
            return None
        self._probing.losses |= self._standings.losses()
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
        self._hosting.gather(
            lambda words: self._tell_stage(job.stage, "waiting", words), lambda: self._interruption.asked_for
        )
        self._tell_stage(job.stage, "running")
        self._training.train(job, self._on_event, lambda: self._is_ended_beside(job.stage))

    def _ask_for_negatives(self, name: str, inputs: Mapping[str, str]) -> None:
        self._training.ask_for_negatives(name, inputs, lambda words: self._tell_stage(name, "sampling", words))

    def _is_ended_beside(self, stage: str) -> bool:
        return self._probing.how == "beside" and self._probing.ends(stage)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Started):
            self._screen.started(event)
        elif isinstance(event, Logged):
            self._probing.losses[f"{event.stage}@{event.step}"] = event.loss
            self._screen.logged(event)
        elif isinstance(event, Finished):
            self._training_s += event.training_s
        elif isinstance(event, NotFinite) and event.left_out:
            self._tell_stage(event.stage, "goes back", diverging.rolled_back(event))
        elif isinstance(event, Published) and not self._interruption.asked_for:
            self._on_published(event)

    def _on_published(self, event: Published) -> None:
        folder = self._out / event.stage
        self._probing.add(Checkpoint(event.stage, event.step, folder / f"ckpt-{event.step}"))
        if self._probing.how != "between" and not event.waits:
            return
        self._screen.published(event)
        self._probing.wait()
        if event.waits:
            jobs.write_decision(folder, event.step, go_on=self._standings.end(event.stage) is None)
