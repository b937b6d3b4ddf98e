"""What README and docs show: every block of every page, and what kind of thing it is.

A page is read as CommonMark, so a block here is what a reader sees as one. Its language is that of its fence; without
one it is seen from its text: commands, a session (`$ command`, then what it printed), or part of a recipe. What is none
of these says so in a comment above it, which readers do not see:

    <!-- shown: why it is not run here -->       what something prints, a formula, a tree of files
    <!-- compared -->                            a session whose commands print exactly this; `…` stands for any lines
    <!-- part of: stages.tune -->                YAML that stands there in a recipe
    <!-- file: data/rows.jsonl -->               a file of this name, in the project of the page

A file may also be named by the paragraph above, in its first words: `data/capitals.csv`, your rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
_PROGRAMS = """
    recipe pytest pip python make mkdir cd git hf tensorboard accelerate export sbatch srun scancel
    cat echo curl wget ls cp mv rm head tail grep jq tmux uv docker brew
    trl axolotl llamafactory-cli swift vllm torchrun lm_eval oumi inspect
"""
PROGRAMS = frozenset(_PROGRAMS.split())
"""What a line of commands begins with."""
_PARSER = MarkdownIt("commonmark").enable("table")
_LANGUAGES = {
    "yaml": "yaml", "yml": "yaml", "python": "python", "json": "data", "jsonl": "data", "csv": "data", "tsv": "data",
    "toml": "toml", "bash": "commands", "sh": "commands", "shell": "commands", "console": "session",
    "markdown": "markdown", "html": "html", "jinja": "jinja",
}  # fmt: skip
_MARK = re.compile(r"<!--\s*(shown|compared|part of|file)(?::\s*(.*?))?\s*-->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    page: str
    """From the root of the project."""
    line: int
    language: str
    """The fence's; empty where the block is indented."""
    text: str
    mark: str = ""
    """Word of the comment above it."""
    said: str = ""
    """What that comment says."""
    file: str = ""
    """Where it is a file of the page's project."""

    @property
    def name(self) -> str:
        """Of its tests."""
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        """What it is; empty where that cannot be told."""
        if self.mark == "shown":
            return "shown"
        if self.language.startswith("{"):
            return "directive"
        if self.language == "yaml":
            return _kind_of_yaml(self.text)
        if self.language == "python":
            return "probe" if "@probe" in self.text else "python"
        if self.language:
            return _LANGUAGES.get(self.language, "")
        return _kind_of_text(self.text)


def _kind_of_yaml(text: str) -> str:
    found = _mapping(text)
    if found is None:
        return "yaml comment" if _only_comments(text) else ""
    if "jobs" in found:
        return "workflow"
    if any(isinstance(value, dict) and "script" in value for value in found.values()):
        return "gitlab"
    if "repos" in found:
        return "pre-commit"
    return "recipe" if "recipe" in found else "part"


def _kind_of_text(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    if lines[0].startswith("$ "):
        return "session"
    if _only_comments(text):
        return "yaml comment"
    if all(_is_command(line) for line in joined(text)):
        return "commands"
    return _kind_of_yaml(text) if _mapping(text) is not None else ""


def _is_command(line: str) -> bool:
    first = line.split()[0]
    return line.startswith("#") or first in PROGRAMS or first == "." or "=" in first


def _only_comments(text: str) -> bool:
    return all(line.startswith("#") for line in text.splitlines() if line.strip())


def _mapping(text: str) -> dict[object, object] | None:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    plain = isinstance(found, dict) and all(isinstance(key, (str, bool)) and " " not in str(key) for key in found)
    return found if plain else None


def joined(text: str) -> list[str]:
    """The lines of commands, those that go on behind a backslash as one."""
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


@cache
def pages() -> tuple[str, ...]:
    """Every page that is written by hand, from the root of the project."""
    docs = sorted(
        path for path in (ROOT / "docs").rglob("*.md") if not path.is_relative_to(ROOT / "docs" / "reference")
    )
    return tuple(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", ROOT / "README.zh-CN.md", *docs))


@cache
def text_of(page: str) -> str:
    """A page as it is written."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def tokens_of(page: str) -> tuple[Token, ...]:
    """A page as a reader of Markdown sees it."""
    return parsed(text_of(page))


def parsed(text: str) -> tuple[Token, ...]:
    """Markdown in its pieces."""
    return tuple(_PARSER.parse(text))


@cache
def blocks() -> tuple[Block, ...]:
    """Of every page, in its order."""
    return tuple(block for page in pages() for block in blocks_of(page, tokens_of(page)))


def blocks_of(page: str, tokens: tuple[Token, ...]) -> Iterator[Block]:
    """Of one page."""
    for index, token in enumerate(tokens):
        if token.type not in ("fence", "code_block") or token.map is None:
            continue
        above = tokens[index - 1] if index else None
        marked = _MARK.search(above.content) if above is not None and above.type == "html_block" else None
        mark, said = (marked[1], marked[2] or "") if marked else ("", "")
        file = said if mark == "file" else _named_above(tokens[:index]) if token.type == "fence" else ""
        yield Block(page, token.map[0] + 1, token.info.strip(), token.content, mark, said, file)


def _named_above(tokens: tuple[Token, ...]) -> str:
    """The file that the paragraph right above says this is."""
    if len(tokens) < 3 or tokens[-1].type != "paragraph_close":
        return ""
    named = re.match(r"`([\w./-]+\.(?:yaml|py|csv|tsv|jsonl|json|txt|toml|jinja|md))`[,:：，]", tokens[-2].content)
    return named[1] if named else ""


@dataclass(frozen=True)
class Span:
    """A piece of code among words."""

    page: str
    line: int
    text: str


@cache
def spans() -> tuple[Span, ...]:
    """Of every page, those in tables too."""
    return tuple(
        Span(page, (token.map or [0])[0] + 1, child.content)
        for page in pages()
        for token in tokens_of(page)
        if token.type == "inline"
        for child in token.children or []
        if child.type == "code_inline"
    )


@dataclass(frozen=True)
class Table:
    """A table of a page: the texts of its cells, and the code in the first of each row."""

    page: str
    line: int
    header: tuple[str, ...]
    first: tuple[tuple[str, ...], ...]


@cache
def tables() -> tuple[Table, ...]:
    """Of every page."""
    return tuple(table for page in pages() for table in _tables_of(page))


def _tables_of(page: str) -> Iterator[Table]:
    rows: list[list[Token]] = []
    line = 0
    for token in tokens_of(page):
        if token.type == "table_open":
            rows, line = [], (token.map or [0])[0] + 1
        elif token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and line:
            rows[-1].append(token)
        elif token.type == "table_close":
            first = (row[0].children or [] for row in rows[1:] if row)
            codes = tuple(tuple(child.content for child in cell if child.type == "code_inline") for cell in first)
            yield Table(page, line, tuple(cell.content for cell in rows[0]), codes)
            rows, line = [], 0
