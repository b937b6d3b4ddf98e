"""The group that all commands belong to, and what becomes of their errors: screens and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from runner import __version__, completing
from runner.cli.actions import unheard
from runner.errors import EXIT_INTERRUPTED, EXIT_TRAINING_FAILED, Interrupted, TrainingFailed, UserError, printable
from runner.refused import refusal

EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h: a fault of this program."""
EXIT_READER_LEFT = 141
"""What a shell reports of a program that SIGPIPE ended."""

if TYPE_CHECKING:
    from rich.console import Console


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="recipe")
def cli() -> None:
    """Train language models in stages, and probe every checkpoint: a regression is a failing test.

    \b
    One YAML recipe declares data, stages (pretrain, sft, dpo) and probe suites:
      recipe new my_model              a first recipe that runs as it is
      recipe run my_model.yaml         train, probe every checkpoint, gate
      pytest probes --ckpt CHECKPOINT  the same probes by hand, on any checkpoint
      recipe watch out --probes probes checkpoints that another trainer writes

    Exit codes: 0 the result's gates passed, 1 a gate failed, 2 the recipe or the command line is wrong,
    3 training failed, 130 interrupted (the same command resumes).
    """


def console(*, stderr: bool = False) -> Console:
    """Where a command prints."""
    from runner.cli.printing import Screen

    if (sys.stderr if stderr else sys.stdout).isatty():
        return Screen(stderr=stderr, highlight=False, emoji=False, markup=False)
    # a pipe has no width; a log must not be cut or wrapped at 80, nor drawn again, even where $FORCE_COLOR is set
    return Screen(stderr=stderr, highlight=False, emoji=False, markup=False, width=160, force_interactive=False)


def main() -> None:
    """The console script: user errors become screens and exit codes, everything else is a traceback."""
    if completing.VARIABLE in os.environ:  # a shell asks what fits; click answers it and leaves
        cli.main(prog_name="recipe", complete_var=completing.VARIABLE)
    with unheard(os.environ):
        code = guarded(lambda: cli.main(prog_name="recipe", standalone_mode=False))
    sys.exit(code)


def guarded(call: Callable[[], Any]) -> int:
    """The exit code of a command, whatever becomes of it; what there is to say of it is said."""
    try:
        code = call()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except UserError as error:
        from runner.console import print_error

        print_error(console(stderr=True), error)
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
    except Exception as error:  # noqa: BLE001 - Python would leave with 1, which here says that a gate failed
        if (refused := refusal(error)) is not None:
            with suppress(OSError):  # what it prints to may be on the disk that is full
                if not refused.is_sure:
                    traceback.print_exc()
                click.echo(refused.screen(), err=True)
            return refused.exit_code
        traceback.print_exc()
        click.echo(
            "this is a fault of recipe-runner, not of your recipe: please report it with the lines above", err=True
        )
        return EXIT_BUG
