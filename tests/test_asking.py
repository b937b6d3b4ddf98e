"""runner.asking: what the decorator takes and refuses, replies, thinking, ids."""

from __future__ import annotations

import doctest
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runner.asking.thinking
from runner.asking import Decoding, Reply, ascii_id, case_id, declared, probe, split_thinking, suite_key
from runner.errors import BadProbe


def control(reply: Reply) -> None: ...


def declare(**arguments: Any) -> Any:
    def test_it(reply: Reply) -> None: ...

    return declared(probe(**arguments)(test_it))


def refused(**arguments: Any) -> str:
    """The screen, without the place."""
    with pytest.raises(BadProbe) as caught:
        declare(**arguments)
    places = [str(problem.where) for problem in caught.value.problems]
    assert all(place.startswith(f"{__file__}:") for place in places)
    screen = caught.value.screen()
    for place in places:
        screen = screen.replace(f"{place}: ", "")
    return screen


def test_a_probe_that_says_only_its_prompt_is_greedy_and_short() -> None:
    found = declare(prompt="{{ q }}")
    assert (found.prompt, found.messages, found.choices, found.gate) == ("{{ q }}", None, None, None)
    assert found.decoding == Decoding(64, (), 0.0, 1.0, 1.0, 1, 0)


def test_everything_that_is_given_is_kept() -> None:
    rows = ({"q": str(number)} for number in range(3))
    found = declare(
        cases=rows, messages=[{"role": "user", "content": "{{ q }}"}], system="s", max_new_tokens=9, stop="x",
        temperature=1, top_p=0.9, repetition_penalty=1.2, samples=4, seed=7, cluster="q",
        chat_template_kwargs={"enable_thinking": False}, pooled={"n": len},
    )  # fmt: skip
    assert found.cases == ({"q": "0"}, {"q": "1"}, {"q": "2"})
    assert found.messages == (("user", "{{ q }}"),)
    assert found.decoding == Decoding(9, ("x",), 1, 0.9, 1.2, 4, 7)
    assert (found.template_kwargs, found.cluster, found.pooled) == ('{"enable_thinking": false}', "q", {"n": len})


def test_the_function_itself_stays_as_it_was() -> None:
    @probe(prompt="x")
    def test_it(reply: Reply) -> str:
        return reply.upper()

    assert test_it(Reply("ab")) == "AB"


MESSAGES = 'a list of {"role": …, "content": …}, or one column that holds such lists, "{{ column }}"'
CHOICES = 'one or more different texts, or one column that holds such lists, "{{ column }}"'
ROWS = 'a file name, or rows such as {"char": "心"}'
USER = {"role": "user", "content": "x"}
FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "neither prompt nor messages is given", "one of them"),
    ({"prompt": "x", "messages": [USER]}, "both prompt and messages are given", "one of them"),
    ({"prompt": 3}, "prompt is int", "a template, a string"),
    ({"prompt": "x", "system": 3}, "system is int", "a template, a string"),
    ({"messages": "asked: {{ q }}"}, "messages is 'asked: {{ q }}'", MESSAGES),
    ({"messages": []}, "messages is []", MESSAGES),
    ({"messages": [{"role": "user"}]}, "messages is [{'role': 'user'}]", MESSAGES),
    ({"messages": [{"role": "user", "content": 3}]}, "messages is [{'role': 'user', 'content': 3}]", MESSAGES),
    (
        {"messages": [USER, {"role": "assistant", "content": "y"}]},
        "the last message is the assistant's",
        "another's: the reply is what the assistant says next",
    ),
    (
        {"messages": [{"role": "system", "content": "y"}, USER], "system": "z"},
        "both system and a first message of the system are given",
        "one of them",
    ),
    ({"prompt": "x", "raw": 1}, "raw is 1", "True or False"),
    (
        {"prompt": "x", "raw": True, "system": "y"},
        "raw=True and system are given",
        "one of them: a raw prompt goes through no chat template",
    ),
    (
        {"prompt": "x", "raw": True, "chat_template_kwargs": {"a": 1}},
        "raw=True and chat_template_kwargs are given",
        "one of them: a raw prompt goes through no chat template",
    ),
    (
        {"prompt": "x", "chat_template_kwargs": {"a": {1}}},
        "chat_template_kwargs is {'a': {1}}",
        'a mapping that JSON can hold, for example {"enable_thinking": False}',
    ),
    ({"prompt": "x", "max_new_tokens": 0}, "max_new_tokens is 0", "a whole number, at least 1"),
    ({"prompt": "x", "max_new_tokens": True}, "max_new_tokens is True", "a whole number, at least 1"),
    ({"prompt": "x", "stop": ["a", ""]}, "stop is ['a', '']", "one or more strings that are not empty"),
    ({"prompt": "x", "stop": 3}, "stop is [3]", "one or more strings that are not empty"),
    ({"prompt": "x", "temperature": -1}, "temperature is -1", "a number, 0 (greedy) or above"),
    ({"prompt": "x", "temperature": math.nan}, "temperature is nan", "a number, 0 (greedy) or above"),
    ({"prompt": "x", "top_p": 0}, "top_p is 0", "a number above 0 and at most 1"),
    (
        {"prompt": "x", "top_p": 0.9},
        "top_p is 0.9 and temperature is 0",
        "a temperature above 0: greedy decoding draws nothing",
    ),
    ({"prompt": "x", "repetition_penalty": 0}, "repetition_penalty is 0", "a number above 0; 1 changes nothing"),
    ({"prompt": "x", "samples": 0.5}, "samples is 0.5", "a whole number, at least 1"),
    ({"prompt": "x", "seed": -1}, "seed is -1", "a whole number, at least 0"),
    (
        {"prompt": "x", "samples": 5},
        "samples is 5 and temperature is 0",
        "a temperature above 0: greedy samples are all the same",
    ),
    ({"prompt": "x", "choices": []}, "choices is []", CHOICES),
    ({"prompt": "x", "choices": ["a", "a"]}, "choices is ['a', 'a']", CHOICES),
    ({"prompt": "x", "choices": ["a", 3]}, "choices is ['a', 3]", CHOICES),
    ({"prompt": "x", "choices": "a, b"}, "choices is 'a, b'", CHOICES),
    (
        {"prompt": "x", "choices": ["a", "b"], "stop": "."},
        "choices and stop are given",
        "one of them: a closed question generates nothing",
    ),
    (
        {"prompt": "x", "choices": ["a", "b"], "temperature": 1},
        "choices and temperature are given",
        "one of them: a closed question generates nothing",
    ),
    ({"prompt": "x", "answer": "a"}, "answer is given without choices", "choices, of which the answer is one"),
    ({"prompt": "x", "choices": ["a", "b"], "answer": 1}, "answer is 1", 'a template, for example "{{ radical }}"'),
    ({"prompt": "x", "cases": 3}, "cases is 3", ROWS),
    ({"prompt": "x", "cases": {"q": "a"}}, "cases is {'q': 'a'}", ROWS),
    ({"prompt": "x", "cases": ["ab"]}, "a case is not a mapping: 'ab'", ROWS),
    ({"prompt": "x", "cases": [{1: "a"}]}, "a case has a column that is not named by text: {1: 'a'}", ROWS),
    ({"prompt": "x", "gate": 0.9}, "gate is 0.9", 'a mapping, for example {"min_pass_rate": 0.95}'),
    ({"prompt": "x", "given": control}, "given is not a probe", "a function decorated with @probe, defined above"),
    ({"prompt": "x", "cluster": 3}, "cluster is 3", "a column's name, or a template"),
    (
        {"prompt": "x", "pooled": {"n": 3}},
        "pooled is {'n': 3}",
        "a mapping of names to functions of the list of replies",
    ),
]


@pytest.mark.parametrize(("arguments", "found", "expected"), FAULTS, ids=[found for _, found, _ in FAULTS])
def test_an_argument_that_is_wrong_is_named_with_what_was_expected(
    arguments: dict[str, Any], found: str, expected: str
) -> None:
    assert refused(**arguments) == f"{found}\n    expected: {expected}"


def test_all_faults_of_a_probe_are_said_at_once() -> None:
    assert refused(prompt=3, top_p=2, cluster=1).count("expected:") == 3


def test_what_is_no_function_cannot_be_a_probe() -> None:
    with pytest.raises(BadProbe, match="expected: a function"):
        probe(prompt="x")(type("TestIt", (), {}))


def test_a_reply_is_a_string_with_what_an_author_asks_of_it() -> None:
    reply = Reply("心部", (3, 4), "stop", 0.5, -1.25, "hm")
    assert reply == "心部"
    assert (reply.tokens, reply.stop_reason, reply.margin, reply.logprob, reply.thinking) == (
        (3, 4), "stop", 0.5, -1.25, "hm",
    )  # fmt: skip
    assert Reply("心").thinking == ""


@pytest.mark.parametrize(
    ("text", "prompt", "thinking", "reply"),
    [
        ("4", "", "", "4"),
        ("<think>\n2 + 2\n</think>\n\n4", "", "2 + 2", "4"),
        ("\n<think>a</think> 4", "", "a", " 4"),
        ("<think>\n\n</think>\n\n4", "", "", "4"),
        ("2 + 2\n</think>\n4", "…<think>\n", "2 + 2", "4"),
        ("2 + 2</think>4", "", "2 + 2", "4"),  # the prompt of a server is not known
        ("<think>on and on", "", "on and on", ""),
        ("on and on", "…<think>\n", "on and on", ""),
        ("4", "…<think>\n\n</think>\n\n", "", "4"),
        ("a tag is <think> and </think>", "", "", "a tag is <think> and </think>"),
        ("say <think>", "", "", "say <think>"),
        ("<think>a</think>b</think>c", "", "a", "b</think>c"),
        ("", "", "", ""),
    ],
)
def test_thinking_is_split_off_where_it_stands_first(text: str, prompt: str, thinking: str, reply: str) -> None:
    assert split_thinking(text, prompt) == (thinking, reply)


@given(st.text(st.sampled_from("ab <>/think\n")), st.sampled_from(["", "<think>", "x"]))
def test_splitting_adds_nothing_to_what_was_said(text: str, prompt: str) -> None:
    thinking, reply = split_thinking(text, prompt)
    assert len(thinking) + len(reply) <= len(text)
    assert thinking in text
    assert text.endswith(reply)


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(runner.asking.thinking).failed == 0


@pytest.mark.parametrize(
    ("row", "id"),
    [
        ({"id": "a-1"}, "a-1"),
        ({"id": "心 1"}, "U+5FC3_U+0020_U+0031"),
        ({"id": 7}, "7"),
        ({"id": 7.5}, "7.5"),
        ({"id": Decimal(3)}, "3"),
        ({"id": "x" * 300}, "x" * 300),
    ],
)
def test_an_id_is_written_in_ascii(row: dict[str, Any], id: str) -> None:
    assert case_id(row) == id


@pytest.mark.parametrize("missing", [{"id": None}, {"id": ""}, {"id": math.nan}, {}])
def test_without_an_id_it_is_a_digest_of_the_row(missing: dict[str, Any]) -> None:
    found = case_id({"char": "心", **missing})
    assert len(found) == 12
    assert found == case_id({**missing, "char": "心"}) != case_id({"char": "水", **missing})


@pytest.mark.parametrize("id", [["a"], {"a": 1}, b"a", object()])
def test_an_id_that_would_not_be_the_same_tomorrow_is_refused(id: object) -> None:
    with pytest.raises(BadProbe, match="expected: text or a number"):
        case_id({"id": id})


@given(st.text(min_size=1))
def test_ids_of_different_texts_differ(text: str) -> None:
    assert ascii_id(text).isascii()
    assert ascii_id(text) != ascii_id(text + "心")


def keys(folder: Path, **arguments: Any) -> str:
    return suite_key(folder / "test_p.py", **arguments)


def test_a_change_of_decoding_is_another_suite_and_none_is_not(tmp_path: Path) -> None:
    (tmp_path / "test_p.py").write_text("PROMPT = 'x'", "utf-8")
    assert keys(tmp_path) == keys(tmp_path, decoding=None) == keys(tmp_path, decoding={})
    found = {keys(tmp_path, decoding=decoding) for decoding in (None, {"temperature": 1.0}, {"temperature": 0.5})}
    assert len(found) == 3


def test_files_that_a_glob_of_the_probe_names_are_part_of_its_key(tmp_path: Path) -> None:
    (tmp_path / "test_p.py").write_text("CASES = '../rows/*.csv'".replace("../", ""), "utf-8")
    before = keys(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.csv").write_text("a\n1\n", "utf-8")
    named = keys(tmp_path)
    (tmp_path / "rows" / "a.csv").write_text("a\n2\n", "utf-8")
    assert len({before, named, keys(tmp_path)}) == 3
