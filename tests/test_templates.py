"""runner.templates: what a template needs, what it gives, and what it may not do."""

import pytest

from runner.templates import TemplateProblem, compile_template, render_value


def problem(source: str, **values: object) -> str:
    with pytest.raises(TemplateProblem) as caught:
        compile_template(source).render(values)
    return str(caught.value)


def test_a_row_is_written_as_the_template_says() -> None:
    template = compile_template("汉字`{{ char }}`的部首是`{{ other.radical }}部`\n")
    assert template.render({"char": "心", "other": {"radical": "水"}}) == "汉字`心`的部首是`水部`\n"


def test_a_template_names_the_fields_it_takes() -> None:
    template = compile_template("{{ char }} {% for x in xs %}{{ x }}{{ other.radical }}{% endfor %}{{ other.strokes }}")
    assert template.names == {"char", "xs", "other"}
    assert template.attributes == {"other": {"radical", "strokes"}}


def test_nothing_is_escaped() -> None:
    assert compile_template("{{ a }}").render({"a": "<b> & 'c'"}) == "<b> & 'c'"


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ n }}", 3),
        (" {{ n * 2 }} ", 6),
        ("{{ xs }}", [1, 2]),
        ("{{ none }}", None),
        ("n is {{ n }}", "n is 3"),
        ("{{ n }}{{ n }}", "33"),
        ("plain", "plain"),
        ("{{ {'a': n} }}", {"a": 3}),
        ("{ not a template }", "{ not a template }"),
    ],
)
def test_a_value_that_is_wholly_one_template_keeps_its_type(source: str, value: object) -> None:
    assert render_value(source, {"n": 3, "xs": [1, 2], "none": None}) == value


def test_an_undefined_name_is_an_error_wherever_it_stands() -> None:
    assert problem("{{ nowhere }}") == "'nowhere' is undefined"
    assert problem("{{ other.nowhere }}", other={}) == "'dict object' has no attribute 'nowhere'"
    for source in ("{{ nowhere }}", "a {{ nowhere }}"):
        with pytest.raises(TemplateProblem, match="^'nowhere' is undefined$"):
            render_value(source, {})


def test_wrong_syntax_is_told_in_one_line() -> None:
    with pytest.raises(TemplateProblem) as caught:
        compile_template("{{ char ")
    assert str(caught.value) == "unexpected end of template, expected 'end of print statement'."


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ '{}'.format() }}", "IndexError: tuple index out of range"),
        ("{{ '{x}'.format() }}", "KeyError: 'x'"),
        ("{{ 'a' + 1 }}", 'TypeError: can only concatenate str (not "int") to str'),
    ],
)
def test_what_goes_wrong_while_rendering_is_a_problem_of_the_template(source: str, told: str) -> None:
    assert problem(source) == told
    with pytest.raises(TemplateProblem) as caught:
        render_value(source, {})
    assert str(caught.value) == told


@pytest.mark.parametrize("source", ["{{ [1, 2] | random }}", "{{ lipsum() }}"])
def test_nothing_random_can_be_reached(source: str) -> None:
    with pytest.raises(TemplateProblem):
        compile_template(source).render({})


@pytest.mark.parametrize("source", ["{{ x.__class__ }}", "{{ ''.__class__.__mro__ }}", "{{ xs.append(1) }}"])
def test_a_template_reaches_no_internals_and_changes_nothing(source: str) -> None:
    values = {"x": "", "xs": [1]}
    with pytest.raises(TemplateProblem):
        compile_template(source).render(values)
    assert values["xs"] == [1]
