"""runner.probing.engine on a real model of a few thousand parameters: batches answer as if each question were alone."""

import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from runner.asking import Decoding
from runner.probing.engine import Engine
from runner.probing.engine.choosing import Choosing, Chosen
from runner.probing.questions import Answer, Message, Question
from tests.tiny import copy, make_checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def engine(tiny_checkpoint: Path) -> Engine:
    return Engine(tiny_checkpoint)


def ask(prompt: str, max_new_tokens: int = 24, stop: tuple[str, ...] = (), **decoding: float) -> Question:
    return Question(prompt, decoding=Decoding(max_new_tokens, stop, **decoding))


def questions(number: int) -> list[Question]:
    generator = random.Random(3)
    mixed = [
        ask(
            "".join(generator.choices("abcdefgh汉字`的部首是什么？", k=generator.randint(1, 40))),
            generator.choice([8, 24]),
            generator.choice([(), ("a",), ("是", "bc")]),
        )
        for _ in range(number)
    ]
    alike = ["汉字`心`的部首是什么？ which one of the " + "abc" * k for k in range(1, 9)]
    return mixed + [ask(prompt) for prompt in alike]


def sharing(number: int) -> list[Question]:
    generator = random.Random(5)
    texts = ["".join(generator.choices("abcdefgh", k=generator.randint(1, 6))) for _ in range(number)]
    return [ask(f"汉字`心`的部首是什么？ which one of the {text}", generator.choice([3, 24])) for text in texts]


def said(answers: list[Answer]) -> list[tuple[str, tuple[int, ...], str]]:
    return [(answer.text, answer.tokens, answer.stop_reason) for answer in answers]


@pytest.mark.parametrize("asked", [questions(60), sharing(60)], ids=["mixed", "sharing a beginning"])
@pytest.mark.parametrize("batch_tokens", [None, 300, 64])
def test_batched_replies_equal_those_asked_alone(
    tiny_checkpoint: Path, asked: list[Question], batch_tokens: int | None
) -> None:
    engine = Engine(tiny_checkpoint, batch_tokens=batch_tokens)
    together, alone = engine.generate(asked), engine.alone(asked)
    assert said(together) == said(alone)
    assert [a.margin for a in together] == pytest.approx([a.margin for a in alone], abs=1e-4)
    assert [a.logprob for a in together] == pytest.approx([a.logprob for a in alone], abs=1e-3)
    assert {a.stop_reason for a in together} >= {"length"}
    assert not any(a.again for a in together)
    assert all(a.again for a in alone)


def test_greedy_replies_are_those_of_transformers(engine: Engine) -> None:
    asked = questions(8)
    for question, answer in zip(asked, engine.generate(asked), strict=True):
        ids = engine.tokenizer(question.prompt, return_tensors="pt")
        output = engine.model.generate(**ids, max_new_tokens=24, do_sample=False)
        tokens = output[0][ids["input_ids"].shape[1] :].tolist()
        assert list(answer.tokens) == tokens[: len(answer.tokens)]


def test_the_log_probability_is_that_of_the_whole_reply(engine: Engine) -> None:
    answer = engine.generate([ask("abc"), ask("abd")])[0]
    ids = engine.tokenizer("abc")["input_ids"]
    logits = engine.model(torch.tensor([ids + list(answer.tokens)])).logits[0, len(ids) - 1 : -1].detach()
    expected = logits.log_softmax(-1).gather(1, torch.tensor(answer.tokens)[:, None]).sum()
    assert answer.logprob == pytest.approx(float(expected), abs=1e-4)


def test_a_close_call_that_fell_the_other_way_in_the_batch_is_settled_alone(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny_checkpoint)
    right = engine.generate(sharing(12))
    choose = Choosing.choose

    def wrong_for_a_batch(self: Choosing, at: slice, logits: torch.Tensor, count: torch.Tensor) -> Chosen:
        chosen = choose(self, at, logits, count)
        if len(chosen.tokens) == 1:
            return chosen
        tokens = torch.where(count == 2, (chosen.tokens + 1) % 20 + 3, chosen.tokens)
        return Chosen(tokens, chosen.margins.masked_fill(count == 2, 1e-7), chosen.logprobs)

    monkeypatch.setattr(Choosing, "choose", wrong_for_a_batch)
    assert said(engine.generate(sharing(12))) == said(right)


def test_of_equally_likely_tokens_the_first_is_taken_in_a_batch_as_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="float32")
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        weight[30:] = weight[3:30].repeat(2, 1)[: len(weight) - 30]  # tied: each logit comes twice
    twin = copy(tiny_checkpoint, tmp_path / "twin")
    model.save_pretrained(twin)
    engine = Engine(twin)
    answers = engine.generate(sharing(20))
    assert {answer.margin for answer in answers} == {0.0}
    assert said(answers) == said(engine.alone(sharing(20)))


def test_a_stop_string_is_cut_off_and_ends_only_its_own_row(engine: Engine) -> None:
    free = engine.generate([ask("abc")])[0].text
    stop = free[3:5]
    answers = engine.generate([ask("abc", 24, (stop,)), ask("abc")])
    assert answers[0].stop_reason == "stop"
    assert answers[0].text == free[: free.index(stop)]
    assert answers[1].text == free


def test_a_special_token_can_be_a_stop_string(engine: Engine) -> None:
    tokens = engine.generate([ask("abc")])[0].tokens
    special = engine.tokenizer.convert_ids_to_tokens(tokens[4])
    other = Engine(engine.path)
    other.tokenizer.add_special_tokens({"additional_special_tokens": [special]})
    other._prompts._special[special] = tokens[4]
    answer = other.generate([ask("abc", 24, (special,)), ask("x")])[0]
    assert (answer.stop_reason, answer.tokens) == ("stop", tokens[: tokens.index(tokens[4]) + 1])


def test_no_question_is_no_answer(engine: Engine) -> None:
    assert engine.generate([]) == []


def test_a_prompt_longer_than_the_model_takes_is_an_error_of_its_own_row(engine: Engine) -> None:
    answers = engine.generate([ask("a" * 600), ask("abc")])
    assert answers[0].error == "the prompt has 600 tokens and the model takes 512"
    assert answers[1].text


def test_an_empty_prompt_begins_after_the_end_of_a_document(engine: Engine) -> None:
    assert engine.generate([ask("", 4)])[0].tokens == engine.generate([ask("<eos>", 4)])[0].tokens


TEMPLATE = (
    "{% if shout %}!{% endif %}{% for message in messages %}[{{ message.role[0] }}{{ message.content }}]{% endfor %}"
    "{% if messages[0].content == 'bad' %}{{ raise_exception('no bad words') }}{% endif %}"
    "{% if add_generation_prompt %}x{% endif %}"
)


def test_a_chat_template_wraps_prompts_and_messages_but_not_what_is_raw(tmp_path: Path) -> None:
    dialogue = (Message("system", "be"), Message("user", "abc"))
    asked = [
        Question("abc"),
        Question(messages=dialogue),
        Question("abc", raw=True),
        Question("abc", template_kwargs='{"shout": true}'),
        Question("bad"),
    ]
    engine = Engine(make_checkpoint(tmp_path / "chat", chat_template=TEMPLATE))
    answers = engine.generate(asked)
    assert [a.prompt for a in answers[:4]] == ["[uabc]x", "[sbe][uabc]x", "abc", "![uabc]x"]
    assert answers[4].error == "the chat template cannot write the prompt: no bad words"
    plain = Engine(engine.path, chat=False).generate(asked[:2])
    assert [a.prompt for a in plain] == ["abc", "[sbe][uabc]x"]


def test_messages_without_a_chat_template_are_an_error_of_their_own_row(engine: Engine) -> None:
    answers = engine.generate([Question(messages=(Message("user", "abc"),)), ask("abc")])
    assert answers[0].error == "the question has messages, and the checkpoint's tokenizer has no chat template"
    assert answers[1].text


def test_what_is_drawn_depends_on_its_seed_and_not_on_its_batch(engine: Engine) -> None:
    drawn = [
        Question(question.prompt, decoding=Decoding(24, temperature=0.8, top_p=0.9), seed=seed)
        for seed, question in enumerate(sharing(30))
    ]
    mixed = engine.generate([*sharing(10), *drawn])[10:]
    alone = [engine.generate([question])[0] for question in drawn]
    assert said(mixed) == said(alone)
    again = engine.generate([Question(drawn[0].prompt, decoding=drawn[0].decoding, seed=seed) for seed in range(30)])
    assert len({answer.tokens for answer in again}) > 1
    assert {answer.margin for answer in mixed} == {None}


def test_a_nucleus_of_one_token_is_greedy(engine: Engine) -> None:
    narrow = engine.generate([ask("abc", temperature=1.0, top_p=1e-6), ask("x", temperature=1e-4)])
    greedy = engine.generate([ask("abc"), ask("x")])
    assert [a.tokens for a in narrow] == [a.tokens for a in greedy]
    assert [a.logprob for a in narrow] == pytest.approx([a.logprob for a in greedy], abs=1e-4)


def test_tokens_are_drawn_as_often_as_they_are_likely(engine: Engine) -> None:
    number = 4000
    asked = [Question("abc", decoding=Decoding(1, temperature=3.0), seed=seed) for seed in range(number)]
    drawn = torch.tensor([answer.tokens[0] for answer in engine.generate(asked)]).bincount(
        minlength=engine._network.vocabulary
    )
    logits = engine.model(torch.tensor([engine.tokenizer("abc")["input_ids"]])).logits[0, -1].detach()
    expected = (logits / 3.0).softmax(-1) * number
    assert float(((drawn - expected) ** 2 / expected.clamp(min=1)).sum()) < 2 * len(expected)


def test_a_repetition_penalty_is_that_of_transformers(engine: Engine) -> None:
    asked = [ask(question.prompt, 16, repetition_penalty=1.7) for question in sharing(12)]
    answers = engine.generate([*asked, *sharing(4)])
    for question, answer in zip(asked, answers, strict=False):
        ids = engine.tokenizer(question.prompt, return_tensors="pt")
        output = engine.model.generate(**ids, max_new_tokens=16, do_sample=False, repetition_penalty=1.7)
        tokens = output[0][ids["input_ids"].shape[1] :].tolist()
        assert list(answer.tokens) == tokens[: len(answer.tokens)]
    assert said(answers[12:]) == said(engine.generate(sharing(4)))


def test_alone_computes_in_fp32_and_leaves_the_weights_as_they_were(tiny_checkpoint: Path, engine: Engine) -> None:
    rough = Engine(tiny_checkpoint, dtype="bfloat16")
    before = [weight.clone() for weight in rough.model.parameters()]
    answers = rough.alone(sharing(5))
    assert all(torch.equal(a, b) for a, b in zip(before, rough.model.parameters(), strict=True))
    exact = AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype="bfloat16").float()
    ids = engine.tokenizer(answers[0].prompt, return_tensors="pt")
    output = exact.generate(**ids, max_new_tokens=len(answers[0].tokens), do_sample=False)
    assert list(answers[0].tokens) == output[0][ids["input_ids"].shape[1] :].tolist()
    assert rough.dtype == "bfloat16"
    assert len(rough.generate(sharing(5))) == 5


def test_the_engine_says_what_it_is(engine: Engine) -> None:
    assert engine.describe() == "local engine, float32 on cpu, 1 thread"


HUNGRY = """
import resource
from pathlib import Path
from runner.asking import Decoding
from runner.probing.engine import Engine
from runner.probing.questions import Question

engine = Engine(Path({path!r}), batch_tokens=10**9)
asked = [Question("abc" + "de"[k % 2] * k, decoding=Decoding(500)) for k in range(1, 9)]
before = [answer.tokens for answer in engine.generate(asked)]
many = [Question(q.prompt * (1 + k % 3), decoding=q.decoding) for k in range(60) for q in asked]
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {more}, resource.RLIM_INFINITY))
answers = engine.generate(many)
print(engine.batch_tokens < 10**9, [a.tokens for a in answers[:8]] == before, {{a.error for a in answers}})
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="memory can be limited on Linux only")
def test_a_batch_that_does_not_fit_into_memory_halves_by_itself(tiny_checkpoint: Path) -> None:
    program = HUNGRY.format(path=str(tiny_checkpoint), more=80_000_000)
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines()[-1:] == ["True True {''}"], ran.stderr
