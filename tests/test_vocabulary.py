"""A vocabulary with given terms in it: ids, embeddings, what the plan says, and what later stages have of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from runner import model, spec
from runner.data import vocabulary
from runner.data.tokenizer import load_tokenizer
from runner.errors import BadRecipe
from runner.preparation import Prepared, make_plan
from tests.in_process import prepare, train
from tests.screens import lines
from tests.tiny import make_byte_tokenizer, make_checkpoint

ROWS = [{"prompt": f"部首{n}？", "completion": f"水木{n}"} for n in range(8)]
RECIPE = """\
recipe: terms
model: {path: model, extend_vocabulary: {terms: [部首, 水木, 部首, 心], file: terms.txt}}
data: {questions: {path: rows.jsonl}}
stages:
  qa: {kind: sft, data: questions, max_steps: 1, learning_rate: 0.0, global_batch_size: 4}
  more: {kind: sft, from: qa@last, data: questions, max_steps: 1, learning_rate: 0.0, global_batch_size: 4}
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "model").symlink_to(tiny_checkpoint)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "terms.txt").write_text("的部首是\n\n  木abc \n", encoding="utf-8")
    file = tmp_path / "terms.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


def rows_of(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["model.embed_tokens.weight"]


def test_new_tokens_start_as_the_mean_of_their_pieces_and_stay_in_every_later_stage(
    recipe: Path, tiny_checkpoint: Path
) -> None:
    prepared = prepare(recipe, recipe.parent / "run")
    folders = [train(prepared, "qa"), train(prepared, "more")]
    before, old = rows_of(tiny_checkpoint), AutoTokenizer.from_pretrained(tiny_checkpoint)
    for folder in folders:
        tokenizer, after = AutoTokenizer.from_pretrained(folder), rows_of(folder)
        assert len(after) == len(before) + 4
        assert torch.equal(after[: len(before)], before)
        for term in ("部首", "水木", "的部首是", "木abc"):
            (number,) = tokenizer(term).input_ids
            pieces = old(term).input_ids
            assert len(pieces) > 1
            torch.testing.assert_close(after[number], before[pieces].mean(dim=0))
            assert tokenizer.decode([number]) == term
            assert load_tokenizer(folder).ids([term]) == [[number]]
        assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == len(after)


def test_the_plan_says_what_was_added_and_what_it_saves(recipe: Path) -> None:
    found = make_plan(Prepared(prepare(recipe, recipe.parent / "run").loaded, recipe.parent / "other"))
    assert found.vocabulary == (
        "4 terms added; 1 was one token before: 心; 1 was given more than once: 部首; "
        "1.000 → 0.714 tokens per character of 56"
    )
    from runner.console import plan_screen

    assert any(line.startswith("vocabulary  4 terms added; 1 was") for line in lines(plan_screen(found)))
    assert not (recipe.parent / "other").exists()


def test_a_term_more_or_less_is_another_stage(recipe: Path) -> None:
    digests = []
    for terms in ("木abc", "木abcd"):
        (recipe.parent / "terms.txt").write_text(terms, encoding="utf-8")
        from runner.check import load_checked

        digests.append(Prepared(load_checked(recipe, ()), recipe.parent / "none").digests["tokenizer"])
    assert digests[0] != digests[1]


def test_an_adapter_stands_on_the_extended_weights_which_are_kept(recipe: Path) -> None:
    prepared = prepare(recipe, recipe.parent / "run", "stages.qa.lora={}")
    folder = train(prepared, "qa")
    assert len(rows_of(prepared.run / "qa" / "base")) == 60
    assert json.loads((folder / "manifest.json").read_text())["base"] == "../base"
    assert "木abc" in AutoTokenizer.from_pretrained(folder).get_vocab()


def test_an_output_layer_of_its_own_gets_its_means_too_and_free_rows_are_used(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=8,
        intermediate_size=8, tie_word_embeddings=False,
    )  # fmt: skip
    network: Any = Qwen3ForCausalLM(config)
    before = [network.model.embed_tokens.weight.detach().clone(), network.lm_head.weight.detach().clone()]
    model.extend(network, [vocabulary.Term("ab", 10, (1, 2)), vocabulary.Term("abc", 12, (1, 2, 3))])
    for tensor, old in zip((network.model.embed_tokens.weight, network.lm_head.weight), before, strict=True):
        assert tensor.shape == (13, 8)
        torch.testing.assert_close(tensor[10], old[[1, 2]].mean(dim=0))
        torch.testing.assert_close(tensor[12], old[[1, 2, 3]].mean(dim=0))
        assert torch.equal(tensor[11], old[11])


def test_a_byte_level_tokenizer_takes_terms_inside_words_and_transformers_reads_them_alike(tmp_path: Path) -> None:
    make_byte_tokenizer().save_pretrained(tmp_path / "bytes")
    config = json.loads((tmp_path / "bytes" / "tokenizer_config.json").read_text())
    # as checkpoints of earlier transformers have it: what is listed there is all that is read
    config["added_tokens_decoder"] = {"2": {"content": "<eos>", "special": True}}
    (tmp_path / "bytes" / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    made = vocabulary.extend(load_tokenizer(tmp_path / "bytes"), ["部首", "former"])
    vocabulary.save(made, tmp_path / "bytes", tmp_path / "data")
    assert vocabulary.read(tmp_path / "data") == made.added
    text = "汉字的部首，transformers"
    read = AutoTokenizer.from_pretrained(tmp_path / "data" / "tokenizer")
    assert read(text).input_ids == made.fast.ids([text])[0]
    assert read.decode(made.fast.ids([text])[0]) == text
    assert len(made.fast.ids([text])[0]) == len(made.before.ids([text])[0]) - 5 - 5


def test_a_term_that_the_tokenizer_would_spoil_is_an_error(tmp_path: Path) -> None:
    make_byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(BadRecipe) as caught:
        vocabulary.extend(load_tokenizer(tmp_path), ["café"])
    assert caught.value.screen() == (
        "model.extend_vocabulary: the tokenizer would write 'café' back as 'caf�'\n"
        "    expected: terms that its decoder leaves as they are\n"
        "    hint: its letters stand for bytes; leave this term out"
    )


def test_a_file_without_a_term_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(BadRecipe) as caught:
        vocabulary.terms_of(spec.ExtendVocabulary(file="terms.txt"), tmp_path)
    assert caught.value.screen() == (
        "model.extend_vocabulary: there is no term\n    expected: terms, or a file with a term per line"
    )


def test_texts_are_counted_from_their_beginning_only_as_far_as_needed() -> None:
    endless = (str(number) * 10 for number in iter(int, 1))
    assert len(vocabulary.beginning(endless, 95)) == 10


def test_a_checkpoint_of_a_bpe_tokenizer_trained_here_can_be_extended(tmp_path: Path) -> None:
    from runner.data.tokenizer import save_tokenizer, train_tokenizer

    how = spec.Tokenizer(train="bpe", from_data=("x",), vocab_size=280)
    folder = make_checkpoint(tmp_path / "model")
    save_tokenizer(train_tokenizer(how, ["部首 water"] * 3), folder)
    made = vocabulary.extend(load_tokenizer(folder), ["心水木", "部首"])
    assert [term.text for term in made.added] == ["心水木"]
    assert made.already == ("部首",)
    assert made.fast.ids(["心水木"]) == [[made.added[0].id]]
