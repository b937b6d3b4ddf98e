"""The memory that a plan estimates, against what training takes: small models, each trained in a process of its own.

    python tests/bench/memory.py                  # bar: within 25 %
    python tests/bench/memory.py --only dpo lora

On a CPU every tensor of the trainer is followed from its making to its end, and the largest sum is the peak; the growth
of the process's resident memory stands beside it. On a CUDA device the peak is torch.cuda.max_memory_allocated.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BAR = 0.25
STEPS = 2
CHARACTERS = [chr(number) for number in range(0x4E00, 0x4E00 + 3000)]
MODEL = {
    "model_type": "qwen2", "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 3, "intermediate_size": 512, "max_position_embeddings": 512, "tie_word_embeddings": True,
}  # fmt: skip
SFT = {"kind": "sft", "data": "rows", "max_length": 256, "global_batch_size": 8, "max_steps": STEPS}
LARGE: Mapping[str, Any] = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1152}
CASES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], str]] = {
    "sft": ({}, {}, "float32"),
    "sft accumulated": ({}, {"micro_batch_size": 2}, "float32"),
    "sft bfloat16": ({}, {}, "bfloat16"),
    "states (small batch)": (LARGE, {"global_batch_size": 1, "max_length": 32}, "float32"),
    "states bfloat16": (LARGE, {"global_batch_size": 1, "max_length": 32}, "bfloat16"),
    "llama": ({"model_type": "llama"}, {}, "float32"),
    "qwen3": ({"model_type": "qwen3", "head_dim": 32}, {}, "float32"),
    "qwen3 bfloat16": ({"model_type": "qwen3", "head_dim": 32}, {}, "bfloat16"),
    "gpt2": ({"model_type": "gpt2", "n_embd": 192, "n_layer": 4, "n_head": 6, "n_positions": 512}, {}, "float32"),
    "weighted prompts": ({}, {"prompt_loss_weight": 0.1}, "float32"),
    "train_only": ({}, {"train_only": "model.layers.3.*"}, "float32"),
    "checkpointing": ({}, {"trainer_args": {"gradient_checkpointing": True}}, "float32"),
    "lora": ({}, {"lora": {"r": 8}}, "float32"),
    "lora bfloat16": ({}, {"lora": {"r": 8}}, "bfloat16"),
    "dpo": ({}, {"kind": "dpo", "data": "pairs"}, "float32"),
    "dpo bfloat16": ({}, {"kind": "dpo", "data": "pairs"}, "bfloat16"),
    "dpo lora": ({}, {"kind": "dpo", "data": "pairs", "lora": {"r": 8}}, "float32"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="Cases whose names begin so.")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(options.one)))
        return
    print(f"{'case':22}{'estimate':>10}{'measured':>10}{'error':>8}{'resident':>10}")
    worst = 0.0
    for case in CASES:
        if options.only and not case.startswith(tuple(options.only)):
            continue
        ran = subprocess.run(
            [sys.executable, __file__, "--one", case], capture_output=True, text=True, check=False, timeout=900
        )
        if ran.returncode:
            print(f"{case:22}failed: {ran.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(ran.stdout.splitlines()[-1])
        error = found["estimate"] / found["measured"] - 1
        worst = max(worst, abs(error))
        sizes = "".join(f"{found[name] / 1e6:8.1f} M" for name in ("estimate", "measured"))
        print(f"{case:22}{sizes}{error:8.0%}{found['resident'] / 1e6:8.1f} M", flush=True)
    print(f"largest error {worst:.0%}, bar {BAR:.0%}")


def _measure(case: str) -> dict[str, int]:
    """Estimate and peak of a case, in bytes."""
    import torch

    from runner.preparation import Look, make_plan
    from tests import in_process

    with tempfile.TemporaryDirectory() as place:
        file = _project(Path(place), *CASES[case])
        prepared = in_process.prepare(file, Path(place) / "run")
        with Look([prepared.loaded]) as look:
            planned = make_plan(prepared, look=look.seen).stages[0].memory
        assert planned is not None
        from runner.train import looking, preference, worker  # noqa: F401 - so that imports are no growth

        before = _resident()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            in_process.train(prepared, "one")
            peak = torch.cuda.max_memory_allocated()
        else:
            with following() as live:
                in_process.train(prepared, "one")
            peak = live.peak
        return {"estimate": planned.total, "measured": peak, "resident": _resident() - before}


def _project(root: Path, model: Mapping[str, Any], stage: Mapping[str, Any], dtype: str) -> Path:
    """A project whose rows all are as long as `max_length`."""
    draw = random.Random(1)

    def text(length: int) -> str:
        return "".join(draw.choices(CHARACTERS, k=length))

    (root / "pyproject.toml").touch()
    rows = [{"prompt": text(8), "completion": text(600), "rejected": text(600)} for _ in range(24)]
    rows.append({"prompt": "".join(CHARACTERS), "completion": "一", "rejected": "丁"})
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (root / "rows.jsonl").write_text(lines, encoding="utf-8")
    config = {**MODEL, **model}
    if config["model_type"] == "gpt2":
        config = dict(model)
    recipe = {
        "recipe": "memory",
        "model": {"config": config, "tokenizer": {"train": "char", "from_data": ["all"]}, "dtype": dtype},
        "data": {
            "all": {"path": "rows.jsonl", "columns": {"text": "prompt"}, "text": "{{ prompt }}{{ completion }}"},
            "rows": {"path": "rows.jsonl", "take": 24, "prompt": "{{ prompt }}", "completion": "{{ completion }}"},
            "pairs": {"path": "rows.jsonl", "take": 24, "format": "preference", "columns": {"chosen": "completion"}},
        },
        "stages": {"one": {**SFT, **stage}},
    }
    file = root / "memory.yaml"
    file.write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")  # JSON is YAML
    return file


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def following() -> Any:
    """A mode under which the bytes of all living tensors are summed; `peak` is the largest sum."""
    import weakref

    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Following(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.peak = 0
            self._known: dict[int, Any] = {}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            for leaf in tree_leaves((made, args)):
                if hasattr(leaf, "untyped_storage") and leaf.device.type == "cpu":
                    self._see(leaf.untyped_storage())
            return made

        def _see(self, storage: Any) -> None:
            known = self._known.get(storage._cdata)
            if known is not None and known() is storage:
                return
            size, key = storage.nbytes(), storage._cdata
            self.now += size
            self.peak = max(self.peak, self.now)
            self._known[key] = weakref.ref(storage, lambda _: self._gone(size))

        def _gone(self, size: int) -> None:
            self.now -= size

    return Following()


if __name__ == "__main__":
    main()
