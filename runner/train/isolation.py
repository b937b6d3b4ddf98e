"""Attention in which rows that share a sequence do not see each other, and the proof, on the model itself, that they do
not.

Rows that lie in one sequence begin at position 0 each. transformers finds them by that and builds a mask over the
whole sequence, which costs the square of its length; with flash attention it needs none. For sdpa there is an attention
of our own: rows of one length that lie beside each other are one plain causal batch, and no mask is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from runner.data.tokens import Tokens
from runner.errors import BadRecipe
from runner.train.batches import PACKED, Collate, Pack
from runner.train.packing import Layout
from runner.train.penalties import model_inputs

if TYPE_CHECKING:
    from peft import PeftModel

ATTENTION = "recipe_rows"
_CHANGES_ATTENTION = ("softcap", "s_aux", "position_bias", "cache")
"""Options of an attention that is not plain."""
_SHOWN_LENGTHS = (9, 5, 5, 2)
_TOLERANCE, _TOLERANCE_IN_BF16 = 1e-4, 5e-2
"""Of the largest logit. Rounding gives 1e-6 and 1e-2; rows that see each other differ by far more."""


def choose(network: PreTrainedModel | PeftModel, attention: str) -> Layout:
    """How rows of a step may share sequences, tried on the network; its attention is set to what that needs.

    Args:
        network: on the device where it will be trained.
        attention: as it was chosen for the run.

    Raises:
        BadRecipe: in whatever layout, rows that share a sequence see each other, as in a model with a recurrent state.
    """
    if attention == "sdpa":
        network.set_attn_implementation(ATTENTION)
        if _isolates(network, Layout.GROUPED):
            return Layout.GROUPED
        network.set_attn_implementation(attention)
    layout = Layout.FLAT if attention == "flash_attention_2" else Layout.MASKED
    if _isolates(network, layout):
        return layout
    raise BadRecipe(
        f"packing: true cannot be: in a {network.config.model_type} rows that share a sequence see each other",
        hint="say packing: false",
    )


@torch.no_grad()
def _isolates(network: PreTrainedModel | PeftModel, layout: Layout) -> bool:
    """Whether the network says of rows that share a sequence what it says of each alone."""
    embeddings: Any = network.get_input_embeddings()
    vocabulary = int(embeddings.weight.shape[0])
    # token ids that are spread over the vocabulary, and differ
    rows = [
        Tokens([(7 * place + 31 * number + 3) % vocabulary for place in range(length)], ((0, length),), number)
        for number, length in enumerate(_SHOWN_LENGTHS)
    ]
    packed = Pack(0, 1.0, layout, len(rows))
    with _as_in_training(network, layout):
        try:
            together = [_logits(network, batch) for batch in packed(rows)[PACKED]]
            alone = [_logits(network, Collate(0, 1.0)([row]))[0] for row in rows]
        except (ValueError, TypeError, RuntimeError, NotImplementedError):
            return False  # the model's attention takes no such rows
    found = [
        together[0][sequence, start : start + len(rows[row].ids)]
        for sequence, start, row in packed.places(_SHOWN_LENGTHS)
    ]
    expected = [alone[row] for _, _, row in packed.places(_SHOWN_LENGTHS)]
    most = max(float(logits.abs().max()) for logits in expected)
    apart = max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True))
    return apart <= (_TOLERANCE_IN_BF16 if layout is Layout.FLAT else _TOLERANCE) * most


def _logits(network: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    inputs = {name: value.to(network.device) for name, value in model_inputs(batch).items()}
    return network(**inputs, use_cache=False).logits.float()  # type: ignore[no-any-return]


@contextmanager
def _as_in_training(network: Any, layout: Layout) -> Iterator[None]:
    """Without dropout; flash attention takes nothing but half precision."""
    training = network.training
    network.eval()
    half = torch.autocast(network.device.type, torch.bfloat16) if layout is Layout.FLAT else nullcontext()
    try:
        with half:
            yield
    finally:
        network.train(training)


# --- the attention ---


def lengths_of(position_ids: torch.Tensor) -> list[tuple[int, int]]:
    """The rows of a sequence (1, N), which begin at position 0: how many of one length lie beside each other, and that
    length."""
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    ends = [*starts[1:], position_ids.shape[1]]
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    return [(len(list(group)), length) for length, group in groupby(lengths)]


class _Rows:
    """The rows of the sequence that is under way: all layers ask for the same."""

    def __init__(self) -> None:
        self._of: torch.Tensor | None = None
        self._groups: list[tuple[int, int]] = []

    def of(self, position_ids: torch.Tensor) -> list[tuple[int, int]]:
        if self._of is not position_ids:
            self._of, self._groups = position_ids, lengths_of(position_ids)
        return self._groups


_ROWS = _Rows()


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls: query (B, H, N, D), key and value (B, h, N, D) → (B, N, H, D)."""
    shared = attention_mask is None and query.shape[0] == 1 and query.shape[2] == key.shape[2]
    if not shared or position_ids is None or position_ids.shape != (1, query.shape[2]):
        given = {**options, "position_ids": position_ids, "sliding_window": sliding_window}
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **given)
    if any(options.get(name) is not None for name in _CHANGES_ATTENTION):
        raise ValueError("this attention is not plain")
    groups = _ROWS.of(position_ids)
    sizes = [count * length for count, length in groups]
    parts = (torch.split(tensor[0], sizes, dim=1) for tensor in (query, key, value))  # (H, n, D) each
    attended = []
    for (count, length), *three in zip(groups, *parts, strict=True):
        # (H, n, D) → (count, H, length, D)
        q, k, v = (part.unflatten(1, (count, length)).transpose(0, 1) for part in three)
        mask = _window(length, sliding_window, query.device) if sliding_window and length > sliding_window else None
        out = scaled_dot_product_attention(
            q, k, v, mask, dropout, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        attended.append(out.transpose(1, 2).flatten(0, 1))  # (n, H, D)
    return torch.cat(attended)[None], None


def _window(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Which of the tokens before it each one sees: (length, length)."""
    places = torch.arange(length, device=device)
    behind = places[:, None] - places[None]
    return (behind >= 0) & (behind < window)


def _mask(batch_size: int, *args: Any, **given: Any) -> torch.Tensor | None:
    """No mask for rows that share a sequence; else that of sdpa."""
    if batch_size == 1 and given.get("attention_mask") is None and not given.get("allow_is_causal_skip", True):
        return None
    return sdpa_mask(batch_size, *args, **given)


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, _mask)
