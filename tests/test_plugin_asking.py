"""How a probe asks: dialogues, thinking, decoding, samples. Real sessions on a real checkpoint."""

import re
from pathlib import Path

import pytest

from tests.probe_project import PROBE, ask, probes, verdicts_of, write
from tests.tiny import make_checkpoint

pytest_plugins = ["pytester"]

TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] }}:{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("chat") / "checkpoint-1", chat_template=TEMPLATE)


def test_a_dialogue_reaches_the_chat_template_and_the_exact_prompt_the_verdict(
    project: pytest.Pytester, chatting: Path
) -> None:
    file = verdicts_of(
        project,
        chatting,
        probes("""
@probe(cases=ROWS[:1], prompt="{{ char }}?", system="be short", max_new_tokens=2)
def test_system(reply): pass

def turn(role, content): return {"role": role, "content": content}
TURNS = [turn("user", "{{ char }}"), turn("assistant", "a"), turn("user", "b")]
@probe(cases=ROWS[:1], messages=TURNS, max_new_tokens=2)
def test_turns(reply): pass

@probe(cases=ROWS[:1], messages="{{ turns }}", max_new_tokens=2)
def test_column(reply): pass

@probe(cases=ROWS[:1], prompt="{{ char }}", raw=True, max_new_tokens=2)
def test_raw(reply): pass

@probe(cases=ROWS[:1], prompt="{{ char }}", chat_template_kwargs={"enable_thinking": False}, max_new_tokens=2)
def test_kwargs(reply): pass
"""),
    )
    assert {verdict.suite: verdict.prompt for verdict in file.verdicts} == {
        "test_system": "s:be short\nu:心?\na:",
        "test_turns": "u:心\na:a\nu:b\na:",
        "test_column": "u:心\na:",
        "test_raw": "心",
        "test_kwargs": "u:心\na:<think></think>",
    }
    assert len({verdict.question for verdict in file.verdicts}) == 5


def test_a_dialogue_without_a_chat_template_is_an_error_of_its_suite_alone(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    file = verdicts_of(
        project, tiny_checkpoint, PROBE + '\n@probe(cases=ROWS, prompt="x", system="s")\ndef test_it(reply): pass\n'
    )
    assert {verdict.reason for verdict in file.of("test_it")} == {
        "the question has messages, and the checkpoint's tokenizer has no chat template"
    }
    assert [verdict.outcome for verdict in file.of("test_not_water")] == ["pass", "miss", "pass"]


def test_a_dialogue_that_the_chat_template_refuses_is_an_error_of_its_suite_alone(
    project: pytest.Pytester, tmp_path: Path
) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}" + TEMPLATE
    checkpoint = make_checkpoint(tmp_path / "checkpoint-1", chat_template=refusing)
    probe = PROBE + '\n@probe(cases=ROWS, prompt="x", system="s")\ndef test_it(reply): pass\n'
    file = verdicts_of(project, checkpoint, probe)
    assert {verdict.reason for verdict in file.of("test_it")} == {
        "the chat template cannot write the prompt: no system, please"
    }
    assert [verdict.outcome for verdict in file.of("test_not_water")] == ["pass", "miss", "pass"]


def test_what_answers_is_said(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, PROBE)
    ask(project, "probes", "--ckpt", tiny_checkpoint).stdout.fnmatch_lines(["local engine, float32 on *"])


def test_an_argument_that_the_chat_template_never_mentions_is_noted(project: pytest.Pytester, chatting: Path) -> None:
    write(
        project,
        probes("""
@probe(cases=ROWS, prompt="x", chat_template_kwargs={"enable_thinkin": False}, max_new_tokens=2)
def test_it(reply): pass
"""),
    )
    result = ask(project, "probes", "--ckpt", chatting)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "chat_template_kwargs: enable_thinkin changes nothing: the chat template never mentions it; "
            "did you mean enable_thinking?"
        ]
    )


def test_thinking_that_the_chat_template_opened_is_no_part_of_the_reply(
    project: pytest.Pytester, tmp_path: Path
) -> None:
    opening = make_checkpoint(tmp_path / "checkpoint-1", chat_template=TEMPLATE + "<think>")
    file = verdicts_of(
        project,
        opening,
        probes("""
@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=5)
def test_it(reply):
    assert reply == "" and reply.thinking and len(reply.tokens) == 5
"""),
    )
    assert [verdict.outcome for verdict in file.verdicts] == ["pass"] * 3  # it never closes: all of it is thinking
    assert all(verdict.generation["thinking"] and not verdict.reply for verdict in file.verdicts)


def test_every_key_of_the_decoding_in_force_is_in_the_verdict(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    file = verdicts_of(
        project,
        tiny_checkpoint,
        probes("""
@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=3, stop=["zz"], repetition_penalty=1.5)
def test_it(reply): assert reply.logprob is None or reply.logprob <= 0
"""),
    )
    generation = dict(file.verdicts[0].generation)
    assert generation.pop("stop_reason") in ("eos", "length", "stop")
    assert generation == {
        "max_new_tokens": 3, "stop": ["zz"], "temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.5,
        "samples": 1, "seed": 0, "dtype": "float32", "engine": "local",
    }  # fmt: skip
    assert [verdict.cluster for verdict in file.verdicts] == ["U+5FC3", "U+6C34", "U+6728"]
    assert all(re.fullmatch("[0-9a-f]{16}", verdict.question) for verdict in file.verdicts)


SAMPLED = """
@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=8, temperature=1.0, samples=4, seed=SEED)
def test_it(case, reply, replies, record):
    assert replies[0] == reply and len(replies) == 4
    record(different=len(set(replies)))
"""


def test_a_probe_gets_all_its_samples_and_they_are_the_same_tomorrow(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    first = verdicts_of(project, tiny_checkpoint, probes(SAMPLED.replace("SEED", "1")))
    assert [verdict.outcome for verdict in first.verdicts] == ["pass"] * 3
    assert all(len(verdict.generation["others"]) == 3 for verdict in first.verdicts)
    assert any(verdict.values["different"] > 1 for verdict in first.verdicts)
    assert verdicts_of(project, tiny_checkpoint, probes(SAMPLED.replace("SEED", "1"))).verdicts == first.verdicts
    other = verdicts_of(project, tiny_checkpoint, probes(SAMPLED.replace("SEED", "2")))
    assert [verdict.reply for verdict in other.verdicts] != [verdict.reply for verdict in first.verdicts]


def test_a_sample_does_not_depend_on_order_or_selection(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    whole = verdicts_of(project, tiny_checkpoint, probes(SAMPLED.replace("SEED", "1")))
    turned = verdicts_of(project, tiny_checkpoint, probes(SAMPLED.replace("SEED", "1").replace("=ROWS", "=ROWS[::-1]")))
    alone = verdicts_of(project, tiny_checkpoint, probes(SAMPLED.replace("SEED", "1")), "-k", "U+6C34")
    said = {verdict.case_id: (verdict.reply, verdict.generation["others"]) for verdict in whole.verdicts}
    for file in (turned, alone):
        assert all(said[one.case_id] == (one.reply, one.generation["others"]) for one in file.verdicts)


def test_a_miss_shows_every_sample(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, probes(SAMPLED.replace("SEED", "1").replace("record(", "assert not replies; record(")))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "-k", "U+6C34")
    result.stdout.fnmatch_lines(["    prompt  水", *["    reply   *"] * 4, ">   assert not replies*"], consecutive=True)
