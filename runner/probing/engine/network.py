"""The network: a loaded model, and the one way in which it is called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer


class Network:
    """A model on its device, with what its forward takes."""

    def __init__(self, model: Any, device: torch.device, mixes_adapters: bool = False) -> None:
        self.model, self.device, self.mixes_adapters = model, device, mixes_adapters
        self._inner = model.get_base_model() if mixes_adapters else model
        self.config = self._inner.config
        accepted = inspect.signature(self._inner.forward).parameters
        self._keeps = "logits_to_keep" in accepted
        self._positions = "position_ids" in accepted
        self._own_attention: str | None = self.config._attn_implementation
        self._attention = self._own_attention
        cache = DynamicCache(config=self.config)
        self.layers = len(cache.layers)
        self.may_have_places = (
            self._positions
            and bool(getattr(self._inner, "_supports_attention_backend", False))
            and all(type(layer) is DynamicLayer for layer in cache.layers)
        )
        """Whether attention is plain in every layer, as far as the model says."""
        self.vocabulary = int(self._inner.get_output_embeddings().weight.shape[0])

    @property
    def compute(self) -> torch.dtype:
        """What the model computes in."""
        dtype: torch.dtype = self._inner.dtype
        return dtype

    @property
    def kept_bytes(self) -> int:
        """About what the keys and values of one token take."""
        text = self.config.get_text_config(decoder=True)
        heads = getattr(text, "num_attention_heads", None) or 1
        head = getattr(text, "head_dim", None) or getattr(text, "hidden_size", 1024) // heads
        return 2 * self.layers * head * (getattr(text, "num_key_value_heads", None) or heads) * self.compute.itemsize

    def logits(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        cache: Cache,
        positions: torch.Tensor,
        adapters: Sequence[str],
        keep: int = 1,
        attention: str | None = None,
    ) -> torch.Tensor:
        """Logits (B, keep, V) after the last of `ids` (B, S), which continue what is in the cache.

        Args:
            mask: (B, T) over all tokens, or (B, 1, S, T) as attention takes it.
            positions: (B, S).
            adapters: one name per row; looked at only where the model has several.
            attention: an attention function other than the model's own.
        """
        options: dict[str, Any] = {}
        if self._keeps:
            options["logits_to_keep"] = keep
        if self._positions:
            options["position_ids"] = positions
        if self.mixes_adapters:
            options["adapter_names"] = list(adapters)
        self._attend_as(attention or self._own_attention)
        output = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options)
        logits: torch.Tensor = output.logits
        return logits[:, -keep:]

    def let_go(self) -> None:
        """Forget the model: batches that are done lie in cycles, which would hold it until the next search for them."""
        del self.model, self._inner

    def restore(self) -> None:
        """Give the model its own attention back, for whoever else may call it."""
        self._attend_as(self._own_attention)

    def _attend_as(self, wanted: str | None) -> None:
        if wanted != self._attention:
            self._inner.set_attn_implementation(wanted)
            self._attention = wanted

    @contextmanager
    def in_fp32(self) -> Iterator[None]:
        """Compute in fp32 for a while: weights of fewer bits are exact in it, and exact again afterwards."""
        dtypes = [(weight, weight.dtype) for weight in self.model.parameters() if weight.dtype.itemsize < 4]
        dtypes = [(weight, dtype) for weight, dtype in dtypes if dtype.is_floating_point]
        try:
            for weight, _ in dtypes:
                weight.data = weight.data.float()
            yield
        finally:
            for weight, dtype in dtypes:
                weight.data = weight.data.to(dtype)
