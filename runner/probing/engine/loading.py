"""Loading: a checkpoint's tokenizer and weights, or a clear word on why there are none."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from runner import foreign_code, loadable
from runner.errors import BadCheckpoint, Where, first_line
from runner.foreign_code import reworded
from runner.probing.engine.adapters import base_of, has_tokenizer

_LOGGING: Any = transformers.utils.logging
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.\d+\.")
_ADAPTER = "adapter_model.safetensors, made for the base that adapter_config.json names"


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a checkpoint; an adapter without one has its base's.

    Raises:
        BadCheckpoint: there is none that can be loaded.
    """
    home = base_of(path) if is_adapter(path) and not has_tokenizer(path) else path
    expected = "tokenizer.json and tokenizer_config.json beside the weights"
    if isinstance(home, Path) and not has_tokenizer(home):
        # for some models transformers would make one that knows no token
        raise BadCheckpoint("there is no tokenizer", where=Where(str(home)), expected=expected)
    try:
        return AutoTokenizer.from_pretrained(home, local_files_only=isinstance(home, Path), trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        _check_config(home)
        raise BadCheckpoint(
            f"no tokenizer could be loaded: {reworded(first_line(error))}",
            where=Where(str(home)),
            expected=expected,
        ) from error


def _check_config(home: Path | str) -> None:
    """Whether the configuration can be read, without which transformers finds no tokenizer either.

    Raises:
        BadCheckpoint: it cannot.
    """
    try:
        AutoConfig.from_pretrained(home, local_files_only=isinstance(home, Path), trust_remote_code=False)
    except Exception as error:
        raise BadCheckpoint(
            f"its config.json cannot be used: {reworded(first_line(error))}",
            where=Where(str(home)),
            expected="the configuration of a model that the installed transformers knows",
        ) from error


def load_model(path: Path, dtype: str) -> Any:
    """The model of a checkpoint in `dtype`; an adapter is merged into its base.

    Raises:
        BadCheckpoint: weights are missing, damaged, or do not belong to the configuration.
    """
    if not is_adapter(path):
        return load_weights(path, dtype)
    from peft import PeftModel

    base = load_weights(base_of(path), dtype, of_adapter=path)
    loadable.check_readable(path)
    try:
        with _unwarned():
            model: Any = PeftModel.from_pretrained(base, str(path))
    except Exception as error:
        raise _not_loaded(path, error, _ADAPTER) from error
    _check_adapter(model, "default", path)
    merged = model.merge_and_unload()
    _stop_as(path, merged)
    return merged


def load_adapters(base: Path | str, adapters: Mapping[str, Path], dtype: str) -> Any:
    """The base with several adapters beside each other, by name.

    Raises:
        BadCheckpoint: the base or an adapter cannot be loaded.
    """
    from peft import PeftModel

    first, *others = adapters
    model: Any = load_weights(base, dtype, of_adapter=adapters[first])
    for name in (first, *others):
        loadable.check_readable(adapters[name])
        try:
            with _unwarned():
                if name == first:
                    model = PeftModel.from_pretrained(model, str(adapters[name]), adapter_name=name)
                else:
                    model.load_adapter(str(adapters[name]), adapter_name=name)
        except Exception as error:
            raise _not_loaded(adapters[name], error, _ADAPTER) from error
        _check_adapter(model, name, adapters[name])
        _stop_as(adapters[name], model)
    return model


def _stop_as(adapter: Path, model: Any) -> None:
    """Let replies end where the adapter says, which may have learned another chat template than its base."""
    file = adapter / "generation_config.json"
    own = GenerationConfig.from_pretrained(adapter).eos_token_id if file.is_file() else None
    if own is not None:
        model.generation_config.eos_token_id = own


@contextmanager
def _unwarned() -> Iterator[None]:
    """PEFT's warning of missing tensors comes before `_check_adapter`, which says more and is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        yield


def _check_adapter(model: Any, name: str, path: Path) -> None:
    """Whether the adapter's file held every tensor of it; PEFT only warns, and the bare base would answer.

    Raises:
        BadCheckpoint: it did not.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    file = path / "adapter_model.safetensors"
    if not file.is_file():
        return  # adapter_model.bin, which torch has read whole
    with safe_open(file, "pt") as tensors:
        held = set(tensors.keys())
    wanted = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    if lacking := sorted(wanted - held):
        raise BadCheckpoint(
            f"the adapter lacks {_some(lacking)}, which adapter_config.json calls for", where=Where(str(file)),
            expected="tensors as PEFT names them, of the base that adapter_config.json names",
        )  # fmt: skip


def _some(names: Sequence[str]) -> str:
    return repr(names[0]) + (f" and {len(names) - 1} other{'s' if len(names) > 2 else ''}" if len(names) > 1 else "")


def load_weights(path: Path | str, dtype: str, of_adapter: Path | None = None) -> Any:
    """The weights at a folder or hub id, every one of them.

    Raises:
        BadCheckpoint: they cannot be loaded, or some are missing.
    """
    loadable.check_readable(path)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, output_loading_info=True, **foreign_code.arguments(path)
        )
    except Exception as error:  # damaged weights raise SafetensorError, RuntimeError, OSError, KeyError, ValueError, …
        expected = "config.json with its *.safetensors"
        if of_adapter is None:
            raise _not_loaded(Path(path), error, expected) from error
        raise BadCheckpoint(
            f"the adapter's base {path} could not be loaded: {reworded(first_line(error))}",
            where=Where(str(of_adapter / "adapter_config.json")),
            expected=f"base_model_name_or_path: a folder or hub id with {expected}",
        ) from error
    model, about = loaded
    # transformers would draw what is missing at random, leave out layers that are too many, and only warn
    if missing := sorted(about["missing_keys"]):
        raise BadCheckpoint(f"the weights lack {_some(missing)}, which config.json calls for", where=Where(str(path)))
    if layers := sorted(name for name in about["unexpected_keys"] if _LAYER.search(name)):
        raise BadCheckpoint(
            f"the weights hold {_some(layers)}, for which config.json has no place", where=Where(str(path)),
            hint="config.json is of a smaller model, or of another one",
        )  # fmt: skip
    return model


def is_adapter(path: Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return (path / "adapter_config.json").is_file()


def stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a reply. Nothing else is taken from the checkpoint's generation settings: no penalties."""
    found: set[int] = set()
    for source in (model.config, getattr(model, "generation_config", None), tokenizer):
        ids = getattr(source, "eos_token_id", None)
        found.update([ids] if isinstance(ids, int) else ids or [])
    return frozenset(found)


def _not_loaded(path: Path, error: Exception, expected: str) -> BadCheckpoint:
    reason = reworded(first_line(error))
    if "mismatch" in reason.lower() and "report" in reason:  # which transformers prints, and we keep quiet
        reason = "its tensors do not have the shapes that config.json gives them"
    return BadCheckpoint(f"the model could not be loaded: {reason}", where=Where(str(path)), expected=expected)


class Quiet:
    """Loading without transformers' progress bars and hints; its settings are put back afterwards."""

    def __enter__(self) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        self._verbosity = _LOGGING.get_verbosity()
        self._bars = _LOGGING.is_progress_bar_enabled()
        _LOGGING.set_verbosity_error()
        _LOGGING.disable_progress_bar()

    def __exit__(self, *exception: object) -> None:
        _LOGGING.set_verbosity(self._verbosity)
        if self._bars:
            _LOGGING.enable_progress_bar()
