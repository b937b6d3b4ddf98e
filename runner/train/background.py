"""Work that training need not wait for: one piece at a time, in a thread; its errors are raised where it is waited for.

It suits work that is done in system calls and digests, during which Python lets the trainer go on.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread


class Background:
    """Nothing is under way at first."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Begin `work`, once what is under way is done."""
        self.wait()
        # a process that is killed, or leaves with an error, does not wait for it: what is not complete is made again
        self._thread = Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until nothing is under way. Raises what the work raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
