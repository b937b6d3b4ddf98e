"""runner.children and runner.host: real processes that are started, watched, interrupted, and never left behind.

The host imports only pytest here, so a child is a real pytest session without torch.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner import launch
from runner.children import Child, Host
from runner.errors import TrainingFailed

ROOT = Path(__file__).parents[1]
QUIET = ["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--import-mode=importlib"]


@contextmanager
def host_in(folder: Path, first: str = "pytest", *then: str) -> Iterator[Host]:
    # an installed package is found by the host itself; a source checkout only with this
    environment = {**launch.environment(), "PYTHONPATH": str(ROOT)}
    with Host(launch.host_argv(first, then), environment, folder / "host.log", folder) as host:
        yield host


def wait(host: Host, until: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it took too long"
        host.poll(0.05)


def start(host: Host, folder: Path, name: str, code: str) -> Child:
    """A probe child that runs one test file."""
    file = folder / f"test_{name}.py"
    file.write_text(code, encoding="utf-8")
    return host.start("probe", [str(file), f"--rootdir={folder}", *QUIET], folder / "logs" / f"{name}.log")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z")


def gone(pid: int, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


SLEEPS = (
    "import os, time\nfrom pathlib import Path\ndef test_sleeps():\n    Path('{flag}').touch()\n    time.sleep(60)\n"
)


def test_children_end_with_their_own_exit_codes_and_print_into_their_own_logs(tmp_path: Path) -> None:
    with host_in(tmp_path) as host:
        passes = start(host, tmp_path, "passes", "def test_a(): pass\n")
        fails = start(host, tmp_path, "fails", "def test_b(): assert '汉字' == ''\n")
        wait(host, lambda: passes.exit_code is not None and fails.exit_code is not None)
    assert (passes.exit_code, fails.exit_code) == (0, 1)
    assert "1 passed" in passes.log_tail()
    assert "'汉字' == ''" in fails.log_tail()
    assert passes.pid != fails.pid


def test_an_error_in_a_child_is_in_its_log_and_ends_only_that_child(tmp_path: Path) -> None:
    with host_in(tmp_path) as host:
        child = host.start("probe", ["--no-such-option"], tmp_path / "a.log")
        wait(host, lambda: child.exit_code is not None)
        after = start(host, tmp_path, "passes", "def test_a(): pass\n")
        wait(host, lambda: after.exit_code is not None)
    assert (child.exit_code, after.exit_code) == (4, 0)
    assert "unrecognized arguments: --no-such-option" in child.log_tail()


def test_a_signal_reaches_the_child_and_its_exit_code_says_which(tmp_path: Path) -> None:
    flag = tmp_path / "began"
    with host_in(tmp_path) as host:
        child = start(host, tmp_path, "sleeps", SLEEPS.format(flag=flag))
        wait(host, flag.exists)
        host.signal(child, signal.SIGTERM)
        wait(host, lambda: child.exit_code is not None)
        host.signal(child, signal.SIGTERM)  # to one that has ended: nothing happens
    assert child.exit_code == -signal.SIGTERM


def test_leaving_the_host_ends_every_child(tmp_path: Path) -> None:
    flag = tmp_path / "began"
    with host_in(tmp_path) as host:
        child = start(host, tmp_path, "sleeps", SLEEPS.format(flag=flag))
        wait(host, flag.exists)
    assert child.pid is not None
    assert gone(child.pid)


def test_a_parent_that_is_killed_leaves_neither_host_nor_child_behind(tmp_path: Path) -> None:
    flag, pids = tmp_path / "began", tmp_path / "pids"
    (tmp_path / "test_sleeps.py").write_text(
        "import os, time\nfrom pathlib import Path\ndef test_sleeps():\n"
        f"    Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{os.getppid()}}')\n"
        f"    Path({str(flag)!r}).touch()\n    time.sleep(60)\n",
        encoding="utf-8",
    )
    code = (
        "from pathlib import Path\nfrom runner import launch\nfrom runner.children import Host\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "host = Host(launch.host_argv('pytest', []), launch.environment(), folder / 'host.log', folder)\n"
        f"argv = [str(folder / 'test_sleeps.py'), f'--rootdir={{folder}}', *{QUIET!r}]\n"
        "host.start('probe', argv, folder / 'a.log')\n"
        "while True:\n    host.poll(1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        end = time.monotonic() + 90
        while not flag.exists():
            assert time.monotonic() < end
            assert parent.poll() is None
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
    child, host = (int(pid) for pid in pids.read_text(encoding="utf-8").split())
    assert gone(child)
    assert gone(host)


def test_a_host_that_cannot_import_says_what(tmp_path: Path) -> None:
    with host_in(tmp_path, "no_such_module") as host:
        with pytest.raises(TrainingFailed) as caught:
            wait(host, lambda: False)
    first, *_, last = str(caught.value).split("\n")
    assert first == "the process that starts trainers and probers died; the end of its log:"
    assert last == "ModuleNotFoundError: No module named 'no_such_module'"


def test_a_host_that_was_killed_is_noticed_and_takes_its_children_with_it(tmp_path: Path) -> None:
    flag = tmp_path / "began"
    with host_in(tmp_path) as host:
        child = start(host, tmp_path, "sleeps", SLEEPS.format(flag=flag))
        wait(host, flag.exists)
        assert child.pid is not None
        parent = int(re.findall(r"PPid:\s+(\d+)", Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8"))[0])
        os.kill(parent, signal.SIGKILL)
        with pytest.raises(TrainingFailed, match="died; the end of its log:"):
            wait(host, lambda: False)
        assert gone(child.pid)
        with pytest.raises(TrainingFailed, match="died; the end of its log:"):
            host.start("probe", [], tmp_path / "b.log")


def test_what_an_import_prints_does_not_disturb_the_news(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text("print('hello from an import')\nimport pytest\n", encoding="utf-8")
    (tmp_path / "chattier.py").write_text("print('and from a later one')\n", encoding="utf-8")
    environment = {**launch.environment(), "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with Host(launch.host_argv("chatty", ["chattier"]), environment, tmp_path / "host.log", tmp_path) as host:
        child = start(host, tmp_path, "passes", "def test_a(): pass\n")
        wait(host, lambda: child.exit_code is not None)
    assert child.exit_code == 0
    assert (tmp_path / "host.log").read_text(encoding="utf-8") == "hello from an import\nand from a later one\n"


def test_what_later_children_need_is_imported_after_the_first_one_was_forked(tmp_path: Path) -> None:
    asks = "import sys\ndef test_a(): assert 'wave' in sys.modules\n"
    with host_in(tmp_path, "pytest", "wave") as host:
        first = start(host, tmp_path, "first", asks)
        wait(host, lambda: first.exit_code is not None)
        second = start(host, tmp_path, "second", asks)
        wait(host, lambda: second.exit_code is not None)
    assert (first.exit_code, second.exit_code) == (1, 0)


def test_a_child_that_printed_nothing_says_so(tmp_path: Path) -> None:
    assert Child(0, "probe", tmp_path / "none.log").log_tail() == "(it printed nothing)"


def test_only_the_end_of_a_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(100)))
    assert Child(0, "train", log).log_tail(2) == "line 98 \ufffd\nline 99 \ufffd"
