"""YAML text → plain values and the line and column of every path in them: strict, and nothing is constructed.

PyYAML scans and composes; which scalar is a number is decided here, close to YAML 1.2: `2e-5` is a number, `on`, `yes`
and `1:30` are text, `true`, `false` and `null` are what they say, and every key is text. A key given twice, a tag, a
merge key and an alias bomb are errors with a position.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from runner.errors import BadRecipe, Problem, Where
from runner.yaml_marks.faults import LINE_BREAK, syntax, unprintable, unquoted
from runner.yaml_marks.marks import Mark, Marks, Path, Source

MAX_CHARS = 100_000
"""Of a text; to read so many takes a second. The longest recipes have a tenth of that."""
MAX_VALUES = 20_000
"""Keys and values, ten times those of the longest recipes: to read so many takes a second. Aliases repeat what they
name, and what they unfold to counts (the "billion laughs")."""
MAX_DEPTH = 64
"""Nesting that no recipe needs; also what an alias to a block around it runs into."""

_MAX_PROBLEMS = 100
"""That are told at once; a file of strangers could have a hundred thousand."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
_STR = "tag:yaml.org,2002:str"


@dataclass(frozen=True)
class Marked:
    """What a YAML text says, and where it says it."""

    values: object
    """Maps with text keys, lists, text, numbers, booleans and None."""
    marks: Marks
    """The mark of every path in `values`; `()` is the whole text."""
    problems: tuple[Problem, ...] = ()
    """Faults that leave the rest readable: a key given twice (the first counts), a tag (ignored)."""


def read(text: str, file: str) -> Marked:
    """The values and marks of one YAML document; `file` is what positions name.

    Raises:
        BadRecipe: the text is not YAML, or too long. A faulty but readable text comes back with `problems`.
    """
    if len(text) > MAX_CHARS:
        raise BadRecipe(
            f"the file has {len(text):,} characters",
            where=Where(file),
            expected=f"at most {MAX_CHARS:,}",
            hint="rows of data stand in files of their own, which `path:` names",
        )
    text = text.removeprefix("\ufeff")
    source = Source(file, tuple(LINE_BREAK.split(text)))
    try:
        node = _Loader(text, source).get_single_node()
    except ReaderError as error:
        raise BadRecipe(unprintable(error, text, source)) from error
    except yaml.MarkedYAMLError as error:
        raise BadRecipe(syntax(error, source)) from error
    builder = _Builder(source)
    if node is None:
        return Marked(None, {(): Mark(source, None, (0, 0), (0, 0))})
    values = builder.build(node, (), None)
    return Marked(values, builder.marks, tuple(builder.problems))


def typed(text: str) -> object:
    """What a plain scalar is: None, a boolean, a number, or the text itself."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INT.fullmatch(text) and len(text) < 400:  # Python refuses to read a longer one
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML up to the tree of nodes, of which there are not too many; `_Builder` gives scalars their type."""

    def __init__(self, text: str, source: Source) -> None:
        self._source, self._nodes, self._depth = source, 0, 0
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        """See `Composer`, which calls itself here: where `_Builder` would find too much, there is no need to go on."""
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_VALUES:
            raise BadRecipe(
                f"more than {MAX_VALUES:,} keys and values",
                where=self._here(),
                hint="rows of data stand in files of their own, which `path:` names",
            )
        if self._depth > 2 * MAX_DEPTH:
            raise BadRecipe(f"nested deeper than {MAX_DEPTH} levels", where=self._here())
        node: Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]
        self._depth -= 1
        return node

    def _here(self) -> Where:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return self._source.at(mark.line, mark.column, 1)

    def resolve(self, kind: type[Node], _value: object, implicit: object) -> str:
        """Only whether a scalar is plain; `typed` says the rest."""
        return "plain" if kind is ScalarNode and isinstance(implicit, tuple) and implicit[0] else "given"


@dataclass
class _Builder:
    """Turns nodes into values, and notes where each was."""

    source: Source
    marks: Marks = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def build(self, node: Node, path: Path, key: tuple[int, int, int] | None) -> object:
        mark = Mark(self.source, key, *_extent(node, self.source))
        if len(path) > MAX_DEPTH:
            raise BadRecipe(
                f"nested deeper than {MAX_DEPTH} levels, or an alias inside what it names", where=mark.at_value()
            )
        if len(self.marks) > MAX_VALUES:
            around = next(self.marks[path[:parts]] for parts in (2, 1, 0) if path[:parts] in self.marks)
            raise BadRecipe(f"its aliases unfold to more than {MAX_VALUES:,} values", where=around.at_key())
        self.marks[path] = mark
        if node.tag.startswith(("!", "tag:")) and node.tag not in _TAGS:
            self._report(
                f"unknown tag {_short(node.tag)}", mark.at_value(), "a plain value, list or map", "remove the tag"
            )
        if isinstance(node, MappingNode):
            return self._map(node, path)
        if isinstance(node, SequenceNode):
            return [self.build(item, (*path, index), None) for index, item in enumerate(node.value)]
        return self._scalar(node, mark)

    def _map(self, node: MappingNode, path: Path) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            start, end = _extent(key_node, self.source)
            length = end[1] - start[1] if end[0] == start[0] else 1
            if not isinstance(key_node, ScalarNode):
                self._report(*_odd_key(self.source, start))
                continue
            name, where = str(key_node.value), self.source.at(*start, length)
            if name == "<<" and key_node.tag == "plain":
                self._report(
                    "merge keys are not part of YAML 1.2", where, None, "write the keys out, or use `extends:`"
                )
            elif not name and key_node.tag == "plain":
                self._report("a value without a key", where, "key: value")
            elif name in values:
                first = self.marks[(*path, name)].at_key()
                self._report(f"key `{name}` is given twice", where, None, f"it is already given in line {first.line}")
            else:
                values[name] = self.build(value_node, (*path, name), (*start, length))
        return values

    def _scalar(self, node: Node, mark: Mark) -> object:
        text = str(node.value)
        if _SURROGATE.search(text):
            try:  # JSON writes a character beyond U+FFFF as two escapes
                text = text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._report("an escape that is half a character", mark.at_value(), None, "write the character itself")
                text = _SURROGATE.sub("\ufffd", text)
        if node.tag in ("given", _STR) or (not node.tag.startswith("tag:") and node.tag != "plain"):
            return text
        value = typed(text)
        if node.tag in _TAGS and isinstance(value, str):
            self._report(
                f"{text!r} is not what its tag {_short(node.tag)} says", mark.at_value(), None, "remove the tag"
            )
        return value

    def _report(self, message: str, where: Where, expected: str | None = None, hint: str | None = None) -> None:
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(Problem(message, where, expected, hint))


def _extent(node: Node, source: Source) -> tuple[tuple[int, int], tuple[int, int]]:
    """Start and end of a node; the end of a block is moved back over the blank lines that PyYAML counts to it."""
    start, end = (node.start_mark.line, node.start_mark.column), (node.end_mark.line, node.end_mark.column)
    while end[0] > start[0] and not source.lines[end[0]][: end[1]].strip():
        end = (end[0] - 1, len(source.lines[end[0] - 1]))
    return start, end


def _short(tag: str) -> str:
    return "!!" + tag.rpartition(":")[2] if tag.startswith("tag:") else tag


def _odd_key(source: Source, start: tuple[int, int]) -> tuple[str, Where, str | None, str | None]:
    line, column = start
    text = source.lines[line]
    if text[column : column + 1] == "{" and text[:column].rstrip().endswith("{"):
        return unquoted(source, line, text.rfind("{", 0, column))
    return "a key that is a list or a map", source.at(line, column), "a name", None
