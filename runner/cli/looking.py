"""Commands that look back at runs: list, show, verify, report, bisect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from runner import completing
from runner.cli.root import cli, console


@cli.command(name="list", short_help="Show the runs in DIR: how far each came, its gates.")
@click.argument("folder", required=False, metavar="[DIR]", type=click.Path(path_type=Path), default=Path("results"))
def list_runs(folder: Path) -> None:
    """Show the runs in DIR (default: results): how far each came, its result, its gates."""
    from runner import listing

    found = listing.listed(folder)
    console().print(listing.list_screen(found) if found else f"no runs in {folder}")


@cli.command(short_help="Show the last screen of RUN, as it stands now.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=completing.run_names)
def show(run: Path) -> int:
    """Show the last screen of RUN, a folder or a name of results/, as it stands now. The exit code is its gates'."""
    from runner import listing

    return listing.show(listing.find(run, Path("results")), console())


@cli.command(short_help="Check every file of RUN, or of a checkpoint, for damage.")
@click.argument("run", metavar="RUN|CKPT", type=click.Path(path_type=Path), shell_complete=completing.run_names)
def verify(run: Path) -> int:
    """Check every file of RUN (a folder, or a name of results/), or of a checkpoint, against its digests and records.

    Each damage is named with what was expected and what to do; nothing is changed. Exit code 0: all is whole; 1:
    something is damaged.
    """
    from runner import listing, verifying

    folder = run if run.is_dir() else listing.find(run, Path("results"))
    found = verifying.verify(folder)
    console().print(verifying.screen(found, Path.cwd()), soft_wrap=True)
    return found.exit_code


@cli.command(short_help="Write one HTML file about RUN: matrix, replies, curves.")
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
@click.option(
    "--plots", metavar="DIR", type=click.Path(path_type=Path), help="Write the charts there instead, as files."
)
@click.option("--format", "kind", type=click.Choice(["svg", "png", "pdf"]), help="Of --plots; default: svg.")
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    markdown: bool,
    plots: Path | None,
    kind: Literal["svg", "png", "pdf"] | None,
) -> None:
    """Write one HTML file about RUN, a folder or a name of results/: the matrix, every case's replies, the curves, what
    was said, the recipe.

    It needs no network. Several runs, or the folder of a matrix, stand beside each other. --plots needs kaleido (pip
    install 'recipe-runner[plots]') and a Chrome or Chromium.
    """
    from runner import listing
    from runner import report as reporting

    if sum((out is not None, markdown, plots is not None)) > 1:
        raise click.UsageError("--out, --markdown and --plots are three ways to have a report: give one.")
    if kind is not None and plots is None:
        raise click.UsageError("--format is for the files of --plots DIR; a report is HTML, or --markdown.")
    runs = tuple(listing.folder_of(run, Path("results")) for run in runs)
    if markdown:
        click.echo(reporting.markdown(runs), nl=False)
        return
    if plots is not None:
        for path in reporting.pictures(runs, plots, kind or "svg"):
            click.echo(f"wrote {os.path.relpath(path)} ({path.stat().st_size / 1e3:,.0f} kB)")
        return
    written = reporting.write(runs, out)
    click.echo(f"wrote {os.path.relpath(written.path)} ({written.size_bytes / 1e6:.1f} MB)")


@cli.command(short_help="Show where CASE broke in RUN: stage, data, replies.")
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
