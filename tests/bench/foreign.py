"""A sweep over a trainer's output folder: each model is loaded once, and freed before the next.

    python tests/bench/foreign.py                      # models of 85 million parameters, 340 MB in fp32
    python tests/bench/foreign.py --layers 4 --hidden 256

One checkpoint is asked in a process of its own, then the folder with several in another. Where each model is freed
before the next is loaded, the second process needs no more memory than the first, and its time grows by one load for
each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.tiny import make_checkpoint  # noqa: E402

PROBE = """\
from runner import probe

@probe(cases=[{"q": f"abc {n}"} for n in range(32)], prompt="{{ q }}", max_new_tokens=8)
def test_said(reply): pass
"""
BAR = 1.1
"""The sweep's peak memory, as a multiple of one checkpoint's."""


@dataclass(frozen=True)
class Taken:
    """One process of pytest."""

    wall_s: float
    peak_mb: float


def main() -> None:
    """Print both processes and how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--checkpoints", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # in a process of its own: what this one had needed at its peak would count for those it starts
        with get_context("spawn").Pool(1) as writer:
            weights_mb = writer.apply(_write, (folder, options.layers, options.hidden, options.checkpoints))
        one, all_of_them = _ask(folder, "out/checkpoint-1"), _ask(folder, "out")
    print(f"{options.checkpoints} checkpoints of {weights_mb:.0f} MB, 32 cases each")
    for name, taken in (("one", one), ("all", all_of_them)):
        print(f"{name:<5} {taken.wall_s:6.1f} s   peak {taken.peak_mb:6.0f} MB")
    ratio = all_of_them.peak_mb / one.peak_mb
    print(f"peak of the sweep {ratio:.2f} of one checkpoint's (bar {BAR}): {'met' if ratio <= BAR else 'MISSED'}")


def _write(folder: Path, layers: int, hidden: int, count: int) -> float:
    """Checkpoints with different weights, and a probe; gives the size of the weights in MB."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tiny = make_checkpoint(folder / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64, head_dim=64, intermediate_size=hidden * 8 // 3, eos_token_id=2,
        pad_token_id=1,
    )  # fmt: skip
    for number in range(1, count + 1):
        torch.manual_seed(number)
        place = folder / "out" / f"checkpoint-{number}"
        Qwen3ForCausalLM(config).save_pretrained(place)
        tokenizer.save_pretrained(place)
    (folder / "probes").mkdir()
    (folder / "probes" / "test_said.py").write_text(PROBE, encoding="utf-8")
    return float((place / "model.safetensors").stat().st_size / 1e6)


def _ask(folder: Path, ckpt: str) -> Taken:
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "probes", "--ckpt", ckpt, "--probe-store", "off"]
    began = time.perf_counter()
    child = os.fork()
    if not child:
        os.chdir(folder)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, "PYTHONSAFEPATH": "1"})
    _, status, used = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return Taken(time.perf_counter() - began, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
