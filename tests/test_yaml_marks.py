"""YAML as recipes are written in it: what is a number, what is text, and where everything stands."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import BadRecipe
from runner.yaml_marks import read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1.0e-4", 1e-4),
        ("+12", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", 10),
        ("-.5", -0.5),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("on", "on"),
        ("no", "no"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'2e-5'", "2e-5"),
        ("!!str 5", "5"),
        ("-.inf", float("-inf")),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: object) -> None:
    found = read(f"key: {text}\n", "a.yaml")
    assert found.values == {"key": value}
    assert type(found.values["key"]) is type(value)  # type: ignore[index]
    assert not found.problems


def test_a_key_is_always_text() -> None:
    assert read("{1: a, true: b, on: c, null: d}", "a.yaml").values == {"1": "a", "true": "b", "on": "c", "null": "d"}


def test_every_path_has_its_line_column_and_length() -> None:
    marks = read("字: {b: [10, 2e-5]}\nlong: |\n  one\n  two\n\nlast: ' x '\n", "a.yaml").marks
    places = {path: (mark.at_key(), mark.at_value()) for path, mark in marks.items()}
    seen = {path: [(where.line, where.column, where.length) for where in both] for path, both in places.items()}
    assert seen["字",] == [(1, 1, 1), (1, 4, 15)]
    assert seen["字", "b"] == [(1, 5, 1), (1, 8, 10)]
    assert seen["字", "b", 1] == [(1, 13, 4), (1, 13, 4)]
    assert seen["last",] == [(6, 1, 4), (6, 7, 5)]
    assert marks["long",].within("two").line == 4


def test_a_value_on_the_line_below_is_pointed_at_by_its_key() -> None:
    marks = read("stages:\n  qa:\n    kind: sft\n", "a.yaml").marks
    assert marks["stages", "qa"].at_value().line == 2


def test_an_alias_is_the_value_again_at_the_place_of_its_anchor() -> None:
    found = read("a: &x {b: 1}\nc: *x\n", "a.yaml")
    assert found.values == {"a": {"b": 1}, "c": {"b": 1}}
    assert found.marks["c", "b"].at_value().line == 1


def test_lines_are_counted_with_windows_newlines_and_a_byte_order_mark() -> None:
    found = read("\ufeffa: 1\r\nb: 2\r\nb: 3\r\n", "a.yaml")
    assert found.values == {"a": 1, "b": 2}
    assert [problem.where.line for problem in found.problems if problem.where] == [3]


def test_faults_that_leave_the_rest_readable_are_all_reported() -> None:
    found = read("a: !x 1\na: 2\nb: {{ q }}\n<<: {}\n", "a.yaml")
    assert [problem.where.line for problem in found.problems if problem.where] == [1, 2, 3, 4]


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    with pytest.raises(BadRecipe, match="unfold"):
        read("\n".join(lines), "a.yaml")


def test_very_deep_nesting_is_refused_without_a_crash() -> None:
    with pytest.raises(BadRecipe, match="deep"):
        read("[" * 5000 + "]" * 5000, "a.yaml")


def test_nothing_is_constructed() -> None:
    found = read("a: !!python/object/apply:os.system ['true']\n", "a.yaml")
    assert found.values == {"a": ["true"]}
    assert "unknown tag" in found.problems[0].message


@given(st.text(max_size=200))
def test_any_text_gives_values_or_a_bad_recipe(text: str) -> None:
    with contextlib.suppress(BadRecipe):
        read(text, "a.yaml")


PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("C",)))
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), PRINTABLE),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text("abcdef", min_size=1), inner)),
    max_leaves=20,
)  # fmt: skip


@given(TREES)
def test_json_is_read_as_json(tree: object) -> None:
    found = read(json.dumps({"tree": tree}), "a.yaml")
    assert found.values == {"tree": tree}


@given(st.dictionaries(st.text("abc", min_size=1), st.one_of(st.integers(), st.text("xyz: {}[]#&*!|>'\"%@`-?,0"))))
def test_each_scalar_stands_where_its_mark_says(tree: dict[str, object]) -> None:
    text = yaml.safe_dump(tree, width=10**6, default_style='"')
    found = read(text, "a.yaml")
    for name in tree:
        where = found.marks[name,].at_key()
        line = text.splitlines()[(where.line or 0) - 1]
        assert line[(where.column or 0) - 1 :][: where.length].strip('"') == name


def test_a_text_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadRecipe) as caught:
        read("a: 1\n" * 30_000, "a.yaml")
    assert caught.value.screen() == (
        "a.yaml: the file has 150,000 characters\n    expected: at most 100,000\n"
        "    hint: rows of data stand in files of their own, which `path:` names"
    )


def test_more_values_than_any_recipe_has_are_refused_where_they_stand() -> None:
    lines = ["a0: &a0 [" + ", ".join("1" * 9) + "]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 6)]
    with pytest.raises(BadRecipe, match="unfold to more than 20,000 values"):
        read("\n".join(lines), "a.yaml")


def test_keys_and_values_are_counted_before_there_are_too_many_and_so_are_levels() -> None:
    with pytest.raises(BadRecipe) as caught:
        read("- 1\n" * 25_000, "a.yaml")
    assert caught.value.screen() == (
        "a.yaml:20000:3: more than 20,000 keys and values\n20000 | - 1\n      |   ^\n"
        "    hint: rows of data stand in files of their own, which `path:` names"
    )
    with pytest.raises(BadRecipe, match=r"^a\.yaml:1:129: nested deeper than 64 levels\n"):
        read("[" * 99_999, "a.yaml")


def test_a_long_line_is_shown_around_its_fault() -> None:
    with pytest.raises(BadRecipe) as caught:
        read("a: [" + "1, " * 20_000 + "*b]", "a.yaml")
    assert all(len(line) < 450 for line in caught.value.screen().splitlines())
    assert caught.value.screen().splitlines()[1].endswith("1, *b]")


def test_no_more_faults_are_told_than_can_be_read() -> None:
    assert len(read("a: 1\n" * 9_000, "a.yaml").problems) == 100


@pytest.mark.parametrize(
    "text",
    [
        "a: " * 33_000, "a: [" + "1," * 48_000, "{a: " * 25_000, "? " * 50_000, '"' * 99_999, "<<: {}\n" * 14_000,
        "[" + ("[" * 60 + "]" * 60 + ",") * 800 + "]", ("- " * 63 + "a\n") * 780, "[" * 99_999,
    ],
    ids=["colons", "items", "maps", "questions", "quotes", "merges", "lists", "dashes", "open"],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """At the limit of its length, in time of this process: another one may have the core meanwhile."""
    assert 85_000 <= len(text) <= 100_000
    began = time.process_time()
    with contextlib.suppress(BadRecipe):
        read(text, "a.yaml")
    assert time.process_time() - began < 2
