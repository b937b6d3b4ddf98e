"""What README and docs tell a reader to type: simple commands, and whether programs and options exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import pytest

from runner.cli import cli
from tests.documented_blocks import ROOT, Block, Span, blocks, joined, spans, text_of

_ENDS = frozenset({"&&", "||", ";", "|", ";;"})
_REDIRECTIONS = frozenset({">", ">>", "<", "2>"})
PLUGIN_OPTIONS = frozenset(
    re.findall(r'"(--[a-z-]+)"', (ROOT / "runner" / "probing" / "plugin.py").read_text(encoding="utf-8"))
)
"""What the pytest plugin registers."""
_MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Command:
    """A command with its arguments, without what redirects it, and the page that shows it."""

    page: str
    line: int
    words: tuple[str, ...]
    printed: str = ""
    """What the page says it prints."""
    mark: str = ""
    in_text: bool = False
    """It stands among words: an argument may be left out there."""

    @property
    def name(self) -> str:
        """Of its tests."""
        return f"{self.page}:{self.line} {' '.join(self.words)}"


def commands() -> tuple[Command, ...]:
    """Every command that a page shows, each once per page."""
    found: dict[tuple[object, ...], Command] = {}
    for block in blocks():
        for command in _of_block(block):
            found.setdefault((command.page, command.words, command.printed), command)
    for span in spans():
        if is_missing(span):
            continue
        if re.match(r"(recipe|pytest|make|pip|python) \S", span.text) and "…" not in span.text:
            for words in simple(span.text):
                found.setdefault((span.page, words, ""), Command(span.page, span.line, words, in_text=True))
    return tuple(found.values())


def is_missing(span: Span) -> bool:
    """Whether it stands in the list of what is not there yet."""
    before, heading, _ = text_of(span.page).partition("## What is not there yet")
    return bool(heading) and span.line > before.count("\n")


def _of_block(block: Block) -> Iterator[Command]:
    if block.kind == "commands":
        for line in joined(block.text):
            for words in simple(line):
                yield Command(block.page, block.line, words)
    if block.kind == "session" or (block.mark == "shown" and block.text.startswith("$ ")):
        parts = re.split(r"^\$ (.*)\n?", block.text, flags=re.MULTILINE)[1:]
        for line, printed in zip(parts[::2], parts[1::2], strict=True):
            *before, last = simple(line)
            yield from (Command(block.page, block.line, words) for words in before)
            yield Command(block.page, block.line, last, printed, block.mark)


def simple(line: str) -> Iterator[tuple[str, ...]]:
    """The simple commands of a line, without comments, redirections and settings of the environment."""
    lexer = shlex.shlex(line.replace("2>&1", ""), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if word in _ENDS:
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                yield tuple(words)
            words = []
        elif skip or word in _REDIRECTIONS:
            skip = not skip
        else:
            words.append(word)


def check(command: Command, config: pytest.Config) -> None:
    """An AssertionError, or an error of the parser, where a file of the project, a command or an option is missing."""
    program, *arguments = command.words
    if program in ("python", "python3") and arguments[:2] == ["-m", "pytest"]:
        program, arguments = "pytest", arguments[2:]
    if program == "recipe":
        check_recipe(arguments, in_text=command.in_text)
    elif program == "pytest":
        if command.in_text and arguments[-1] in PLUGIN_OPTIONS:  # by its name alone
            arguments.pop()
        check_pytest(arguments, config)
    elif program == "make":
        targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
        assert [name for name in targets if not re.search(rf"^{re.escape(name)}:", _MAKEFILE, re.MULTILINE)] == []
    elif program == "pip":
        _check_pip(arguments)
    elif program in ("python", "python3") and arguments and not arguments[0].startswith("-"):
        _check_script(arguments)


def check_recipe(arguments: list[str], *, in_text: bool = False) -> click.Context | None:
    """The context that click makes of a command's arguments; none where the command's own arguments are left out."""
    if not arguments or arguments[0].startswith("-"):
        return None
    name, *rest = arguments
    assert name in cli.commands, f"there is no `recipe {name}`"
    command = cli.commands[name]
    if in_text:
        options = {option for parameter in command.params for option in parameter.opts}
        named = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert named - options - {"--help"} == set()
        if len(rest) == len(named):
            return None
    return command.make_context(name, list(rest), resilient_parsing=False)


def check_pytest(arguments: list[str], config: pytest.Config) -> None:
    """pytest's own parser, with this plugin's options in it, knows every one."""
    _, unknown = config._parser.parse_known_and_unknown_args(list(arguments))
    assert unknown == []


def pytest_options(config: pytest.Config) -> set[str]:
    """Long names of every option, those of plugins too."""
    groups = [*config._parser._groups, config._parser._anonymous]
    return {name for group in groups for option in group.options for name in option.names()}


def _check_pip(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in arguments:
        if found := re.fullmatch(r"(?:recipe-runner|\.|\S*checkout)\[([\w,-]+)\]", word):
            assert set(found[1].split(",")) <= set(project["optional-dependencies"])
    for flag, value in pairwise(arguments):
        own = value.removeprefix("tools/recipe-runner/")  # where the workflows have their checkout of this project
        assert flag != "-c" or (ROOT / own).is_file(), f"there is no {value}"


def _check_script(arguments: list[str]) -> None:
    file, *rest = arguments
    if file.startswith(("out/", "/")):
        return  # of another trainer's checkpoint
    assert (ROOT / file).is_file(), f"there is no {file}"
    text = (ROOT / file).read_text(encoding="utf-8")
    unknown = [word for word in rest if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text]
    assert unknown == [], f"{file} has no {unknown}"


def recipe_file(words: tuple[str, ...]) -> str:
    """The recipe that a command of `recipe` is about; empty where it is about none, or stands for any."""
    if len(words) < 3 or words[0] != "recipe" or words[1] not in ("check", "plan", "preview", "run"):
        return ""
    return words[2] if Path(words[2]).suffix == ".yaml" else ""
