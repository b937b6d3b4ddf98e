"""runner.probing.rendering: from a probe and a row to questions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from runner.asking import Case, Decoding, Reply, declared, probe
from runner.errors import BadProbe
from runner.probing.questions import Message, Question
from runner.probing.rendering import Form, Rendered, seed_of

ROW = {"id": "心", "char": "心", "radical": "心", "empty": None, "nan": math.nan, "options": ["心", "水"], "number": 3}


def form(**arguments: Any) -> Form:
    def test_it(reply: Reply) -> None: ...

    found = declared(probe(**arguments)(test_it))
    assert found is not None
    return Form(found, found.decoding)


def written(**arguments: Any) -> Rendered:
    found = form(**arguments).write(Case("U+5FC3", ROW))
    assert not found.error
    return found


def asked(**arguments: Any) -> Question:
    (question,) = written(**arguments).questions
    return question


def test_a_prompt_is_filled_in_from_the_row() -> None:
    assert asked(prompt="汉字`{{ char }}`") == Question("汉字`心`")


def test_a_system_text_makes_it_a_dialogue() -> None:
    found = asked(prompt="{{ char }}？", system="You know {{ radical }}.")
    assert (found.prompt, found.messages) == ("", (Message("system", "You know 心."), Message("user", "心？")))


def test_messages_are_templates_or_a_column() -> None:
    turns = [
        {"role": "user", "content": "{{ char }}"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    found = asked(messages=turns)
    assert found.messages == (Message("user", "心"), Message("assistant", "a"), Message("user", "b"))
    case = Case("c", {"turns": [{"role": "user", "content": "{{ not a template }}"}]})
    whole = form(messages="{{ turns }}", system="s").write(case)
    assert whole.questions[0].messages == (Message("system", "s"), Message("user", "{{ not a template }}"))


def test_a_raw_prompt_and_template_arguments_reach_the_question() -> None:
    assert asked(prompt="x", raw=True).raw
    kwargs = {"enable_thinking": False, "a": 1}
    assert asked(prompt="x", chat_template_kwargs=kwargs).template_kwargs == '{"a": 1, "enable_thinking": false}'


def test_choices_are_templates_or_a_column_and_the_key_is_one_of_them() -> None:
    found = written(prompt="{{ char }}", choices=["{{ char }}", "水"], answer="{{ radical }}")
    assert (found.questions[0].choices, found.expected) == (("心", "水"), "心")
    assert asked(prompt="x", choices="{{ options }}").choices == ("心", "水")
    assert asked(prompt="x", choices=["a", "b"]).decoding == Decoding()


def test_greedy_questions_that_differ_in_what_changes_nothing_are_one() -> None:
    assert asked(prompt="x", seed=3) == asked(prompt="x")
    assert asked(prompt="x", temperature=1.0, samples=1, seed=3).decoding == Decoding(temperature=1.0)


def test_samples_have_seeds_that_depend_on_case_and_number_alone() -> None:
    found = written(prompt="x", temperature=1.0, samples=3, seed=5).questions
    assert [question.seed for question in found] == [seed_of(5, "U+5FC3", number) for number in range(3)]
    assert len({question.seed for question in found}) == 3
    assert all(0 < question.seed < 2**63 for question in found)
    assert seed_of(0, "a", 0) == 1811790662130920900  # the same in every process and version


def test_the_cluster_is_the_case_itself_a_column_or_a_template() -> None:
    assert written(prompt="x").cluster == "U+5FC3"
    assert written(prompt="x", cluster="radical").cluster == "心"
    assert written(prompt="x", cluster="{{ char }}/{{ number }}").cluster == "心/3"
    assert written(prompt="x", cluster="empty").cluster == "U+5FC3"


def test_the_digest_is_of_what_is_asked_and_how() -> None:
    variants: list[dict[str, Any]] = [
        {"prompt": "x"}, {"prompt": "y"}, {"prompt": "x", "system": "s"}, {"prompt": "x", "raw": True},
        {"prompt": "x", "chat_template_kwargs": {"a": 1}}, {"prompt": "x", "max_new_tokens": 65},
        {"prompt": "x", "temperature": 1.0}, {"prompt": "x", "temperature": 1.0, "samples": 2},
        {"prompt": "x", "choices": ["a", "b"]}, {"prompt": "x", "choices": ["b", "a"]},
        {"messages": [{"role": "user", "content": "x"}]},
    ]  # fmt: skip
    digests = [written(**variant).digest for variant in variants]
    assert len(set(digests)) == len(variants)
    assert all(len(digest) == 16 for digest in digests)
    assert written(prompt="{{ 'x' }}", cluster="char", gate={"min_pass_rate": 1}).digest == digests[0]


def test_what_a_recipe_changes_in_the_decoding_changes_the_digest() -> None:
    own = form(prompt="x")
    changed = Form(own._probe, replace(own._probe.decoding, repetition_penalty=1.2)).write(Case("c", ROW))
    assert changed.digest != own.write(Case("c", ROW)).digest
    assert changed.questions[0].decoding.repetition_penalty == 1.2


PROMPT, CANNOT, CHOICES = "the prompt", "cannot be written for case U+5FC3:", "one or more different texts"
UNWRITABLE: list[tuple[dict[str, Any], str]] = [
    (
        {"prompt": "{{ chr }}"},
        "the prompt '{{ chr }}' cannot be written for case U+5FC3: 'chr' is undefined; did you mean 'char'? "
        "the case has id, char, radical, empty, nan, options, number",
    ),
    ({"prompt": "{{ empty }}"}, f"{PROMPT} '{{{{ empty }}}}' {CANNOT} 'empty' has no value there (None)"),
    ({"prompt": "a {{ nan }}"}, f"{PROMPT} 'a {{{{ nan }}}}' {CANNOT} 'nan' has no value there (nan)"),
    (
        {"prompt": "x", "choices": ["{{ char }}", "{{ radical }}"]},
        "the choices of case U+5FC3 are ('心', '心'); expected: " + CHOICES,
    ),
    ({"prompt": "x", "choices": "{{ char }}"}, "the choices of case U+5FC3 are '心'; expected: " + CHOICES),
    (
        {"prompt": "x", "choices": "{{ option }}"},
        "choices: case U+5FC3 has no column 'option'; did you mean 'options'? "
        "the case has id, char, radical, empty, nan, options, number",
    ),
    (
        {"prompt": "x", "choices": ["a", "b"], "answer": "{{ char }}"},
        "the answer '心' of case U+5FC3 is not among its choices: 'a', 'b'",
    ),
    (
        {"messages": "{{ char }}"},
        "the messages of case U+5FC3 are '心'; expected: a list of role and content, the last not the assistant's",
    ),
    (
        {"prompt": "x", "cluster": "radicl"},
        "cluster: case U+5FC3 has no column 'radicl'; did you mean 'radical'? "
        "the case has id, char, radical, empty, nan, options, number",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error"), UNWRITABLE, ids=[str(arguments) for arguments, _ in UNWRITABLE])
def test_a_row_that_cannot_be_asked_says_why(arguments: dict[str, Any], error: str) -> None:
    found = form(**arguments).write(Case("U+5FC3", ROW))
    assert (found.error, found.questions) == (error, ())


def test_a_system_message_in_the_row_beside_one_of_the_probe_is_an_error() -> None:
    case = Case("c", {"turns": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]})
    assert form(messages="{{ turns }}", system="s").write(case).error == (
        "case c begins with a system message, and the probe gives one too"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{% if empty %}a{% endif %}b",
        "{{ empty or 'b' }}",
        "{% if empty is none %}None is fine{% endif %}",
        "None {{ char }}",
    ],
)
def test_an_empty_value_that_is_only_looked_at_is_fine(template: str) -> None:
    assert asked(prompt=template).prompt


def test_a_template_that_is_none_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(BadProbe) as caught:
        form(prompt="{{ char }")
    (problem,) = caught.value.problems
    assert problem.message == "prompt '{{ char }': unexpected '}'"
    assert (problem.expected, str(problem.where).partition(":")[0]) == ("a Jinja template", __file__)
