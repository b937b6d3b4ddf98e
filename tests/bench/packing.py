"""Real tokens per second with `packing: true` against padding, on documents of mixed length, in one run.

    python tests/bench/packing.py                       # bar: at least 1.5 times
    python tests/bench/packing.py --attention eager

Documents have log-normal lengths of 16 to 1024 tokens. Both sides get the same rows and do the same: collate, forward,
backward, clip, AdamW. They take turns; what is printed are the medians, and the losses of the first step of both.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from runner.data.tokens import Tokens
from runner.train import isolation
from runner.train.batches import Collate, Pack, micro_batches
from runner.train.packing import Layout
from runner.train.penalties import weight_of

BAR = 1.5


def main() -> None:
    """Print the bar."""
    options = _options()
    torch.manual_seed(options.seed)
    heads = options.hidden // 32
    config = AutoConfig.for_model(
        "qwen3", hidden_size=options.hidden, num_hidden_layers=options.layers, num_attention_heads=heads,
        num_key_value_heads=heads, head_dim=32, intermediate_size=3 * options.hidden, vocab_size=options.vocabulary,
        max_position_embeddings=2048, tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    padded = AutoModelForCausalLM.from_config(config, attn_implementation=options.attention)
    packed = copy.deepcopy(padded)
    layout = isolation.choose(packed, options.attention)
    steps = _steps(options.steps, options.batch, options.vocabulary, options.seed)
    tokens = [sum(len(row.ids) for row in rows) for rows in steps]
    widths = [len(rows) * max(len(row.ids) for row in rows) for rows in steps]
    print(
        f"{options.layers} layers x {options.hidden}, {options.batch} documents per step, {options.attention}, "
        f"{torch.get_num_threads()} threads; {100 - 100 * sum(tokens) / sum(widths):.0f} % of padded batches is padding"
    )
    sides = {
        "padding": _Side(padded, Collate(0, 0.0)),
        f"packing ({layout.value})": _Side(packed, Pack(0, 0.0, layout, options.batch)),
    }
    if layout is Layout.GROUPED and options.masked:
        plain = copy.deepcopy(padded)
        sides["packing (masked)"] = _Side(plain, Pack(0, 0.0, Layout.MASKED, options.batch))
    for rows in steps:
        for side in sides.values():
            side.step(rows)
    first, second = list(sides.values())[:2]
    for name, side in sides.items():
        # the first step warms up
        pace = [count / seconds for count, seconds in zip(tokens[1:], side.seconds[1:], strict=True)]
        print(f"{name:20} {statistics.median(pace):10,.0f} tokens/s, first loss {side.losses[0]:.7f}")
    ratio = statistics.median(a / b for a, b in zip(first.seconds[1:], second.seconds[1:], strict=True))
    apart = abs(first.losses[0] - second.losses[0])
    print(
        f"packing is {ratio:.2f} times padding (bar {BAR}); losses of the first step differ by {apart:.1e} (bar 1e-3)"
    )


class _Side:
    """A model that is trained on batches made in one way."""

    def __init__(self, model: torch.nn.Module, collate: Collate | Pack) -> None:
        self._model, self._collate = model.train(), collate
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self, rows: Sequence[Tokens]) -> None:
        began = time.perf_counter()
        batches = micro_batches([self._collate(rows)])
        total = sum(weight_of(batch) for batch in batches)
        loss = 0.0
        for batch in batches:
            share = self._model(**batch, num_items_in_batch=total).loss
            share.backward()
            loss += share.item()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.seconds.append(time.perf_counter() - began)
        self.losses.append(loss)


def _steps(number: int, batch: int, vocabulary: int, seed: int) -> list[list[Tokens]]:
    generator = np.random.default_rng(seed)
    lengths = np.clip(generator.lognormal(np.log(128), 1.0, (number, batch)), 16, 1024).astype(int)
    return [
        [Tokens(generator.integers(0, vocabulary, n).tolist(), ((0, int(n)),), row) for row, n in enumerate(one)]
        for one in lengths
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--masked", action="store_true", help="also the mask over whole sequences that sdpa could take")
    parser.add_argument("--seed", type=int, default=36)
    return parser.parse_args()


if __name__ == "__main__":
    main()
