"""`recipe` commands without the seconds of imports: forked from one process that has imported everything already.

What is forked is the command itself, and from it its host, in place of a new interpreter each; all that they do, how
they watch each other and how they end is theirs. The process that they come from has run no tensor operation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO


class Forked:
    """In the tests: starts commands through that one process, and learns how they ended."""

    def __init__(self) -> None:
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        argv = [sys.executable, "-m", "tests.faults.forked"]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
        )

    def start(self, cwd: Path, arguments: Sequence[str], log: Path) -> int:
        """Start `recipe ARGUMENTS`; gives its process id."""
        assert self._process.stdin is not None
        print(json.dumps([str(cwd), list(arguments), str(log)]), file=self._process.stdin, flush=True)
        return int(self._line())

    def wait(self) -> int:
        """The exit code of the command that was started last; negative where a signal ended it."""
        assert self._process.stdin is not None
        print("null", file=self._process.stdin, flush=True)
        return int(self._line())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class _Host:
    """Stands for `subprocess.Popen` of a host: a fork of this process in a session of its own."""

    def __init__(
        self, argv: Sequence[str], *, stderr: BinaryIO, env: Mapping[str, str], cwd: Path, **_: object
    ) -> None:
        stdin_read, stdin_write = os.pipe()
        stdout_read, stdout_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for source, target in ((stdin_read, 0), (stdout_write, 1), (stderr.fileno(), 2)):
                os.dup2(source, target)
            for pipe in (stdin_read, stdin_write, stdout_read, stdout_write):
                os.close(pipe)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            from runner import host

            _leave(lambda: host.main(list(argv[argv.index("runner.host") + 1 :])))
        os.close(stdin_read)
        os.close(stdout_write)
        self.stdin, self.stdout = os.fdopen(stdin_write, "wb"), os.fdopen(stdout_read, "rb")

    def wait(self) -> int:
        """Until it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _leave(call: Any) -> None:
    """Call, and leave this process by the code that it ends with."""
    code = 70
    try:
        call()
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _command(cwd: str, arguments: list[str], log: str) -> None:
    from runner import children, cli

    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.chdir(cwd)
    children.subprocess = SimpleNamespace(Popen=_Host, PIPE=subprocess.PIPE)  # type: ignore[assignment]
    sys.argv = ["recipe", *arguments]
    _leave(cli.main)


def main() -> None:
    """Serve until standard input closes."""
    import runner.cli
    import runner.matrix
    import runner.probing.warm
    import runner.train.worker  # noqa: F401

    last = 0
    for line in sys.stdin:
        request = json.loads(line)
        if request is None:
            print(os.waitstatus_to_exitcode(os.waitpid(last, 0)[1]), flush=True)
            continue
        last = os.fork()
        if last == 0:
            _command(*request)
        print(last, flush=True)


if __name__ == "__main__":
    main()
