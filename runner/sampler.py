"""The parent's side of `{sample: …}`: a child asks a checkpoint, and its replies come into the run."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from runner.children import Host
from runner.data.samples import Request
from runner.errors import EXIT_USER_ERROR, Interrupted, TrainingFailed, UserError

_LOOK_EVERY_S = 0.05


def ask(host: Host, run: Path, request: Request, file: Path, interrupted: Callable[[], bool]) -> None:
    """Have `request` answered into `file`, which is there whole when this returns. Nothing limits how long that takes:
    no code of a user runs there, and each reply ends by `max_new_tokens`.

    Raises:
        UserError: the checkpoint or the data cannot be read.
        TrainingFailed: the child died.
        Interrupted: `interrupted` said so meanwhile; nothing is kept.
    """
    log = run / "events" / f"sample-{request.data}-{request.number}.log"
    argv = [str(run), request.data, str(request.number), request.label, request.path, str(file)]
    child = host.start("sample", argv, log)
    with child.relay(request.label) as relay:
        while child.exit_code is None:
            host.poll(_LOOK_EVERY_S)
            relay.look()
            if interrupted():
                host.signal(child, signal.SIGKILL)
    if interrupted():
        raise Interrupted("interrupted while a checkpoint was asked for negatives: the same command resumes")
    if child.exit_code == EXIT_USER_ERROR:
        raise UserError(child.log_tail())
    if child.exit_code != 0 or not file.is_file():
        raise TrainingFailed(
            f"asking {request.label} for negatives {child.how_it_ended()}; the end of {log}:\n{child.log_tail()}"
        )
