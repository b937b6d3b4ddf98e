"""Chat templates: those that ship, files, and a tokenizer's own; rendered as transformers' `apply_chat_template` does,
without transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.utils import Namespace

from runner import spec
from runner.data import tokenizer_files
from runner.errors import BadRecipe
from runner.sandbox import COMPILING, FAILURES, Sandbox, reason

if TYPE_CHECKING:
    from jinja2.parser import Parser

    from runner.data.examples import Message

_FOLDER = Path(__file__).with_name("chat_templates")
"""Where `spec.CHAT_TEMPLATES` lie, each as NAME.jinja."""
_TOKEN = re.compile(r"<\|\w+\|>")


class TemplateFault(ValueError):
    """A template that cannot be compiled, or cannot write a conversation; one line for the user."""


@dataclass(frozen=True)
class ChatTemplate:
    """How a conversation is written as one text."""

    source: str
    """The Jinja template."""
    origin: str
    """Where it comes from, for the screen: a shipped name, a file, or the folder or hub id of a tokenizer."""
    chosen: bool = False
    """Whether the recipe names it; else it is the tokenizer's own."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the form `<|…|>` that it writes, in the order of its source."""
        return tuple(dict.fromkeys(_TOKEN.findall(self.source)))

    @property
    def dated(self) -> bool:
        """Whether it writes the day on which it is rendered."""
        return "strftime_now" in self.source

    def render(
        self,
        messages: Sequence[Message],
        special: Mapping[str, str],
        *,
        ask: bool = False,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation.

        Args:
            special: the tokenizer's named special tokens, such as `eos_token`.
            ask: with the beginning of the assistant's turn at the end (`add_generation_prompt`).
            more: what else the template is given, such as `enable_thinking`.

        Raises:
            TemplateFault: the template cannot write it.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        given = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": ask}
        template = _compiled(self.source)
        try:
            # whole: the copies of all globals that Jinja makes through a chain of maps took more than half of the time
            return _ENVIRONMENT.render(template, {**_GLOBALS, **special, **given, **(more or {})}, whole=True)
        except (jinja2.TemplateError, *FAILURES) as error:
            raise TemplateFault(reason(error)) from error


def of(model: spec.Model, root: Path) -> ChatTemplate | None:
    """The template that a recipe's conversations, and prompts with their completions, are written with; None where none
    is set: the recipe's choice, else the tokenizer's own.

    Raises:
        BadRecipe: the recipe names a file that does not exist, or is no template.
        BadCheckpoint: the tokenizer cannot be found.
    """
    if model.chat_template == "none":
        return None
    if model.chat_template is not None:
        return chosen(model.chat_template, root)
    folder = tokenizer_folder(model, root)
    source = own(folder) if folder is not None else None
    return None if source is None else _checked(ChatTemplate(source, str(model.tokenizer or model.path)))


def tokenizer_folder(model: spec.Model, root: Path) -> Path | None:
    """The folder of the tokenizer that the recipe names; None for one that is trained in this run.

    Raises:
        BadCheckpoint: it cannot be found.
    """
    place = model.tokenizer or model.path
    if not isinstance(place, str):
        return None
    return tokenizer_files.folder_of(root / place if (root / place).is_dir() else place)


def own(folder: Path) -> str | None:
    """The template that the tokenizer in a folder carries."""
    file = folder / tokenizer_files.TEMPLATE
    if file.is_file():
        return file.read_text(encoding="utf-8")
    given = tokenizer_files.config(folder).get("chat_template")
    if isinstance(given, list):  # several by name, as transformers wrote them once
        named = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
        given = named.get("default")
    return given if isinstance(given, str) and given else None


def shipped(name: str) -> ChatTemplate:
    """One of `spec.CHAT_TEMPLATES`."""
    return ChatTemplate((_FOLDER / f"{name}.jinja").read_text(encoding="utf-8"), name, chosen=True)


def chosen(name: str, root: Path) -> ChatTemplate:
    """The template that a recipe names: one that ships, or a file from the project's root.

    Raises:
        BadRecipe: the file cannot be read, or is no template.
    """
    if name in spec.CHAT_TEMPLATES:
        return shipped(name)
    try:
        return _checked(ChatTemplate((root / name).read_text(encoding="utf-8"), name, chosen=True))
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecipe(f"model.chat_template: {name} is no file that can be read: {error}") from error


def _checked(template: ChatTemplate) -> ChatTemplate:
    try:
        _compiled(template.source)
    except TemplateFault as problem:
        raise BadRecipe(
            f"{template.origin} is no chat template: {problem}",
            expected=f"a Jinja template, or one that ships: {', '.join(spec.CHAT_TEMPLATES)}",
        ) from problem
    return template


# --- as transformers does it: transformers.utils.chat_template_utils ---


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says, for masks that are found otherwise here; it writes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """The block's body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


_ENVIRONMENT = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
_ENVIRONMENT.add_filter("tojson", _to_json)
_ENVIRONMENT.globals |= {
    "raise_exception": _raise,
    "strftime_now": lambda form: datetime.now().strftime(form),
    "namespace": Namespace,
}

_GLOBALS = dict(_ENVIRONMENT.globals)


@lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    try:
        return _ENVIRONMENT.compiled(source)
    except (jinja2.TemplateError, *COMPILING) as error:
        # its first sentence; the others explain how Jinja looks for the end of a block
        raise TemplateFault(reason(error).partition(". ")[0]) from error
