"""A look at the models of recipes before anything trains: what each stage trains is counted on torch's meta device, so
that no weights are needed, and what cannot be is refused.

Started as `python -m runner.train.looking QUESTION ANSWER`, or forked by `runner.host`; see `preparation.looked`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from runner import loadable, model, recipe, spec
from runner.errors import UserError
from runner.folder import folder_or_hub_id
from runner.memory import Network
from runner.recipe import Loaded
from runner.train import frozen, starting

_INNER = ("intermediate_size", "ffn_dim", "n_inner")
"""Names of the width of feed-forward networks; where none is given it is four times the model's."""


def main(arguments: Sequence[str]) -> int:
    """Read the question's file, and write the answer's: one for each recipe."""
    question, answer = map(Path, arguments)
    asked = json.loads(question.read_text(encoding="utf-8"))
    found = [_answer(Path(path), Path(asked["root"]), asked["elsewhere"]) for path in asked["recipes"]]
    answer.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return 0


def main_offline(arguments: Sequence[str]) -> int:
    """The same in a process that asks no hub: what is not here is fetched by the stage that needs it."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    return main(arguments)


def _answer(path: Path, root: Path, elsewhere: bool) -> dict[str, Any]:
    """What is found of one recipe: its stages by name, or its problems."""
    loaded = recipe.load(path, root=root)
    answer: dict[str, Any] = {"problems": [], "stages": {}, "attention": "", "half": False, "eager": False, "why": ""}
    first = loaded.spec.model
    attention = ""
    try:
        half, attention, why = choices(first, starting.first_type(loaded), elsewhere=elsewhere)
        answer |= {"half": half, "eager": attention == "eager", "attention": f"{attention} ({why})"}
    except UserError as error:
        answer["problems"] += _plain(error)
    try:
        starting.check_all(loaded, elsewhere=elsewhere)
    except UserError as error:
        answer["problems"] += _plain(error)
    skeleton, refused = starting.skeleton(loaded, attention)
    if skeleton is None:
        here = first.path is None or Path(folder_or_hub_id(first.path, root)).is_dir()
        return answer | {"why": refused if here else f"{first.path} is not here"}
    if refused:
        answer["problems"].append({"message": refused, "expected": None, "hint": "say auto, or eager"})
    if answer["problems"]:
        return answer
    for name in loaded.spec.stages:
        if loaded.spec.stages[loaded.spec.lineage(name)[-1]].from_ is None:
            answer["stages"][name] = _stage(skeleton, loaded, name)
    return answer


def choices(first: spec.Model, kind: str, *, elsewhere: bool) -> tuple[bool, str, str]:
    """Whether it is computed in half precision, the attention implementation, and why that one.

    Args:
        first: the recipe's model.
        kind: its `model_type`; empty where it is not known.
        elsewhere: it is planned for devices that are not here, which are taken for GPUs with bfloat16.

    Raises:
        BadRecipe: one that is asked for by name cannot run here.
    """
    if elsewhere:
        half = first.dtype in ("auto", "bfloat16", "float16")
        if first.attn_implementation != "auto":
            return half, first.attn_implementation, "asked for; whether it can run there is seen there"
        why = "flash_attention_2 where flash-attn is installed there" if half else "flash attention needs bfloat16"
        return half, "sdpa", why
    dtype = model.choose_dtype(first.dtype).value
    attention = model.choose_attention(first.attn_implementation, dtype, kind)
    return dtype != "float32", attention.value, attention.why


def _plain(error: UserError) -> list[dict[str, str | None]]:
    return [{"message": one.message, "expected": one.expected, "hint": one.hint} for one in error.problems]


def _stage(skeleton: PreTrainedModel, loaded: Loaded, name: str) -> dict[str, Any]:
    """The numbers of a stage's network, and what of them there is for each token of the vocabulary."""
    whole: dict[str, torch.Tensor] = dict(skeleton.named_parameters())  # tied ones once
    rows = {id(weight) for weight in _by_token(skeleton)}
    lora = loaded.spec.trained_adapter(name, lambda place: loadable.is_adapter(loaded.root / place))
    base = sum(weight.numel() for weight in whole.values())
    if lora is None:
        for weight in whole.values():
            weight.requires_grad_(True)
        frozen.choose(skeleton, loaded.spec.stages[name])
        trained: list[torch.Tensor] = [weight for weight in whole.values() if weight.requires_grad]
        added, learned = 0, sum(weight.numel() for weight in trained)
    else:
        trained = _biases(skeleton, lora)
        added = _adapter(skeleton, lora)
        learned = added + sum(weight.numel() for weight in trained)
    first: Any = skeleton.get_input_embeddings()
    vocabulary = int(first.weight.shape[0])
    each = sum(weight.numel() for weight in whole.values() if id(weight) in rows) // vocabulary
    learned_each = sum(weight.numel() for weight in trained if id(weight) in rows) // vocabulary
    network = _network(skeleton, base + added, learned, vocabulary)
    return {"network": asdict(network), "base": base, "each": each, "learned_each": learned_each}


def _by_token(skeleton: PreTrainedModel) -> list[torch.Tensor]:
    """The parameters with a row for each token."""
    last: Any = skeleton.get_output_embeddings()  # type: ignore[no-untyped-call]
    first: Any = skeleton.get_input_embeddings()
    found = [first.weight, getattr(last, "weight", None), getattr(last, "bias", None)]
    return [weight for weight in found if weight is not None]


def _adapter(skeleton: PreTrainedModel, lora: spec.Lora) -> int:
    """Parameters that PEFT adds: A and B of each module, and with DoRA a magnitude for each output."""
    from runner.train import adapters

    modules: Mapping[str, Any] = dict(skeleton.named_modules())
    count = 0
    for name in adapters.adapted(skeleton, lora.targets):
        first, last = modules[name].weight.shape[:2]
        wide = first if isinstance(modules[name], torch.nn.Embedding | torch.nn.Linear) else last
        outputs = last if isinstance(modules[name], Conv1D | torch.nn.Embedding) else wide
        count += lora.r * (first + last) + (outputs if lora.use_dora else 0)
    return count


def _biases(skeleton: PreTrainedModel, lora: spec.Lora) -> list[torch.Tensor]:
    if lora.bias == "none":
        return []
    from runner.train import adapters

    own = set(adapters.adapted(skeleton, lora.targets))
    named = ((name.rpartition("."), weight) for name, weight in skeleton.named_parameters())
    return [weight for (module, _, kind), weight in named if kind == "bias" and (lora.bias == "all" or module in own)]


def _network(skeleton: PreTrainedModel, total: int, trained: int, vocabulary: int) -> Network:
    config: Any = skeleton.config.get_text_config(decoder=True)
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    inner = next((size for key in _INNER if (size := getattr(config, key, None))), 4 * hidden)
    names = [name for name, _ in skeleton.named_parameters()]
    return Network(
        total=total,
        trained=trained,
        vocabulary=vocabulary,
        hidden=hidden,
        layers=int(config.num_hidden_layers),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or hidden // heads),
        intermediate=int(inner),
        gated=any(part in name for name in names for part in ("gate_proj.", "gate_up_proj.")),
        qk_norm=any(".q_norm." in name for name in names),
    )


if __name__ == "__main__":
    sys.exit(main_offline(sys.argv[1:]))
