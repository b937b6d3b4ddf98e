"""What a user reads is what there is: every block, command, link and name of README and docs; the recipes that ship.

How blocks are told apart, and the comments that say what one is: `tests/documented_blocks.py`. A new page is looked at
by itself. Probes of the pages are asked in `test_docs_probes.py`, commands are run in `test_docs_commands.py`.
"""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from runner import recipe, spec
from runner.check import load_checked
from runner.cli import cli
from runner.data import sources
from tests.documented_blocks import ROOT, Block, blocks, pages, spans, tables, text_of, tokens_of
from tests.documented_commands import PLUGIN_OPTIONS, Command, check, commands, pytest_options, recipe_file, simple
from tests.documented_projects import Projects, placed, read_json_lines

WORKFLOWS = ROOT / "docs" / "ci"
KINDS = {
    "recipe": "test_a_recipe_or_a_part_of_one_has_no_fault",
    "part": "test_a_recipe_or_a_part_of_one_has_no_fault",
    "probe": "test_docs_probes",
    "python": "test_python_of_a_page_runs",
    "data": "test_data_of_a_page_can_be_read",
    "toml": "test_data_of_a_page_can_be_read",
    "commands": "test_a_command_exists_with_its_options",
    "session": "test_a_command_exists_with_its_options",
    "workflow": "test_a_workflow_is_one",
    "gitlab": "test_a_workflow_is_one",
    "pre-commit": "test_a_workflow_is_one",
    "yaml comment": "test_the_line_for_editors_names_the_schema",
    "directive": "test_docs_site",
    "shown": "",
}
"""What a block can be, and what looks at it."""


def of_kinds(*kinds: str) -> list[Block]:
    return [block for block in blocks() if block.kind in kinds]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Projects:
    return Projects(tmp_path_factory.mktemp("pages"), weights=False)


def named(block: Block) -> str:
    return block.name


# --- blocks ---


def test_every_block_is_looked_at_or_says_why_it_is_not() -> None:
    unknown = [f"{block.name}: {block.text.splitlines()[0]}" for block in blocks() if block.kind not in KINDS]
    assert unknown == [], "nothing checks these; write <!-- shown: why --> above what is only to be seen"
    assert [block.name for block in blocks() if block.kind == "shown" and len(block.said) < 5] == []
    printed = [command for command in commands() if command.printed.strip()]
    assert [command.name for command in printed if command.mark not in ("shown", "compared")] == []


@pytest.mark.parametrize("block", of_kinds("recipe", "part"), ids=named)
def test_a_recipe_or_a_part_of_one_has_no_fault(projects: Projects, block: Block) -> None:
    for loaded in projects.load(block):
        assert loaded.spec.stages


@pytest.mark.parametrize("block", of_kinds("data", "toml"), ids=named)
def test_data_of_a_page_can_be_read(projects: Projects, block: Block) -> None:
    if block.language == "toml":
        assert tomllib.loads(block.text)
    elif block.language in ("json", "jsonl"):
        assert yaml.safe_load(block.text) if block.language == "json" else read_json_lines(block.text)
    else:
        widths = {
            len(row) for row in csv.reader(io.StringIO(block.text), delimiter="\t" if block.language == "tsv" else ",")
        }
        assert len(widths) == 1
    if block.file and block.language != "toml":
        root = projects.of(block.page)
        assert sources.head(spec.Data(path=str(root / block.file)), "shown", root)


@pytest.mark.parametrize("block", of_kinds("python"), ids=named)
def test_python_of_a_page_runs(projects: Projects, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    root = projects.of(block.page)
    projects.make_what_it_names(root, block.text)
    monkeypatch.chdir(root)
    exec(compile(block.text, block.name, "exec"), {"__name__": "shown"})


@pytest.mark.parametrize("block", of_kinds("yaml comment"), ids=named)
def test_the_line_for_editors_names_the_schema(block: Block) -> None:
    assert re.fullmatch(r"# yaml-language-server: \$schema=(\.\./)?recipe\.schema\.json", block.text.strip())


@pytest.mark.parametrize("file", sorted(WORKFLOWS.iterdir()), ids=lambda file: file.name)
def test_a_workflow_that_ships_is_one(file: Path, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    check_workflow(file.read_text(encoding="utf-8"), file.stem, tmp_path, pytestconfig)


@pytest.mark.parametrize("block", of_kinds("workflow", "gitlab", "pre-commit"), ids=named)
def test_a_workflow_is_one(block: Block, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    check_workflow(block.text, {"workflow": "github"}.get(block.kind, block.kind), tmp_path, pytestconfig)


def check_workflow(text: str, kind: str, folder: Path, config: pytest.Config) -> None:
    """By the schema that the forge publishes; and its steps' commands are there."""
    values = yaml.safe_load(text)
    schema = {"github": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}.get(kind)
    if schema is not None:
        pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
        (folder / "workflow.yml").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(folder / "workflow.yml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    for step in steps_of(values):
        for line in step.replace("\\\n", " ").splitlines():
            for words in simple(line):
                check(Command("", 0, words), config)


def steps_of(values: dict[str, object]) -> Iterator[str]:
    """The shell of every job."""
    jobs = values.get("jobs", values)
    assert isinstance(jobs, dict)
    for job in jobs.values():
        if isinstance(job, dict):
            yield from (step["run"] for step in job.get("steps", []) if "run" in step)
            yield from job.get("script", [])


# --- commands ---


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_a_command_exists_with_its_options(command: Command, pytestconfig: pytest.Config) -> None:
    check(command, pytestconfig)


@pytest.mark.parametrize(
    "command", [command for command in commands() if recipe_file(command.words)], ids=lambda command: command.name
)
def test_a_recipe_that_a_command_names_has_no_fault_as_it_is_called(projects: Projects, command: Command) -> None:
    _, name, *rest = command.words
    given = cli.commands[name].make_context(name, list(rest)).params
    file = projects.recipe_of_command(command.page, recipe_file(command.words))
    assert load_checked(file, given.get("sets", ()), variant=given.get("variant"), scale=given.get("scale")).spec.stages


def test_every_command_stands_in_a_table_and_so_does_every_option_of_the_plugin() -> None:
    first = {code for table in tables() for row in table.first for code in row}
    assert set(cli.commands) - {code.split()[1] for code in first if code.startswith("recipe ")} == set()
    assert PLUGIN_OPTIONS - {code.split()[0] for code in first} == set()


# --- names among words ---


def test_options_named_among_words_are_options(pytestconfig: pytest.Config) -> None:
    known = {option for command in cli.commands.values() for parameter in command.params for option in parameter.opts}
    known |= pytest_options(pytestconfig) | {"--help", "--version", "--ntasks-per-node"}  # the last is of Slurm
    named = {
        (span.page, option)
        for span in spans()
        if re.match(r"--|recipe |pytest ", span.text)
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", span.text)
    }
    assert {(page, option) for page, option in named if option not in known} == set()


def test_keys_in_tables_of_keys_are_keys_of_the_language() -> None:
    blocks_of_spec = [one for one in vars(spec).values() if isinstance(one, type) and issubclass(one, spec.Block)]
    fields = {info.alias or name for block in blocks_of_spec for name, info in block.model_fields.items()}
    found = set()
    for table in tables():
        if re.match(r"key\b", table.header[0]) or re.fullmatch(r"(of )?`[a-z_.]+:`", table.header[0]):
            named = [code for row in table.first for code in row]
            if re.match(r"key\b", table.header[0]):
                keys = {re.split(r"[:. ]", code)[-1 if "." in code.split(":")[0] else 0] for code in named}
                found |= {(table.page, table.line, key) for key in keys if re.fullmatch(r"[a-z_0-9]+", key)}
            else:
                key = table.header[0].removeprefix("of ").strip("`:").split(".")[-1]
                found.add((table.page, table.line, key))
    assert len(found) > 25
    assert {one for one in found if one[2] not in fields} == set()


def test_files_and_targets_named_among_words_are_there() -> None:
    paths = {
        (span.page, word.partition("::")[0])
        for span in spans()
        for word in re.findall(
            r"(?<!\S)(?:recipes|probes|tests|docs|runner)/[\w./-]+\.(?:py|yaml|md|tsv|jsonl)", span.text
        )
    }
    shown = {block.file for block in blocks()}
    yours = {"probes/test_NAME.py", "probes/test_rows.py", "probes/baseline.jsonl"}  # names that a reader's own have
    assert {one for one in paths if not (ROOT / one[1]).exists() and one[1] not in shown | yours} == set()


# --- links ---


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    found: dict[str, int] = {}
    made = set()
    for line in re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL).splitlines():
        if heading := re.match(r"#+ (.+)", line):
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            number = found.get(slug, 0)
            found[slug] = number + 1
            made.add(f"{slug}-{number}" if number else slug)
    return made


@pytest.mark.parametrize("page", pages())
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    broken = []
    for token in tokens_of(page):
        for child in token.children or []:
            target = str(child.attrs.get("href", child.attrs.get("src", "")))
            if not target or re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            path = (ROOT / page).parent / file if file else ROOT / page
            generated = path.parent == ROOT / "docs" / "reference"
            if not (path.exists() or generated) or (anchor and not generated and anchor not in anchors(path)):
                broken.append(target)
    assert broken == []


# --- what is not there, and the second language ---


def test_what_the_readme_calls_missing_is_missing() -> None:
    missing = text_of("README.md").partition("## What is not there yet")[2]
    called = set(re.findall(r"^- `recipe (\w+)`", missing, re.MULTILINE))
    assert not called & set(cli.commands)


def test_what_the_chinese_readme_shows_is_what_the_english_one_does() -> None:
    ours = {block.file: block for block in blocks() if block.page == "README.md" and block.file}
    theirs = [block for block in blocks() if block.page == "README.zh-CN.md" and block.file in ours]
    assert {block.language for block in theirs} >= {"yaml", "python"}
    for block in theirs:
        if block.language == "yaml":
            assert yaml.safe_load(block.text) == yaml.safe_load(ours[block.file].text)  # but for its comments
        else:
            assert block.text == ours[block.file].text


# --- recipes that ship ---


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_a_recipe_of_this_project_has_no_fault_and_bears_the_name_of_its_file(path: Path) -> None:
    assert load_checked(path).spec.recipe == path.stem


@pytest.mark.parametrize("block", of_kinds("recipe", "part"), ids=named)
def test_an_editor_finds_no_fault_in_a_recipe_of_a_page(block: Block) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    values = yaml.safe_load(placed(block))
    whole = values if block.kind == "recipe" else {"extends": "recipe.yaml", "recipe": "part", **values}
    assert [fault.message for fault in jsonschema.Draft202012Validator(schema()).iter_errors(whole)] == []


@cache
def schema() -> dict[str, object]:
    return recipe.schema()
