"""Other people's trainers, in a process of their own: `python -m tests.foreign_trainers MODEL KIND,KIND… [KEY=VALUE…]`.

Each trains the tiny model for a few steps and saves checkpoints into a folder of its own name, as it does by itself.
KIND is `trainer` (transformers.Trainer), `bare` (the same without a tokenizer), `sft`, `sft-lora` or `dpo-lora` (TRL);
what follows are arguments of the trainer, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

DEFAULTS: dict[str, Any] = {
    "max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 5e-2, "logging_steps": 1,
    "report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True, "seed": 3,
}  # fmt: skip
ROWS = [{"prompt": f"abc{n}", "completion": f" def{n}", "chosen": f" def{n}", "rejected": f" fed{n}"} for n in range(8)]


def main(model: str, kinds: str, *more: str) -> None:
    """Train one after the other."""
    for kind in kinds.split(","):
        settings = {**DEFAULTS, "output_dir": kind}
        for word in more:
            name, _, value = word.partition("=")
            settings[name] = json.loads(value)
        made = _plain(model, kind, settings) if kind in ("trainer", "bare") else _trl(model, kind, settings)
        if pause_s := float(os.environ.get("PAUSE_AFTER_SAVE_S", "0")):
            made.add_callback(_pausing(pause_s))
        made.train()


def _pausing(pause_s: float) -> Any:
    from transformers import TrainerCallback

    class Pausing(TrainerCallback):
        """Training takes longer where models are larger."""

        def on_save(self, *_: Any, **__: Any) -> None:
            time.sleep(pause_s)

    return Pausing()


def _plain(model: str, kind: str, settings: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [tokenizer(row["prompt"] + row["completion"])["input_ids"] for row in ROWS]
    data = [{"input_ids": ids, "labels": ids} for ids in rows]
    network = AutoModelForCausalLM.from_pretrained(model)
    given = {"processing_class": tokenizer} if kind == "trainer" else {}
    return Trainer(network, TrainingArguments(**settings), train_dataset=data, **given)


def _trl(model: str, kind: str, settings: dict[str, Any]) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM") if "lora" in kind else None
    if kind.startswith("dpo"):
        columns = ("prompt", "chosen", "rejected")
        config: Any = DPOConfig(**settings)
        trainer: Any = DPOTrainer
    else:
        columns = ("prompt", "completion")
        config, trainer = SFTConfig(**settings), SFTTrainer
    data = Dataset.from_list([{name: row[name] for name in columns} for row in ROWS])
    return trainer(model, args=config, train_dataset=data, processing_class=tokenizer, peft_config=lora)


if __name__ == "__main__":
    main(*sys.argv[1:])
