"""`recipe` commands without the seconds of imports: forked from one process that has imported everything already.

What is forked is the command itself, and from it its host, in place of a new interpreter each; all that they do, how
they watch each other and how they end is theirs. The process that they come from has run no tensor operation.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, BinaryIO

from runner.orphans import die_with_parent

WAIT_S = 300


class Forked:
    """In the tests: starts commands through that one process, and learns how they ended.

    Args:
        modules: what it imports besides what every command needs.
        environment: what is different for all of them.
    """

    def __init__(self, *modules: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        root = Path(__file__).parents[2]
        environment = {**os.environ, **environment, "PYTHONPATH": str(root)}
        argv = [sys.executable, "-m", "tests.faults.forked", *modules]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
        )

    def start(
        self, cwd: Path, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> int:
        """Start `recipe ARGUMENTS`, with a whole environment of its own where one is given; gives its process id."""
        assert self._process.stdin is not None
        wanted = [str(cwd), list(arguments), str(log), None if environment is None else dict(environment)]
        print(json.dumps(wanted), file=self._process.stdin, flush=True)
        return int(self._line())

    def wait(self) -> int:
        """The exit code of the command that was started last; negative where a signal ended it.

        Raises:
            TimeoutError: it does not end; everything that was started through this is ended with it.
        """
        assert self._process.stdin is not None
        print("null", file=self._process.stdin, flush=True)
        return int(self._line())

    def mount(self, folder: Path, size_bytes: int, *, again: bool = False, read_only: bool = False) -> Path:
        """Give all commands a file system of this size at `folder`, in memory; nobody else sees it there.

        Args:
            folder: an empty folder.
            size_bytes: whole pages of it.
            again: change the size of the one that is there, and keep what it holds.
            read_only: nothing can be written to it.

        Returns:
            Where this process sees it.

        Raises:
            OSError: this process may not do so.
        """
        assert self._process.stdin is not None
        wanted = [str(folder), size_bytes, again, read_only]
        print(json.dumps({"mount": wanted}), file=self._process.stdin, flush=True)
        if (number := int(self._line())) != 0:
            raise OSError(number, os.strerror(number), str(folder))
        return Path(f"/proc/{self._process.pid}/root{folder}")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()  # all that was started through it has ended; leaving takes torch its time
        self._process.wait()
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], WAIT_S)[0]:
            self._process.kill()
            raise TimeoutError(f"no command of a test takes {WAIT_S} s")
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


def _command(cwd: str, arguments: list[str], log: str, environment: dict[str, str] | None) -> None:
    from runner import children, cli

    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    os.setsid()
    die_with_parent()  # where the tests are killed themselves
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    os.chdir(cwd)
    children.subprocess = SimpleNamespace(Popen=_Host, PIPE=subprocess.PIPE)  # type: ignore[assignment, attr-defined]
    sys.argv = ["recipe", *arguments]
    _leave(cli.main)


_CLONE_NEWNS, _MS_RDONLY, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 0x20000, 1, 32, 16384, 1 << 18  # linux/mount.h, sched.h


def _leave_namespace() -> int:
    """From now on only this process and its children see what is mounted; gives the number of the error, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    return ctypes.get_errno() if failed else 0


def _mount(folder: str, size_bytes: int, again: bool, read_only: bool) -> int:
    """Mount a tmpfs; gives the number of the error, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = (_MS_REMOUNT if again else 0) | (_MS_RDONLY if read_only else 0)
    options = f"size={size_bytes},mode=755".encode()
    return ctypes.get_errno() if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", flags, options) else 0


def main(modules: Sequence[str]) -> None:
    """Import these modules too, and serve until standard input closes."""
    die_with_parent()
    import runner.cli
    import runner.matrix
    import runner.probing.warm
    import runner.report
    import runner.train.worker  # noqa: F401

    for module in modules:
        importlib.import_module(module)
    last, has_own = 0, False
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, dict):
            failed = 0 if has_own else _leave_namespace()
            has_own = not failed
            print(failed or _mount(*request["mount"]), flush=True)
            continue
        if request is None:
            print(os.waitstatus_to_exitcode(os.waitpid(last, 0)[1]), flush=True)
            continue
        last = os.fork()
        if last == 0:
            _command(*request)
        print(last, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
