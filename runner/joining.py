"""Every node but the first: it starts trainers for the stages that node 0 announces, and ends when node 0 ends."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from runner import launch
from runner.children import Child
from runner.diverging import EXIT_AGAIN
from runner.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, Interrupted, TrainingFailed, UserError
from runner.hosting import Hosting
from runner.interruption import Interruption
from runner.nodes import BEAT_S, SILENT_S, WAIT_S, Ear, Node, Said, State, Voice, attempt_name

_LOOK_EVERY_S = 0.1
_FINISHED_FOR_S = 15.0
"""A run that was finished before is believed to be so once node 0 has not begun anew for so long."""


def join(folder: Path, node: Node, hosting: Hosting, recipe: str, tell: Callable[[str], None]) -> int:
    """Do what node 0 says until it ends; its result's gates are its own, so the exit code is 0 whatever they say.

    Args:
        folder: of the command's results, which all nodes see.
        node: which is not 0.
        hosting: forks the trainers.
        recipe: digest of what is run.
        tell: called with what happens, a sentence each.

    Raises:
        TrainingFailed: a trainer died, node 0 did, or it does not begin.
        UserError: a trainer met one.
        Interrupted: the user wants to leave here or there, and state is saved.
    """
    with hosting, ExitStack() as stack:
        interruption = Interruption(stack, "the last saved state is kept")
        return _Joined(folder, node, hosting, recipe, tell, interruption).follow()


class _Joined:
    def __init__(
        self,
        folder: Path,
        node: Node,
        hosting: Hosting,
        recipe: str,
        tell: Callable[[str], None],
        interruption: Interruption,
    ) -> None:
        self._folder, self._node, self._hosting, self._recipe = folder, node, hosting, recipe
        self._tell, self._interruption = tell, interruption
        self._ear = Ear(folder, 0)
        self._me = f"node {node.rank} of {node.count}"

    def follow(self) -> int:
        said = self._found()
        if said is None:
            self._tell(f"{self._me}: the run is finished")
            return 0
        self._tell(f"{self._me}: joined node 0 on {said.host}")
        self._hosting.start(launch.TRAINER)
        voice = Voice(self._folder, self._node.rank, Said(said.session, socket.gethostname(), "here"))
        try:
            self._obey(said.session, voice)
        except (UserError, TrainingFailed, Interrupted) as error:
            state: State = "left" if isinstance(error, Interrupted) else "failed"
            voice.say(replace(voice.said, state=state, why=_first_line(error)))
            raise
        finally:
            voice.close()
        return 0

    def _found(self) -> Said | None:
        """What node 0 says, once it is alive; None where it has nothing to do that others could help with."""
        first, began = self._ear.listen(), time.monotonic()
        limit = f"at most {WAIT_S / 60:.0f} minutes"
        self._tell(f"{self._me}: waiting for node 0 to run the same recipe into {self._folder}, {limit}")
        while True:
            said, waited = self._ear.listen(), time.monotonic() - began
            begun = said is not None and (first is None or said != first)
            if said is not None and begun and (said.state != "ended" or first is None or said.session != first.session):
                return said
            finished = said is not None and (said.state, said.code, said.recipe) == ("ended", 0, self._recipe)
            if finished and waited > _FINISHED_FOR_S:
                return None
            if waited > WAIT_S:
                raise TrainingFailed(f"node 0 did not begin within {WAIT_S / 60:.0f} minutes")
            self._leave_if_asked()
            time.sleep(_LOOK_EVERY_S)

    def _obey(self, session: str, voice: Voice) -> None:
        """Until node 0 ends, train what it announces."""
        done = 0
        while True:
            said = self._ear.listen()
            if said is not None and said.session != session:  # it was started again
                session, done = said.session, 0
                voice.say(replace(voice.said, session=session, state="here"))
            elif said is not None and said.state == "ended":
                return self._end(said)
            elif said is not None and said.state == "training" and said.attempt > done:
                done = said.attempt
                voice.say(replace(voice.said, state="training"))
                self._train(said)
                voice.say(replace(voice.said, state="here"))
            self._check_node_0()
            self._leave_if_asked()
            time.sleep(_LOOK_EVERY_S)

    def _train(self, said: Said) -> None:
        self._tell(f"{self._me}: stage {said.stage}: running")
        run = (self._folder / said.run).resolve()
        processes = said.processes * self._node.count
        host = self._hosting.start(launch.TRAINER)
        child = self._hosting.train(run, said.stage, processes, attempt_name(said))
        told = False
        while child.exit_code is None:
            host.poll(_LOOK_EVERY_S)
            if self._interruption.asked_for and not told and child.pid is not None:
                host.signal(child, signal.SIGTERM)
                told = True
            self._check_node_0()
            self._check_session(said.session)
        self._check(child)
        self._tell(f"{self._me}: stage {said.stage}: done")

    def _check(self, child: Child) -> None:
        asked_for = self._interruption.asked_for
        if child.exit_code == EXIT_INTERRUPTED or (asked_for and child.exit_code in (0, -signal.SIGTERM)):
            raise Interrupted("interrupted: state is saved, the same commands resume")
        if child.exit_code == EXIT_USER_ERROR:
            raise UserError(child.log_tail())
        if child.exit_code not in (0, EXIT_AGAIN):  # node 0 announces the stage again
            time.sleep(2.5 * BEAT_S)  # if node 0 lives, it is heard of in this time
            if self._ear.silent_s > 2 * BEAT_S:
                raise TrainingFailed(self._words_of_silence())
            raise TrainingFailed(f"the trainer {child.how_it_ended()}; the end of {child.log}:\n{child.log_tail()}")

    def _check_node_0(self) -> None:
        if self._ear.silent_s > SILENT_S:
            raise TrainingFailed(self._words_of_silence())

    def _check_session(self, session: str) -> None:
        now = self._ear.listen()
        if now is not None and now.session != session:
            raise TrainingFailed("node 0 was started again while it trained: run the same command here again")

    def _words_of_silence(self) -> str:
        seconds = self._ear.silent_s
        return f"node 0 has died, or cannot be reached: nothing was heard of it for {seconds:.0f} s"

    def _leave_if_asked(self) -> None:
        if self._interruption.asked_for:
            raise Interrupted("interrupted while nothing was trained: the same commands resume")

    def _end(self, said: Said) -> None:
        if said.code == EXIT_INTERRUPTED:
            raise Interrupted("node 0 was interrupted: state is saved, the same commands resume")
        if said.code == EXIT_USER_ERROR:
            raise UserError(f"node 0 ended: {said.why}", hint="it shows the whole error")
        if said.code != 0:
            raise TrainingFailed(f"node 0 ended with exit code {said.code}: {said.why}")
        self._tell(f"{self._me}: node 0 is finished")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
