"""A live view at the end of a terminal's output: it is drawn again a few times a second, and survives a resize.

`rich.live` moves as many lines up as the view had when it was drawn. A terminal that was made narrower has wrapped
those lines meanwhile, so that there are more of them: that much is moved up first. Where they are more than the
terminal has, the first ones are above its upper edge, out of reach until it is made higher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

_REFRESHED_PER_S = 4


class _Measured:
    """What is shown, and how wide each of its lines was when it was."""

    def __init__(self, render: Callable[[], RenderableType]) -> None:
        self._render = render
        self.widths: list[int] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._render(), options, pad=False)
        # a terminal that is too low for it would be scrolled
        lines = lines[: max(console.height - 1, 1)]
        self.widths = [Segment.get_line_length(line) for line in lines]
        for number, line in enumerate(lines):
            if number:
                yield Segment.line()
            yield from line


class LiveView(Live):
    """What `render` gives, until it is stopped; it is gone then.

    Args:
        console: a terminal.
        render: called in a thread of this view.
        fit: called before, where the console does not know by itself how large its terminal is.
        redirects: whether what is printed meanwhile, by whomever, stands above the view.
    """

    def __init__(
        self,
        console: Console,
        render: Callable[[], RenderableType],
        *,
        fit: Callable[[], None] = lambda: None,
        redirects: bool = True,
    ) -> None:
        self._measured, self._fit = _Measured(render), fit
        self._size = console.size
        self._out_of_reach: list[int] = []
        """Widths of lines that were drawn and went over the upper edge, the last one next to it."""
        super().__init__(
            console=console,
            get_renderable=lambda: self._measured,
            refresh_per_second=_REFRESHED_PER_S,
            transient=True,
            redirect_stdout=redirects,
            redirect_stderr=redirects,
        )

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """See `rich.live.Live`: before, what a resize has left of the view is erased."""
        self._fit()
        more = self._rows_more_than_drawn()
        erase = (ControlType.ERASE_IN_LINE, 2)
        codes = [code for _ in range(more) for code in (erase, (ControlType.CURSOR_UP, 1))]
        made = super().process_renderables(renderables)
        return [Control(ControlType.CARRIAGE_RETURN, *codes), *made] if more else made

    def _rows_more_than_drawn(self) -> int:
        """How many rows the view takes now, beyond those that it had when it was drawn."""
        before, now = self._size, self.console.size
        if now == before:
            return 0
        self._size = now
        widths = self._measured.widths
        rows = _rows(widths, now.width)
        higher = max(now.height - before.height, 0)
        # a terminal that is made higher takes back what went over its edge
        again = min(_rows(self._out_of_reach, now.width), higher) if self._out_of_reach else 0
        if again:
            self._out_of_reach = []
        beyond = rows - now.height
        if beyond > 0:
            self._out_of_reach += _first(widths, now.width, beyond)
        return max(rows - len(widths), 0) + again


def _rows(widths: Sequence[int], of: int) -> int:
    """The rows that lines take in a terminal that is `of` cells wide."""
    return sum(max(-(-width // max(of, 1)), 1) for width in widths)


def _first(widths: Sequence[int], of: int, rows: int) -> list[int]:
    """The lines that take the first `rows` rows."""
    taken: list[int] = []
    for width in widths:
        if _rows(taken, of) >= rows:
            break
        taken.append(width)
    return taken
