"""The GPUs of this machine, found without importing torch."""

from __future__ import annotations

import os
from pathlib import Path


def visible_gpus() -> list[str]:
    """NVIDIA devices that are not hidden."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    if hidden is None:
        return devices
    return devices[: len([part for part in hidden.split(",") if part.strip() not in ("", "-1")])]
