"""Commands about checkpoints: watch, compare, chat, export, store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from runner import completing
from runner.cli.root import cli, console
from runner.errors import EXIT_GATE_FAILED, BadCheckpoint, Problem, UserError, nearest


@cli.command(short_help="Probe every checkpoint that another trainer writes to DIR.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--probes", multiple=True, metavar="PATH", help="Probe file or folder; repeatable.")
@click.option("--suite", "suites", multiple=True, metavar="NAME", help="Ask only this suite; repeatable.")
@click.option("--baseline", metavar="CKPT|FILE", help="Compare with this checkpoint (asked first) or verdict file.")
@click.option("--once", is_flag=True, help="End after the checkpoints that are there.")
@click.option(
    "--idle",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="End when no checkpoint came for so long.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long a checkpoint may be asked, all --probes together.  [default: 14400]",
)
def watch(
    folder: Path,
    probes: tuple[str, ...],
    suites: tuple[str, ...],
    baseline: str | None,
    once: bool,
    idle: float | None,
    timeout_s: float | None,
) -> int:
    """Probe every checkpoint that appears in DIR, the output folder of any trainer. Verdicts go to DIR/probes.

    Without --probes, DIR is a run whose recipe says launch.probing: elsewhere; it is asked its own suites.

    Ends on Ctrl-C with exit code 130; with --once or --idle it has that of the gates.
    """
    if once and idle is not None:
        raise click.UsageError("--once and --idle exclude each other")
    from runner.watching.following import watch as follow
    from runner.watching.options import Options

    idle_s = None if idle is None else idle * 60
    return follow(Options(folder, probes, suites, baseline, once, idle_s, timeout_s=timeout_s), console())


@cli.command(short_help="Compare two checkpoints, suite by suite and case by case.")
@click.argument("before", shell_complete=completing.checkpoints)
@click.argument("after", shell_complete=completing.checkpoints)
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request.")
@click.option("--all", "every", is_flag=True, help="Show every lost case, not only the first of each suite.")
def compare(before: str, after: str, markdown: bool, every: bool) -> int:
    """Compare BEFORE and AFTER: per suite what was lost and gained, and whether chance explains it.

    Each is a checkpoint, a run (a folder, or a name of results/: its result checkpoint) or a verdict file. Exit code 1:
    a suite is worse beyond chance, or AFTER could not be asked it.
    """
    from runner import comparing

    found = comparing.compare(comparing.find(before, Path.cwd()), comparing.find(after, Path.cwd()))
    if markdown:
        click.echo(comparing.markdown(found, every=every), nl=False)
    else:
        console().print(comparing.screen(found, every=every))
    return EXIT_GATE_FAILED if found.is_red else 0


@cli.command(short_help="Talk to CKPT through its own chat template.")
@click.argument("ckpt", type=click.Path(path_type=Path), shell_complete=completing.checkpoints)
@click.option("--system", metavar="TEXT", help="The system's message.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True)
def chat(ckpt: Path, system: str | None, temperature: float, top_p: float, max_new_tokens: int) -> int:
    """Talk to CKPT through its own chat template; without one it goes on with what you type."""
    import subprocess

    from runner import launch, loadable

    if not ckpt.is_dir() or (problem := loadable.problem(ckpt)):
        beside = ckpt.parent.iterdir() if ckpt.parent.is_dir() and not ckpt.exists() else ()
        close = nearest(ckpt.name, [entry.name for entry in beside if entry.is_dir()])
        raise UserError(
            f"{ckpt}: {problem if ckpt.is_dir() else 'is a file' if ckpt.exists() else 'no such folder'}",
            expected="a checkpoint's folder",
            hint=f"did you mean {ckpt.with_name(close)}?" if close else None,
        )
    options = {"system": system, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    return subprocess.run(launch.talk_argv(ckpt, **options), env=launch.environment(), check=False).returncode


@cli.command(short_help="Write CKPT as whole weights: an adapter merged into its base.")
@click.argument("ckpt", shell_complete=completing.checkpoints)
@click.option("--out", type=click.Path(path_type=Path), help="Write there instead of RUN/exports/STAGE-N.")
def export(ckpt: str, out: Path | None) -> int:
    """Write CKPT as whole weights that load without this project: an adapter is merged into its base.

    The suites that its run asks at CKPT are then asked of what was written, and what it answers otherwise is shown.
    Exit code 1: a gate is red there.
    """
    from runner.console import waiting
    from runner.export import export as write
    from runner.export import screen

    with waiting(console(stderr=True)):
        try:
            done = write(ckpt, out, Path.cwd())
        except BadCheckpoint as error:
            raise BadCheckpoint(_as_argument(one) for one in error.problems) from error
    console().print(screen(done, Path.cwd()))
    return EXIT_GATE_FAILED if done.is_red else 0


def _as_argument(problem: Problem) -> Problem:
    """What is wrong with a checkpoint that pytest takes with an option, and a command as its argument."""
    hint = problem.hint.replace("--ckpt ", "") if problem.hint else None
    return replace(problem, message=problem.message.removeprefix("--ckpt "), hint=hint)


@cli.command(short_help="Show the store of replies, or clear it.")
@click.option("--clear", is_flag=True, help="Forget all replies.")
def store(clear: bool) -> None:
    """Show the store of replies that pytest --ckpt and recipe run keep, or clear it.

    $RECIPE_STORE names its file, or says off; $RECIPE_STORE_MIB bounds its size (1024).
    """
    from runner.probing.store import PLACE, Store

    opened = Store.open()
    if opened is None:
        click.echo(f"${PLACE} is off: no replies are kept")
        return
    if clear:
        click.echo(f"{opened.entries():,} replies forgotten")
        opened.clear()
    click.echo(f"place    {opened.path}")
    click.echo(f"replies  {opened.entries():,}")
    click.echo(f"size     {opened.size_bytes() / 2**20:,.1f} of at most {opened.most_bytes / 2**20:,.0f} MiB")
    for trouble in opened.troubles:
        click.echo(f"trouble  {trouble}")
    opened.close()
