"""Where generation ends: the stop token of the chat template, in what is published, so that others stop there too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

if TYPE_CHECKING:
    from peft import PeftModel

FILE = "generation_config.json"


def stop_at(network: PreTrainedModel | PeftModel, stop_id: int) -> None:
    """Let generation end at this token, besides those at which it ended before."""
    settings = network.generation_config
    if settings is None:
        return
    before = settings.eos_token_id
    known = [before] if isinstance(before, int) else list(before or ())
    settings.eos_token_id = list(dict.fromkeys([stop_id, *known]))


def write(network: PreTrainedModel | PeftModel, saved: Path) -> None:
    """Put the settings of generation beside an adapter, which PEFT saves without them."""
    if not (saved / FILE).exists() and network.generation_config is not None:
        network.generation_config.save_pretrained(saved)
