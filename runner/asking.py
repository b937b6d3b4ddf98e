"""What a probe file says: the decorator `probe`, and the records `Case` and `Reply` its functions receive.

No pytest and no torch here: a probe file can be imported and its functions called by anyone.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from runner.errors import BadProbe, Where, nearest

FORMAT_VERSION = 1
"""Part of every suite key: raised when the same probe and cases would be asked differently than before."""

StopReason = Literal["eos", "stop", "length", "choice"]
F = TypeVar("F", bound=Callable[..., object])
_ATTRIBUTE = "__recipe_probe__"
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.+-]+")


class Case:
    """One row a probe is asked about: its `id`, its columns as attributes (`case.char`) or items (`case["char"]`)."""

    __slots__ = ("_row", "id")
    id: str
    """ASCII, unique within its cases, the same in every process."""

    def __init__(self, id: str, row: Mapping[str, Any]) -> None:
        self.id = id
        self._row = row

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_row":
            raise AttributeError(name)
        try:
            return self._row[name]
        except KeyError:
            close = nearest(name, self._row)
            hint = f"; did you mean {close!r}?" if close else f"; it has {', '.join(self._row)}"
            raise AttributeError(f"case {self.id} has no column {name!r}{hint}") from None

    def __getitem__(self, name: str) -> Any:
        return self._row[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __contains__(self, name: object) -> bool:
        return name in self._row

    def __len__(self) -> int:
        return len(self._row)

    def __repr__(self) -> str:
        return f"Case({self.id}: {dict(self._row)!r})"


@dataclass(frozen=True)
class Decoding:
    """How a reply is decoded: greedy, and nothing is ever taken from the checkpoint's own generation settings."""

    max_new_tokens: int = 64
    """At most so many tokens are generated."""
    stop: tuple[str, ...] = ()
    """Strings that end a reply; what was matched is not part of it."""
    temperature: float = 0.0
    """0 is greedy; above it, tokens are drawn with a generator of the case's own."""
    top_p: float = 1.0
    """Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751); 1 draws from all tokens."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens that already occurred (Keskar et al. 2019,
    arXiv:1909.05858); 1 changes nothing."""
    samples: int = 1
    """Replies per case; a probe gets all of them as `replies`."""
    seed: int = 0
    """Of sampling, together with the case's id and the number of the sample."""


class Reply(str):
    """What the model said, as a string, and how it came to an end."""

    tokens: tuple[int, ...]
    """Generated token ids, the stop token included."""
    stop_reason: StopReason
    """`eos`: the model ended it; `stop`: a stop string came (it is cut off); `length`: max_new_tokens were spent."""
    margin: float | None
    """Smallest difference between the two best logits over the generated tokens: near 0, the reply hung by a hair."""
    logprob: float | None
    """Sum of the natural log probabilities of `tokens`; None where a server does not tell."""
    thinking: str
    """What stood between `<think>` and `</think>`, which is not part of the reply."""

    def __new__(
        cls,
        text: str,
        tokens: tuple[int, ...] = (),
        stop_reason: StopReason = "eos",
        margin: float | None = None,
        logprob: float | None = None,
        thinking: str = "",
    ) -> Reply:
        """A reply with this text; called with only the text, a probe function can be tried by hand."""
        reply = super().__new__(cls, text)
        reply.tokens = tokens
        reply.stop_reason = stop_reason
        reply.margin = margin
        reply.logprob = logprob
        reply.thinking = thinking
        return reply


@dataclass(frozen=True)
class Probe:
    """What the decorator `probe` was given."""

    cases: str | tuple[Mapping[str, Any], ...] | None
    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...]
    gate: Mapping[str, Any] | None
    given: Callable[..., object] | None


def probe(
    *,
    cases: str | Path | Iterable[Mapping[str, Any]] | None = None,
    prompt: str,
    max_new_tokens: int = 64,
    stop: str | Iterable[str] = (),
    gate: Mapping[str, Any] | None = None,
    given: Callable[..., object] | None = None,
) -> Callable[[F], F]:
    """Make a test function a probe: it is run once per case and checkpoint. The function itself stays as it was.

    The function may take the fixtures `case` (a `Case`), `reply` (a `Reply`) and `record` (called as
    `record(name=number)`), beside any other pytest fixture. Decoding is greedy.

    Args:
        cases: a data file, relative to the probe file, or the rows themselves. May be left out where a recipe's suite
            names its `cases:`.
        prompt: a Jinja template over the columns of a case.
        max_new_tokens: at most so many tokens are generated.
        stop: strings that end a reply; what was matched is not part of it.
        gate: the same keys as `gate:` in a recipe, which replaces it.
        given: another probe function, the control: a case it did not pass is not asked here.

    Raises:
        BadProbe: an argument is not what it should be.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    rows: str | tuple[Mapping[str, Any], ...] | None
    rows = str(cases) if isinstance(cases, (str, Path)) else tuple(cases) if cases is not None else None

    def decorate(function: F) -> F:
        where = _where(function)
        if not isinstance(prompt, str):
            raise BadProbe(f"prompt is {type(prompt).__name__}", where=where, expected="a template, a string")
        if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise BadProbe(f"max_new_tokens is {max_new_tokens!r}", where=where, expected="a whole number, at least 1")
        if not all(isinstance(text, str) and text for text in stops):
            raise BadProbe(f"stop is {stop!r}", where=where, expected="one or more strings that are not empty")
        if gate is not None and not isinstance(gate, Mapping):
            raise BadProbe(f"gate is {gate!r}", where=where, expected='a mapping, for example {"min_pass_rate": 0.95}')
        if given is not None and declared(given) is None:
            raise BadProbe(
                "given is not a probe", where=where, expected="a function decorated with @probe, defined above"
            )
        if isinstance(rows, tuple) and not all(isinstance(row, Mapping) for row in rows):
            raise BadProbe(
                "a case is not a mapping", where=where, expected='rows such as {"char": "心"}, or a file name'
            )
        setattr(function, _ATTRIBUTE, Probe(rows, prompt, max_new_tokens, stops, gate, given))
        return function

    return decorate


def declared(function: object) -> Probe | None:
    """What `probe` was given for this function, or None where it is no probe."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, Probe) else None


def _where(function: Callable[..., object]) -> Where:
    code = getattr(function, "__code__", None)
    return Where(code.co_filename, code.co_firstlineno) if code else Where(getattr(function, "__module__", "?"))


def ascii_id(text: str) -> str:
    """`text` where it is made of ASCII letters, digits and `_.+-`; else every character as `U+6B46`, joined by `_`."""
    return text if _PLAIN_ID.fullmatch(text) else "_".join(f"U+{ord(char):04X}" for char in text)


def case_id(row: Mapping[str, Any]) -> str:
    """The row's `id` in ASCII, or the first 12 hex digits of a sha256 over its fields."""
    if (given := row.get("id")) not in (None, ""):
        return ascii_id(str(given))
    canonical = json.dumps(dict(row), ensure_ascii=True, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def suite_key(file: Path, function: str | None = None, cases: Path | None = None) -> str:
    """A digest of everything that decides what a suite asks and asserts, without importing the probe file.

    It covers the probe file, the `conftest.py` beside it, the files that a string in it names (from its folder) or that
    lie below `data/` beside it and are mentioned by name, the case file of the recipe, and the version of the way
    probes are asked.

    Args:
        file: the probe file.
        function: the one probe of it that is asked, if not all.
        cases: the case file that the run wrote, for a suite with `cases:`.

    Raises:
        OSError: one of the files cannot be read.
    """
    source = file.read_bytes()
    beside = [path for path in [file.parent / "conftest.py"] if path.is_file()]
    data = (path for path in sorted((file.parent / "data").rglob("*")) if path.is_file())
    beside += [path for path in data if path.name.encode() in source]
    beside += [path for path in _named_files(source, file.parent) if path not in beside]
    digest = hashlib.sha256(f"{FORMAT_VERSION}:{file.name}::{function or ''}".encode())
    for content in (source, *(path.read_bytes() for path in beside), cases.read_bytes() if cases else b""):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _named_files(source: bytes, folder: Path) -> list[Path]:
    """The files that strings of a probe file name, `cases="../data/x.csv"` for one."""
    try:
        strings = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    except SyntaxError:
        return []  # asking will say so
    names = {text for text in strings if isinstance(text, str) and 0 < len(text) <= 255 and "\0" not in text}
    return sorted(folder / name for name in names if "." in name and (folder / name).is_file())
