"""`recipe watch`: follows a folder that another trainer writes, and probes every checkpoint that appears in it.

Like the parent of a run it never imports torch: a host process does, and forks a prober per checkpoint. Verdicts go to
`probes/` in the watched folder; nothing is written there before its first checkpoint is complete, because some trainers
refuse to begin in a folder that is not empty.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from runner import checkpoints, loadable, verdicts
from runner.console import Note, waiting
from runner.errors import BadCheckpoint, FolderTaken, Interrupted, TrainingFailed, UserError, printable
from runner.folder import check_inside, writing
from runner.interruption import Interruption
from runner.probing import targets
from runner.watching import holding
from runner.watching.arrivals import FINAL, Arrival, Arrivals, Signature, is_gone, signature
from runner.watching.ledger import Asked, Ledger, files_key, probes_key, weights_sha256
from runner.watching.options import Options, check
from runner.watching.prober import ForeignProber, ProberDied, Stopped
from runner.watching.run_folder import LEAVING, watch_run
from runner.watching.sweep import Sweep

_LOOK_EVERY_S = 0.5
_NOTICE_SIGNAL_S = 0.05
_BASELINE = "baseline"
_TOO_FEW = "was deleted before it could be asked: its trainer keeps too few (save_total_limit)"


def watch(options: Options, console: Console) -> int:
    """Probe what is there and what comes; the exit code is that of the gates at every checkpoint.

    Raises:
        UserError: what was asked for cannot be done, or no checkpoint ever came.
        TrainingFailed: a prober died; the other checkpoints have their verdicts.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    check(options)
    if not options.probes:
        return watch_run(options, console)
    with ExitStack() as stack:
        return _Watch(options, console, stack, stack.enter_context(waiting(console))).run()


class _Watch:
    """One invocation."""

    def __init__(self, options: Options, console: Console, stack: ExitStack, note: Note) -> None:
        self._options, self._console, self._stack = options, console, stack
        self._folder, self._files = options.folder, [Path(given.partition("::")[0]) for given in options.probes]
        self._arrivals = Arrivals(options.folder, options.settle_s, options.given_up_s)
        self._sweep = Sweep()
        self._died: dict[str, str] = {}
        """How a prober ended that died, by checkpoint; under no name, how the host did."""
        self._passed_over: dict[str, Signature] = {}
        """What is not asked: a prober died of it, or its weights are those of another checkpoint."""
        self._queued: set[str] = set()
        self._interruption = Interruption(stack, "verdicts that were reached are kept", lambda: note.say(LEAVING))
        self._prober = ForeignProber(options, stack, lambda: self._interruption.asked_for)
        self._baseline = self._find_baseline()

    def _find_baseline(self) -> targets.Target | None:
        """The checkpoint to compare with; a verdict file goes straight into the sweep."""
        given = self._options.baseline
        if given is None:
            return None
        if Path(given).is_file():
            self._sweep.baseline = verdicts.read(Path(given))
            return None
        found = targets.find_baseline(given, [], Path.cwd(), Path.cwd())
        if found.problem:
            raise BadCheckpoint(f"--baseline {given}: {found.problem}")
        return found

    # --- the whole ---

    def run(self) -> int:
        """Until the options or a signal say that it ends."""
        try:
            self._wait_for_the_first()
            if not self._interruption.asked_for:
                self._begin()
            self._follow()
        except Stopped:
            pass  # said below, after what there is
        except TrainingFailed as error:
            self._died[""] = str(error)
        stopped = (
            Interrupted.exit_code if self._interruption.asked_for else TrainingFailed.exit_code if self._died else 0
        )
        screen, code = self._sweep.ending(self._console, stopped)
        self._console.print(screen)
        if self._interruption.asked_for:
            raise Interrupted(f"interrupted: verdicts are in {self._folder / 'probes'}, the same command goes on")
        if self._died:
            raise TrainingFailed("\n".join(self._died.values()))
        return code

    def _wait_for_the_first(self) -> None:
        """Until a checkpoint is complete.

        Raises:
            UserError: it need not be waited for any longer.
        """
        began, told, once, idle_s = time.monotonic(), False, self._options.once, self._options.idle_s
        while not self._interruption.asked_for and not self._arrivals.look():
            if not self._arrivals.waiting:
                if once:
                    names = "checkpoint-N, ckpt-N, step_N, epoch_N or iter_N"
                    raise UserError(f"{self._folder} holds no checkpoint", expected=names)
                if idle_s is not None and time.monotonic() - began >= idle_s:
                    raise UserError(
                        f"no checkpoint came in {self._folder} within {idle_s / 60:g} minutes",
                        hint="is that the folder the trainer writes (output_dir)?",
                    )
            if not told and not once:
                there = "holds no checkpoint yet" if self._folder.is_dir() else "does not exist yet"
                self._say(f"{self._folder} {there}: waiting for one")
                self._prober.warm_up()
                told = True
            self._sleep()

    def _begin(self) -> None:
        """Take the folder, with what an earlier watch left in it."""
        probes = self._folder / "probes"
        if probes.is_symlink():
            raise FolderTaken(
                f"{probes} is a link, and verdicts are to be written there",
                hint=f"look whose folder {self._folder} is, and remove the link",
            )
        check_inside(probes)
        try:
            self._stack.enter_context(writing(probes))
        except FolderTaken as error:
            message = error.problems[0].message
            if "is being written by" not in message:
                raise
            raise FolderTaken(
                message.replace(f"{probes} is being written by", f"{self._folder} is being watched by"),
                hint="one watch per folder: wait for it, or stop it",
            ) from error
        holding.release_all(self._folder)
        self._ledger = Ledger(probes)
        if self._baseline is not None:
            self._ask_baseline(self._baseline)
        self._read_what_was_asked()

    def _follow(self) -> None:
        idle_since = time.monotonic()
        while not self._interruption.asked_for:
            due = [arrival for arrival in self._arrivals.look() if self._is_due(arrival)]
            self._say_what_went({arrival.name for arrival in due})
            if due:
                self._ask(due[0])
                idle_since = time.monotonic()
                continue
            idle_s = 0.0 if self._options.once else self._options.idle_s
            if any(not self._is_known(name, now) for name, now in self._arrivals.waiting.items()):
                idle_since = time.monotonic()
            elif idle_s is not None and time.monotonic() - idle_since >= idle_s:
                break
            self._sleep()

    def _sleep(self) -> None:
        end = time.monotonic() + _LOOK_EVERY_S
        while not self._interruption.asked_for and time.monotonic() < end:
            time.sleep(_NOTICE_SIGNAL_S)

    def _say(self, line: str) -> None:
        self._console.print(Text(printable(line)), soft_wrap=True)

    # --- what is to be asked ---

    def _key(self) -> str:
        single = [given for given in self._options.probes if "::" in given]
        return probes_key(self._files, [*self._options.suites, *single])

    def _read_what_was_asked(self) -> None:
        """Put the checkpoints that an earlier watch asked the same into the matrix."""
        key = self._key()
        found = [one for one in self._ledger.all() if one.name != _BASELINE and self._verdict_path(one.name).is_file()]
        gone = {one.name for one in found if is_gone(self._folder, one.name)}
        left_out = [one.name for one in found if one.name in gone and one.probes_key != key]
        if left_out:
            self._say(f"left out, because the probes changed and they are gone: {', '.join(left_out)}")
        if found and len(gone) == len(found):
            self._say(f"left out, because nothing of their training is left: {', '.join(sorted(gone - {*left_out}))}")
            return
        for one in found:
            if one.probes_key == key:
                self._sweep.put(one.name, verdicts.read(self._verdict_path(one.name)), one.loss)
        if self._sweep.names:
            self._say(f"asked before: {', '.join(self._sweep.names)}")

    def _is_due(self, arrival: Arrival) -> bool:
        """Whether a checkpoint has no verdicts of these probes and of its weights."""
        if self._passed_over.get(arrival.name) == arrival.signature:
            return False
        if self._is_known(arrival.name, arrival.signature):
            return False
        asked = self._ledger.get(arrival.name)
        if arrival.name not in self._sweep.names or asked is None:
            return arrival.name != FINAL or not self._is_a_copy(arrival)
        if not arrival.problem and asked.weights_sha256 == weights_sha256(arrival.path):
            # touched, moved or copied: the same weights
            self._ledger.put(replace(asked, files=files_key(arrival.signature)))
            return False
        return True

    def _is_known(self, name: str, now: Signature) -> bool:
        """Whether a checkpoint was asked the same, and none of its files changed since."""
        asked = self._ledger.get(name)
        return asked is not None and name in self._sweep.names and asked.files == files_key(now)

    def _is_a_copy(self, final: Arrival) -> bool:
        """Whether the weights in the folder itself are those of a checkpoint that was asked."""
        digest = weights_sha256(final.path)
        same = any(one.weights_sha256 == digest for one in self._ledger.all() if one.name in self._sweep.names)
        if same:
            self._passed_over[FINAL] = final.signature  # large files are read once
        return same

    def _say_what_went(self, due: set[str]) -> None:
        """Name what was complete and was deleted before its turn came."""
        for name in sorted(self._queued - due, key=loadable.natural):
            if is_gone(self._folder, name):
                self._say(f"{name} {_TOO_FEW}")
        self._queued = due

    # --- asking ---

    def _ask(self, arrival: Arrival) -> None:
        self._queued.discard(arrival.name)
        try:
            if arrival.name == FINAL or arrival.problem:
                self._ask_at(arrival, arrival.path)
                return
            with holding.held(arrival.path) as folder:
                self._ask_at(arrival, folder)
        except FileNotFoundError:
            if not arrival.path.is_dir():  # else it is being written anew, and is looked at again
                self._say(f"{arrival.name} {_TOO_FEW}")
        except ProberDied as died:
            self._passed_over[arrival.name] = arrival.signature
            self._died[arrival.name] = str(died)
            self._say(f"{arrival.name}: its prober {died.how}")

    def _ask_at(self, arrival: Arrival, folder: Path) -> None:
        key, loss, before = self._key(), loadable.loss(arrival.path), signature(folder)
        file = self._prober.ask(arrival.name, folder, str(arrival.path), self._sweep.baseline)
        if not folder.is_dir() and any(verdict.outcome == "error" for verdict in file.verdicts):
            self._say(f"{arrival.name} was deleted while it was asked: its verdicts are not kept")
            return
        if folder.is_dir() and signature(folder) != before:
            self._say(f"{arrival.name} was written anew while it was asked: it is asked again")
            return
        if arrival.problem:
            self._say(f"{arrival.name} cannot be loaded: {arrival.problem}")
        before_it = self._ledger.get(arrival.name)
        if before_it is not None and before_it.weights_sha256 != file.weights_sha256:
            self._forget_after(arrival.name)
        verdicts.write(self._verdict_path(arrival.name), file)
        self._ledger.put(Asked(arrival.name, key, file.weights_sha256, files_key(arrival.signature), loss))
        self._died.pop(arrival.name, None)
        self._sweep.put(arrival.name, file, loss)
        for line in self._sweep.lines(arrival.name):
            self._say(line)

    def _forget_after(self, name: str) -> None:
        """Other weights under an old name: training began anew, or went on from there. What it had come to before and
        is gone is of another training."""
        after = [one for one in self._sweep.names if one != FINAL and loadable.natural(one) > loadable.natural(name)]
        other = [one for one in after if is_gone(self._folder, one)]
        if other:
            self._sweep.drop(other)
            self._ledger.forget(other)
            self._say(f"left out, because {name} is of another training now: {', '.join(other)}")

    def _ask_baseline(self, target: targets.Target) -> None:
        """Ask the checkpoint that all others are compared with, unless it was asked the same before."""
        files = files_key([str(target.path), signature(target.path)])
        now = Asked(_BASELINE, self._key(), weights_sha256(target.path), files)
        path = self._verdict_path(_BASELINE)
        if self._ledger.get(_BASELINE) == now and path.is_file():
            self._sweep.baseline = verdicts.read(path)
            return
        try:
            self._sweep.baseline = self._prober.ask(_BASELINE, target.path, target.name, None)
        except ProberDied as died:
            raise TrainingFailed(str(died)) from died
        verdicts.write(path, self._sweep.baseline)
        self._ledger.put(now)
        self._say(f"baseline {target.name}: asked")

    def _verdict_path(self, name: str) -> Path:
        return checkpoints.verdict_path(self._folder / name)
