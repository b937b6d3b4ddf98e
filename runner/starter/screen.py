"""What a look at a file found, as `recipe new --from-data` prints it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runner.errors import printable
from runner.starter.looking import LOOKED_AT, Look
from runner.starter.proposing import Proposal
from runner.starter.wording import read_as

_SCRIPTS = 4


def screen(look: Look, proposal: Proposal) -> RenderableType:
    """Rows, columns, lengths, duplicates and scripts, and what was made of them."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    made.add_column("column", overflow="fold")
    made.add_column("holds")
    for title in ("filled", "different", "characters", "95 %", "longest"):
        made.add_column(title, justify="right", no_wrap=True)
    for column in look.columns:
        sizes = column.lengths
        made.add_row(
            Text(printable(column.name), style="bold"), Text(column.kind), _percent(column.filled),
            f"{column.distinct:,}", f"{sizes.median:,}", f"{sizes.most:,}", f"{sizes.longest:,}",
        )  # fmt: skip
    return Group(
        Text(f"{printable(look.path)}: {'the first ' if look.more else ''}{look.rows:,} rows"), made, Text(),
        *(Text(line) for line in _lines(look, proposal)),
    )  # fmt: skip


def _lines(look: Look, proposal: Proposal) -> Iterator[str]:
    if look.more:
        yield f"looked at   the first {LOOKED_AT:,} rows; the file has more"
    if look.bad:
        yield f"left out    {look.bad:,} that cannot be used"
        yield from (f"            {one.where}: {printable(one.reason)}" for one in look.first_bad)
    if look.empty:
        yield f"empty       {look.empty:,} with an empty text; left out too"
    yield f"duplicates  {look.duplicates:,}"
    scripts = ", ".join(f"{script} {_percent(share)}" for script, share in list(look.scripts.items())[:_SCRIPTS])
    yield f"letters     {scripts or 'none'}; {look.characters:,} different characters"
    yield f"read as     {read_as(look).removeprefix('read as ')}"
    yield f"split by    {printable(proposal.key.name)}: {printable(proposal.key.why)}"
    stages = ("sft" if proposal.asks else "pretrain") + (", then dpo" if proposal.preferring else "")
    asked = "the right answer, to the letter" if proposal.is_exact else "loops, and how well texts are predicted"
    yield f"learned by  {stages}; asked for {asked}"


def _percent(share: float) -> str:
    """Whole percent; 100 and 0 only where that is exact."""
    shown = round(100 * share)
    return f"{min(99, shown) if share < 1 else 100} %" if share >= 0.005 or share == 0 else "< 1 %"
