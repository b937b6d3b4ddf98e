"""Rendering templates within a budget of steps, and what to say where that or anything else ends one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Macro, new_context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from runner.sandbox import costs
from runner.sandbox.generating import Generator

MAX_STEPS = 1_000_000
"""Of one rendering: a turn of a loop is one, as are an item or 64 characters that are made or looked through; a call is
ten. A chat template takes some tens for a message. All of them last about a second, or a few on a slow machine."""
MAX_SOURCE = 65_536
"""Characters of a template; compiling so many takes a second at most. The longest chat templates have half of that."""

FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError)
"""What rendering can raise besides Jinja's own errors."""
COMPILING = (RecursionError, MemoryError, SyntaxError, ValueError)
"""What compiling can raise besides Jinja's own errors: Python refuses blocks that are nested too deep."""


class RanAway(SecurityError):
    """A template that takes more than its budget."""

    def __init__(self) -> None:
        super().__init__(f"it takes more than a template may: {MAX_STEPS:,} steps of loops, calls and characters")


def reason(error: BaseException) -> str:
    """One line for the user about what a rendering or a compilation raised."""
    if isinstance(error, jinja2.TemplateError):
        return error.message or str(error) or type(error).__name__
    if isinstance(error, RecursionError):
        return "it is nested too deep, or calls itself without end"
    if isinstance(error, SyntaxError):
        return f"it is nested too deep ({error.msg})"
    return f"{type(error).__name__}: {error}"


class _Budget(threading.local):
    left: int = MAX_STEPS


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment whose templates are rendered within a budget; what it is given is as for jinja2's."""

    code_generator_class = Generator
    intercepted_binops = frozenset(("*", "**", "%", "//", "+", "-"))

    def __init__(self, **options: Any) -> None:
        # constants are not folded: that would be work while compiling, outside of any budget
        super().__init__(**options, optimized=False, finalize=self._finalized)
        self.globals.pop("lipsum")  # random text, of any length
        self._budget = _Budget()
        made: Any
        for name, made in list(self.filters.items()):
            self.add_filter(name, made)
        for name in costs.LOOKING:
            made = self.tests[name]
            self.tests[name] = self._bounded(made, self._test_cost)

    def add_filter(self, name: str, made: Callable[..., Any]) -> None:
        """A filter in place of, or besides, those of Jinja."""
        self.filters[name] = self._bounded(made, lambda given: costs.of_filter(name, given, self._most()))

    def parse(self, source: str, name: str | None = None, filename: str | None = None) -> nodes.Template:
        """The tree of a template.

        Raises:
            jinja2.TemplateError: its syntax is wrong, or it is too long.
            RecursionError: it is nested too deep.
        """
        return super().parse(_short(source), name, filename)

    def compiled(self, source: str | nodes.Template) -> jinja2.Template:
        """A template, from its source or its tree, which is not to be used again.

        Raises:
            jinja2.TemplateError: as `parse`.
            COMPILING: it is nested too deep.
        """
        return self.from_string(source if isinstance(source, nodes.Template) else self.parse(source))

    def render(self, template: jinja2.Template, values: dict[str, Any], *, whole: bool = False) -> str:
        """The text, within a budget of its own.

        Args:
            whole: the globals are among the values already; Jinja then makes no copies of them.

        Raises:
            jinja2.TemplateError: an undefined name, RanAway, or what the template itself raises.
            FAILURES: an expression fails.
        """
        self._budget.left = MAX_STEPS
        context = new_context(self, template.name, template.blocks, values, whole, None if whole else template.globals)
        return self.concat(template.root_render_func(context))

    def evaluate(self, expression: str, values: Mapping[str, Any]) -> object:
        """The value of an expression, within a budget of its own; an undefined one as Undefined.

        Raises:
            jinja2.TemplateError, COMPILING: it is none.
            FAILURES: it fails.
        """
        found = self.compile_expression(_short(expression), undefined_to_none=False)
        self._budget.left = MAX_STEPS
        return found(**values)

    # --- what the code of a template calls ---

    def charge(self, chars: int) -> bool:
        """Take a step, and one more for each 64 characters; true, so that a condition can begin with it.

        Raises:
            RanAway: none are left.
        """
        budget = self._budget
        left = budget.left = budget.left - 1 - chars // costs.CHARS
        if left < 0:
            raise RanAway
        return True

    def looked(self, value: Any) -> Any:
        """`value`, charged with all that it holds; a short text costs nothing, because what looks at it again and again
        is charged itself."""
        if type(value) is str:
            if len(value) > costs.CHARS:
                self.charge(len(value))
        elif not isinstance(value, costs.ATOMS):
            self.charge(self._size(value))
        return value

    def made(self, value: Any) -> Any:
        """`value`, charged with its length."""
        self.charge(costs.length(value))
        return value

    def joined(self, parts: tuple[Any, ...]) -> str:
        """What `~` makes of its operands."""
        size = 0
        for part in parts:
            size += len(part) if type(part) is str else self._size(part)
        self.charge(size)
        return "".join(map(str, parts))

    def concat(self, parts: Iterable[str]) -> str:
        """The texts that a template, a macro or a block has written, as one."""
        written = list(parts)
        self.charge(sum(map(len, written)))
        return "".join(written)

    @staticmethod
    @pass_context
    def _finalized(context: Context, value: Any) -> Any:
        """What `{{ }}` writes, before it becomes text; `concat` charges texts."""
        if not isinstance(value, costs.ATOMS):
            context.environment.looked(value)  # type: ignore[attr-defined]
        return value

    def call(self, context: Context, called: Any, /, *given: Any, **named: Any) -> Any:
        """A call from a template: a macro takes what it is given as it is, everything else may look into it."""
        self.charge(costs.CALL)
        if not isinstance(called, Macro):
            owner = getattr(called, "__self__", None)
            values = [*given, *named.values()]
            self.charge(self._size(owner) + sum(map(self._size, values)))
            if isinstance(owner, (str, bytes, int)):
                self.charge(costs.growth(getattr(called, "__name__", ""), owner, values, self._most()))
        return _numbered(super().call(context, called, *given, **named))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`a[b]`: a key that holds others is looked through."""
        if not isinstance(argument, costs.ATOMS):
            self.charge(self._size(argument))
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+`, `-`, `*`, `**`, `//` and `%`, which can take far more than what they are given."""
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            if operator in ("*", "**"):
                _check_bits(bits)
            self.charge(bits)
        elif operator == "*":
            number, repeated = (left, right) if isinstance(left, int) else (right, left)
            self.charge(self._size(repeated) * max(number, 0) if isinstance(number, int) else 0)
        elif operator == "%" and isinstance(left, (str, bytes)):
            given = right if isinstance(right, tuple) else (right,)
            self.charge(costs.of_percent(str(left), given, self._most()))
        else:
            self.charge(costs.length(left) + costs.length(right))
        return _numbered(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, charged for its fields and their widths."""
        made = super().wrap_str_format(value)
        return made and self._bounded(made, lambda given: costs.of_braces(value.__self__, given, self._most()))

    def _bounded(self, made: Callable[..., Any], cost: Callable[[list[Any]], int]) -> Callable[..., Any]:
        """A filter, a test or a method that is charged before it works."""
        skipped = 1 if hasattr(made, "jinja_pass_arg") else 0  # the context, which is Jinja's

        @wraps(made)
        def charged(*given: Any, **named: Any) -> Any:
            self.charge(cost([*given[skipped:], *named.values()]))
            found = _numbered(made(*given, **named))
            return self._metered(found) if isinstance(found, Iterator) else found

        return charged

    def _metered(self, items: Iterator[Any]) -> Iterator[Any]:
        """What a filter makes one by one: nobody who takes it knows beforehand how much it is."""
        for item in items:
            self.charge(self._size(item))
            yield item

    def _test_cost(self, given: list[Any]) -> int:
        return costs.FILTER + sum(self._size(one) + costs.bits(one) for one in given)

    def _most(self) -> int:
        """Characters that the budget still reaches for."""
        return (self._budget.left + 2) * costs.CHARS

    def _size(self, value: Any) -> int:
        return costs.size(value, self._most())


def _numbered(value: Any) -> Any:
    """`value`; where numbers stay small, dividing them needs no charge of its own.

    Raises:
        SecurityError: it is an integer that is too large.
    """
    if isinstance(value, int):
        _check_bits(value.bit_length())
    return value


def _check_bits(bits: int) -> None:
    if bits > costs.MAX_BITS:
        raise SecurityError(f"a number of {bits:,} bits")


def _short(source: str) -> str:
    if len(source) > MAX_SOURCE:
        raise SecurityError(f"it has {len(source):,} characters; a template may have {MAX_SOURCE:,}")
    return source
