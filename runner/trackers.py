"""Trackers by the names that transformers has for them: which there are, and whether they can be used here.

What is logged is the trainer's own to send (`train/`); this is read where a recipe is checked, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

TRACKERS: Mapping[str, tuple[str, ...]] = {
    "azure_ml": ("azureml.core",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dagshub": ("dagshub", "mlflow"),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""Name → the modules that it needs. Not here: kubeflow, which transformers turns on by itself inside such a job."""

_PACKAGES = {
    "azureml.core": "azureml-core",
    "comet_ml": "comet-ml",
    "tensorboard": "'recipe-runner[trackers]'",
}


def missing(name: str) -> str | None:
    """The line that installs what a tracker lacks, or None where it can be used."""
    lacking = [module for module in TRACKERS[name] if not _is_installed(module)]
    if not lacking:
        return None
    return f"pip install {' '.join(_PACKAGES.get(module, module) for module in lacking)}"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is not there either
        return False
