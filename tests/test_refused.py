"""runner.refused: what the system refuses, in words; and the real thing: files that may not grow, memory that ends."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner import host
from runner.children import Child
from runner.cli.root import guarded
from runner.refused import about_room, refusal

AGAIN = "run the same command again: it goes on where it was"


def system(number: int, place: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), place)


SCREENS: dict[str, tuple[BaseException, str, int]] = {
    "a full disk": (
        system(errno.ENOSPC, "run/qa"),
        f"run/qa: no space left on the disk\n    hint: make room, then {AGAIN}",
        3,
    ),
    "a full disk, of what file it does not say": (
        system(errno.ENOSPC),
        f"no space left on the disk\n    hint: make room, then {AGAIN}",
        3,
    ),
    "a full disk, in numpy's words": (
        OSError("4000 requested and 1234 written"),
        f"no space left on the disk\n    hint: make room, then {AGAIN}",
        3,
    ),
    "a full disk, in torch's words": (
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        f"no space left on the disk\n    hint: make room, then {AGAIN}",
        3,
    ),
    "a full disk, in safetensors' words": (
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        f"no space left on the disk\n    hint: make room, then {AGAIN}",
        3,
    ),
    "a quota": (system(errno.EDQUOT, "x"), f"x: the disk quota is used up\n    hint: make room, then {AGAIN}", 3),
    "a broken disk": (
        system(errno.EIO, "x"),
        f"x: the disk reports an error\n    hint: look at the disk, then {AGAIN}",
        3,
    ),
    "too many files": (
        system(errno.EMFILE),
        f"too many open files (ulimit -n)\n    hint: raise the limit, then {AGAIN}",
        3,
    ),
    "memory": (
        MemoryError(),
        "no memory left\n    hint: train with a smaller micro_batch_size or model, or where there is more memory, then "
        + AGAIN,
        3,
    ),
    "memory, in torch's words": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        "no memory left: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes\n"
        "    hint: train with a smaller micro_batch_size or model, or where there is more memory, then " + AGAIN,
        3,
    ),
    "memory of a device, with its cause": (
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation"),
        "no memory left: CUDA out of memory. Tried to allocate 20.00 GiB.\n"
        "    hint: train with a smaller micro_batch_size or model, or where there is more memory, then " + AGAIN,
        3,
    ),
    "a read-only file system": (
        system(errno.EROFS, "/mnt/x"),
        "/mnt/x: the file system is read-only\n    hint: write elsewhere, or make it writable",
        2,
    ),
    "permission": (
        system(errno.EACCES, "/mnt/x"),
        "/mnt/x: permission denied\n    hint: write elsewhere, or change the permissions",
        2,
    ),
    "a file that is gone": (
        system(errno.ENOENT, "run/qa/ckpt-8/config.json"),
        f"run/qa/ckpt-8/config.json: no such file or folder\n    hint: was it removed meanwhile? then {AGAIN}",
        2,
    ),
    "a program that is missing": (
        system(errno.ENOENT, "gcc"),
        f"gcc: there is no such program, and no such file\n    hint: install it, or put it back, then {AGAIN}",
        2,
    ),
}
MAY_BE_A_FAULT = {"a file that is gone", "a program that is missing"}
"""Shown with how it came to that."""


@pytest.mark.parametrize("name", SCREENS)
def test_what_is_refused_is_said_with_what_to_do(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, screen, code = SCREENS[name]

    def fails() -> None:
        raise error

    assert guarded(fails) == code
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") == (name in MAY_BE_A_FAULT)
    assert shown.endswith(screen + "\n")
    assert name in MAY_BE_A_FAULT or shown == screen + "\n"


@pytest.mark.parametrize("name", SCREENS)
def test_a_child_has_how_it_came_to_that_in_its_log_and_its_parent_shows_what_was_refused(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    error, screen, code = SCREENS[name]
    assert host._tell_of(error) == code
    log = tmp_path / "train-qa.log"
    log.write_text("Warming up\n" + capsys.readouterr().err, encoding="utf-8")
    assert type(error).__name__ in log.read_text(encoding="utf-8")
    tail = Child(0, "train", log).log_tail()
    assert tail.endswith(screen)
    assert (tail == screen) == (name not in MAY_BE_A_FAULT)


def test_it_is_found_behind_other_errors() -> None:
    error = RuntimeError("could not save")
    error.__context__ = system(errno.ENOSPC, "x")  # as where a library raises its own in the handling of it
    found = refusal(error)
    assert found is not None
    assert found.problem.message == "x: no space left on the disk"


def test_a_fault_in_the_handling_of_a_missing_file_is_a_fault() -> None:
    error = KeyError("a bug")
    error.__context__ = system(errno.ENOENT, "x")
    assert refusal(error) is None
    assert refusal(ValueError("no space left")) is None


def test_a_disk_with_room_is_not_blamed_for_an_empty_log(tmp_path: Path) -> None:
    assert about_room(tmp_path) == ""
    assert about_room(tmp_path / "gone") == ""


# --- the real thing ---


def limited(code: str, limit: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    """Python code, of which `work` is then called as a command is; in a process with a limit."""
    text = f"{code}\nimport sys\nfrom runner.cli.root import guarded\nsys.exit(guarded(work))\n"
    return subprocess.run(
        [sys.executable, "-c", text], preexec_fn=limit, capture_output=True, text=True, check=False, timeout=120,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip


def test_a_file_that_may_not_grow_is_named_and_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("before", encoding="utf-8")
    done = limited(
        "from pathlib import Path\nfrom runner.atomic import publish_text\n"
        f"def work():\n    publish_text(Path({str(path)!r}), 'x' * 100_000)\n",
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)),
    )
    hint = f"    hint: raise the limit, then {AGAIN}\n"
    assert (done.returncode, done.stderr) == (
        3,
        f"{path}: files may not become that large here (ulimit -f)\n{hint}",
    )
    assert os.listdir(tmp_path) == ["run.json"]
    assert path.read_text(encoding="utf-8") == "before"


def test_memory_that_ends_is_said_and_is_no_fault_of_the_program() -> None:
    done = limited(
        "def work():\n    bytearray(2**33)\n",
        lambda: resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)),
    )
    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == "no memory left"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_folder_that_may_not_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    done = limited(
        "import os\nfrom pathlib import Path\n"
        "from runner.errors import FolderTaken\nfrom runner.folder import writing\n"
        f"def work():\n    os.chdir({str(tmp_path)!r})\n    os.setuid(65534)\n    try:\n"
        "        with writing(Path('run')):\n            pass\n"
        "    except FolderTaken as error:\n        print(error.screen(), file=sys.stderr)\n        return 2\n",
        lambda: None,
    )
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ["run cannot be written: Permission denied",
         "    hint: change its permissions, or give another folder with --out"],
    )  # fmt: skip
    assert os.listdir(tmp_path / "run") == []
