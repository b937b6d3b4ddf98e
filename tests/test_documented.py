"""What looks at the blocks of README and docs finds what is wrong with one."""

from __future__ import annotations

import click
import pytest

from runner.errors import BadRecipe
from tests.documented_blocks import Block, blocks_of, parsed
from tests.documented_commands import Command, check, simple
from tests.documented_projects import Projects, rounds


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Projects:
    return Projects(tmp_path_factory.mktemp("pages"), weights=False)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("", "checkpoint  loss\nqa@32  0.01\n"),
        ("text", "x\n"),
        ("yaml", "- a\n- b\n"),
        ("rust", "fn main() {}\n"),
        ("", "a: b: c"),
    ],
)
def test_a_block_that_nothing_looks_at_is_known_as_such(language: str, text: str) -> None:
    assert Block("page.md", 1, language, text).kind == ""
    assert Block("page.md", 1, language, text, "shown", "why").kind == "shown"


@pytest.mark.parametrize(
    "text",
    [
        "launch: {proceses: 6}",
        "stages: {new: {kind: sft, from: base@last, data: nowhere}}",
        "probes: {old: {gate: {min: 1}}}",
    ],
)
def test_a_part_with_a_fault_is_refused(projects: Projects, text: str) -> None:
    with pytest.raises(BadRecipe):
        projects.load(Block("page.md", len(text), "yaml", text))


@pytest.mark.parametrize(
    "words",
    [
        "recipe trian my.yaml", "recipe run", "recipe run my.yaml --processses 2",
        "pytest probes --probe-verdict v.jsonl",
        "make everything", "python tests/bench/nothing.py", "python tests/bench/gates.py --nothing 3",
        "pip install 'recipe-runner[nothing]'", "pip install -c nothing.txt -e .",
    ],
)  # fmt: skip
def test_a_command_that_is_not_there_is_found(words: str, pytestconfig: pytest.Config) -> None:
    (command,) = simple(words)
    with pytest.raises((AssertionError, click.UsageError)):
        check(Command("page.md", 1, command), pytestconfig)


def test_the_simple_commands_of_a_line_are_found_without_what_redirects_them() -> None:
    line = "cd x && A=1 recipe run 'a b.yaml' --set x=1 > log 2>&1 | tee log  # now"
    assert list(simple(line)) == [("cd", "x"), ("recipe", "run", "a b.yaml", "--set", "x=1"), ("tee", "log")]


def test_a_file_is_named_by_the_words_above_its_block() -> None:
    text = "`data/rows.csv`, your rows:\n\n```csv\na,b\n```\n\n<!-- file: x/y.py -->\n\n```python\n1\n```\n"
    found = list(blocks_of("page.md", parsed(text)))
    assert [(block.file, block.kind) for block in found] == [("data/rows.csv", "data"), ("x/y.py", "python")]


def test_a_probe_that_a_page_shows_again_otherwise_is_asked_by_itself() -> None:
    first, again, other = (
        Block("page.md", line, "python", f"def {name}(reply): ...", file=file)
        for line, name, file in ((1, "test_a", "a.py"), (9, "test_a", "a.py"), (12, "test_b", "b.py"))
    )
    assert list(rounds([first, again, other])) == [[first, other], [again]]
