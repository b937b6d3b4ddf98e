"""Where a recipe is trained: processes, nodes, DeepSpeed, Slurm. Nothing here decides what is learned."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from runner.spec.blocks import Block, one_or_many

RENDEZVOUS_PATTERN = r"^[^\s:/]+:\d+$|^\[[0-9A-Fa-f:]+\]:\d+$"
DEEPSPEED = ("zero1", "zero2", "zero3", "offload")
"""Names of the DeepSpeed configurations that are written from the recipe; anything else is a file."""


SLURM_TIME_PATTERN = r"^(\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}|infinite|UNLIMITED)$"
"""What sbatch takes for --time (its man page): minutes, minutes:seconds, hours:minutes:seconds, days-hours,
days-hours:minutes, days-hours:minutes:seconds."""


def _as_written(value: object) -> object:
    """A number of minutes is a number to YAML."""
    return str(value) if type(value) is int else value


class Slurm(Block):
    """What `recipe run FILE --slurm` asks of the cluster."""

    partition: str | None = None
    """The partition; default: the cluster's."""
    account: str | None = None
    """Who is charged."""
    time: Annotated[str, BeforeValidator(_as_written), Field(pattern=SLURM_TIME_PATTERN)] | None = None
    """The longest it may take, as sbatch reads it: `12:00:00` (hours), `2-00:00:00` (days), `90` (minutes)."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs of each node; 0 for processes on CPUs. Default: `processes`, where it is a number."""
    cpus_per_task: Annotated[int, Field(ge=1)] | None = None
    """Cores of each node's task; the task starts all processes of its node."""
    mem: str | None = None
    """Memory of each node, as Slurm writes it: `64G`."""
    requeue: bool = True
    """Whether a run that is preempted, or whose time is up, saves its state and is put into the queue again."""
    setup: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] = ()
    """Lines of shell before the run starts, for example `source .venv/bin/activate`."""
    options: dict[str, str | int | bool] = Field(default_factory=dict)
    """Any other option of sbatch by its long name: `{constraint: h100, exclusive: true}`."""


class Launch(Block):
    """How the processes of training are started. The weights do not depend on it, but for rounding."""

    processes: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Training processes of each node. `auto`: one for each device that is visible, on CPUs one."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines. The same command runs on each of them, with `--node-rank` or under Slurm; the run's folder is one that
    all of them see."""
    rendezvous: Annotated[str, Field(pattern=RENDEZVOUS_PATTERN)] | None = None
    """`HOST:PORT` of the first node, where the others find it. Needed for several nodes, unless Slurm starts them."""
    deepspeed: str | None = None
    """`zero1`, `zero2`, `zero3`, `offload` (ZeRO-3 with weights and optimizer in the host's memory), or a file with a
    DeepSpeed configuration, which must agree with the recipe."""
    probing: Literal["between", "beside", "elsewhere"] = "between"
    """`between`: training waits while a checkpoint is probed. `beside`: it goes on, and the probes have the last
    visible device to themselves. `elsewhere`: nothing is probed here; `recipe watch RUN` does, on any machine that
    sees it."""
    liger: Literal["auto"] | bool = "auto"
    """Liger's fused kernels; `auto`: where liger-kernel is installed, a CUDA device trains, and they know the model."""
    compile: bool = False
    """torch.compile: a minute or more at the start of each stage, faster steps after it."""
    fused_optimizer: Literal["auto"] | bool = "auto"
    """AdamW in one kernel; `auto`: unless `trainer_args.optim` names another optimizer."""
    slurm: Slurm | None = None
    """What `recipe run FILE --slurm` asks for."""

    @model_validator(mode="after")
    def _one_machine_needs_no_rendezvous(self) -> Launch:
        if self.nodes == 1 and self.rendezvous is not None:
            raise ValueError("rendezvous belongs to several nodes; give nodes, or remove it")
        return self
