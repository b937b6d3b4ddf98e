"""The memory of a device that trains, estimated from the numbers of a model: weights, states, activations, logits.

What is counted is what transformers' Trainer does: weights that are trained are held in float32; with bfloat16 or
float16 they are cast for each matrix product (autocast), and the casts are kept for the backward pass; AdamW has two
float32 moments. DeepSpeed's ZeRO holds weights in half precision and divides the rest (Rajbhandari et al. 2020,
arXiv:1910.02054). Activations are counted tensor by tensor, as autograd keeps them, in the manner of Korthikanti et al.
2022 (arXiv:2205.05198) but for pre-norm layers with RMSNorm and a gated feed-forward network, and for attention that
keeps no probabilities (sdpa, flash_attention_2).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from runner import spec
from runner.errors import UserError

RESERVED = 0.08
"""Share of a device that is left for the driver, workspaces and fragments."""
LIVE_PARAMETERS = 1_000_000_000
"""ZeRO-3 keeps at most so many gathered weights on a device (DeepSpeed's stage3_max_live_parameters)."""
BUCKET = 500_000_000
"""Gradients that ZeRO reduces at a time (DeepSpeed's reduce_bucket_size), numbers."""
_LOGITS = 12
"""Bytes for each token and entry of the vocabulary, in any precision: when the backward pass begins there are the
log-softmax, its gradient, and that of the logits, in float32."""
_MOST_ROWS = 1 << 16
"""Of a micro-batch; more are not looked for."""
_TILE_TOKENS, _TILE_WIDTH = 4096, 32_768
"""TRL's dpo makes no logits: it goes through tokens and vocabulary in tiles of this size, and takes the buffer of one
whole (trl.kernels.chunked_logprob)."""
_TILE_COPIES = 7
"""Tiles in float32 that are made besides where there is no Triton, as wide as the vocabulary if that is narrower."""
WAYS = ("", "zero1", "zero2", "zero3", "offload")
"""How states are divided among devices: not at all, or as DeepSpeed does."""


@dataclass(frozen=True)
class Devices:
    """The devices that are planned for."""

    count: int
    bytes_each: int

    def __str__(self) -> str:
        return f"{self.count} × {self.bytes_each / 1e9:g} GB"


def devices(text: str) -> Devices:
    """Devices as they are written on the command line: `6x80GB`, `24GB`.

    Raises:
        UserError: it is not written so.
    """
    found = re.fullmatch(r"(?:(\d+)\s*[x×*])?\s*(\d+(?:\.\d+)?)\s*(?:GB|G|GiB)", text.strip(), re.IGNORECASE)
    if found is None or int(found[1] or 1) < 1 or float(found[2]) <= 0:
        raise UserError(f"--devices: {text!r} says no devices", expected="COUNTxSIZE, for example 6x80GB or 1x24GB")
    return Devices(int(found[1] or 1), round(float(found[2]) * 1e9))


@dataclass(frozen=True)
class Network:
    """The numbers of a network as a stage trains it."""

    total: int
    """Parameters, adapters included; tied ones once."""
    trained: int
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool = True
    """Whether its feed-forward networks have a gate (SwiGLU)."""
    qk_norm: bool = False
    """Whether queries and keys are normalised."""


@dataclass(frozen=True)
class Training:
    """How a stage trains it."""

    length: int
    """Tokens of a sequence, at most."""
    half: bool = False
    """Whether it computes in bfloat16 or float16."""
    sequences: int = 1
    """Of a row: 2 for a pair."""
    base_bits: int = 32
    """Of each weight that is not trained: 32 where it stands beside weights that are, 16, 8 or 4 under an adapter."""
    copies: int = 0
    """Bytes, besides the network: a reference, what weights are pulled back to; ZeRO holds them as it does weights."""
    optimizer_bytes: int = 8
    """For each trained weight."""
    eager: bool = False
    """Whether attention keeps its probabilities."""
    recomputes: bool = False
    """Whether activations are computed again in the backward pass (activation_checkpointing)."""
    accumulates: bool = False
    """Whether gradients of earlier micro-batches stand beside the activations of a later one."""
    in_tiles: bool = False
    """Whether it makes no logits (dpo)."""
    on_cpu: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at the peak of a step."""

    weights: int
    """And what stands beside them: casts, a reference."""
    gradients: int
    optimizer: int
    activations: int
    logits: int
    rows: int
    """Of a micro-batch."""
    accumulates: bool = False
    """Whether gradients of earlier micro-batches stand beside the activations of this one."""
    host: int = 0
    """Bytes of the machine's own memory that each device's process takes besides (offload)."""

    @property
    def total(self) -> int:
        """At the peak: when the backward pass begins, or when it has ended, whichever is more."""
        kept = self.activations + self.logits
        states = self.weights + self.optimizer
        return states + (self.gradients + kept if self.accumulates else max(self.gradients, kept))


@dataclass(frozen=True)
class Fits:
    """What a stage takes of a device, and how many rows at a time fit."""

    way: str
    """One of WAYS."""
    planned: Memory
    most_rows: int
    """The largest micro-batch that fits; 0 where none does."""
    is_launched: bool = False
    """Whether it is the way of the recipe."""


def estimate(network: Network, how: Training, rows: int, way: str = "", count: int = 1) -> Memory:
    """The memory of one device.

    Args:
        network: what is trained.
        how: the way.
        rows: of a micro-batch.
        way: one of WAYS.
        count: devices that share the work.
    """
    tokens = rows * how.sequences * how.length
    logits = _tiles(network, how, tokens) if how.in_tiles else tokens * _LOGITS * network.vocabulary
    weights, gradients, optimizer, host = _states(network, how, way, count)
    activations = tokens * _kept_per_token(network, how)
    copies = how.copies // (2 if way and how.half else 1) // (count if way in ("zero3", "offload") else 1)
    return Memory(weights + copies, gradients, optimizer, activations, logits, rows, how.accumulates, host)


def fits(network: Network, how: Training, rows: int, way: str, on: Devices) -> Fits:
    """What the planned micro-batch takes, and the largest that fits."""
    room = int(on.bytes_each * (1 - RESERVED))

    def is_too_large(tried: int) -> bool:
        return estimate(network, how, tried, way, on.count).total > room

    most = bisect_left(range(1, _MOST_ROWS + 1), True, key=is_too_large)
    return Fits(way, estimate(network, how, rows, way, on.count), most)


def _tiles(network: Network, how: Training, tokens: int) -> int:
    """What stands in the place of logits, and the gradients in float32 that a tile is added to."""
    rows = min(tokens, _TILE_TOKENS)
    tile = rows * _TILE_WIDTH * (2 if how.half else 4)
    copies = 4 * _TILE_COPIES * rows * min(network.vocabulary, _TILE_WIDTH) if how.on_cpu else 0
    return tile + copies + 4 * network.hidden * (network.vocabulary + tokens)


def _states(network: Network, how: Training, way: str, count: int) -> tuple[int, int, int, int]:
    """Weights, gradients, optimizer state, and what of it lies in the host's memory."""
    trained, still = network.trained, network.total - network.trained
    base = still * how.base_bits // 8
    moments = how.optimizer_bytes * trained
    if not way:
        # autocast keeps a cast of every float32 weight that a matrix product uses until the backward pass is over
        casts = 2 * (trained + (still if how.base_bits == 32 else 0)) if how.half else 0
        buckets = 4 * trained if count > 1 else 0  # that DistributedDataParallel reduces
        return 4 * trained + base + casts + buckets, 4 * trained, moments, 0
    held = 2 if how.half else 4
    weights, gradients, optimizer = held * trained + min(base, held * still), held * trained, (4 * trained + moments)
    # with overlap_comm one is filled while the other is sent; transformers makes those of ZeRO-3 as wide as the model
    numbers = network.hidden**2 if way in ("zero3", "offload") else BUCKET
    bucket = 2 * held * min(trained, numbers) if count > 1 else 0
    live = held * min(network.total, LIVE_PARAMETERS)
    if way == "offload":
        return live + bucket, bucket, 0, (weights + gradients + optimizer) // count
    optimizer //= count
    if way in ("zero2", "zero3"):
        gradients = gradients // count + bucket
    if way == "zero3":
        weights = weights // count + (live if count > 1 else 0)
    return weights, gradients, optimizer, 0


def _kept_per_token(network: Network, how: Training) -> int:
    """Bytes that autograd keeps of the layers, for each token."""
    layer = _layer_per_token(network, how)
    if how.recomputes:
        return 4 * network.hidden * network.layers + layer
    outside = 4 * 4 * network.hidden  # embeddings, and the last norm with what it normalises and gives
    return network.layers * layer + outside


def _layer_per_token(network: Network, how: Training) -> int:
    """Bytes that autograd keeps of one layer, for each token; `tests/test_memory.py` counts them."""
    d, f = network.hidden, network.intermediate
    q, k = network.heads * network.head_dim, network.kv_heads * network.head_dim
    full, cast = (4, 2) if how.half else (4, 4)
    # two norms: what comes in, and what is normalised
    norms = 4 * d * full + 2 * full
    # queries, keys, values and what attention gives; its log-sum-exp
    attention = (2 * q + 2 * k) * cast + network.heads * full
    if network.qk_norm:
        attention += (q + k) * (full + cast) + (network.heads + network.kv_heads) * full
    # the inputs of matrix products: with autocast each product has a cast of its own
    inputs = (3 + 2) * d * cast if how.half else 2 * d * cast
    # gate, its activation, up, and their product; without a gate what goes in and what comes out
    middle = (4 if network.gated else 2) * f * cast
    if not network.gated and how.half:
        inputs = 2 * d * cast
    if how.eager:
        attention += network.heads * how.length * (full + cast)
    return norms + attention + inputs + middle


_OPTIMIZERS: Mapping[str, int] = MappingProxyType({"8bit": 2, "adafactor": 0, "sgd": 0, "lion": 4, "rmsprop": 4})
"""Bytes of state for each weight, by a part of the name in `trainer_args.optim`; AdamW's two moments are 8."""


def training(
    stage: spec.Stage,
    lora: spec.Lora | None,
    *,
    half: bool,
    eager: bool,
    whole: int,
    trained: int,
    accumulates: bool,
    on_cpu: bool = False,
) -> Training:
    """How a stage trains, as far as its memory goes.

    Args:
        stage: its block.
        lora: the adapter that it trains, which may be that of an earlier stage.
        half: whether it computes in bfloat16 or float16.
        eager: whether attention keeps its probabilities.
        whole: parameters of the model without adapters.
        trained: parameters that are trained.
        accumulates: whether a step has several micro-batches.
        on_cpu: whether no device trains it.
    """
    arguments = stage.trainer_args
    optim = str(arguments.get("optim", "adamw"))
    sequences = 2 if isinstance(stage, spec.Dpo) else 3 if isinstance(stage, spec.Contrast) else 1
    copies = 0
    if isinstance(stage, spec.Dpo) and (lora is None or lora.bias != "none"):
        copies += (4 if lora is None or not half else 2) * whole  # the reference, held as it was loaded
    if isinstance(stage, spec.Causal):
        copies += 4 * trained if stage.kl is not None else 0  # where it started
        copies += 8 * trained if stage.ewc is not None else 0  # and what matters of it
    bits = 32
    if lora is not None:
        bits = {"8bit": 8, "4bit": 4}.get(lora.quantize or "", 16 if half else 32)
    return Training(
        length=stage.max_length,
        half=half,
        sequences=sequences,
        base_bits=bits,
        copies=copies,
        optimizer_bytes=next((size for name, size in _OPTIMIZERS.items() if name in optim), 8),
        eager=eager,
        recomputes=bool(arguments.get("gradient_checkpointing") or arguments.get("activation_checkpointing")),
        accumulates=accumulates,
        in_tiles=isinstance(stage, spec.Dpo),
        on_cpu=on_cpu,
    )
