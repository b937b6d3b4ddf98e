"""A user's errors, as every command shows them."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from runner.errors import UserError
from runner.tables import BAD, said


def print_error(console: Console, error: UserError) -> None:
    """A user's error, its text untouched by markup or wrapping."""
    for index, problem in enumerate(error.problems):
        if index:
            console.print()
        # a source line, or a log of a child, may hold what a terminal would obey
        first, *rest = (said(line, 2000) for line in problem.screen().split("\n"))
        console.print(Text(first, style="bold"), soft_wrap=True)
        for line in rest:
            caret = line.lstrip(" |").startswith("^")
            console.print(Text(line, style=BAD if caret else ""), soft_wrap=True)
