"""The host of a command, started when its first child is needed, and shared by all runs of that command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from runner import launch
from runner.children import Child, Host
from runner.errors import UserError
from runner.nodes import ALONE, Lead, Node

_LOOK_EVERY_S = 0.05


class Hosting:
    """A context manager; leaving it ends the host and its children.

    Args:
        root: the working folder of the children.
        log: what the host prints.
        preferences: whether some stage needs TRL, which is then imported while the first child works.
        gpus: the devices that are visible.
        several: whether more than one process trains.
        node: which machine of how many this is.
    """

    def __init__(
        self,
        root: Path,
        log: Path,
        *,
        preferences: bool,
        gpus: Sequence[str],
        several: bool = False,
        node: Node = ALONE,
    ) -> None:
        self._root, self._log, self._preferences, self._gpus = root, log, preferences, gpus
        self._several, self._node = several or node.count > 1, node
        self._host: Host | None = None
        self._lead: Lead | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Hosting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._host = self._lead = None

    def start(self, first: str) -> Host:
        """The host; where it does not run yet it is started, and imports the module `first` at once."""
        if self._host is None:
            if first == launch.TRAINER and self._several:
                first = launch.LAUNCHER
            then = [launch.PROBER] if first != launch.PROBER and self._node.rank == 0 else []
            if first != launch.PROBER and self._preferences:
                then.append(launch.PREFERENCE_TRAINER)
            argv = launch.host_argv(first, then)
            self._host = self._stack.enter_context(Host(argv, launch.environment(), self._log, self._root))
        return self._host

    # --- trainers ---

    def train(self, run: Path, stage: str, processes: int, attempt: str = "") -> Child:
        """Start the trainers of a stage: one process, or what starts several of them.

        Args:
            run: the folder of the run.
            stage: its name.
            processes: of all nodes together.
            attempt: a name that all nodes know; on node 0 it is made, and told the others.

        Raises:
            UserError: this node has too few devices.
        """
        host, here = self.start(launch.TRAINER), processes // self._node.count
        if 0 < len(self._gpus) < here:
            raise UserError(f"node {self._node.rank} has {len(self._gpus)} GPUs, and each is to have {here} processes")
        environment = launch.trainer_environment(here, self._gpus)
        log = (
            run
            / "events"
            / (f"train-{stage}.log" if not self._node.rank else f"train-{stage}.node-{self._node.rank}.log")
        )
        if processes == 1:
            return host.start("train", launch.train_argv(run, stage), log, environment)
        if self._lead is not None:
            attempt = self._lead.announce(run, stage, here)
        node = self._node
        argv = launch.launcher_argv(run, stage, here, (node.rank, node.count), node.rendezvous, attempt)
        return host.start("launch", argv, log, environment)

    # --- other nodes ---

    def lead(self, folder: Path, recipe: str) -> None:
        """Let the other nodes, if there are any, hear of this one from now on.

        Args:
            folder: of the command's results.
            recipe: digest of what is run.
        """
        if self._node.count > 1 and self._lead is None:
            self._lead = self._stack.enter_context(Lead(folder, self._node, recipe))

    def gather(self, tell: Callable[[str], None], left: Callable[[], bool]) -> None:
        """See `Lead.gather`."""
        if self._lead is not None:
            self._lead.gather(tell, left)

    def check_nodes(self) -> None:
        """See `Lead.check`."""
        if self._lead is not None:
            self._lead.check()

    def about_nodes(self) -> str:
        """See `Lead.about_others`; it ends in a newline where it says anything."""
        words = self._lead.about_others() if self._lead is not None else ""
        return f"{words}\n" if words else ""
