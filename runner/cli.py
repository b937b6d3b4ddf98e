"""The command `recipe`: arguments in, exit code out. Each command imports what it needs when it is called."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner import __version__
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

_FILE = click.argument("file", type=click.Path(path_type=Path))
_SET = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Replace a value, as stages.qa.learning_rate=1e-4.",
)
_VARIANT = click.option("--variant", metavar="NAME", help="Only this variant of the recipe's matrix.")
_OUT = click.option("--out", type=click.Path(path_type=Path), help="Write the run there instead of results/NAME.")


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
def check(file: Path, sets: tuple[str, ...], variant: str | None) -> None:
    """Validate a recipe: every fault, with its place in the file. Trains nothing, imports no torch."""
    from runner.check import load_variants

    found = load_variants(file, sets, variant=variant)
    for loaded in found:
        stages = ", ".join(f"{name} ({stage.kind})" for name, stage in loaded.spec.stages.items())
        name = f"{file} {loaded.variant}" if loaded.variant else str(file)
        click.echo(f"{name}: fine. stages: {stages}; suites: {', '.join(loaded.spec.probes) or 'none'}")


@cli.command()
@_FILE
@_SET
@_VARIANT
@_OUT
def plan(file: Path, sets: tuple[str, ...], variant: str | None, out: Path | None) -> None:
    """Show what a run would do: rows, tokens, steps, batches, checkpoints, stages already done."""
    from runner import matrix
    from runner.check import load_variants
    from runner.console import plan_screen
    from runner.preparation import Prepared, make_plan

    found = load_variants(file, sets, variant=variant)
    folder = (out or _default_out(found[0])).resolve()
    if not found[0].variant:
        _console().print(plan_screen(make_plan(Prepared(found[0], folder))))
        return
    _console().print(matrix.plan_screen(matrix.make_plans([Prepared(one, folder / one.variant) for one in found])))


@cli.command()
@_FILE
@_SET
@_VARIANT
@click.option("--stage", metavar="NAME", help="Only this stage.")
@click.option("--rows", type=click.IntRange(min=1), default=2, show_default=True, help="Of each stage.")
@click.option("--seed", type=int, help="Other rows than those of the recipe's seed.")
def preview(
    file: Path, sets: tuple[str, ...], variant: str | None, stage: str | None, rows: int, seed: int | None
) -> None:
    """Show rows of each stage token by token: what is learned, what is given, what is cut. Imports no torch."""
    from runner.check import load_checked
    from runner.preparation import Prepared
    from runner.preview import preview as previewed
    from runner.preview import screen

    loaded = load_checked(file, sets, variant=variant)
    console = _console()
    prepared = Prepared(loaded, _default_out(loaded).resolve())
    console.print(screen(previewed(prepared, stage, rows, seed), console.width), soft_wrap=True)


@cli.command()
@_FILE
@_SET
@_VARIANT
@_OUT
@click.option("--locked", is_flag=True, help="Refuse where recipe, data or versions are not those of the run so far.")
def run(file: Path, sets: tuple[str, ...], variant: str | None, out: Path | None, locked: bool) -> int:
    """Run a recipe, with a matrix: all of its variants. Resumes by itself; skips stages whose inputs did not change."""
    from runner import matrix
    from runner.check import load_variants
    from runner.progress import Screen
    from runner.run import run as run_recipe

    found = load_variants(file, sets, variant=variant)
    folder = (out or _default_out(found[0])).resolve()
    if found[0].variant:
        return matrix.run(found, folder, _console(), only_as_locked=locked)
    return run_recipe(found[0], folder, Screen(_console()), only_as_locked=locked)


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--probes", multiple=True, required=True, metavar="PATH", help="Probe file or folder; repeatable.")
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
@click.argument("before")
@click.argument("after")
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


@cli.command()
@click.argument("ckpt")
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
def schema() -> None:
    """Print the JSON Schema of the recipe language, for editors."""
    from runner.recipe import schema as made

    click.echo(json.dumps(made(), ensure_ascii=False, indent=2))


@cli.command()
@click.argument("name", required=False)
@click.option("--suites", metavar="NAMES", help="Copy suites that ship: names with commas between them, or all.")
def new(name: str | None, suites: str | None) -> None:
    """Write a first recipe with its data and its probe, which run as they are; or suites of probes; or both.

    \b
      recipe new my_model                      a recipe, its data, its probe
      recipe new my_model --suites repetition  the same, and suites beside it
      recipe new --suites all                  suites alone: for checkpoints of any trainer

    Suites: radicals, novel_rules, repetition, forgetting, watched. They are yours to change; nothing is overwritten.
    """
    from runner.starter import chosen, recipe_lines, write_starter, write_suites

    if name is None and suites is None:
        raise click.UsageError("give a NAME for a recipe, or --suites, or both")
    folder, names = Path.cwd(), chosen(suites) if suites is not None else ()
    had_probes = (folder / "probes").exists()
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
