"""Commands that look back at runs: list, show, report, bisect."""

from __future__ import annotations

import os
from pathlib import Path

import click

from runner import completing
from runner.cli.root import cli, console


@cli.command(name="list")
@click.argument("folder", required=False, metavar="DIR", type=click.Path(path_type=Path), default=Path("results"))
def list_runs(folder: Path) -> None:
    """Show the runs in DIR (results): how far each came, its result, its gates."""
    from runner import listing

    found = listing.listed(folder)
    console().print(listing.list_screen(found) if found else f"no runs in {folder}")


@cli.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=completing.run_names)
def show(run: Path) -> int:
    """Show the last screen of RUN, a folder or a name of results/, as it stands now. The exit code is its gates'."""
    from runner import listing

    return listing.show(listing.find(run, Path("results")), console())


@cli.command()
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    metavar="RUN...",
    type=click.Path(path_type=Path),
    shell_complete=completing.run_folders,
)
@click.option("--out", type=click.Path(path_type=Path), help="Write there instead of RUN/report.html.")
@click.option("--markdown", is_flag=True, help="Print Markdown instead, for a pull request or a model card.")
def report(runs: tuple[Path, ...], out: Path | None, markdown: bool) -> None:
    """Write one HTML file about RUN: the matrix, every case's replies, the curves, what was said, the recipe.

    It needs no network. Several runs, or the folder of a matrix, stand beside each other.
    """
    from runner import report as reporting

    if markdown:
        click.echo(reporting.markdown(runs), nl=False)
        return
    written = reporting.write(runs, out)
    click.echo(f"wrote {os.path.relpath(written.path)} ({written.size_bytes / 1e6:.1f} MB)")


@cli.command()
@click.argument("case", metavar="CASE")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=completing.run_names)
@click.option("--suite", metavar="NAME", help="Only as this suite asks it.")
def bisect(case: str, run: Path, suite: str | None) -> None:
    """Show where CASE broke in RUN: its reply at every checkpoint, and the stage and data that it broke in."""
    from runner import bisecting, listing
    from runner.standings import open_run

    opened = open_run(listing.find(run, Path("results")))
    found = bisecting.timelines(opened.loaded.spec, opened.standings, case, suite)
    console().print(bisecting.screen(opened.loaded.spec, found))
