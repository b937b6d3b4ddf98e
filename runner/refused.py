"""What the operating system refuses a process, in words: room on a disk, a place to write, memory.

Libraries say it in many ways; here they become one sentence, what to do, and an exit code.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from runner.errors import EXIT_TRAINING_FAILED, EXIT_USER_ERROR, Problem, first_line, printable

_AGAIN = "run the same command again: it goes on where it was"
_ROOM = f"make room, then {_AGAIN}"
_EXHAUSTED = {
    errno.ENOSPC: ("no space left on the disk", _ROOM),
    errno.EDQUOT: ("the disk quota is used up", _ROOM),
    errno.EFBIG: ("files may not become that large here (ulimit -f)", f"raise the limit, then {_AGAIN}"),
    errno.EIO: ("the disk reports an error", f"look at the disk, then {_AGAIN}"),
    errno.EMFILE: ("too many open files (ulimit -n)", f"raise the limit, then {_AGAIN}"),
    errno.ENFILE: ("too many open files on this machine", f"end other processes, then {_AGAIN}"),
    errno.ENOMEM: ("no memory left", f"end other processes, then {_AGAIN}"),
}
"""The machine gave out: what was won is kept."""
_MISPLACED = {
    errno.EROFS: ("the file system is read-only", "write elsewhere, or make it writable"),
    errno.EACCES: ("permission denied", "write elsewhere, or change the permissions"),
    errno.EPERM: ("not permitted", "write elsewhere, or change the permissions"),
    errno.ENOENT: ("no such file or folder", f"was it removed meanwhile? then {_AGAIN}"),
    errno.ESTALE: ("the network file system has lost it", f"mount it again, then {_AGAIN}"),
    errno.ENOTDIR: ("a part of this path is no folder", "write elsewhere"),
    errno.EISDIR: ("it is a folder, and a file is wanted", "write elsewhere"),
    errno.ENAMETOOLONG: ("the name is too long for the file system", "choose a shorter one"),
}
"""A place cannot be read or written."""
_NO_PROGRAM = ("there is no such program, and no such file", f"install it, or put it back, then {_AGAIN}")
"""Of a name without a folder: what starts a program names it so, for example a compiler."""
_MEMORY = (
    "no memory left",
    f"train with a smaller micro_batch_size or model, or where there is more memory, then {_AGAIN}",
)
_A_FEW_LINES_BYTES = 4096
"""What a file takes at least on most file systems."""
IN_SHORT = "what the system refused:"
"""In a log: behind the traceback, before what is to be shown of it."""
_RUST = re.compile(r"\(os error (\d+)\)")
"""How safetensors and tokenizers end the message of an error of the system."""
_NO_ROOM = re.compile(
    r"\d+ requested and \d+ written"  # numpy, whose OSError has no number then
    r"|inline_container\.cc.*unexpected pos|PytorchStreamWriter failed writing"  # torch.save
)
_NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't|not enough)|[Cc]annot allocate memory|CUDA out of memory")


@dataclass(frozen=True)
class Refusal:
    """What was refused."""

    problem: Problem
    exit_code: int
    """3 where the machine gave out, 2 where a place cannot be read or written."""
    is_sure: bool = True
    """Otherwise a fault of the program may look the same, and how it came to that is to be shown."""

    def screen(self) -> str:
        """As users see it."""
        return self.problem.screen()


def refusal(error: BaseException) -> Refusal | None:
    """What the system refused, where that is what an error comes of; else None."""
    seen: set[int] = set()
    following: BaseException | None = error
    is_cause = True
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        found = _of(following)
        # in the handling of a file that is not there anything may go wrong: that is no matter of the file
        if found is not None and (is_cause or found.exit_code == EXIT_TRAINING_FAILED):
            return found
        is_cause = is_cause and following.__cause__ is not None
        following = following.__cause__ or following.__context__
    return None


def tell(error: BaseException) -> None:
    """Print what ended a child process into its log: how it came to that, then what was refused, where it is that.

    Raises:
        OSError: the disk that the log is on is full.
    """
    traceback.print_exception(error)
    refused = refusal(error)
    if refused is None:
        return
    if refused.is_sure:
        print(IN_SHORT, file=sys.stderr)
    print(refused.screen(), file=sys.stderr)


def in_short(log: str) -> str:
    """What of a child's log is to be shown: where the system refused it something that is said in short, only that."""
    return log.rpartition(f"{IN_SHORT}\n")[2]


def gave_out(error: OSError) -> bool:
    """Whether the machine gave out, as a full disk does: then no other place is to be asked for."""
    return error.errno in _EXHAUSTED


def about_room(folder: Path) -> str:
    """Why nothing may have been printed there, and what to do: that the disk is full, or nothing."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    is_full = found.f_bavail * found.f_frsize < _A_FEW_LINES_BYTES
    return ": " + "; ".join(_EXHAUSTED[errno.ENOSPC]) if is_full else ""


def _of(error: BaseException) -> Refusal | None:
    words = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(words)):
        said = f": {printable(first_line(words))}" if words.strip() else ""  # how much was asked for, and of what
        return Refusal(Problem(_MEMORY[0] + said, hint=_MEMORY[1]), EXIT_TRAINING_FAILED)
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (rust := _RUST.search(words)):
        number = int(rust[1])
    if number is None and isinstance(error, (OSError, RuntimeError)) and _NO_ROOM.search(words):
        number = errno.ENOSPC
    if number is None:
        return None
    place = _place(error)
    if number in _EXHAUSTED:
        return _refusal(_EXHAUSTED[number], place, EXIT_TRAINING_FAILED)
    if number == errno.ENOENT and place:
        said_of_it = _MISPLACED[number] if os.sep in place else _NO_PROGRAM
        return replace(_refusal(said_of_it, place, EXIT_USER_ERROR), is_sure=False)
    # without a place it tells a user nothing, and is more likely a fault of ours
    return _refusal(_MISPLACED[number], place, EXIT_USER_ERROR) if number in _MISPLACED and place else None


def _place(error: BaseException) -> str:
    """The file that an error of the system names."""
    named = [getattr(error, name, None) for name in ("filename2", "filename")]
    found = next((name for name in named if isinstance(name, (str, bytes, os.PathLike))), "")
    return os.fsdecode(found)


def _refusal(said: tuple[str, str], place: str, exit_code: int) -> Refusal:
    words, hint = said
    return Refusal(Problem(f"{place}: {words}" if place else words, hint=hint), exit_code)
