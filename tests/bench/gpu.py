"""The figures of one GPU: training a model of one billion parameters, and asking it, against what else does the same.

    python tests/bench/gpu.py                      # every line; under 8 minutes on one H200
    python tests/bench/gpu.py --small              # the same code on a CPU, in about a minute: nothing is judged
    python tests/bench/gpu.py --only training --compile --out table.md

No network is needed: the tokenizer, the rows and the weights are made here, from `--seed`. The model is mini_qwen's, 48
layers of 1024 and a vocabulary of 151,936. It trains on sequences of 1024 tokens that are full of documents
(`packing: wrapped`), in the precision, attention and kernels that `auto` takes on this device. TRL's SFTTrainer, with
its own defaults, is given the same sequences in the same order and batches of the same size; once more without gradient
checkpointing, which is one of its defaults. A side's pace is taken from the end of the first steps to the end of the
last, with the device waited for at both. Generation is what `pytest --ckpt` does for its replies, against one
`generate` per test, and against lm-evaluation-harness `hf` at the best of several batch sizes; where a package is
missing its line says so.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "RECIPE_STORE": "off"}

import generation
import torch
import transformers
from gpu_training import Line, Size, training

from runner import model
from runner.errors import first_line
from runner.probing.engine import Engine

PACKAGES = ("torch", "transformers", "trl", "accelerate", "flash_attn", "liger-kernel", "lm_eval")

LARGE = Size(48, 1024, 16, 4, 4864, 151_936, 1024, 12, 4, 40, 768, 32, (64, 128, 256, 512))
SMALL = Size(2, 64, 4, 2, 128, 2_000, 64, 4, 2, 10, 48, 8, (16, 48))


def main() -> None:
    """Measure, and print the table."""
    options = _options()
    warnings.simplefilter("ignore", FutureWarning)  # TRL's of transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    size, began = SMALL if options.small else LARGE, time.perf_counter()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as made:
        for name, measure in (("training", training), ("probing", _probing)):
            if name in options.only:
                lines += measure(Path(made), size, options)
    table = _table(lines, options, time.perf_counter() - began)
    print(f"\n{table}")
    if options.out:
        options.out.write_text(table + "\n", encoding="utf-8")
    sys.exit(0 if all(line.holds is not False for line in lines) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small model, for a machine without a GPU")
    parser.add_argument("--only", nargs="+", choices=["training", "probing"], default=["training", "probing"])
    parser.add_argument("--compile", action="store_true", help="train with torch.compile as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table there too")
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        parser.error("no CUDA device is here; --small runs the same code on a CPU")
    return options


def _table(lines: Sequence[Line], options: argparse.Namespace, took_s: float) -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    head = [f"{time.strftime('%Y-%m-%d')}, {device}, {versions}; {took_s:.0f} s, seed {options.seed}"]
    if options.small:
        head.append("small: what each line would measure on a GPU; the figures say nothing, and no bar is judged")
    rows = [
        f"| {line.what} | {line.bar} | {line.figure}{' (missed)' if line.holds is False else ''} |" for line in lines
    ]
    return "\n".join([*head, "", "| what | bar | figure |", "|---|---|---|", *rows])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _probing(folder: Path, size: Size, options: argparse.Namespace) -> list[Line]:
    characters = generation._characters(size.prompts, options.seed)
    place = generation._checkpoint(
        folder / "asked", options.seed, layers=size.layers, hidden=size.hidden, heads=size.heads, keys=size.keys
    )
    engine = Engine(place, model.choose_dtype("auto").value)
    engine.generate(generation._questions(characters[:16]))
    ours_s, answers = generation._timed(lambda: engine.generate(generation._questions(characters)))
    tokens = sum(len(answer.tokens) for answer in answers)
    asked = f"{len(characters)} prompts, {tokens / len(answers):.0f} tokens each in the mean"
    print(f"engine: {ours_s:.1f} s for {asked}", flush=True)
    few = characters[: size.alone]
    alone_s, _ = generation._timed(lambda: _one_by_one(engine, few))
    each = (alone_s / len(few)) / (ours_s / len(characters))
    engine.close()
    lines = [
        Line(
            f"replies against one `generate` per test ({asked}; {len(few)} of them one by one)",
            "≥ 5 ×",
            f"{each:.1f} × ({len(characters) / ours_s:,.0f} prompts/s)",
            None if options.small else each >= 5,
        )
    ]
    what = "replies against lm-evaluation-harness `hf`, its best batch size"
    try:
        took = _harness(place, characters, size)
    except ImportError as error:
        return [*lines, Line(what, "≥ 1.5 ×", f"not measured: {first_line(error)}")]
    best = min(took, key=lambda batch: took[batch])
    ratio = took[best] / ours_s
    figure = f"{ratio:.1f} × (its best of {', '.join(map(str, took))}: {best}, {took[best]:.1f} s)"
    return [*lines, Line(what, "≥ 1.5 ×", figure, None if options.small else ratio >= 1.5)]


def _one_by_one(engine: Engine, characters: Sequence[str]) -> None:
    """As tests that call `generate` do."""
    for character in characters:
        turn = generation._turn(character)
        ids = engine.tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt")
        with torch.inference_mode():
            engine.model.generate(**ids.to(engine.model.device), max_new_tokens=generation.CAP, do_sample=False)


def _harness(place: Path, characters: Sequence[str], size: Size) -> dict[int, float]:
    """Seconds at each batch size."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    dtype = model.choose_dtype("auto").value
    harness: Any = HFLM(pretrained=str(place), device=model.device().type, dtype=dtype, max_length=1024)
    turns = [generation._turn(character) for character in characters]
    texts = [harness.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]
    settings = {"until": [], "max_gen_toks": generation.CAP, "do_sample": False}
    took: dict[int, float] = {}
    for batch in size.batches:
        harness.batch_size_per_gpu = batch
        requests = [Instance("generate_until", {}, (text, dict(settings)), 0) for text in texts]
        took[batch], _ = generation._timed(lambda: harness.generate_until(requests, disable_tqdm=True))  # noqa: B023
        print(f"harness at {batch}: {took[batch]:.1f} s", flush=True)
    return took


if __name__ == "__main__":
    main()
