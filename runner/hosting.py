"""The host of a command, started when its first child is needed, and shared by all runs of that command."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from runner import launch
from runner.children import Host


class Hosting:
    """A context manager; leaving it ends the host and its children.

    Args:
        root: the working folder of the children.
        log: what the host prints.
        preferences: whether some stage needs TRL, which is then imported while the first child works.
        gpus: the devices that are visible.
    """

    def __init__(self, root: Path, log: Path, *, preferences: bool, gpus: Sequence[str]) -> None:
        self._root, self._log, self._preferences, self._gpus = root, log, preferences, gpus
        self._host: Host | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Hosting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._host = None

    def start(self, first: str) -> Host:
        """The host; where it does not run yet it is started, and imports the module `first` at once."""
        if self._host is None:
            then = [launch.PROBER] if first != launch.PROBER else []
            if then and self._preferences:
                then.append(launch.PREFERENCE_TRAINER)
            environment = dict(launch.environment())
            if len(self._gpus) > 1:  # a trainer takes all it sees, and one process is all this version starts
                environment["CUDA_VISIBLE_DEVICES"] = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
            argv = launch.host_argv(first, then)
            self._host = self._stack.enter_context(Host(argv, environment, self._log, self._root))
        return self._host
