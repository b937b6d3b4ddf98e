"""What a shell offers for the arguments of `recipe`: recipes, their stages and variants, runs, checkpoints, suites.

click asks these functions when its script in the shell asks `recipe` (see `script`). Nothing here may fail: what cannot
be read is not offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from runner.errors import UserError

VARIABLE = "_RECIPE_COMPLETE"
"""The environment variable with which a shell asks."""
SHELLS = ("bash", "zsh", "fish")
_RUN, _RESULTS = "run.json", "results"
_HEAD_BYTES = 16_384
"""Of a YAML file, to see whether it is a recipe."""


def script(command: click.Command, shell: str) -> str:
    """The lines that a shell of SHELLS is to read at its start.

    Raises:
        UserError: click has none for this shell.
    """
    made = get_completion_class(shell)
    if made is None:
        raise UserError(f"there is no completion for {shell}", expected=f"one of {', '.join(SHELLS)}")
    return made(command, {}, "recipe", VARIABLE).source()


def recipe_files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """YAML files that are recipes, here and one folder below; where none fits, any file."""
    folder, _, beginning = incomplete.rpartition("/")
    top = Path(folder or ("/" if incomplete.startswith("/") else "."))
    found = [path for pattern in ("*.yaml", "*.yml", "*/*.yaml", "*/*.yml") for path in top.glob(pattern)]
    fitting = (path for path in sorted(found) if str(path.relative_to(top)).startswith(beginning))
    return _items((str(path) for path in fitting if _is_recipe(path)), incomplete, "file")


def _is_recipe(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            lines = file.read(_HEAD_BYTES).splitlines()
    except OSError:
        return False
    return any(line.startswith((b"recipe:", b"extends:")) for line in lines)


def stages(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The stages of the recipe that stands before."""
    return _named(context, "stages", incomplete)


def variants(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The variants of the recipe that stands before."""
    return _named(context, "matrix", incomplete)


def run_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs by their names below `results`; where none fits, folders."""
    names = (run.relative_to(_RESULTS).as_posix() for run in _runs())
    return _items((name for name in names if name.startswith(incomplete)), incomplete, "dir")


def run_folders(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs by their folders; where none fits, folders."""
    return _items((str(run) for run in _runs() if str(run).startswith(incomplete)), incomplete, "dir")


def checkpoints(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Checkpoints of the runs here, and those that another trainer wrote; where none fits, folders."""
    own = [path for run in _runs() for path in run.glob("*/ckpt-*")]
    others = [
        path for pattern in ("checkpoint-*", "*/checkpoint-*", "*/*/checkpoint-*") for path in Path().glob(pattern)
    ]
    found = (str(path) for path in sorted([*own, *others], key=_by_step) if path.is_dir())
    return _items((path for path in found if path.startswith(incomplete)), incomplete, "dir")


def suites(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Suites that ship, after those that are named already."""
    from runner.starter import SUITES

    before, comma, beginning = incomplete.rpartition(",")
    named = {name.strip() for name in before.split(",")}
    names = [name for name in (*SUITES, *(() if comma else ("all",))) if name not in named]
    return [CompletionItem(f"{before}{comma}{name}") for name in names if name.startswith(beginning)]


def _named(context: click.Context, block: str, incomplete: str) -> list[CompletionItem]:
    # beside an option that has no value yet, click leaves the arguments as they were typed
    given = context.params.get("file") or next((text for text in context.args if not text.startswith("-")), None)
    if given is None:
        return []
    return [CompletionItem(name) for name in _block(Path(given), block) if name.startswith(incomplete)]


def _block(file: Path, block: str) -> Iterator[str]:
    from runner.recipe.layers import project_root, read_layers

    try:
        found: Any = read_layers(file, project_root(file)).values.get(block)
    except (UserError, OSError):
        return
    yield from (str(name) for name in found) if isinstance(found, Mapping) else ()


def _runs() -> list[Path]:
    top = Path(_RESULTS)
    return sorted(path.parent for pattern in (f"*/{_RUN}", f"*/*/{_RUN}") for path in top.glob(pattern))


def _by_step(path: Path) -> tuple[Path, int]:
    step = path.name.rpartition("-")[2]
    return path.parent, int(step) if step.isdigit() else 0


def _items(values: Iterable[str], incomplete: str, otherwise: str) -> list[CompletionItem]:
    """These, or what the shell itself finds."""
    return [CompletionItem(value) for value in values] or [CompletionItem(incomplete, type=otherwise)]
