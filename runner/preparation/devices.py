"""Whether the GPUs of this machine are enough for what the recipe asks of them."""

from __future__ import annotations

from collections.abc import Sequence

from runner.errors import BadRecipe
from runner.recipe import Loaded


def check_devices(loaded: Loaded, gpus: Sequence[str]) -> None:
    """Whether each process of this machine can have a device of its own; without any, they train on CPUs.

    Raises:
        BadRecipe: it cannot.
    """
    how = loaded.spec.launch
    beside = how.probing == "beside" and len(gpus) > 1
    room = len(gpus) - beside
    if how.processes == "auto" or not gpus or how.processes <= room:
        return
    raise BadRecipe(
        f"{how.processes} processes, and {len(gpus)} GPU{'s are' if len(gpus) > 1 else ' is'} visible"
        + (", of which the probes have the last (launch.probing: beside)" if beside else ""),
        where=loaded.marks["launch", "processes"].at_value(),
        expected=f"{room} or fewer, or auto",
    )
