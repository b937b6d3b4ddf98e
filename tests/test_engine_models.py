"""runner.probing.engine on models of many kinds: where attention is not plain, padded batches give the same replies."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from runner.asking import Decoding
from runner.probing.engine import Engine
from runner.probing.questions import Question
from tests.tiny import make_byte_tokenizer

TINY = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": 2}
LLAMA = TINY | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 256}
MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA | {"head_dim": 8},
    "phi3": LLAMA | {"pad_token_id": 0},
    "mistral": LLAMA | {"sliding_window": 8},
    "gemma2": LLAMA | {"head_dim": 8, "sliding_window": 8},
    "gemma3_text": LLAMA | {"head_dim": 8, "sliding_window": 8},
    "granite": LLAMA | {"logits_scaling": 4.0},
    "cohere": LLAMA,
    "olmo2": LLAMA,
    "stablelm": LLAMA,
    "gpt_neox": TINY | {"intermediate_size": 64, "max_position_embeddings": 256},
    "gpt2": {"vocab_size": 259, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "eos_token_id": 2},
    "opt": TINY | {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 256},
    "bloom": {"vocab_size": 259, "hidden_size": 32, "n_layer": 2, "n_head": 4, "eos_token_id": 2},
    "falcon": TINY | {"alibi": False},
    "mixtral": LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "lfm2": LLAMA | {"layer_types": ["conv", "full_attention"], "full_attn_idxs": [1]},
}
PLAIN = {"llama", "qwen2", "qwen3", "phi3", "granite", "cohere", "olmo2", "opt", "gpt_neox", "gpt2", "mixtral"}


def make(folder: Path, kind: str) -> Path:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **MODELS[kind]), dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    model.save_pretrained(folder)
    make_byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", MODELS)
def test_a_batch_says_what_generate_says(kind: str, tmp_path: Path) -> None:
    engine = Engine(make(tmp_path / kind, kind))
    ends = ["c", "was ist das", "?", "心", "of the sky", "aa"] * 2
    asked = [Question(f"what is the colour {end}{k}", decoding=Decoding(14 + k % 3)) for k, end in enumerate(ends)]
    answers = engine.generate(asked)
    for question, answer in zip(asked, answers, strict=True):
        ids = engine.tokenizer(question.prompt, return_tensors="pt")["input_ids"]
        limit = question.decoding.max_new_tokens
        mask = torch.ones_like(ids)
        output = engine.model.generate(ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, pad_token_id=0)
        assert list(answer.tokens) == output[0][ids.shape[1] :].tolist()
    assert len({answer.tokens for answer in answers}) > 6
    assert engine._has_places == (kind in PLAIN)


@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "bloom"])
def test_choices_are_as_likely_as_in_a_pass_of_their_own(kind: str, tmp_path: Path) -> None:
    engine = Engine(make(tmp_path / kind, kind))
    choices = ("a", "red", "blue sky", "心", "心脏")
    asked = [Question(f"what is the colour {end}", choices=choices) for end in ("c", "of this", "?")]
    answers, alone = engine.generate(asked), engine.alone(asked)
    for question, answer, single in zip(asked, answers, alone, strict=True):
        prompt = engine.tokenizer(question.prompt)["input_ids"]
        expected = []
        for choice in choices:
            ids = engine.tokenizer(choice, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logprobs = engine.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            expected.append(float(logprobs.gather(1, torch.tensor(ids)[:, None]).sum()))
        assert answer.choice_logprobs == pytest.approx(expected, abs=1e-3)
        assert single.choice_logprobs == pytest.approx(expected, abs=1e-3)
        best = max(range(len(choices)), key=expected.__getitem__)
        assert answer.text == choices[best] == single.text
        assert answer.logprob == answer.choice_logprobs[best]
        assert answer.stop_reason == "choice"
        assert answer.tokens == tuple(engine.tokenizer(choices[best], add_special_tokens=False)["input_ids"])
        assert answer.margin == pytest.approx(sorted(answer.choice_logprobs)[-1] - sorted(answer.choice_logprobs)[-2])


def test_bytes_that_are_no_text_are_a_reply_all_the_same(tmp_path: Path) -> None:
    engine = Engine(make(tmp_path / "qwen3", "qwen3"))
    asked = [Question(f"心{k}", decoding=Decoding(12, stop)) for k in range(30) for stop in ((), ("心", "\ufffd"))]
    answers = engine.generate(asked)
    assert any("\ufffd" in answer.text for answer in answers)
    for answer in answers:
        answer.text.encode("utf-8")


def test_a_stop_string_of_several_tokens_is_found_as_its_last_byte_comes() -> None:
    from runner.probing.engine.endings import Endings
    from runner.probing.engine.rows import Row

    tokenizer: PreTrainedTokenizerFast = make_byte_tokenizer()
    ids = tokenizer("abc心 def")["input_ids"]
    for stop, length in (("心", 6), ("c心", 6), (" d", 8), ("b", 2)):
        row = Row(0, Question("", decoding=Decoding(stop=(stop,))), "")
        endings = Endings(tokenizer, frozenset())
        for count, id in enumerate(ids, start=1):
            row.new.append(id)
            assert endings.stopped(row) == (count >= length), (stop, count)
            if endings.stopped(row):
                break
        row.stop_reason = "stop"
        assert endings.text(row) == "abc心 def"[: "abc心 def".index(stop)]
