"""Adapters of a stage (LoRA, by PEFT): a new one on a base, or one that an earlier stage trained and this one goes on
with; and the penalty on the size of its matrices."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from runner import loadable, spec
from runner.errors import BadCheckpoint, BadRecipe, first_line, nearest
from runner.train.penalties import Share

ALL_LINEAR = "all-linear"
_FIXED = {"r": "r", "alpha": "lora_alpha", "bias": "bias", "use_rslora": "use_rslora", "use_dora": "use_dora"}
"""What the shape and the scale of an adapter is, once it is made: key of `lora:` → PEFT's name."""


def new(network: PreTrainedModel, lora: spec.Lora, base: str, seed: int) -> PeftModel:
    """An adapter that adds nothing yet (B is 0), on a base that stays as it is.

    Args:
        network: the base.
        lora: what the recipe says.
        base: where the base can be loaded from, for adapter_config.json.
        seed: A is drawn from it.

    Raises:
        BadRecipe: see `check_targets`.
    """
    check_targets(network, lora.targets)
    transformers.set_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=_plain(lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=ALL_LINEAR if ALL_LINEAR in lora.targets else list(lora.targets),
        bias=lora.bias,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
    )
    return _ready(get_peft_model(network, config), base)


def continued(network: PreTrainedModel, lora: spec.Lora | None, adapter: Path, base: str) -> PeftModel:
    """The adapter in a folder, to be trained on.

    Args:
        network: its base.
        lora: what the recipe says; what it leaves out is as the adapter has it.
        adapter: its folder.
        base: where the base can be loaded from, for adapter_config.json.

    Raises:
        BadRecipe: the recipe gives it another shape than it has.
        BadCheckpoint: it cannot be loaded.
    """
    loadable.check_readable(adapter)
    config: Any = PeftConfig.from_pretrained(str(adapter))
    if lora is not None:
        _check_same(network, lora, config, adapter)
        if "dropout" in lora.model_fields_set:
            config.lora_dropout = lora.dropout
    config.inference_mode = False
    try:
        made = PeftModel.from_pretrained(network, str(adapter), is_trainable=True, config=config)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"the adapter {adapter} does not fit its base: {first_line(error)}") from error
    return _ready(made, base)


def _ready(network: PeftModel, base: str) -> PeftModel:
    """In float32 wherever something is trained; with the base that adapter_config.json is to name, and with its targets
    in an order that is written alike each time."""
    for parameter in network.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
    config = network.peft_config["default"]
    config.base_model_name_or_path = base
    if isinstance(config.target_modules, set):
        config.target_modules = sorted(config.target_modules)
    return network


def _plain(number: float) -> float | int:
    return int(number) if number.is_integer() else number


def _check_same(network: PreTrainedModel, lora: spec.Lora, config: Any, adapter: Path) -> None:
    hint = "leave it out, or say adapter: merge to begin a new one on what this one has learned"
    for key, name in _FIXED.items():
        if key in lora.model_fields_set and getattr(lora, key) != getattr(config, name):
            message = f"lora.{key} is {getattr(lora, key)}, and the adapter that goes on has {getattr(config, name)}"
            raise BadRecipe(message, expected=f"the {key} of {adapter.parent.name}/{adapter.name}", hint=hint)
    if "targets" in lora.model_fields_set:
        wanted, has = (set(adapted(network, names)) for names in (lora.targets, _names(config.target_modules)))
        if wanted != has:
            raise BadRecipe(
                f"lora.targets is {', '.join(lora.targets)}, and the adapter that goes on is on other modules",
                expected=", ".join(sorted({name.rpartition(".")[2] for name in has})), hint=hint,
            )  # fmt: skip


def _names(targets: Any) -> tuple[str, ...]:
    return (targets,) if isinstance(targets, str) else tuple(sorted(targets))


# --- the modules that get one ---


def adapted(network: torch.nn.Module, targets: Sequence[str]) -> list[str]:
    """The modules that `targets` means: those of that name, or of one that ends in it after a dot, as PEFT has it."""
    modules = dict(_adaptable(network))
    if ALL_LINEAR in targets:
        output = _output(network)
        linear = (torch.nn.Linear, Conv1D)
        return [name for name, module in modules.items() if isinstance(module, linear) and module is not output]
    return [name for name in modules if any(_means(target, name) for target in targets)]


def _means(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _adaptable(network: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    kinds = (torch.nn.Linear, Conv1D, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    yield from ((name, module) for name, module in network.named_modules() if isinstance(module, kinds))


def _output(network: torch.nn.Module) -> Any:
    if not isinstance(network, PreTrainedModel):
        return None
    return network.get_output_embeddings()  # type: ignore[no-untyped-call]


def check_targets(network: PreTrainedModel, targets: Sequence[str]) -> None:
    """Whether each target is a module that can have an adapter.

    Raises:
        BadRecipe: the model has no module of that name, or it shares its weights with another one: an adapter on one
            of two that are one cannot be merged.
    """
    modules = dict(_adaptable(network))
    own = (name for name, module in modules.items() if not _is_tied(network, module))
    names = sorted({name.rpartition(".")[2] for name in own})
    for target in targets:
        found = [name for name in modules if _means(target, name)]
        if target != ALL_LINEAR and not found:
            near = nearest(target, names)
            raise BadRecipe(
                f"lora.targets: the model has no module {target!r} that can have an adapter",
                expected=f"all-linear, or some of {', '.join(names)}",
                hint=f"did you mean {near}?" if near else None,
            )
        if tied := next((name for name in found if _is_tied(network, modules[name])), None):
            raise BadRecipe(
                f"lora.targets: {tied} shares its weights with another module (tie_word_embeddings)",
                expected="modules that have weights of their own",
                hint="an adapter on one of the two could not be merged; leave it out",
            )


def _is_tied(network: PreTrainedModel, module: torch.nn.Module) -> bool:
    both = (network.get_input_embeddings(), _output(network))
    tied = getattr(network.config.get_text_config(decoder=True), "tie_word_embeddings", False)
    return bool(tied) and any(module is one for one in both)


def check_output(network: PreTrainedModel, lora: spec.Lora, kind: str) -> None:
    """Whether the output layer is left alone where TRL computes with its weights and not through it.

    Raises:
        BadRecipe: it is a target of a dpo stage.
    """
    output = _output(network)
    named = next((name for name, module in network.named_modules() if module is output), "")
    if kind == "dpo" and named in adapted(network, lora.targets):
        raise BadRecipe(
            f"lora.targets: dpo cannot train an adapter on the output layer, {named}",
            expected="other modules", hint="TRL reads the layer's weights, past the adapter; leave it out",
        )  # fmt: skip


# --- a base in few bits ---


def quantized(lora: spec.Lora | None) -> Mapping[str, Any]:
    """Arguments of `from_pretrained` that load the base in few bits; none where the recipe does not ask for that.

    Raises:
        BadRecipe: bitsandbytes is not installed.
    """
    if lora is None or lora.quantize is None:
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BadRecipe(
            f"lora.quantize: {lora.quantize} needs bitsandbytes, which is not installed",
            hint="pip install 'recipe-runner[quantize]', or leave quantize out",
        )
    four = lora.quantize == "4bit"
    computed = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    bits = transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=four, load_in_8bit=not four, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=four,
        bnb_4bit_compute_dtype=computed,
    )  # fmt: skip
    return {"quantization_config": bits}


# --- the size of an adapter ---


def mean_norm(network: torch.nn.Module) -> torch.Tensor:
    """Mean of the Frobenius norms of the matrices A and B of the adapter that is trained, a scalar.

    One that is 0, as every B at the start, has a gradient of 0 there.
    """
    matrices = [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and (".lora_A." in name or ".lora_B." in name or ".lora_embedding_" in name)
    ]
    return torch.stack([torch.linalg.vector_norm(matrix.float()) for matrix in matrices]).mean()


class SmallAdapter:
    """l2 times the mean norm of the adapter's matrices, once per step: a `penalties.Penalty`."""

    name = "l2"

    def __init__(self, network: torch.nn.Module, l2: float) -> None:
        self._network, self._l2 = network, l2

    def loss(self, model: Any, inputs: Mapping[str, Any], outputs: Any, share: Share) -> torch.Tensor:
        """See `penalties.Penalty`: an equal part for each micro-batch of the step."""
        return self._l2 * mean_norm(self._network) / share.of
