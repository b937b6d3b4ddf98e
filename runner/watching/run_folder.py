"""`recipe watch RUN`: the checkpoints of a run that leaves its probes to others (`launch.probing: elsewhere`).

The suites, cases and gates are the run's own, and the verdicts come into it as `recipe run` would write them. The run
holds its folder's lock while it trains; who probes holds another one, see `prober.held`.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console, Group
from rich.text import Text

from runner import checkpoints, jobs, launch, recipe, tables
from runner.children import Host
from runner.console import Note, ending_screen, waiting
from runner.ending import ending
from runner.errors import EXIT_GATE_FAILED, BadCheckpoint, Interrupted, TrainingFailed, UserError, printable
from runner.events import GateJudged, Journal
from runner.folder import Superseded, check_inside, read_run
from runner.gpus import visible_gpus
from runner.hosting import Hosting
from runner.interruption import Interruption
from runner.prober import Asking, Prober, ProberDied, held
from runner.recipe import Loaded
from runner.standings import Checkpoint, Standings
from runner.tables import CheckpointRow
from runner.watching.options import Options

LEAVING = "interrupted: what is being asked is left"
_LOOK_EVERY_S = 0.5
_NOTICE_SIGNAL_S = 0.05


def watch_run(options: Options, console: Console) -> int:
    """Ask what is due at the checkpoints of a run that are there and that come.

    The exit code is that of the result's gates once the run is done, before that of all gates at all checkpoints.

    Raises:
        UserError: the run asks its checkpoints itself, or is watched already.
        TrainingFailed: a prober died; the other checkpoints have their verdicts.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    with ExitStack() as stack:
        return _RunWatch(options, console, stack, stack.enter_context(waiting(console))).run()


class _RunWatch:
    """One invocation."""

    def __init__(self, options: Options, console: Console, stack: ExitStack, note: Note) -> None:
        self._options, self._console, self._stack = options, console, stack
        self._run = options.folder.resolve()
        self._interruption = Interruption(stack, "verdicts that were reached are kept", lambda: note.say(LEAVING))
        self._read_as: tuple[int, ...] = ()
        self._died: dict[str, str] = {}
        """How a prober ended that died, by the weights it was to ask."""
        self._asked: set[tuple[str, str, str]] = set()
        """Weights, suites and their versions that were asked. Verdicts of another version than was looked for are asked
        again, but not for ever: a version that cannot be reached stays due."""
        self._began = time.monotonic()
        self._generating_s = 0.0

    # --- the whole ---

    def run(self) -> int:
        """Until the options or a signal say that it ends."""
        self._wait_for_the_run()
        if not self._interruption.asked_for:
            check_inside(self._run)
            self._read()
            self._stack.enter_context(held(self._run))
            self._journal = Journal(self._run / "events" / "watch.jsonl")
            self._stack.callback(self._journal.close)
            log = self._run / "events" / "watch-host.log"
            self._hosting = self._stack.enter_context(
                Hosting(self._loaded.root, log, preferences=False, gpus=visible_gpus())
            )
            self._follow()
        if self._interruption.asked_for:
            raise Interrupted(f"interrupted: verdicts are in {self._options.folder}, the same command goes on")
        code = self._show()
        if self._died:
            raise TrainingFailed("\n".join(self._died.values()))
        return code

    def _wait_for_the_run(self) -> None:
        told, began = False, time.monotonic()
        while not (self._run / "run.json").is_file() and not self._interruption.asked_for:
            if self._options.once or self._is_idle_since(began):
                raise UserError(
                    f"{self._options.folder} is not the folder of a run",
                    expected="a folder with a run.json, or --probes for what another trainer writes",
                )
            if not told:
                self._say(f"{self._options.folder} is no run yet: waiting for recipe run")
                told = True
            self._sleep()

    def _read(self) -> None:
        """The recipe and the standings, where they are others than before: `recipe run` may have been called again.

        Raises:
            UserError: the run asks its checkpoints itself.
        """
        files = [self._run / name for name in ("recipe.yaml", "run.json")]
        now = tuple(file.stat().st_mtime_ns for file in files)
        if now == self._read_as:
            return
        record = read_run(self._run)
        self._loaded: Loaded = recipe.load(files[0], root=Path(record.project_root))
        if (how := self._loaded.spec.launch.probing) != "elsewhere":
            raise UserError(
                f"{self._options.folder} is a run that asks its checkpoints itself (launch.probing: {how})",
                hint="recipe run --set launch.probing=elsewhere leaves it to recipe watch",
            )
        self._standings = Standings(self._loaded.spec, self._run, record.looks)
        self._read_as = now

    def _follow(self) -> None:
        idle_since = time.monotonic()
        is_told = False
        while not self._interruption.asked_for:
            self._read()
            due = self._next()
            if due is not None:
                self._ask(*due)
                idle_since, is_told = time.monotonic(), False
                continue
            if self._is_done() and not is_told:
                self._say(f"{self._options.folder} is trained, and every checkpoint is asked")
                is_told = True
            if self._options.once or self._is_idle_since(idle_since):
                break
            self._sleep()

    def _is_idle_since(self, then: float) -> bool:
        return self._options.idle_s is not None and time.monotonic() - then >= self._options.idle_s

    def _sleep(self) -> None:
        end = time.monotonic() + _LOOK_EVERY_S
        while not self._interruption.asked_for and time.monotonic() < end:
            time.sleep(_NOTICE_SIGNAL_S)

    def _say(self, line: str) -> None:
        self._console.print(Text(printable(line)), soft_wrap=True)

    # --- asking ---

    def _next(self) -> tuple[Prober, Checkpoint, tuple[str, ...]] | None:
        """The first checkpoint that has something to be asked."""
        # made anew each time: a probe file may have been edited
        prober = Prober(self._loaded.spec, self._loaded.root, self._run, self._standings, Superseded(self._run))
        for checkpoint in self._standings.all_checkpoints():
            weights = _weights(checkpoint)
            due = tuple(
                suite for suite in prober.due(checkpoint) if (weights, suite, prober.version(suite)) not in self._asked
            )
            if due and weights not in self._died:
                return prober, checkpoint, due
        return None

    def _ask(self, prober: Prober, checkpoint: Checkpoint, due: tuple[str, ...]) -> None:
        host = self._hosting.start(launch.PROBER)
        weights, still = _weights(checkpoint), due
        while still and not self._interruption.asked_for:
            if not self._ask_once(host, prober, checkpoint, still, weights):
                return
            still = tuple(name for name in prober.askable(checkpoint) if name in due)
        self._asked |= {(weights, suite, prober.version(suite)) for suite in due}
        if died := prober.failure(checkpoint):
            self._died[weights] = str(died)
            self._say(f"{checkpoint.label}: its prober gave no verdicts")

    def _ask_once(self, host: Host, prober: Prober, checkpoint: Checkpoint, due: tuple[str, ...], weights: str) -> bool:
        """Whether the checkpoint can still be asked."""
        asking = prober.start(host, checkpoint, due)
        with asking.child.relay(checkpoint.label) as relay:
            while asking.child.exit_code is None:
                host.poll(_NOTICE_SIGNAL_S)
                relay.look()
                if self._interruption.asked_for:
                    host.signal(asking.child, signal.SIGKILL)
        if self._interruption.asked_for:
            return False
        if not weights or _weights(checkpoint) != weights:
            prober.discard(asking)
            self._say(f"{checkpoint.label} was set aside while it was asked: its verdicts are not kept")
            return False
        try:
            self._take(prober, asking)
        except ProberDied:
            pass  # kept until the suites that it did not die of have their verdicts
        except TrainingFailed as died:
            self._died[weights] = str(died)
            self._say(f"{checkpoint.label}: its prober gave no verdicts")
            return False
        return True

    def _take(self, prober: Prober, asking: Asking) -> None:
        probed = prober.finish(asking)
        self._generating_s += probed.generation_s
        self._journal.write(probed)
        for decision in self._standings.decisions(asking.checkpoint):
            if decision.suite in asking.due:
                self._say(tables.decision_line(asking.checkpoint.label, decision))
                if decision.green is not None:
                    label = asking.checkpoint.label
                    self._journal.write(GateJudged(decision.suite, label, decision.green, decision.reasons))

    # --- what it came to ---

    def _is_done(self) -> bool:
        """Whether every stage is trained, as far as the folder says."""
        found = [jobs.read(self._run / stage) for stage in self._loaded.spec.stages]
        return all(job is not None and job.state != "running" for job in found)

    def _show(self) -> int:
        if self._is_done() and not self._died:
            wall = time.monotonic() - self._began
            seconds = {"generating": self._generating_s, "all else": wall - self._generating_s}
            last = ending(self._loaded, self._standings, self._run, seconds)
            self._console.print(ending_screen(last))
            return last.exit_code
        rows = [
            CheckpointRow(one.label, None, {found.suite: found for found in self._standings.decisions(one)})
            for one in self._standings.all_checkpoints()
        ]
        suites = list(dict.fromkeys(suite for row in rows for suite in row.decisions))
        red = [
            tables.decision_line(row.label, decision)
            for row in rows
            for decision in row.decisions.values()
            if decision.green is False
        ]
        code = EXIT_GATE_FAILED if red else 0
        last_line = Text(
            f"{'red' if red else 'green'} so far: exit code {code}", style=tables.BAD if red else tables.GOOD
        )
        self._console.print(
            Group(tables.fitting(rows, suites, self._console), Text(), *(Text(f"✗ {line}") for line in red), last_line)
        )
        return code


def _weights(checkpoint: Checkpoint) -> str:
    """Which weights a checkpoint has; empty where it is there no more."""
    try:
        return checkpoints.read_manifest(checkpoint.path).weights_sha256
    except BadCheckpoint:
        return ""
