"""The probing side of a run: checkpoints queue up, are asked one after the other, and their gates are judged.

`launch.probing` says who waits for whom: `between` the trainer waits for the verdicts of its checkpoint, `beside` it
goes on while a prober works through the queue, `elsewhere` nothing is asked here.
"""

from __future__ import annotations

import signal
from collections import deque

from runner import launch
from runner.children import Host
from runner.errors import Interrupted, TrainingFailed, UserError
from runner.events import GateJudged, Journal
from runner.hosting import Hosting
from runner.interruption import Interruption
from runner.preparation import Prepared, visible_gpus
from runner.prober import Asking, Prober, ProberDied
from runner.progress import Screen
from runner.standings import Checkpoint, Standings
from runner.tables import CheckpointRow
from runner.underway import Relay

_LOOK_EVERY_S = 0.05


class Probing:
    """Asks and judges.

    Args:
        prepared: the recipe, its data and its folder.
        prober: knows what is due.
        standings: where the run stands; only read.
        hosting: forks the probers.
        interruption: whether the user wants to leave; a prober is then killed.
        screen: shows what was decided.
        journal: records it.
    """

    def __init__(
        self,
        prepared: Prepared,
        prober: Prober,
        standings: Standings,
        hosting: Hosting,
        interruption: Interruption,
        screen: Screen,
        journal: Journal,
    ) -> None:
        self._recipe, self._prober, self._standings = prepared.recipe, prober, standings
        self._hosting, self._interruption, self._screen, self._journal = hosting, interruption, screen, journal
        self.how = prepared.recipe.launch.probing
        self._environment = launch.prober_environment(prepared.recipe.launch, visible_gpus())
        self._queue: deque[Checkpoint] = deque()
        self._asking: Asking | None = None
        self._relay: Relay | None = None
        self._failure: UserError | TrainingFailed | None = None
        self.losses = standings.losses()
        """The training loss recorded last at each step, by label: shown beside the verdicts."""
        self.generating_s = 0.0
        """Seconds that probers of this invocation spent on replies."""

    def add(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint at the end of the queue."""
        self._queue.append(checkpoint)

    def wait(self) -> None:
        """Until everything in the queue is asked and judged.

        Raises:
            UserError: a probe file cannot be collected.
            TrainingFailed: a prober died.
            Interrupted: the user wants to leave.
        """
        while (self._queue or self._asking) and not self._failure:
            if self._interruption.asked_for:
                self._leave()
                raise Interrupted("interrupted while probing: the same command resumes")
            self.advance()
            if self._asking is not None:
                self._host().poll(_LOOK_EVERY_S)
        if self._failure:
            raise self._failure

    def ends(self, stage: str) -> bool:
        """Go on with the queue, and whether training must end: because of what the probes said, or because there can be
        no more verdicts, which `wait` then says. For a trainer that does not wait."""
        if self._interruption.asked_for:
            self._leave()
            return False
        judged = self.advance()
        return self._failure is not None or (judged and self._standings.end(stage) is not None)

    def advance(self) -> bool:
        """Take the verdicts of a prober that has ended, and start the next one; whether there were new verdicts."""
        judged = False
        if self._relay is not None:
            self._relay.look()
        if self._asking is not None and self._asking.child.exit_code is not None:
            asking = self._asking
            self._let_go()
            judged = self._finish(asking)
        while self._asking is None and self._queue and not self._failure:
            self._begin(self._queue.popleft())
        return judged

    def _begin(self, checkpoint: Checkpoint) -> None:
        if self._is_beyond_the_end(checkpoint):
            return
        due = self._prober.askable(checkpoint) if self.how != "elsewhere" else ()
        if due:
            self._asking = self._prober.start(self._host(), checkpoint, due, self._environment)
            self._relay = self._asking.child.relay(checkpoint.label)
        else:
            self._judge(checkpoint, again=True)

    def _is_beyond_the_end(self, checkpoint: Checkpoint) -> bool:
        """Whether its stage ended before it, and it was published only because that was not known yet."""
        end = self._standings.end(checkpoint.stage)
        if end is None or self._standings.verdicts(checkpoint) is not None:
            return False
        return checkpoint.step > self._standings.checkpoints(checkpoint.stage)[end.place].step

    def _finish(self, asking: Asking) -> bool:
        checkpoint = asking.checkpoint
        try:
            probed = self._prober.finish(asking)
            self.generating_s += probed.generation_s
            self._journal.write(probed)
        except ProberDied:
            pass  # kept until the suites that it did not die of have their verdicts
        except (UserError, TrainingFailed) as failure:
            self._failure = failure
            return False
        if self._prober.askable(checkpoint):
            self._queue.appendleft(checkpoint)
            return False
        self._judge(checkpoint, again=False)
        self._failure = self._prober.failure(checkpoint)
        return True

    def _judge(self, checkpoint: Checkpoint, *, again: bool) -> None:
        """Show what the gates say of a checkpoint, and record what they say for the first time."""
        if self._standings.verdicts(checkpoint) is None:
            return
        decisions = {decision.suite: decision for decision in self._standings.decisions(checkpoint)}
        self._screen.judged(CheckpointRow(checkpoint.label, self.losses.get(checkpoint.label), decisions), again=again)
        for suite, decision in decisions.items() if not again else ():
            if decision.green is not None:
                self._journal.write(GateJudged(suite, checkpoint.label, decision.green, decision.reasons))

    def _leave(self) -> None:
        self._queue.clear()
        if self._asking is not None:
            self._host().signal(self._asking.child, signal.SIGKILL)
            self._let_go()

    def _let_go(self) -> None:
        """Nothing is being asked any more."""
        if self._relay is not None:
            self._relay.close()
        self._asking = self._relay = None

    def _host(self) -> Host:
        return self._hosting.start(launch.PROBER)
