"""What a user reads is what there is: the recipes of this project, and every block and command of the README."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from runner.check import load_checked
from runner.cli import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PRESENT, _, NOT_YET = README.partition("## What is not there yet")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the file that the README says it is."""

    language: str
    text: str
    file: str


def blocks() -> list[Block]:
    """In the README's order. A file is named at the beginning of the paragraph above; a recipe of which none is named
    there is called what it calls itself."""
    found = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        paragraph = README[: match.start()].rstrip().rpartition("\n\n")[2]
        named = re.match(r"`([\w/]+\.\w+)`,", paragraph)
        recipe = re.search(r"^recipe: (\w+)", match[2], re.MULTILINE)
        assert named or recipe, f"which file is this?\n{match[0]}"
        found.append(Block(match[1], match[2], named[1] if named else f"{recipe[1]}.yaml"))  # type: ignore[index]
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `recipe …`, on a line of its own or among words."""
    for line in re.findall(r"^    recipe (.+)$", text, re.MULTILINE):
        yield shlex.split(line, comments=True)
    for words in re.findall(r"`recipe ([^`]+)`", text):
        yield shlex.split(words)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the README in a folder that was empty, and the checkpoint that its first run leaves."""
    root = tmp_path_factory.mktemp("readme") / "capitals"
    for block in blocks():
        path = root / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists(), f"{block.file} is there twice"
        path.write_text(block.text, encoding="utf-8")
    row = {"prompt": "1 + 1 =", "completion": " 2", "answer": "2"}  # the reader's own data, and a suite that is copied
    lines = (json.dumps({"id": number, **row}) + "\n" for number in range(40))
    (root / "data" / "mine.jsonl").write_text("".join(lines), encoding="utf-8")
    shutil.copy(ROOT / "probes" / "test_repetition.py", root / "probes" / "test_repetition.py")
    checkpoint = root / "results" / "capitals" / "more" / "ckpt-180"
    checkpoint.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (checkpoint / name).write_text("{}", encoding="utf-8")
    return root


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_a_recipe_of_this_project_has_no_fault_and_bears_the_name_of_its_file(path: Path) -> None:
    assert load_checked(path).spec.recipe == path.stem


def test_the_readme_shows_these_files() -> None:
    assert [block.file for block in blocks()] == [
        "my_lora.yaml", "probes/test_answers.py", "data/capitals.csv", "capitals.yaml", "probes/test_capitals.py",
        "grown.yaml", "further.yaml", "probes/test_style.py", "probes/test_as_trained.py",
    ]  # fmt: skip


@pytest.mark.parametrize("file", [block.file for block in blocks() if block.language == "yaml"])
def test_a_recipe_of_the_readme_has_no_fault(project: Path, file: str) -> None:
    loaded = load_checked(project / file)
    assert loaded.spec.recipe == Path(file).stem
    assert loaded.root == project  # as it says: where there is no pyproject.toml and no .git, the recipe's folder


@pytest.mark.parametrize("block", [block for block in blocks() if block.language == "python"], ids=lambda b: b.file)
def test_a_probe_of_the_readme_compiles_and_declares_itself(project: Path, block: Block) -> None:
    names: dict[str, object] = {"__name__": Path(block.file).stem}
    exec(compile(block.text, str(project / block.file), "exec"), names)
    assert [name for name in names if name.startswith("test_")]


@pytest.mark.parametrize("arguments", list(commands(PRESENT)), ids=" ".join)
def test_a_command_of_the_readme_exists_with_its_options(arguments: list[str]) -> None:
    name, *rest = arguments
    assert name in cli.commands
    if rest:  # `recipe run` among words may name no file
        cli.commands[name].make_context(name, list(rest))


@pytest.mark.parametrize(
    "arguments", [words for words in commands(PRESENT) if len(words) > 1 and words[1].endswith(".yaml")], ids=" ".join
)
def test_a_recipe_that_a_command_of_the_readme_names_has_no_fault_as_it_is_called(
    project: Path, arguments: list[str]
) -> None:
    command, file, *options = arguments
    given = cli.commands[command].make_context(command, [file, *options]).params
    assert load_checked((ROOT if file.startswith("recipes/") else project) / file, given["sets"]).spec.stages


def test_what_the_readme_calls_missing_is_missing() -> None:
    (line,) = [line for line in NOT_YET.splitlines() if line.startswith("- `recipe ")]
    named = re.findall(r"`(?:recipe )?(\w+)`", line)
    assert "verify" in named
    assert not set(named) & set(cli.commands)


def test_every_command_and_every_option_of_the_plugin_is_in_the_readme() -> None:
    assert {words[0] for words in commands(PRESENT)} == set(cli.commands)
    registered = set(re.findall(r'"(--[a-z-]+)"', (ROOT / "runner" / "probing" / "plugin.py").read_text("utf-8")))
    assert set(re.findall(r"^\| `(--[a-z-]+)", README, re.MULTILINE)) == registered
    assert set(re.findall(r"--(?:probe-[a-z]+(?:-[a-z]+)*|ckpt)", README)) == registered


# --- in Chinese ---

CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")


def fenced(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_what_the_chinese_readme_shows_is_what_the_english_one_does() -> None:
    ours = dict(reversed(fenced(README)))  # of each language the first
    theirs = dict(fenced(CHINESE))
    assert theirs["python"] == next(body for language, body in fenced(README) if language == "python")
    assert yaml.safe_load(theirs["yaml"]) == yaml.safe_load(ours["yaml"])  # but for its comments
    assert {link for link in re.findall(r"\]\(([^)]+)\)", CHINESE) if not (ROOT / link).exists()} == set()


@pytest.mark.parametrize("arguments", list(commands(CHINESE)), ids=" ".join)
def test_a_command_of_the_chinese_readme_exists(arguments: list[str]) -> None:
    assert arguments[0] in cli.commands
