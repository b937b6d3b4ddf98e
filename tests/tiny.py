"""A real model of a few thousand parameters with a character tokenizer, made in a moment; and a run around it."""

import json
import shutil
from pathlib import Path
from typing import Any

from runner import checkpoints
from runner.checkpoints import Parent
from runner.folder import RunRecord, write_run

TEXT = "汉字`的部首是什么？心水木abcdefghijklmnopqrstuvwxyz 0123456789.,?"
SPECIAL = ["<unk>", "<pad>", "<eos>"]


def make_checkpoint(folder: Path, seed: int = 0, chat_template: str | None = None) -> Path:
    """A Qwen3 checkpoint at `folder`; its weights are large, so that its replies differ from prompt to prompt."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *sorted(set(TEXT))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    fast.chat_template = chat_template
    config = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        head_dim=16, intermediate_size=64, tie_word_embeddings=True, eos_token_id=2, pad_token_id=1,
        max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(8)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def make_byte_tokenizer(chat_template: str | None = None) -> Any:
    """A tokenizer of 256 bytes and three special tokens: a character of Chinese is three tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    fast.chat_template = chat_template
    return fast


RECIPE = """\
recipe: tiny
model: {{path: model}}
data: {{questions: {{path: data.jsonl, split: {{by: char, train: 0.5, held_out: 0.5}}}}}}
stages:
  base: {{kind: sft, data: questions.train}}
  qa: {{kind: sft, from: base@last, data: questions.train}}
probes:
{probes}
"""


def make_run(root: Path, source: Path, probes: str, cases: list[dict[str, object]]) -> Path:
    """A run at `root`/results/tiny with the checkpoints base@2, qa@4 and qa@8, all with the weights at `source`."""
    (root / "pyproject.toml").touch()
    (root / "data.jsonl").write_text('{"char": "x", "prompt": "x", "completion": "y"}\n', encoding="utf-8")
    run = root / "results" / "tiny"
    (run / "data").mkdir(parents=True)
    (run / "recipe.yaml").write_text(RECIPE.format(probes=probes), encoding="utf-8")
    rows = "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases)
    (run / "data" / "questions.held_out.jsonl").write_text(rows, encoding="utf-8")
    record = RunRecord(
        recipe="tiny", recipe_path="tiny.yaml", project_root=str(root), seed=1, versions={}, hardware={},
        git_commit=None, data={}, looks=2,
    )  # fmt: skip
    write_run(run, record)
    parent = None
    for stage, step in (("base", 2), ("qa", 4), ("qa", 8)):
        manifest = checkpoints.publish(
            source, run / stage / f"ckpt-{step}", recipe="tiny", stage=stage, kind="sft", step=step, epoch=1.0,
            stage_key="k", parent=parent, tokens=1, versions={},
        )  # fmt: skip
        if stage == "base":
            parent = Parent("base@2", "../base/ckpt-2", manifest.weights_sha256)
    return run


def copy(source: Path, target: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(source, target)
    return target
