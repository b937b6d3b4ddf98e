"""What PyYAML says of a text that is not YAML, worded for someone who does not know its names for tokens."""

from __future__ import annotations

import re

import yaml
from yaml.reader import ReaderError
from yaml.tokens import ScalarToken

from runner.errors import Problem, Where
from runner.yaml_marks.marks import Source

_LOOKED_AT = 2000
"""Characters of a line that a hint is looked for in: some of the expressions take the square of them."""
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What PyYAML counts as the end of a line."""


def unquoted(source: Source, line: int, column: int) -> tuple[str, Where, str | None, str | None]:
    """Message, place, expectation and hint for a `{{` outside quotes."""
    text = source.lines[line]
    end = text.find("}}", column)
    length = end + 2 - column if end > 0 else 2
    return (
        "`{{` opens a map in YAML, not a template",
        source.at(line, column, length),
        "quotes around a value with a template",
        "write " + _quoted(text, column),
    )


def _quoted(line: str, column: int) -> str:
    """The line's `key: value` with its value in quotes, as a suggestion."""
    line = line[:_LOOKED_AT]
    before = line[:column]
    start = max(before.rfind(": ") + 2, before.rfind("- ") + 2, len(before) - len(before.lstrip()))
    value = re.split(r"\s+#", line[start:])[0].strip()
    if before.count("{") > before.count("}"):  # inside `{a: …, b: …}` the value ends at the next comma or brace
        value = re.match(r"(?:\{\{.*?\}\}|[^,{}])*", value)[0].strip()  # type: ignore[index]
    key = re.search(r"([\w-]+:\s+|- )$", line[:start])
    quote = "'" if '"' in value else '"'
    return f"{key[0] if key else ''}{quote}{value}{quote}"


_CANNOT_START = re.compile(r"found character '(.+)' that cannot start any token")


def syntax(error: yaml.MarkedYAMLError, source: Source) -> Problem:
    """A problem worded for someone who does not know PyYAML's names for tokens."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem(str(error), Where(source.file))
    line, column = min(mark.line, len(source.lines) - 1), mark.column
    message = error.problem or "not valid YAML"
    if found := _CANNOT_START.search(message):
        return _cannot_start(found[1], source, line, column)
    for number in {line, error.context_mark.line if error.context_mark else line}:
        text = source.lines[number][:_LOOKED_AT] if number < len(source.lines) else ""
        opening = re.search(r"""(?:[:,\[-]\s|^\s*)[^"'#]*?(\{\{)""", text)
        if opening and number == line:
            return Problem(*unquoted(source, number, opening.start(1)))
    return _open_quote(source, line) or _reworded(error, message, source, line, column)


def _open_quote(source: Source, line: int) -> Problem | None:
    """The quotes that end in the faulty line but were opened further up: most likely the closing one was forgotten."""
    opened: ScalarToken | None = None
    try:
        for token in yaml.scan("\n".join(source.lines), Loader=yaml.SafeLoader):
            if not isinstance(token, ScalarToken) or token.style not in ("'", '"'):
                continue
            if token.start_mark.line < token.end_mark.line == line:
                opened = token
    except yaml.YAMLError:
        pass  # the fault that is being explained
    if opened is None:
        return None
    where = source.at(opened.start_mark.line, opened.start_mark.column)
    return Problem(f"these quotes end only in line {line + 1}", where, None, "close them where the text ends")


def _cannot_start(char: str, source: Source, line: int, column: int) -> Problem:
    where = source.at(line, column)
    if char == "\\t":
        return Problem("a tab; YAML is indented with spaces", where, None, "replace the tab by spaces")
    text = source.lines[line]
    return Problem(
        f"a plain value cannot start with {char}", where, "quotes around the value", f"write {_quoted(text, column)}"
    )


_REWORDED = (
    ("mapping values are not allowed here", "this does not continue the line before it", "is a `: ` missing there?"),
    ("found unexpected end of stream", "the text ends inside quotes", "close the quotes"),
    ("could not find expected ':'", "a line without `: `", "write key: value; indent a continued text"),
    ("expected <block end>", "this does not belong to the block above it", "check the indentation and the quotes"),
    ("expected ',' or '}'", "this does not continue the `{…}` before it", "separate by commas, close with }"),
    ("expected ',' or ']'", "this does not continue the `[…]` before it", "separate by commas, close with ]"),
    ("found undefined alias", "an alias of an anchor that is not given above", "quote the value if * is meant as text"),
    ("found duplicate anchor", "an anchor of this name is given above", "give it another name"),
    ("but found another document", "a second document in one file", "remove the `---`"),
    ("found unknown escape character", "an unknown escape in double quotes", "double the \\, or use single quotes"),
    ("found a tab character", "a tab; YAML is indented with spaces", "replace the tab by spaces"),
)  # fmt: skip


def _reworded(error: yaml.MarkedYAMLError, message: str, source: Source, line: int, column: int) -> Problem:
    where = source.at(line, column)
    opened = error.context_mark
    if opened and ("end of stream" in message or "<stream end>" in message or "expected ':'" in message):
        where = source.at(opened.line, opened.column)  # the end of the file says nothing; where it was opened does
        if where.text and (bracket := where.text[opened.column : opened.column + 1]) in ("{", "["):
            return Problem(
                f"this {bracket} is never closed", where, None, f"close it with {'}' if bracket == '{' else ']'}"
            )
    if "mapping values are not allowed" in message and re.search(r"(: |- )", source.lines[line][:column]):
        return Problem("a second `: ` in one value", where, None, f"write {_quoted(source.lines[line], column)}")
    for words, ours, hint in _REWORDED:
        if words in message or words in (error.context or ""):
            return Problem(ours, where, None, hint)
    return Problem(message, where)


def unprintable(error: ReaderError, text: str, source: Source) -> Problem:
    """The problem with a character that no text file should hold."""
    before = LINE_BREAK.split(text[: error.position])
    where = source.at(len(before) - 1, len(before[-1]))
    code = error.character if isinstance(error.character, int) else ord(str(error.character))
    shown = Where(where.file, where.line, where.column)  # the line itself could disturb a terminal
    return Problem(f"a control character (U+{code:04X})", shown, "text", "remove it")
