"""Generation against lm-evaluation-harness and against one `generate` per test: the same checkpoint, prompts and cap.

    pip install -c constraints.txt -e '.[bench]'
    python tests/bench/generation.py                        # every bar; about 25 minutes on two quiet cores
    python tests/bench/generation.py --only harness --prompts 256 --sizes 64 128 --rounds 1
    python tests/bench/generation.py --seed 7 --prompts 1000

The checkpoints are made here, from configurations alone: weights from `--seed`, large enough that replies differ, and a
few stop tokens, so that replies end at mixed lengths. Prompts are the radicals of recipes/data/zhdict.tsv as chat
prompts of 60 tokens, of which the first 48 are the same in all. The contenders take turns within each round; the median
of the rounds' ratios is what counts. Both get the same number of threads, except where a line says otherwise.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "RECIPE_STORE": "off"}

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from runner.asking import Decoding
from runner.probing.engine import Engine
from runner.probing.questions import Question

ROOT = Path(__file__).parents[2]
CAP = 64
STOPS = 36
"""One token in so many ends a reply: replies of 1 to 64 tokens, about 30 in the mean."""
DEMO_ROWS = 1000
"""Rows of zhdict.tsv whose characters the demo's model knows (`take:` in recipes/zhdict_dpo.yaml)."""
SPECIAL = ["<unk>", "<pad>", "<eos>", "<|im_start|>", "<|im_end|>"]
WORDS = ["system", "user", "assistant", "是什么"]
SYSTEM = "你是一个汉字助手，请用一句话准确回答关于汉字部首的问题，不要解释。"
TEMPLATE = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{{% for message in messages %}}<|im_start|>{{{{ message.role }}}}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT = "汉字`{}`的部首是什么？"
TASK = """\
task: radicals
dataset_path: json
dataset_kwargs: {{data_files: {{test: {cases}}}}}
test_split: test
output_type: generate_until
doc_to_text: "汉字`{{{{char}}}}`的部首是什么？"
doc_to_target: "{{{{radical}}}}"
generation_kwargs: {{until: [], max_gen_toks: 64, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
PROBE = """\
from runner import probe


@probe(cases="cases.jsonl", prompt="汉字`{{ char }}`的部首是什么？", max_new_tokens=64, gate={"min_pass_rate": 0.0})
def test_radical(case, reply):
    assert reply == case.radical
"""


@dataclass(frozen=True)
class Bar:
    """One line of the table."""

    what: str
    bar: str
    figure: str
    holds: bool


@dataclass
class Rounds:
    """Seconds of each contender, by round."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def ratio(self) -> float:
        """How many times longer they took: the median over the rounds."""
        return statistics.median(theirs / ours for theirs, ours in zip(self.theirs, self.ours, strict=True))


def main() -> None:
    options = _options()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    characters = _characters(options.prompts, options.seed)
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        large = _checkpoint(folder / "large", options.seed, layers=8, hidden=512, heads=8, keys=options.keys)
        demo = _characters(min(options.prompts, DEMO_ROWS), options.seed, DEMO_ROWS)
        small = _checkpoint(folder / "small", options.seed, layers=2, hidden=128, heads=4, keys=4, rows=DEMO_ROWS)
        bars: list[Bar] = []
        if "harness" in options.only:
            bars.append(_against_harness(large, characters, options))
        if "single" in options.only:
            bars += _against_single(small, demo, options)
        if "process" in options.only:
            bars.append(_whole_process(large, characters, folder, options))
        if "alone" in options.only:
            bars.append(_alone(large, characters[: options.alone], "8 layers × 512"))
    print(f"\n{options.prompts} prompts, seed {options.seed}, {options.threads} threads\n")
    print("| what | bar | figure |\n|---|---|---|")
    for bar in bars:
        print(f"| {bar.what} | {bar.bar} | {bar.figure}{'' if bar.holds else ' (missed)'} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["harness", "single", "process", "alone"]
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the choice of characters")
    parser.add_argument("--prompts", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512], help="the harness's")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keys", type=int, default=8, help="key heads of the large model, of its 8 heads")
    parser.add_argument("--alone", type=int, default=96, help="prompts asked one by one of the large model")
    parser.add_argument("--folder", type=Path, help="keep the checkpoints there")
    return parser.parse_args()


def _against_harness(checkpoint: Path, characters: list[str], options: argparse.Namespace) -> Bar:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    engine = Engine(checkpoint)
    texts = [
        engine.tokenizer.apply_chat_template(_turn(c), tokenize=False, add_generation_prompt=True) for c in characters
    ]
    harness: Any = HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", max_length=1024)
    settings = {"until": [], "max_gen_toks": CAP, "do_sample": False}
    engine.generate(_questions(characters[:32]))
    rounds = Rounds()
    for number in range(options.rounds):
        seconds, answers = _timed(lambda: engine.generate(_questions(characters)))
        rounds.ours.append(seconds)
        took: dict[int, float] = {}
        for size in options.sizes:
            harness.batch_size_per_gpu = size
            requests = [Instance("generate_until", {}, (text, dict(settings)), 0) for text in texts]
            took[size], replies = _timed(lambda: harness.generate_until(requests, disable_tqdm=True))  # noqa: B023
        rounds.theirs.append(min(took.values()))
        same = sum(answer.text == reply for answer, reply in zip(answers, replies, strict=True))
        lengths = sorted(len(answer.tokens) for answer in answers)
        print(
            f"round {number + 1}: engine {seconds:.1f} s ({len(texts) / seconds:.1f} prompts/s), harness "
            + ", ".join(f"{size}: {taken:.1f} s" for size, taken in took.items())
            + f"; {same} of {len(texts)} replies the same, {lengths[0]} to {lengths[-1]} tokens, mean "
            f"{statistics.mean(lengths):.1f}",
            flush=True,
        )
    engine.close()
    ratio, best = rounds.ratio(), len(texts) / min(rounds.ours)
    return Bar(
        "generation against lm-evaluation-harness 0.4.13, its best batch size, 8 layers × 512", "≥ 3 ×",
        f"{ratio:.1f} × ({best:.0f} prompts/s)", ratio >= 3,
    )  # fmt: skip


def _against_single(checkpoint: Path, characters: list[str], options: argparse.Namespace) -> list[Bar]:
    engine = Engine(checkpoint)
    rounds = Rounds()
    equal = 0
    for _ in range(options.rounds):
        seconds, answers = _timed(lambda: engine.generate(_questions(characters)))
        rounds.ours.append(seconds)
        seconds, replies = _timed(lambda: _one_by_one(engine, characters))
        rounds.theirs.append(seconds)
        equal = sum(answer.tokens == reply for answer, reply in zip(answers, replies, strict=True))
    engine.close()
    print(
        f"one by one: {statistics.median(rounds.theirs):.1f} s, engine {statistics.median(rounds.ours):.2f} s",
        flush=True,
    )
    ratio = rounds.ratio()
    total = len(characters)
    return [
        Bar("generation against one `generate` per test, demo model", "≥ 50 ×", f"{ratio:.0f} ×", ratio >= 50),
        Bar("greedy equal to batch size 1, fp32, demo model", "all", f"{equal} of {total}", equal == total),
    ]


def _alone(checkpoint: Path, characters: list[str], name: str) -> Bar:
    engine = Engine(checkpoint)
    answers = engine.generate(_questions(characters))
    replies = _one_by_one(engine, characters)
    engine.close()
    equal = sum(answer.tokens == reply for answer, reply in zip(answers, replies, strict=True))
    return Bar(
        f"greedy equal to batch size 1, fp32, {name}", "all", f"{equal} of {len(answers)}", equal == len(answers)
    )


def _one_by_one(engine: Engine, characters: list[str]) -> list[tuple[int, ...]]:
    """Replies as a test that calls `generate` gets them."""
    replies = []
    for character in characters:
        ids = engine.tokenizer.apply_chat_template(_turn(character), add_generation_prompt=True, return_tensors="pt")
        with torch.inference_mode():
            output = engine.model.generate(**ids, max_new_tokens=CAP, do_sample=False)
        replies.append(tuple(output[0][ids["input_ids"].shape[1] :].tolist()))
    return replies


def _whole_process(checkpoint: Path, characters: list[str], folder: Path, options: argparse.Namespace) -> Bar:
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    cases = [{"id": f"U+{ord(character):04X}", "char": character, "radical": "？"} for character in characters]
    (work / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    (work / "test_radicals.py").write_text(PROBE, encoding="utf-8")
    (work / "task.yaml").write_text(TASK.format(cases=work / "cases.jsonl"), encoding="utf-8")
    ours = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "test_radicals.py",
        "--ckpt",
        str(checkpoint),
    ]
    theirs = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args",
        f"pretrained={checkpoint},dtype=float32,max_length=1024", "--tasks", "radicals", "--include_path", str(work),
        "--apply_chat_template", "--device", "cpu", "--batch_size",
    ]  # fmt: skip
    rounds = Rounds()
    for number in range(options.rounds):
        rounds.ours.append(_run(ours, work))
        took = {size: _run([*theirs, str(size)], work) for size in (64, 128)}
        rounds.theirs.append(min(took.values()))
        print(f"process, round {number + 1}: pytest {rounds.ours[-1]:.1f} s, lm_eval {took}", flush=True)
    share = 1 / rounds.ratio()
    return Bar(
        f"whole process, {len(cases)} prompts: `pytest … --ckpt` against `lm_eval`", "≤ 0.5 of its wall time",
        f"{share:.2f} ({statistics.median(rounds.ours):.0f} s against {statistics.median(rounds.theirs):.0f} s)",
        share <= 0.5,
    )  # fmt: skip


def _run(command: list[str], work: Path) -> float:
    seconds, ran = _timed(lambda: subprocess.run(command, cwd=work, capture_output=True, text=True, check=False))
    if ran.returncode:
        sys.exit(f"{' '.join(command)}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    return seconds


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def _turn(character: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": PROMPT.format(character)}]


def _questions(characters: list[str]) -> list[Question]:
    return [Question(PROMPT.format(character), decoding=Decoding(max_new_tokens=CAP)) for character in characters]


def _characters(number: int, seed: int, rows: int | None = None) -> list[str]:
    with (ROOT / "recipes/data/zhdict.tsv").open(encoding="utf-8") as file:
        taken = itertools.islice(csv.DictReader(file, delimiter="\t"), rows)
        every = sorted({row["char"] for row in taken if len(row["char"]) == 1})
    return random.Random(seed).sample(every, number)


def _checkpoint(
    folder: Path, seed: int, *, layers: int, hidden: int, heads: int, keys: int, rows: int | None = None
) -> Path:
    """A Qwen3 checkpoint of random weights, four times as large as usual, and with some tokens that end a reply."""
    tokenizer = _tokenizer(rows)
    size = -(-len(tokenizer) // 64) * 64
    stop = [2, *sorted(random.Random(seed).sample(range(len(SPECIAL), size), size // STOPS))]
    config = Qwen3Config(
        vocab_size=size, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=keys, head_dim=hidden // heads, intermediate_size=3 * hidden, tie_word_embeddings=True,
        eos_token_id=stop, pad_token_id=1, bos_token_id=None, max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(seed)
    model: Any = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    model.generation_config.eos_token_id = stop
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(rows: int | None) -> PreTrainedTokenizerFast:
    """One token per character of so many rows, and per word of the template."""
    with (ROOT / "recipes/data/zhdict.tsv").open(encoding="utf-8") as file:
        lines = itertools.islice(file, None if rows is None else rows + 1)
        characters = sorted(set("".join(lines) + TEMPLATE + PROMPT))
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *WORDS, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*WORDS, r"[\s\S]"])), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
    )  # fmt: skip
    fast.chat_template = TEMPLATE
    return fast


if __name__ == "__main__":
    main()
