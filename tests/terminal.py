"""A real terminal: tmux without a client, whose picture can be taken and whose size can be changed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """One pane, with a server of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def tmux(self, *arguments: str) -> str:
        """What a command of tmux prints."""
        argv = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments]
        # a size that somebody has written down would be believed, whatever the pane's is
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "TMUX")}
        return subprocess.run(argv, capture_output=True, text=True, check=True, env=kept).stdout

    def picture(self) -> list[str]:
        """The lines that are to be seen; one that was wrapped is one line, and so wider than the pane."""
        return [line.rstrip() for line in self.tmux("capture-pane", "-p", "-J").split("\n")]

    def resize(self, width: int, height: int) -> None:
        """Give the pane another size; what runs in it hears of it."""
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def seen(self, fault: Callable[[list[str]], str], timeout_s: float = 60) -> list[str]:
        """A picture that is without fault twice in a row: what stays, not what is just being drawn.

        Args:
            fault: what is wrong with a picture; empty where nothing is.
        """
        end, before = time.monotonic() + timeout_s, "not looked yet"
        while True:
            found = self.picture()
            now = fault(found)
            if not now and not before:
                return found
            before = now
            assert time.monotonic() < end, "\n".join([f"at the end: {now}", *found])
            time.sleep(0.05)

    def shows(self, *words: str) -> list[str]:
        """A picture with all of these words in it."""
        return self.seen(lambda found: ", ".join(word for word in words if word not in "\n".join(found)))


@contextmanager
def terminal(
    folder: Path, argv: Sequence[str], *, width: int = 80, height: int = 24, cwd: Path, **environment: str
) -> Iterator[Terminal]:
    """A terminal in which a program runs; it stays when that ends, and `code` in `folder` is its exit code.

    Args:
        folder: for its socket; a short path.
    """
    given = {"LANG": "C.UTF-8", "TERM": "xterm-256color", **environment}
    command = f"{shlex.join(argv)}; echo $? > {shlex.quote(str(folder / 'code'))}; exec sleep 600"
    made = Terminal(folder / "tmux")
    options = [part for name, value in given.items() for part in ("-e", f"{name}={value}")]
    made.tmux("new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(cwd), *options, command)
    try:
        yield made
    finally:
        made.tmux("kill-server")
