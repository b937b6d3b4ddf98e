"""Commands that take a recipe: check, plan, preview, run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from runner import completing
from runner.cli.root import cli, console
from runner.errors import UserError

_FILE = click.argument("file", type=click.Path(path_type=Path), shell_complete=completing.recipe_files)
_SET = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value, as stages.qa.learning_rate=1e-4.",
)
_VARIANT = click.option(
    "--variant", metavar="NAME", help="Only this variant of the recipe's matrix.", shell_complete=completing.variants
)
_SCALE = click.option(
    "--scale",
    type=click.Choice(["tiny"]),
    help="A rehearsal: the same recipe on a small model and few rows, in a minute on two cores; writes NAME-tiny.",
)
_LAUNCH = (
    click.option("--processes", type=click.IntRange(min=1), help="Training processes of each node."),
    click.option("--nodes", type=click.IntRange(min=1), help="Machines; see --node-rank."),
    click.option("--deepspeed", metavar="NAME|FILE", help="zero1, zero2, zero3, offload, or a configuration."),
)
"""Options that replace values under `launch:`."""
_OUT = click.option("--out", type=click.Path(path_type=Path), help="Write the run there instead of results/NAME.")


def _with(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Several options at once, in this order."""

    def give(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return give


@cli.command()
@_FILE
@_SET
@_VARIANT
@_SCALE
def check(file: Path, sets: tuple[str, ...], variant: str | None, scale: str | None) -> None:
    """Validate a recipe: every fault, with its place in the file. Trains nothing, imports no torch."""
    from runner.check import load_variants

    found = load_variants(file, sets, variant=variant, scale=scale)
    for loaded in found:
        stages = ", ".join(f"{name} ({stage.kind})" for name, stage in loaded.spec.stages.items())
        name = f"{file} {loaded.variant}" if loaded.variant else str(file)
        click.echo(f"{name}: fine. stages: {stages}; suites: {', '.join(loaded.spec.probes) or 'none'}")


@cli.command(short_help="Show what a run would do: rows, tokens, steps, memory.")
@_FILE
@_SET
@_VARIANT
@_SCALE
@_OUT
@_with(_LAUNCH)
@click.option("--devices", metavar="COUNTxSIZE", help="Plan for devices that are elsewhere: 6x80GB, 1x24GB.")
def plan(
    file: Path,
    sets: tuple[str, ...],
    variant: str | None,
    scale: str | None,
    out: Path | None,
    devices: str | None,
    **launched: int | str | None,
) -> None:
    """Show what a run would do: rows, tokens, steps, batches, memory, checkpoints, stages already done."""
    from runner import matrix, memory
    from runner.check import load_variants
    from runner.console import plan_screen, waiting
    from runner.preparation import Look, Prepared, make_plan

    found = load_variants(file, (*sets, *_launch_sets(launched)), variant=variant, scale=scale)
    folder = (out or _default_out(found[0])).resolve()
    planned_for = memory.devices(devices) if devices is not None else None
    prepared = [Prepared(one, folder / one.variant, planned_for) for one in found]
    with waiting(console(stderr=True)), Look(found, elsewhere=planned_for is not None) as look:
        if found[0].variant:
            shown = matrix.plan_screen(matrix.make_plans(prepared, look))
        else:
            shown = plan_screen(make_plan(prepared[0], look=look.seen))
    console().print(shown)


@cli.command(short_help="Show rows of each stage token by token: what is learned.")
@_FILE
@_SET
@_VARIANT
@_SCALE
@click.option("--stage", metavar="NAME", help="Only this stage.", shell_complete=completing.stages)
@click.option("--rows", type=click.IntRange(min=1), default=2, show_default=True, help="Of each stage.")
@click.option("--seed", type=int, help="Other rows than those of the recipe's seed.")
def preview(
    file: Path,
    sets: tuple[str, ...],
    variant: str | None,
    scale: str | None,
    stage: str | None,
    rows: int,
    seed: int | None,
) -> None:
    """Show rows of each stage token by token: what is learned, what is given, what is cut. Imports no torch."""
    from runner.check import load_checked
    from runner.console import waiting
    from runner.preparation import Prepared
    from runner.preview import preview as previewed
    from runner.preview import screen

    loaded = load_checked(file, sets, variant=variant, scale=scale)
    shown = console()
    prepared = Prepared(loaded, _default_out(loaded).resolve())
    with waiting(console(stderr=True)):
        found = previewed(prepared, stage, rows, seed)
    shown.print(screen(found, shown.width), soft_wrap=True)


@cli.command(short_help="Run a recipe, or all variants of it; go on where it stopped.")
@_FILE
@_SET
@_VARIANT
@_SCALE
@_OUT
@click.option("--locked", is_flag=True, help="Refuse where recipe, data or versions are not those of the run so far.")
@_with(_LAUNCH)
@click.option("--node-rank", type=click.IntRange(min=0), help="Which node this is; 0 leads. Not needed under Slurm.")
@click.option("--rendezvous", metavar="HOST:PORT", help="Where the other nodes find node 0.")
@click.option("--slurm", is_flag=True, help="Hand the run in to Slurm, as launch.slurm says.")
@click.option("--dry-run", is_flag=True, help="With --slurm: print the script, and hand nothing in.")
def run(
    file: Path,
    sets: tuple[str, ...],
    variant: str | None,
    scale: str | None,
    out: Path | None,
    locked: bool,
    node_rank: int | None,
    slurm: bool,
    dry_run: bool,
    **launched: int | str | None,
) -> int:
    """Run a recipe, with a matrix: all of its variants. Resumes by itself; skips stages whose inputs did not change."""
    from runner import matrix
    from runner.check import load_variants
    from runner.nodes import this_node
    from runner.progress import Screen
    from runner.run import run as run_recipe

    if dry_run and not slurm:
        raise click.UsageError("--dry-run belongs to --slurm")
    if slurm and node_rank is not None:
        raise click.UsageError("--slurm starts every node: leave --node-rank out")
    found = load_variants(file, (*sets, *_launch_sets(launched)), variant=variant, scale=scale)
    folder = (out or _default_out(found[0])).resolve()
    if slurm:
        return _hand_in(found[0], folder, only_print=dry_run)
    node = this_node(found[0].spec.launch, node_rank, os.environ)
    if node.rank > 0:
        from runner.run import join_run

        return join_run(found, folder, node, click.echo)
    if found[0].variant:
        code = matrix.run(found, folder, console(), only_as_locked=locked, node=node)
    else:
        code = run_recipe(found[0], folder, Screen(console()), only_as_locked=locked, node=node)
    _write_report(folder)
    return code


def _launch_sets(launched: Mapping[str, int | str | None]) -> tuple[str, ...]:
    """Options as the assignments of `--set` that they stand for."""
    given = {name: value for name, value in launched.items() if value is not None}
    if given.get("nodes") == 1 and "rendezvous" not in given:
        given["rendezvous"] = "null"
        return (*(f"launch.{name}={value}" for name, value in given.items()),)
    return tuple(f"launch.{name}={json.dumps(value)}" for name, value in given.items())


def _hand_in(loaded: Any, folder: Path, *, only_print: bool) -> int:
    """Print the script for Slurm, or write it and hand it in."""
    from runner import slurm
    from runner.folder import check_inside

    check_inside(folder)
    command = [argument for argument in sys.argv[1:] if argument not in ("--slurm", "--dry-run")]
    if slurm.asks_for_no_gpus(loaded.spec):
        click.echo("no GPU is asked for: launch.slurm.gpus_per_node says how many, 0 for CPUs", err=True)
    script = slurm.script_of(loaded.spec, folder, command)
    click.echo(script.text if only_print else slurm.submit(script), nl=not only_print)
    return 0


def _write_report(folder: Path) -> None:
    """The run as a page, in its folder. What the run came to does not depend on it."""
    from runner import report as reporting

    try:
        reporting.write([folder])
    except (UserError, OSError) as error:
        click.echo(f"no report was written: {error}", err=True)


def _default_out(loaded: Any) -> Path:
    folder: Path = loaded.root / "results" / loaded.spec.recipe
    return folder
