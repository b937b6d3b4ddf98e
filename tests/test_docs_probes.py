"""Every probe that README and docs show is asked; docs/probes.md names every argument and attribute."""

from __future__ import annotations

import inspect
import re
import shutil
from functools import cache

import pytest

from runner import Reply, probe, verdicts
from tests.documented_blocks import Block, blocks, tables, text_of
from tests.documented_projects import Projects, rounds
from tests.probe_project import ask

pytest_plugins = ["pytester"]

PROBES = list({block.text: block for block in blocks() if block.kind == "probe"}.values())
"""A page in another language shows the same ones again."""


@cache
def round_of(block: Block) -> tuple[Block, ...]:
    """The probes of its page that are asked together with it."""
    (found,) = (one for one in rounds([other for other in PROBES if other.page == block.page]) if block in one)
    return tuple(found)


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Projects:
    return Projects(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module")
def asked() -> dict[tuple[Block, ...], verdicts.VerdictFile]:
    """Verdicts of the rounds that were asked."""
    return {}


@pytest.mark.parametrize("block", PROBES, ids=lambda block: block.name)
def test_a_probe_of_a_page_is_asked_without_an_error(
    project: pytest.Pytester,
    projects: Projects,
    asked: dict[tuple[Block, ...], verdicts.VerdictFile],
    block: Block,
) -> None:
    together = round_of(block)
    if together not in asked:
        asked[together] = verdicts_of(project, projects, together)
    outcomes = [verdict.outcome for verdict in asked[together].verdicts if verdict.probe.startswith(file_of(block))]
    assert outcomes
    assert set(outcomes) <= {"pass", "miss", "not_asked"}


def verdicts_of(project: pytest.Pytester, projects: Projects, together: tuple[Block, ...]) -> verdicts.VerdictFile:
    """In a project like the page's, of a checkpoint whose run gives cases to those that have none of their own."""
    root = project.path
    shutil.copytree(projects.of(together[0].page), root, dirs_exist_ok=True)
    for file in (root / "probes").glob("test_*.py"):
        file.unlink()
    suites = {}
    for block in together:
        (root / file_of(block)).write_text(block.text, encoding="utf-8")
        for name in re.findall(r"^def (test_\w+)", block.text, re.MULTILINE):
            if not re.search(r"\bcases(=|\":)", block.text):
                suites[name] = file_of(block)
    run = projects.run_in(root, suites)
    ask(project, "probes", "--ckpt", run / "base" / "ckpt-2", "--probe-verdicts", "v.jsonl")
    return verdicts.read(root / "v.jsonl")


def file_of(block: Block) -> str:
    return block.file or f"probes/test_line_{block.line}.py"


def first_cells(page: str, *headers: str) -> list[str]:
    """Names in the first column of the page's table with this header."""
    (table,) = (found for found in tables() if found.page == page and found.header[: len(headers)] == headers)
    return [name for row in table.first for code in row for name in re.findall(r"^(\w+)", code)]


def test_every_argument_of_the_decorator_stands_in_the_table() -> None:
    assert first_cells("docs/probes.md", "argument") == list(inspect.signature(probe).parameters)


def test_every_attribute_of_a_reply_stands_in_the_table() -> None:
    assert first_cells("docs/probes.md", "`reply.…`") == list(Reply.__annotations__)


def test_every_field_of_a_verdict_stands_in_the_table() -> None:
    named = first_cells("docs/probes.md", "field", "is")
    assert set(named) == set(verdicts.Verdict.__dataclass_fields__) - {"leak"}


def test_what_a_probe_may_take_stands_in_the_table() -> None:
    assert {"case", "reply", "replies", "record"} <= set(first_cells("docs/probes.md", "parameter"))
    assert "--probe-verdicts" in text_of("docs/probes.md")
