"""One recipe out of the file, the files it extends and `--set`; every value keeps its own position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.errors import BadRecipe, Problem, Where, nearest
from runner.recipe.file_names import NAMES, cannot_be_a_path
from runner.yaml_marks import MAX_CHARS, Mark, Marks, Source, read
from runner.yaml_marks import Path as ValuePath

MAX_CHAIN = 16
"""Recipes that extend each other."""
_MAX_BYTES = 4 * MAX_CHARS
"""Of a file, and of those that extend each other together: whatever their characters, they are too many above it."""
NAMED = ("data", "stages", "probes", "matrix")
"""Blocks whose keys the user names: there a name that does not exist is a typing error, not a new key."""


@dataclass
class Layered:
    """Values and marks after every layer is laid on the one below, and the faults met on the way."""

    values: dict[str, Any]
    marks: Marks
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: ValuePath) -> Mark:
        """The mark of `path`, or of the nearest block around it that is written down."""
        while path not in self.marks:
            path = path[:-1]
        return self.marks[path]


def project_root(path: str | Path) -> Path:
    """The nearest folder above `path` with a `pyproject.toml` or `.git`, else the folder that `path` is in."""
    folder = Path(path).resolve().parent
    for candidate in (folder, *folder.parents):
        if (candidate / "pyproject.toml").exists() or (candidate / ".git").exists():
            return candidate
    return folder


def read_layers(path: Path, root: Path) -> Layered:
    """The recipe at `path` on top of what it extends.

    Raises:
        BadRecipe: a file cannot be read or is not YAML. Other faults are in `problems`.
    """
    return _read_chain(path, root, ())


def _read_chain(path: Path, root: Path, below: tuple[Path, ...]) -> Layered:
    child = _read_file(path)
    if "extends" not in child.values:
        return child
    mark, wanted = child.marks["extends",], child.values.pop("extends")
    _forget(child.marks, ("extends",), wanted)
    if not isinstance(wanted, str):
        child.problems.append(
            Problem("`extends` is not a file", mark.at_value(), "one recipe file, from the project root")
        )
        return child
    if cannot_be_a_path(wanted):
        raise BadRecipe("no file can have this name", where=mark.at_value(), expected=NAMES)
    parent_path = root / wanted
    chain = (*below, path.resolve())
    if parent_path.resolve() in chain:
        raise BadRecipe("recipes that extend each other in a circle", where=mark.at_value())
    if len(chain) >= MAX_CHAIN:
        raise BadRecipe(f"more than {MAX_CHAIN} recipes that extend each other", where=mark.at_value())
    if not parent_path.is_file():
        raise BadRecipe(_missing_parent(wanted, path, root, mark))
    if sum(file.stat().st_size for file in (*chain, parent_path)) > _MAX_BYTES:
        raise BadRecipe(
            f"recipes that extend each other have more than {_MAX_BYTES:,} bytes together", where=mark.at_value()
        )
    parent = _read_chain(Path(_shown(parent_path, path)), root, chain)
    parent.problems += child.problems
    lay(parent, child, "the extended recipe")
    parent.marks[()] = child.marks[()]
    return parent


def _shown(parent: Path, child: Path) -> Path:
    """The parent as the user would name it: relative to the working folder where the child was."""
    if child.is_absolute():
        return parent
    try:
        return parent.resolve().relative_to(Path.cwd())
    except ValueError:
        return parent


def _missing_parent(wanted: str, path: Path, root: Path, mark: Mark) -> Problem:
    beside = path.parent / wanted
    if beside.is_file():
        try:
            right = str(beside.resolve().relative_to(root))
        except ValueError:
            right = str(beside)
        hint: str | None = f"paths start at the project root: did you mean {right}?"
    else:
        hint = near_file(root / wanted, wanted)
    return Problem(f"no file {wanted}", mark.at_value(), "a recipe file, from the project root", hint)


def near_file(path: Path, wanted: str) -> str | None:
    """A hint with the nearest file name in the folder of `path`, or that the folder is not there."""
    if not path.parent.is_dir():
        return f"there is no folder {Path(wanted).parent}"
    name = nearest(path.name, sorted(item.name for item in path.parent.iterdir()))
    return f"did you mean {Path(wanted).parent / name}?" if name else None


def _read_file(path: Path) -> Layered:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)  # enough to see that it is too long, whatever it is
    except FileNotFoundError as error:
        raise BadRecipe(f"no recipe file {path}", hint=near_file(path, str(path))) from error
    except IsADirectoryError as error:
        raise BadRecipe(f"{path} is a folder", expected="a recipe file") from error
    except OSError as error:
        raise BadRecipe(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise BadRecipe(
            f"the file has more than {_MAX_BYTES:,} bytes",
            where=Where(str(path)),
            expected=f"a recipe, of {MAX_CHARS:,} characters at most",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadRecipe("not UTF-8 text", where=Where(str(path), line), hint="save the file as UTF-8") from error
    marked = read(text, str(path))
    problems = list(marked.problems)
    values = marked.values
    if not isinstance(values, dict):
        found = "nothing" if values is None else "a list" if isinstance(values, list) else "a single value"
        where = Where(str(path)) if values is None else marked.marks[()].at_value()
        raise BadRecipe(
            f"the file holds {found}", where=where, expected="a recipe: `recipe: NAME`, `model:`, `data:`, `stages:`"
        )
    return Layered(values, marked.marks, problems)


def lay(below: Layered, above: Layered, what: str, path: ValuePath = ()) -> None:
    """Lays the map at `path` of `above` on that of `below`: maps merge, everything else replaces, null deletes.

    Args:
        below: changed in place; what is wrong is added to its problems.
        what: what `below` is, in words.
    """
    lower, upper = _at(below.values, path), _at(above.values, path)
    for key, value in upper.items():
        here = (*path, key)
        if value is None and key in lower:
            _forget(below.marks, here, lower.pop(key))
        elif value is None and not (path[:1] == ("matrix",) and len(path) > 1):  # there it deletes in the variant
            below.problems.append(
                Problem(
                    f"null deletes a key of {what}, which has no `{dotted(here)}`",
                    above.marks[here].at_key(),
                    None,
                    did_you_mean(key, lower),
                )
            )
        elif isinstance(value, dict) and isinstance(lower.get(key), dict):
            below.marks[here] = above.marks[here]
            lay(below, above, what, here)
        else:
            _forget(below.marks, here, lower.get(key))
            lower[key] = value
            below.marks.update({at: above.marks[at] for at in _paths(here, value) if at in above.marks})


def _at(values: Any, path: ValuePath) -> Any:
    for part in path:
        values = values[part]
    return values


def _forget(marks: Marks, path: ValuePath, value: Any) -> None:
    """Remove the marks of a value, which stands at `path`, and of all in it."""
    for at in _paths(path, value):
        marks.pop(at, None)


def _paths(path: ValuePath, value: Any) -> Iterator[ValuePath]:
    """A path and those below it. Looking through all marks for them would take as long for every key."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _paths((*path, key), item)


def assign(layered: Layered, assignment: str) -> None:
    """Lays one `a.b.c=VALUE` on the recipe; VALUE is YAML, null deletes."""
    name, equals, text = assignment.partition("=")
    source = Source(f"--set {assignment}", ())
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        problem = Problem("not an assignment", Where(source.file), "for example --set stages.qa.learning_rate=1e-4")
        layered.problems.append(problem)
        return
    try:
        marked = read(text, source.file)
    except BadRecipe as error:
        layered.problems += [Problem(p.message, Where(source.file), p.expected, p.hint) for p in error.problems]
        return
    holder = _holder(layered, path, source.file)
    if holder is None:
        return
    block, here = holder
    _forget(layered.marks, here, _at(layered.values, here) if here[-1] in block or isinstance(block, list) else None)
    if marked.values is None and here[-1] in block:
        del block[here[-1]]
        return
    block[here[-1]] = marked.values
    mark = Mark(source, None, (0, 0), (0, 0))
    layered.marks.update({(*here, *at): mark for at in marked.marks})


def _holder(layered: Layered, path: tuple[str, ...], file: str) -> tuple[Any, ValuePath] | None:
    """The block that holds the last part of `path`, made where it may be; None where it names what is not there."""
    block: Any = layered.values
    here: ValuePath = ()
    for index, part in enumerate(path):
        last = index == len(path) - 1
        if isinstance(block, list):
            if not part.isdigit() or int(part) >= len(block):
                _no_such(layered, here, part, [str(number) for number in range(len(block))], file)
                return None
            here = (*here, int(part))
        elif isinstance(block, dict):
            if part not in block and (here == ("vars",) or (here and here[0] in NAMED and len(here) == 1 and not last)):
                _no_such(layered, here, part, list(block), file)
                return None
            here = (*here, part)
            if part not in block and not last:
                block[part] = {}
                layered.marks[here] = Mark(Source(file, ()), None, (0, 0), (0, 0))
        else:
            _no_such(layered, here, part, [], file)
            return None
        if not last:
            block = block[here[-1]]
    return block, here


def _no_such(layered: Layered, here: ValuePath, part: str, names: list[str], file: str) -> None:
    message = f"the recipe has no `{dotted((*here, part))}`"
    hint = did_you_mean(part, names) or (
        f"there are: {', '.join(names)}" if names else f"`{dotted(here)}` is not a map"
    )
    layered.problems.append(Problem(message, Where(file), None, hint))


def did_you_mean(name: str, names: Any) -> str | None:
    """The hint with the nearest right name, or None."""
    near = nearest(name, names)
    return f"did you mean {near}?" if near else None


def dotted(path: ValuePath) -> str:
    """`stages.qa.save_steps[0]`, the way a person writes a path."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def blocks_of(values: Any, key: str) -> dict[str, dict[str, Any]]:
    """The blocks under `key` that are maps; the models report the others."""
    block = values.get(key)
    return {name: item for name, item in block.items() if isinstance(item, dict)} if isinstance(block, dict) else {}


def strings_of(value: Any, path: ValuePath) -> Iterator[tuple[str, ValuePath]]:
    """The strings of a value that is one string or a list of them, each with its path."""
    if isinstance(value, str):
        yield value, path
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, str):
            yield item, (*path, index)
