"""runner.probing.engine with LoRA adapters: alone on their base, and several of one base in one batch."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from runner.asking import Decoding
from runner.errors import BadCheckpoint
from runner.probing.engine import Engine, why_apart
from runner.probing.questions import Answer, Question


def make_adapter(base: Path, folder: Path, seed: int, tokenizer: bool = True, **settings: Any) -> Path:
    torch.manual_seed(seed)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False} | settings
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype="float32"), LoraConfig(task_type="CAUSAL_LM", **settings)
    )
    model.save_pretrained(str(folder))
    if tokenizer:
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def questions() -> list[Question]:
    alike = [Question(f"汉字`{end}`的部首是什么？ which one is {end}", decoding=Decoding(16)) for end in "abcdefgh"]
    return [*alike, Question("abc", decoding=Decoding(5)), Question("abc", choices=("a", "bc", "心"))]


def said(answers: list[Answer]) -> list[tuple[str, tuple[int, ...], str]]:
    return [(answer.text, answer.tokens, answer.stop_reason) for answer in answers]


@pytest.fixture(scope="module")
def adapters(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("adapters")
    return [make_adapter(tiny_checkpoint, home / f"adapter-{seed}", seed, r=2 + seed) for seed in range(3)]


def test_an_adapter_is_merged_into_its_base(tiny_checkpoint: Path, adapters: list[Path]) -> None:
    from peft import PeftModel

    engine = Engine(adapters[0])
    adapted: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="float32"), str(adapters[0])
    )
    ids = engine.tokenizer("abc", return_tensors="pt")
    wanted = adapted.eval().generate(**ids, max_new_tokens=8, do_sample=False)[0][3:].tolist()
    assert list(engine.generate([Question("abc", decoding=Decoding(8))])[0].tokens) == wanted


def test_adapters_in_one_batch_say_what_each_says_merged_and_alone(adapters: list[Path]) -> None:
    together = Engine.with_adapters(adapters)
    asked = [(question, number) for question in questions() for number in range(len(adapters))]
    mixed = together.generate([question for question, _ in asked], [number for _, number in asked])
    alone = together.alone([question for question, _ in asked], [number for _, number in asked])
    assert together._has_places
    for number, adapter in enumerate(adapters):
        merged = Engine(adapter).generate(questions())
        mine = [answer for answer, (_, of) in zip(mixed, asked, strict=True) if of == number]
        again = [answer for answer, (_, of) in zip(alone, asked, strict=True) if of == number]
        assert said(mine) == said(merged) == said(again)
        assert mine[-1].choice_logprobs == pytest.approx(merged[-1].choice_logprobs, abs=1e-3)
    assert len({answer.tokens for answer in mixed}) > len(questions())


def test_an_adapter_without_a_tokenizer_has_its_bases(
    tiny_checkpoint: Path, adapters: list[Path], tmp_path: Path
) -> None:
    bare = make_adapter(tiny_checkpoint, tmp_path / "bare", 0, tokenizer=False, r=2)
    assert said(Engine(bare).generate(questions())) == said(Engine(adapters[0]).generate(questions()))
    assert why_apart([bare, adapters[1]]) == ""


def test_a_base_named_from_the_adapters_own_folder_is_found(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "base")
    adapter = make_adapter(tiny_checkpoint, tmp_path / "adapter", 0)
    set_base(adapter, "../base")
    assert Engine(adapter).generate(questions()[:1])[0].text


def test_adapters_that_cannot_share_a_batch_say_why(
    tiny_checkpoint: Path, adapters: list[Path], tmp_path: Path
) -> None:
    dora = make_adapter(tiny_checkpoint, tmp_path / "dora", 0, use_dora=True)
    saved = make_adapter(tiny_checkpoint, tmp_path / "saved", 0, modules_to_save=["norm"])
    biased = make_adapter(tiny_checkpoint, tmp_path / "biased", 0, bias="lora_only")
    shutil.copytree(tiny_checkpoint, tmp_path / "other")
    other = make_adapter(tmp_path / "other", tmp_path / "elsewhere", 0)
    template = make_adapter(tiny_checkpoint, tmp_path / "template", 0)
    (template / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    reasons = {folder.name: why_apart([adapters[0], folder]) for folder in (dora, saved, biased, other, template)}
    assert reasons == {
        "dora": "dora has use_dora",
        "saved": "saved has modules_to_save",
        "biased": "biased trains biases",
        "elsewhere": "their bases differ",
        "template": "their tokenizers differ",
    }
    with pytest.raises(ValueError, match="cannot share batches: dora has use_dora"):
        Engine.with_adapters([adapters[0], dora])
    assert said(Engine(dora).generate(questions()))


def set_base(adapter: Path, base: str | None) -> None:
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"base_model_name_or_path": base}), encoding="utf-8")


def screen(adapter: Path) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        Engine(adapter)
    return caught.value.screen().replace(str(adapter.parent), "HERE")


def test_a_base_that_is_missing_is_named(adapters: list[Path], tmp_path: Path) -> None:
    adapter = shutil.copytree(adapters[0], tmp_path / "adapter")
    set_base(adapter, "/nowhere/base")
    assert screen(adapter) == (
        "HERE/adapter/adapter_config.json: the adapter's base /nowhere/base is not there\n"
        "    expected: base_model_name_or_path: a folder, from here or from the adapter's own, or a hub id\n"
        "    hint: move the base there, or write where it is into adapter_config.json"
    )


def test_an_adapter_that_names_no_base_says_so(adapters: list[Path], tmp_path: Path) -> None:
    adapter = shutil.copytree(adapters[0], tmp_path / "adapter")
    set_base(adapter, None)
    assert screen(adapter) == (
        "HERE/adapter/adapter_config.json: the adapter does not say what its base is\n"
        "    expected: base_model_name_or_path: the folder of the model it was trained on"
    )


def test_a_base_that_cannot_be_loaded_is_named(tiny_checkpoint: Path, adapters: list[Path], tmp_path: Path) -> None:
    adapter = shutil.copytree(adapters[0], tmp_path / "adapter")
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    (base / "model.safetensors").unlink()
    set_base(adapter, "../base")
    said = screen(adapter)
    assert said.startswith("HERE/adapter/adapter_config.json: the adapter's base HERE/base could not be loaded: ")
    assert said.endswith(
        "\n    expected: base_model_name_or_path: a folder or hub id with config.json with its *.safetensors"
    )


def test_a_damaged_adapter_is_a_bad_checkpoint(adapters: list[Path], tmp_path: Path) -> None:
    adapter = shutil.copytree(adapters[0], tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    lines = screen(adapter).splitlines()
    assert lines[0].startswith("HERE/adapter: the model could not be loaded: ")
    assert lines[1:] == [
        "    expected: adapter_model.safetensors, made for the base that adapter_config.json names",
    ]
    (adapter / "adapter_config.json").write_text("{", encoding="utf-8")
    assert screen(adapter).splitlines() == [
        "HERE/adapter: adapter_config.json cannot be read: Expecting property name enclosed in double quotes: line 1 "
        "column 2 (char 1)",
        "    expected: a PEFT adapter: adapter_config.json beside adapter_model.safetensors",
    ]
