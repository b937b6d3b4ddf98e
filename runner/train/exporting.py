"""The process that merges an adapter for `recipe export`: `runner.host` forks it, as it forks trainers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig

from runner import checkpoints, loadable, model
from runner.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Write the merged weights of an adapter, with its tokenizer and where its replies end, into a folder.

    They are merged in float32 and written in the dtype that the base has.

    Args:
        arguments: the adapter's folder, and the folder to make.
    """
    adapter, out = (Path(argument) for argument in arguments)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        base = model.base_of(adapter)
        with checkpoints.checking(adapter):
            merged = model.load(adapter, "sdpa", "float32")
        has_own = any((adapter / name).is_file() for name in loadable.TOKENIZERS)
        tokenizer = model.load_tokenizer(str(adapter if has_own else base))
    except UserError as error:
        print(error.screen(), file=sys.stderr)
        return error.exit_code
    dtype = getattr(AutoConfig.from_pretrained(base, trust_remote_code=False), "dtype", None) or torch.float32
    merged.to(getattr(torch, str(dtype).removeprefix("torch."))).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return 0
