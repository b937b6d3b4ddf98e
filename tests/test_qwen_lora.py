"""recipes/qwen_lora.yaml, which is for a GPU, on a Qwen3 of a few thousand parameters and rows of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from runner import loadable
from runner.preparation import make_plan
from tests.in_process import events, finished, prepare, train
from tests.tiny import make_byte_tokenizer, make_checkpoint

RECIPE = Path(__file__).parents[1] / "recipes" / "qwen_lora.yaml"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 with a byte tokenizer that has a chat template, and rows beside it."""
    made = make_checkpoint(tmp_path_factory.mktemp("qwen") / "model")
    tokenizer = make_byte_tokenizer(CHATML)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(made)
    network = AutoModelForCausalLM.from_pretrained(made)
    network.resize_token_embeddings(len(tokenizer))
    network.config.eos_token_id = network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.save_pretrained(made)
    turns = [[("user", f"{char}?"), ("assistant", char * 2)] for char in "abcdefghij"]
    chats = [
        {"char": said[0][1][0], "messages": [{"role": role, "content": text} for role, text in said]} for said in turns
    ]
    pairs = [{"prompt": f"{char}?", "chosen": char * 2, "rejected": char * 3} for char in "klmnopqr"]
    for name, rows in (("chats", chats), ("pairs", pairs)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (made.parent / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return made


def test_both_stages_train_one_adapter_on_own_rows_as_planned(folder: Path, tmp_path: Path) -> None:
    rows = [f"data.{name}.path={folder.parent / name}.jsonl" for name in ("chats", "pairs")]
    prepared = prepare(RECIPE, tmp_path / "run", f"model.path={folder}", *rows, "probes=null", "stages.sft.max_steps=2")
    planned = {stage.name: stage for stage in make_plan(prepared).stages}
    assert [stage.notes[0] for stage in planned.values()] == [
        f"from {folder}; a new adapter, r 16, alpha 32, on all-linear",
        "from sft@last, adapter continued",
    ]
    folders = {name: train(prepared, name) for name in prepared.recipe.stages}
    for name, checkpoint in folders.items():
        assert loadable.base_of(checkpoint) == folder.resolve()
        counted = finished(prepared, name)
        assert counted.step == planned[name].arithmetic.total_steps
        counts = planned[name].counts
        assert (counted.tokens, counted.supervised_tokens) == (counts.tokens, counts.supervised)
        started = next(event for event in events(prepared, name) if event.kind == "started")
        assert started.trained == 17408  # type: ignore[union-attr]
        assert AutoTokenizer.from_pretrained(checkpoint).chat_template == CHATML
        AutoPeftModelForCausalLM.from_pretrained(checkpoint)


def test_the_recipe_is_no_more_than_twelve_lines() -> None:
    lines = [line for line in RECIPE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 12
