"""The command `recipe`: arguments in, exit code out. Each command imports what it needs when it is called."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner import __version__, completing
from runner.errors import (
    EXIT_GATE_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TRAINING_FAILED,
    Interrupted,
    TrainingFailed,
    UserError,
    printable,
)

EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h: a fault of this program."""
EXIT_READER_LEFT = 141
"""What a shell reports of a program that SIGPIPE ended."""

if TYPE_CHECKING:
    from rich.console import Console

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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="recipe")
def cli() -> None:
    """Train language models in stages, and probe every checkpoint: a regression is a failing test.

    \b
    One YAML recipe declares data, stages (pretrain, sft, dpo) and probe suites:
      recipe new my_model              a first recipe that runs as it is
      recipe run my_model.yaml         train every stage, probe every checkpoint, gate
      pytest probes --ckpt CHECKPOINT  the same probes by hand, on any checkpoint
      recipe watch out --probes probes probe each checkpoint that another trainer writes

    Exit codes: 0 the result's gates passed, 1 a gate failed, 2 the recipe or the command line is wrong,
    3 training failed, 130 interrupted (the same command resumes).
    """


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


@cli.command()
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
    from runner.console import plan_screen
    from runner.preparation import Look, Prepared, make_plan

    found = load_variants(file, (*sets, *_launch_sets(launched)), variant=variant, scale=scale)
    folder = (out or _default_out(found[0])).resolve()
    planned_for = memory.devices(devices) if devices is not None else None
    prepared = [Prepared(one, folder / one.variant, planned_for) for one in found]
    with Look(found, elsewhere=planned_for is not None) as look:
        if not found[0].variant:
            _console().print(plan_screen(make_plan(prepared[0], look=look.seen)))
            return
        _console().print(matrix.plan_screen(matrix.make_plans(prepared, look)))


@cli.command()
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
    from runner.preparation import Prepared
    from runner.preview import preview as previewed
    from runner.preview import screen

    loaded = load_checked(file, sets, variant=variant, scale=scale)
    console = _console()
    prepared = Prepared(loaded, _default_out(loaded).resolve())
    console.print(screen(previewed(prepared, stage, rows, seed), console.width), soft_wrap=True)


@cli.command()
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
        code = matrix.run(found, folder, _console(), only_as_locked=locked, node=node)
    else:
        code = run_recipe(found[0], folder, Screen(_console()), only_as_locked=locked, node=node)
    _write_report(folder)
    return code


@cli.command()
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
def watch(
    folder: Path, probes: tuple[str, ...], suites: tuple[str, ...], baseline: str | None, once: bool, idle: float | None
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
    return follow(Options(folder, probes, suites, baseline, once, idle_s), _console())


@cli.command()
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


@cli.command()
@click.argument("before", shell_complete=completing.checkpoints)
@click.argument("after", shell_complete=completing.checkpoints)
@click.option("--markdown", is_flag=True, help="Print Markdown, for a pull request.")
@click.option("--all", "every", is_flag=True, help="Show every lost case, not only the first of each suite.")
def compare(before: str, after: str, markdown: bool, every: bool) -> int:
    """Compare BEFORE and AFTER: per suite what was lost and gained, and whether chance explains it.

    Each is a checkpoint, the folder of a run (its result checkpoint) or a verdict file. Exit code 1: a suite is worse
    beyond chance, or AFTER could not be asked it.
    """
    from runner import comparing

    found = comparing.compare(comparing.find(before, Path.cwd()), comparing.find(after, Path.cwd()))
    if markdown:
        click.echo(comparing.markdown(found, every=every), nl=False)
    else:
        _console().print(comparing.screen(found, every=every))
    return EXIT_GATE_FAILED if found.is_red else 0


@cli.command(name="list")
@click.argument("folder", required=False, metavar="DIR", type=click.Path(path_type=Path), default=Path("results"))
def list_runs(folder: Path) -> None:
    """Show the runs in DIR (results): how far each came, its result, its gates."""
    from runner import listing

    found = listing.listed(folder)
    _console().print(listing.list_screen(found) if found else f"no runs in {folder}")


@cli.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=completing.run_names)
def show(run: Path) -> int:
    """Show the last screen of RUN, a folder or a name of results/, as it stands now. The exit code is its gates'."""
    from runner import listing

    return listing.show(listing.find(run, Path("results")), _console())


@cli.command()
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
        raise UserError(f"{ckpt}: {problem if ckpt.is_dir() else 'no such folder'}", expected="a checkpoint's folder")
    options = {"system": system, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    return subprocess.run(launch.talk_argv(ckpt, **options), env=launch.environment(), check=False).returncode


@cli.command()
@click.argument("case", metavar="CASE")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=completing.run_names)
@click.option("--suite", metavar="NAME", help="Only as this suite asks it.")
def bisect(case: str, run: Path, suite: str | None) -> None:
    """Show where CASE broke in RUN: its reply at every checkpoint, and the stage and data that it broke in."""
    from runner import bisecting, listing
    from runner.standings import Standings

    folder = listing.find(run, Path("results"))
    loaded, looks = listing.loaded_of(folder)
    found = bisecting.timelines(loaded.spec, Standings(loaded.spec, folder, looks), case, suite)
    _console().print(bisecting.screen(loaded.spec, found))


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
@click.argument("ckpt", shell_complete=completing.checkpoints)
@click.option("--out", type=click.Path(path_type=Path), help="Write there instead of RUN/exports/STAGE-N.")
def export(ckpt: str, out: Path | None) -> int:
    """Write CKPT as whole weights that load without this project: an adapter is merged into its base.

    The suites that its run asks at CKPT are then asked of what was written, and what it answers otherwise is shown.
    Exit code 1: a gate is red there.
    """
    from runner.export import export as write
    from runner.export import screen

    done = write(ckpt, out, Path.cwd())
    _console().print(screen(done, Path.cwd()))
    return EXIT_GATE_FAILED if done.is_red else 0


@cli.command()
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it there instead.")
def schema(out: Path | None) -> None:
    """Print the JSON Schema of the recipe language: completion and explanations for editors.

    \b
    recipe new writes it beside a recipe, whose first line names it:
      # yaml-language-server: $schema=recipe.schema.json
    After an upgrade of this package: recipe schema --out recipe.schema.json
    """
    from runner.atomic import publish_text
    from runner.starter import schema_text

    if out is None:
        click.echo(schema_text(), nl=False)
        return
    publish_text(out, schema_text())
    click.echo(f"wrote {out}")


@cli.command()
@click.argument("shell", type=click.Choice(completing.SHELLS))
def completion(shell: str) -> None:
    """Print the lines with which SHELL completes commands, recipes, stages, runs and checkpoints.

    \b
      bash  recipe completion bash >> ~/.bashrc
      zsh   recipe completion zsh >> ~/.zshrc
      fish  recipe completion fish > ~/.config/fish/completions/recipe.fish
    """
    click.echo(completing.script(cli, shell))


@cli.command()
@click.argument("name", required=False)
@click.option("--from-data", metavar="FILE", type=click.Path(), help="Look at its rows, and write a recipe for them.")
@click.option(
    "--suites",
    metavar="NAMES",
    help="Copy suites that ship: names with commas between them, or all.",
    shell_complete=completing.suites,
)
def new(name: str | None, from_data: str | None, suites: str | None) -> None:
    """Write a first recipe with its data and its probe, which run as they are; or suites of probes; or both.

    \b
      recipe new my_model                      a recipe, its data, its probe
      recipe new --from-data rows.jsonl        a recipe for your rows: jsonl, json, csv, tsv, parquet, txt
      recipe new my_model --suites repetition  the first, and suites beside it
      recipe new --suites all                  suites alone: for checkpoints of any trainer

    Suites: radicals, novel_rules, repetition, forgetting, watched. They are yours to change; nothing is overwritten.
    """
    from runner import starter
    from runner.starter import chosen, recipe_lines, write_starter, write_suites

    if name is None and suites is None and from_data is None:
        raise click.UsageError("give a NAME for a recipe, --from-data or --suites")
    folder, names = Path.cwd(), chosen(suites) if suites is not None else ()
    had_probes = (folder / "probes").exists()
    if from_data is not None:
        name = name or starter.name_of(from_data)
        found = starter.look(from_data)
        proposal = starter.propose(found)
        written = starter.write_from_data(name, found, proposal, folder, names)
        _console().print(starter.found_screen(found, proposal))
        click.echo()
    else:
        written = write_starter(name, folder, names) if name is not None else write_suites(names, folder)
    paths = [path.relative_to(folder).as_posix() for path in written]
    click.echo("\n".join(f"wrote {path}" for path in paths))
    if name is not None:
        click.echo(f"\nnow:  recipe run {paths[0]}")
        if names:
            click.echo("the suites are asked too where you add, under probes:")
            click.echo("\n".join(f"  {line}" for line in recipe_lines(names, folder)))
        return
    asked = [path for path in paths if path.startswith("probes/test_")] if had_probes else ["probes"]
    click.echo(f"\nnow:  pytest {' '.join(asked)} --ckpt CHECKPOINT")
    click.echo("CHECKPOINT is a folder of any trainer, with config.json, weights and tokenizer, or a PEFT adapter.")


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

    command = [argument for argument in sys.argv[1:] if argument not in ("--slurm", "--dry-run")]
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


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not made.is_terminal:
        # a pipe has no width; a log must not be cut or wrapped at 80
        made = Console(stderr=stderr, highlight=False, emoji=False, markup=False, width=160)
    return made


def main() -> None:
    """The console script: user errors become screens and exit codes, everything else is a traceback."""
    if completing.VARIABLE in os.environ:  # a shell asks what fits; click answers it and leaves
        cli.main(prog_name="recipe", complete_var=completing.VARIABLE)
    sys.exit(_guarded(lambda: cli.main(prog_name="recipe", standalone_mode=False)))


def _guarded(call: Callable[[], Any]) -> int:
    try:
        code = call()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except UserError as error:
        from runner.console import print_error

        print_error(_console(stderr=True), error)
        return error.exit_code
    except TrainingFailed as error:
        # the end of a log may hold what a model said
        click.echo("\n".join(printable(line) for line in str(error).split("\n")), err=True)
        return EXIT_TRAINING_FAILED
    except Interrupted as error:
        click.echo(str(error), err=True)
        return EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # the reader (head, less) left: click and rich then ask for exit code 1, which here says that a gate failed
        return EXIT_READER_LEFT
    except Exception:  # noqa: BLE001 - Python would leave with 1, which here says that a gate failed
        traceback.print_exc()
        click.echo(
            "this is a fault of recipe-runner, not of your recipe: please report it with the lines above", err=True
        )
        return EXIT_BUG
