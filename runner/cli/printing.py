"""The console that commands print on, whatever text of others is in what they print."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from runner.errors import printable


class Screen(Console):
    """A console on which nothing but its own colours and movements commands a terminal.

    Screens make what they quote printable where they lay it out, so that it has its width; this is for what nobody
    thought of, such as the name of a folder.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See `rich.console.Console`: the same segments, control characters in their texts spelled out."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable() or text == "\n":
                yield segment
            else:
                yield Segment("\n".join(map(printable, text.split("\n"))), segment.style)
