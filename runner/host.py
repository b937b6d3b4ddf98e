"""The process that has imported torch and forks a trainer or a prober per request.

It runs no tensor operation and starts no thread of its own: a process that has only imported torch can be forked
safely, one that has computed with it cannot. Requests come as JSON lines on standard input, news goes to standard
output, and the end of standard input is the end of this process and of its children.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from select import POLLHUP, poll, select
from typing import Any

from runner import launch, underway
from runner.children import SAY_WHERE
from runner.orphans import die_with_parent
from runner.refused import refusal, tell

THEN = "--then"
_LEAVE = (signal.SIGTERM, signal.SIGINT)


def main(modules: list[str]) -> None:
    """Import the modules named before THEN, and serve until standard input closes; the others are imported once the
    first child has been forked, which needs none of them."""
    die_with_parent()  # while it imports, it does not see its standard input close
    if _is_closed(0):
        return  # the parent died before that was in force
    for number in _LEAVE:
        # a scheduler tells every process of a job; this one ends with its parent, which waits for what trainers save
        signal.signal(number, signal.SIG_IGN)
    at = modules.index(THEN)
    preload, later = modules[:at], modules[at + 1 :]
    news = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever an import prints goes to the log
    for module in preload:
        importlib.import_module(module)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    unread = b""
    while True:
        ready, _, _ = select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            _report_ended(running, news)
        if 0 in ready:
            block = os.read(0, 65536)
            if not block:
                os.killpg(os.getpgid(0), signal.SIGKILL)  # the parent is gone; leave nothing behind
            *lines, unread = (unread + block).split(b"\n")
            for line in lines:
                request = json.loads(line)
                running[pid := _fork(request)] = request["number"]
                _tell(news, number=request["number"], pid=pid)
            if any(json.loads(line)["kind"] == "look" for line in lines):
                continue  # the first child that trains comes soon after it, and must not wait for what it does not need
            for module in later:
                importlib.import_module(module)
            later = []


def _tell(news: Any, **row: Any) -> None:
    news.write(json.dumps(row) + "\n")
    news.flush()


def _report_ended(running: dict[int, int], news: Any) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _tell(news, number=running.pop(pid), exit_code=os.waitstatus_to_exitcode(status))


def _fork(request: dict[str, Any]) -> int:
    parent = os.getpid()
    # a child that is told to leave before it can listen must not take that for its parent's deafness
    signal.pthread_sigmask(signal.SIG_BLOCK, _LEAVE)
    if pid := os.fork():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEAVE)
        return pid
    code = 70
    try:
        os.environ.update(request["environment"])  # before it looks for a device
        _become_child(parent, Path(request["log"]))
        underway.tell(underway.beside(Path(request["log"])))
        code = _run(request["kind"], request["argv"])
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the boundary of a process: whatever it was, the log has it and the parent hears of it
        code = _tell_of(error)
    finally:
        with suppress(OSError):  # the disk that the log is on may be full
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _tell_of(error: BaseException) -> int:
    """Print what ended a child, and give its exit code."""
    with suppress(OSError):  # the disk that the log is on may be full
        tell(error)
    refused = refusal(error)
    return refused.exit_code if refused else 70


def _become_child(parent: int, log: Path) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEAVE)
    die_with_parent()
    if os.getppid() != parent:
        os._exit(70)  # the host died between the fork and this line
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((out, 1), (out, 2), (null, 0)):
        os.dup2(source, target)


def _is_closed(pipe: int) -> bool:
    """Whether nobody can write to a pipe any more; nothing is read from it."""
    looked = poll()
    looked.register(pipe, 0)  # a hang-up is always reported
    return any(event & POLLHUP for _, event in looked.poll(0))


def _run(kind: str, argv: list[str]) -> int:
    if kind == "train":
        from runner.train import worker

        return worker.main(argv)
    if kind == "launch":
        from runner.train import launcher

        return launcher.main(argv)
    if kind == "export":
        from runner.train import exporting

        return exporting.main(argv)
    if kind == "look":
        from runner.train import looking

        return looking.main_offline(argv)
    if kind == "sample":
        from runner.probing import sampling

        return sampling.main(argv)
    import pytest

    faulthandler.register(SAY_WHERE, all_threads=False)  # for a probe that does not return
    os.environ[launch.IN_A_RUN] = "1"
    return int(pytest.main(argv))


if __name__ == "__main__":
    main(sys.argv[1:])
