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
from runner.errors import EXIT_INTERRUPTED, EXIT_TRAINING_FAILED, Interrupted, TrainingFailed, UserError, printable

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

    Exit codes: 0 the result's gates passed, 1 a gate failed, 2 the recipe or the command line is wrong,
    3 training failed, 130 interrupted (the same command resumes).
    """


@cli.command()
@_FILE
@_SET
def check(file: Path, sets: tuple[str, ...]) -> None:
    """Validate a recipe: every fault, with its place in the file. Trains nothing, imports no torch."""
    from runner.check import load_checked

    loaded = load_checked(file, sets)
    stages = ", ".join(f"{name} ({stage.kind})" for name, stage in loaded.spec.stages.items())
    click.echo(f"{file}: fine. stages: {stages}; suites: {', '.join(loaded.spec.probes) or 'none'}")


@cli.command()
@_FILE
@_SET
@_OUT
def plan(file: Path, sets: tuple[str, ...], out: Path | None) -> None:
    """Show what a run would do: rows, tokens, steps, batches, checkpoints, stages already done."""
    from runner.check import load_checked
    from runner.console import plan_screen
    from runner.preparation import Prepared, make_plan

    loaded = load_checked(file, sets)
    made = make_plan(Prepared(loaded, (out or _default_out(loaded)).resolve()))
    _console().print(plan_screen(made))


@cli.command()
@_FILE
@_SET
@_OUT
def run(file: Path, sets: tuple[str, ...], out: Path | None) -> int:
    """Run a recipe. Resumes by itself; skips stages whose inputs did not change."""
    from runner.check import load_checked
    from runner.progress import Screen
    from runner.run import run as run_recipe

    loaded = load_checked(file, sets)
    return run_recipe(loaded, (out or _default_out(loaded)).resolve(), Screen(_console()))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of the recipe language, for editors."""
    from runner.recipe import schema as made

    click.echo(json.dumps(made(), ensure_ascii=False, indent=2))


@cli.command()
@click.argument("name")
def new(name: str) -> None:
    """Write a first recipe with its data and its probe, which run as they are."""
    from runner.starter import write_starter

    written = [path.relative_to(Path.cwd()) for path in write_starter(name, Path.cwd())]
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"\nnow:  recipe run {written[0]}")


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
