"""runner.probing.engine, on a real model of a few thousand parameters."""

import json
import random
from pathlib import Path

import pytest
import torch

from runner.errors import BadCheckpoint
from runner.probing.engine import Engine, Question
from tests.tiny import copy, make_checkpoint


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> Engine:
    return Engine(tiny_checkpoint)


def questions(number: int) -> list[Question]:
    generator = random.Random(3)
    mixed = [
        Question(
            "".join(generator.choices("abcdefgh汉字`的部首是什么？", k=generator.randint(1, 40))),
            generator.choice([8, 24]),
            generator.choice([(), ("a",), ("是", "bc")]),
        )
        for _ in range(number)
    ]
    alike = ["汉字`心`的部首是什么？ which one of the " + "abc" * k for k in range(1, 9)]
    return mixed + [Question(prompt, 24) for prompt in alike]


def test_batched_replies_equal_those_asked_alone(engine: Engine) -> None:
    asked = questions(60)
    together = engine.generate(asked)
    alone = [engine.generate([question])[0] for question in asked]
    assert [(a.text, a.tokens, a.stop_reason) for a in together] == [(a.text, a.tokens, a.stop_reason) for a in alone]
    assert [a.margin for a in together] == pytest.approx([a.margin for a in alone], abs=1e-4)
    assert {a.stop_reason for a in together} >= {"length", "stop"}


def test_greedy_replies_equal_those_of_transformers(engine: Engine) -> None:
    for question in questions(4):
        ids = engine.tokenizer(question.prompt, return_tensors="pt")
        output = engine.model.generate(**ids, max_new_tokens=8, do_sample=False)
        tokens = tuple(output[0][ids["input_ids"].shape[1] :].tolist())
        assert engine.generate([Question(question.prompt, 8)])[0].tokens == tokens


def test_a_small_token_budget_changes_no_reply(tiny_checkpoint: Path, engine: Engine) -> None:
    asked = questions(20)
    small = Engine(tiny_checkpoint, batch_tokens=64).generate(asked)
    assert [answer.tokens for answer in small] == [answer.tokens for answer in engine.generate(asked)]


def test_a_stop_string_is_cut_off_and_ends_only_its_own_row(engine: Engine) -> None:
    free = engine.generate([Question("abc", 24)])[0].text
    stop = free[3:5]
    answers = engine.generate([Question("abc", 24, (stop,)), Question("abc", 24)])
    assert answers[0].stop_reason == "stop"
    assert answers[0].text == free[: free.index(stop)]
    assert answers[1].text == free


def test_a_checkpoints_own_sampling_settings_are_not_used(
    tiny_checkpoint: Path, engine: Engine, tmp_path: Path
) -> None:
    other = copy(tiny_checkpoint, tmp_path / "sampling")
    settings = {"do_sample": True, "repetition_penalty": 9.0, "temperature": 3.0, "eos_token_id": 2}
    (other / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    asked = questions(5)
    assert [a.tokens for a in Engine(other).generate(asked)] == [a.tokens for a in engine.generate(asked)]


def test_a_chat_template_wraps_the_prompt(tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}[{{ message.content }}]{% endfor %}{% if add_generation_prompt %}x{% endif %}"
    )
    answer = Engine(make_checkpoint(tmp_path / "chat", chat_template=template)).generate([Question("abc", 4)])[0]
    assert answer.prompt == "[abc]x"


def test_a_prompt_longer_than_the_model_takes_is_an_error_of_its_own_row(engine: Engine) -> None:
    answers = engine.generate([Question("a" * 600, 8), Question("abc", 8)])
    assert answers[0].error == "the prompt has 600 tokens and the model takes 512"
    assert answers[1].text


def test_an_empty_prompt_begins_after_the_end_of_a_document(engine: Engine) -> None:
    assert engine.generate([Question("", 4)])[0].tokens == engine.generate([Question("<eos>", 4)])[0].tokens


def test_cut_weights_are_a_bad_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = copy(tiny_checkpoint, tmp_path / "cut")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BadCheckpoint, match="could not be loaded"):
        Engine(broken)


def test_weights_that_lack_a_layer_are_a_bad_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> None:
    broken = copy(tiny_checkpoint, tmp_path / "lacking")
    config = json.loads((broken / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = 3
    config.pop("layer_types", None)
    (broken / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BadCheckpoint, match=r"the weights lack 'model\.layers\.2"):
        Engine(broken)


def test_an_adapter_is_loaded_on_its_base(tiny_checkpoint: Path, engine: Engine, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="float32")
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    engine.tokenizer.save_pretrained(tmp_path / "adapter")
    ids = engine.tokenizer("abc", return_tensors="pt")
    wanted = adapted.eval().generate(**ids, max_new_tokens=8, do_sample=False)[0][3:].tolist()
    assert list(Engine(tmp_path / "adapter").generate([Question("abc", 8)])[0].tokens) == wanted
