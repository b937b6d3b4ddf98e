"""A real Slurm of one node on this machine, of its own ports and folder: munged, slurmctld and slurmd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
ReturnToService=2
MpiDefault=none
KillWait=15
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why there can be none here; empty where there can."""
    if os.geteuid() != 0:
        return "a Slurm of its own needs root"
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if shutil.which(name) is None]
    return f"needs {', '.join(missing)}: apt-get install slurm-wlm munge" if missing else ""


@contextmanager
def cluster() -> Iterator[None]:
    """While it runs, Slurm's commands find it by `SLURM_CONF`."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _begin(folder, daemons)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        _wait(lambda: said("sinfo", "--noheader", "--format=%T").strip() == "idle")
        yield
    finally:
        with suppress(subprocess.SubprocessError, AssertionError):
            said("scancel", "--state=PENDING", "--state=RUNNING", "--me")
            _wait(lambda: not said("squeue", "--noheader").strip(), 40)
        os.environ.pop("SLURM_CONF", None)
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _begin(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> None:
    folder.chmod(0o755)  # munged refuses a socket that others cannot reach
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(folder=folder, host=host, ports=_free_ports(), cores=os.cpu_count())
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    munged = ["munged", "--foreground", "--num-threads=2", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed"]
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "daemons.log").open("wb") as log:
        daemons.append(subprocess.Popen(munged, stdout=log, stderr=log))
        _wait((folder / "munge.socket").exists)
        for name in ("slurmctld", "slurmd"):
            daemons.append(subprocess.Popen([name, "-D"], stdout=log, stderr=log, env=environment))


def said(*command: str) -> str:
    """What a command of Slurm printed."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, other)]


def _wait(ready: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        with suppress(subprocess.CalledProcessError):  # slurmctld does not answer yet
            if callable(ready) and ready():
                return
        assert time.monotonic() < end, "Slurm does not answer"
        time.sleep(0.1)
