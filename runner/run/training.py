"""The trainer's side of a run: the trainer of a stage is started, followed, told to stop, and asked how it ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

from runner import diverging, launch, sampler
from runner.children import Child
from runner.data import samples
from runner.diverging import EXIT_AGAIN
from runner.errors import (
    EXIT_INTERRUPTED,
    EXIT_TRAINING_FAILED,
    EXIT_USER_ERROR,
    Interrupted,
    TrainingFailed,
    UserError,
)
from runner.events import Event, Follower, NotFinite
from runner.hosting import Hosting
from runner.interruption import Interruption
from runner.jobs import Job
from runner.preparation import Prepared, requests_of

_LOOK_EVERY_S = 0.05


class Training:
    """Starts one trainer after the other.

    Args:
        prepared: the recipe, its data and its folder.
        hosting: forks the trainers.
        interruption: whether the user wants to leave; a trainer is then told to save its state.
    """

    def __init__(self, prepared: Prepared, hosting: Hosting, interruption: Interruption) -> None:
        self._prepared, self._hosting, self._interruption = prepared, hosting, interruption
        self._out = prepared.run
        self._diverged: NotFinite | None = None
        """What the trainer of now said of a loss that was no number, where it did not go back."""

    def train(self, job: Job, heard: Callable[[Event], None], ends: Callable[[], bool]) -> None:
        """Train a stage to its last step, or to where it ends before, or goes back to be trained again from there.

        Args:
            job: the stage.
            heard: called with everything that the trainer reports.
            ends: asked again and again; once it is so, the trainer is told to save its state and leave.

        Raises:
            UserError: what the recipe asks for cannot be done.
            TrainingFailed: the trainer died.
            Interrupted: the user wants to leave, and state is saved.
        """
        self._diverged = None
        host = self._hosting.start(launch.TRAINER)
        follower = Follower(self._out / "events" / f"train-{job.stage}.jsonl", from_end=True)
        child = self._hosting.train(self._out, job.stage, job.processes)
        told = ended = False
        with child.relay(job.stage) as relay:
            while child.exit_code is None:
                host.poll(_LOOK_EVERY_S)
                relay.look()
                self._hosting.check_nodes()
                ended = ended or (not told and not self._interruption.asked_for and ends())
                if not told and (self._interruption.asked_for or ended):
                    if child.pid is not None:
                        host.signal(child, signal.SIGTERM)
                        told = True
                    elif not ended:  # the host still imports: there is no trainer yet that could be told, nor state
                        raise Interrupted("interrupted before a step was taken: the same command starts again")
                self._pass_on(follower, heard)
        self._pass_on(follower, heard)
        if ended and not self._interruption.asked_for and child.exit_code in (EXIT_INTERRUPTED, -signal.SIGTERM):
            return  # by a signal, where it had not begun to listen
        if child.exit_code == EXIT_AGAIN and not self._interruption.asked_for:
            return
        self._check(child)

    def _check(self, child: Child) -> None:
        """How a trainer ended that was not told to for its stage's sake."""
        asked_for = self._interruption.asked_for
        if asked_for and child.exit_code in (0, EXIT_INTERRUPTED, EXIT_AGAIN):
            raise Interrupted("interrupted: state is saved, the same command resumes")
        if child.exit_code == -signal.SIGTERM:  # by a scheduler, too, which tells every process of a job
            raise Interrupted("interrupted before the trainer took a step: the same command starts again")
        if child.exit_code == EXIT_USER_ERROR:
            raise UserError(child.log_tail())
        if child.exit_code == EXIT_INTERRUPTED:
            raise Interrupted("the trainer was asked to stop: state is saved, the same command resumes")
        if child.exit_code == EXIT_TRAINING_FAILED and self._diverged is not None:
            raise TrainingFailed(diverging.words(self._diverged))
        if child.exit_code != 0:
            others = self._hosting.about_nodes()
            ended = f"the trainer {child.how_it_ended()}; the end of {child.log}:"
            raise TrainingFailed(f"{others}{ended}\n{child.log_tail()}")

    def ask_for_negatives(self, stage: str, inputs: Mapping[str, str], tell: Callable[[str], None]) -> None:
        """Have checkpoints say what a stage is to learn from, as far as they have not been asked yet.

        Args:
            stage: its name.
            inputs: what its weights depend on.
            tell: called with a sentence before each is asked.
        """
        for request in requests_of(self._prepared, stage):
            file = samples.place(self._out, inputs, request.data, request.number)
            assert file is not None  # inputs_of names every request
            if not file.is_file():
                tell(f"{request.label} is asked for negatives")
                host = self._hosting.start(launch.PROBER)
                sampler.ask(host, self._out, request, file, lambda: self._interruption.asked_for)

    def _pass_on(self, follower: Follower, heard: Callable[[Event], None]) -> None:
        for stamped in follower.new():
            if isinstance(stamped.event, NotFinite) and not stamped.event.left_out:
                self._diverged = stamped.event
            heard(stamped.event)
