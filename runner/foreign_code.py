"""What of a checkpoint would run code of whoever made it: pickled weights, and a model's own Python. Neither is run.

Reading a pickle can run anything. torch's own safe reading (`weights_only`) stands behind this, and has been got around
before (CVE-2025-32434). So weights are safetensors, unless the user, and no recipe, names the folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PICKLES = "RECIPE_PICKLES"
"""The environment variable: folders whose pickled weights may be read, separated as in PATH. It is no setting of a
recipe, because a recipe may come from whoever made the pickle."""
SAFE = ".safetensors"


def is_named(place: Path | str) -> bool:
    """Whether the user names a folder, or an id on a hub, in `RECIPE_PICKLES`."""
    named = [name for name in os.environ.get(PICKLES, "").split(os.pathsep) if name]
    return str(place) in named or Path(place).resolve() in {Path(name).resolve() for name in named}


def refused(folder: Path, weights: Sequence[Path]) -> str:
    """Why the weights of a folder are not read, and on a second line what to do; empty where they may be."""
    pickled = next((file.name for file in weights if file.suffix != SAFE), None)
    if pickled is None or is_named(folder):
        return ""
    return (
        f"{pickled} is a pickle, and reading one can run any code that is in it\n"
        f"    hint: have it saved as safetensors; or, where you trust who made it, set {PICKLES}={folder}"
    )


def arguments(place: Path | str) -> dict[str, Any]:
    """What `from_pretrained` is told in every case."""
    return {"trust_remote_code": False, "use_safetensors": None if is_named(place) else True}


def reworded(reason: str) -> str:
    """What transformers says of a model, without its advice to run the code that comes with it."""
    if "trust_remote_code" not in reason and "custom code" not in reason:
        return reason
    return (
        "it needs Python that comes with it (auto_map in its configuration), and code of a checkpoint is not run here"
    )
