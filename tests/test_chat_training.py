"""A stage with a chat template: what it publishes stops at the template's token, and is asked as it was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from runner.data import chat
from runner.data.conversations import Conversations
from runner.preparation import Prepared, make_plan
from runner.probing.engine import Engine
from runner.probing.questions import Message, Question
from tests.in_process import prepare, train
from tests.tiny_project import write_project

CHATTY = (
    "model.chat_template=chatml", "stages.base.kind=sft", "stages.base.data=questions.train",
    "stages.base.save_strategy=no", "stages.qa.save_strategy=no", "model.config.attention_dropout=0.0",
    'data.questions.completion=" red or blue"', "stages.base.num_train_epochs=16",
)  # fmt: skip
ADAPTER = ("stages.qa.lora={}", "stages.qa.max_steps=2", "stages.qa.from=base@last")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Path, Path]:
    """A model that learned one answer to all questions through chatml, and an adapter on it."""
    root = tmp_path_factory.mktemp("chat")
    prepared = prepare(write_project(root / "project"), root / "run", *CHATTY, *ADAPTER)
    return prepared, train(prepared, "base"), train(prepared, "qa")


def test_a_checkpoint_carries_the_template_and_stops_at_its_token(trained: tuple[Prepared, Path, Path]) -> None:
    prepared, *checkpoints = trained
    stop = Conversations(chat.shipped("chatml"), prepared.tokenizer).stop_id
    for folder in checkpoints:
        assert AutoTokenizer.from_pretrained(folder).chat_template == chat.shipped("chatml").source
        settings = json.loads((folder / "generation_config.json").read_text())
        assert settings["eos_token_id"] == [stop, prepared.tokenizer.eos_id]


def test_it_is_asked_through_its_template_and_answers_as_it_learned(trained: tuple[Prepared, Path, Path]) -> None:
    prepared, *checkpoints = trained
    data = prepared.data.get("questions.train")
    examples = [data.example(position, 0) for position in range(4)]
    for folder in checkpoints:
        engine = Engine(folder)
        asked = [Question(example.prompt) for example in examples]
        answers = engine.generate(
            [*asked, Question("", (Message("user", examples[0].prompt),)), Question("a", raw=True)]
        )
        engine.close()
        assert answers[0].prompt == f"<|im_start|>user\n{examples[0].prompt}<|im_end|>\n<|im_start|>assistant\n"
        assert [answer.text for answer in answers[:4]] == [example.completion for example in examples]
        assert {answer.stop_reason for answer in answers[:4]} == {"eos"}
        assert (answers[4].text, answers[5].prompt) == (answers[0].text, "a")


def test_plain_transformers_stops_there_too(trained: tuple[Prepared, Path, Path]) -> None:
    prepared, folder, _ = trained
    example = prepared.data.get("questions.train").example(0, 0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": example.prompt}], add_generation_prompt=True, return_tensors="pt"
    )
    (ids,) = model.generate(**inputs, max_new_tokens=60, do_sample=False)
    assert tokenizer.decode(ids[inputs["input_ids"].shape[1] :]) == f"{example.completion}<|im_end|>"


def test_the_plan_says_which_template_and_a_changed_one_is_another_stage(tmp_path: Path) -> None:
    recipe = write_project(tmp_path / "project")
    (recipe.parent / "mine.jinja").write_text(chat.shipped("plain").source)
    prepared = prepare(recipe, tmp_path / "run", *CHATTY, "model.chat_template=mine.jinja")
    assert make_plan(prepared).model.endswith("; chat template mine.jinja")
    before = prepared.digests["chat template"], prepared.digests["tokenizer"]
    (recipe.parent / "mine.jinja").write_text(chat.shipped("plain").source + "{# other #}")
    again = Prepared(prepared.loaded, prepared.run)
    assert not again.data_is_current
    assert {before[0], before[1]}.isdisjoint({again.digests["chat template"], again.digests["tokenizer"]})
