"""A recipe and its data files checked together, before anything trains: every fault at once, each with its place.

Of a data file only the names of its columns are looked at, so that a check takes no longer for much data; faults of
single rows are found when the rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner import spec
from runner.data import formats, sources
from runner.errors import BadData, BadRecipe, Problem, Where, nearest
from runner.recipe import Draft, Loaded, draft
from runner.recipe.layers import Layered
from runner.recipe.references import HOLDS, TAKES
from runner.recipe.shapes import Blocks, chain, fields_of, shape_of
from runner.templates import TemplateProblem, compile_template
from runner.yaml_marks import Path as ValuePath

_BUILT_IN = frozenset({"range", "dict", "namespace", "cycler", "joiner", "loop"})
"""Names that Jinja itself gives to every template."""


def load_checked(path: str | Path, sets: Sequence[str] = (), root: Path | None = None) -> Loaded:
    """The recipe at `path`, after a look at the files it names.

    Raises:
        BadRecipe: with every fault of the recipe, and of its data as far as the recipe names it.
    """
    found = draft(path, sets, root)
    problems = [*found.problems, *data_problems(found)]
    if found.spec is None or problems:
        raise BadRecipe(sorted(problems, key=lambda problem: _place(problem, found)))
    return Loaded(found.spec, found.path, found.root, found.values, found.marks)


def _place(problem: Problem, found: Draft) -> tuple[bool, int, int]:
    """The recipe's own lines first and in order; what stands in other files keeps its order after them."""
    where = problem.where
    if where is None or where.file != str(found.path):
        return (where is not None, 0, 0)
    return (False, where.line or 0, where.column or 0)


def data_problems(found: Draft) -> list[Problem]:
    """What is wrong between the recipe and the columns of its data files."""
    blocks = found.values.get("data")
    named = blocks.items() if isinstance(blocks, dict) else ()
    checks = _Checks(found, {name: block for name, block in named if isinstance(block, dict)})
    for name, data in found.data.items():
        if data.path is not None:
            checks.source(name, data)
    for name, data in found.data.items():
        checks.templates(name, data)
    checks.uses()
    return checks.problems


@dataclass
class _Checks:
    found: Draft
    blocks: Blocks
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By data set with `path`: the columns of its files and the fields its `columns:` adds."""
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layered: Layered = self.found.layered()

    def _report(self, message: str, where: Where, expected: str | None = None, hint: str | None = None) -> None:
        self.problems.append(Problem(message, where, expected, hint))

    def source(self, name: str, data: spec.Data) -> None:
        """Finds the columns of a data set's files, and what its own block says about them."""
        try:
            names = sources.head(data.model_copy(update={"columns": None}), name, self.found.root)
        except BadData as error:
            where = self.layered.mark(("data", name, "path")).at_value()
            # a fault inside the file has its own place; a fault of the path has its place in the recipe
            self.problems += [Problem(p.message, p.where or where, p.expected, p.hint) for p in error.problems]
            return
        kinds = {formats.kind_of(Path(file)) for file in sources.find(data, name, self.found.root)}
        if data.separator is not None and "txt" not in kinds:
            where = self.layered.mark(("data", name, "separator")).at_key()
            self._report(f"{data.path} has no `separator`: it parts the records of txt files", where, None, "remove it")
        missing = False
        for new, column in (data.columns or {}).items():
            if column not in names:
                missing = True
                where = self.layered.mark(("data", name, "columns", new)).at_value()
                self._no_column(column, names, f"{data.path} has no column", where)
        if data.split is not None and data.split.by not in (*names, *(data.columns or ())):
            where = self.layered.mark(("data", name, "split", "by")).at_value()
            self._no_column(data.split.by, names, f"{data.path} has no column", where)
        if not missing:
            self.columns[name] = (*names, *(new for new in data.columns or () if new not in names))

    def _no_column(self, column: str, names: Sequence[str], what: str, where: Where) -> None:
        close = nearest(column, names)
        self._report(f"{what} `{column}`", where, None, f"did you mean {close}?" if close else _there_are(names))

    def _columns(self, name: str) -> tuple[str, ...] | None:
        """The columns of the rows under a data set, or None where they could not be found out."""
        names = chain(self.blocks, name)
        return self.columns.get(names[-1]) if names else None

    def templates(self, name: str, data: spec.Data) -> None:
        """Looks for fields in templates that the rows do not have."""
        columns = self._columns(name)
        if columns is None:
            return
        above, *below = chain(self.blocks, name)
        given = tuple(dict.fromkeys([*columns, *sorted(fields_of(self.blocks, below))]))
        written = tuple(dict.fromkeys([*given, *sorted(fields_of(self.blocks, [above]))]))
        for source, path in _templates(name, data, isinstance(self.blocks[name].get("rejected"), str)):
            try:
                template = compile_template(source)
            except TemplateProblem:
                continue  # reported with the recipe
            mark = self.layered.mark(path)
            columns = written if path[2] == "rejected" else given
            for unknown in sorted(template.names - set(columns) - _BUILT_IN - {"other"}):
                self._unknown_field(unknown, columns, mark.within(unknown))
            if "other" not in template.names or "other" in columns:
                continue
            if path[2] != "rejected":
                self._report(
                    "`other` is another row, which only `rejected` has", mark.within("other"), None, _there_are(columns)
                )
                continue
            for unknown in sorted(template.attributes.get("other", frozenset()) - set(columns)):
                self._unknown_field(unknown, columns, mark.within(f"other.{unknown}"), "other.")

    def _unknown_field(self, name: str, columns: Sequence[str], where: Where, prefix: str = "") -> None:
        variables = self.found.values.get("vars")
        close = nearest(name, columns)
        hint = f"did you mean {prefix}{close}?" if close else _there_are(columns)
        if isinstance(variables, dict) and name in variables:
            hint = f"`vars` are for strings that are rendered once; a row has: {', '.join(columns)}"
        self._report(f"the rows have no field `{prefix}{name}`", where, None, hint)

    def uses(self) -> None:
        """Looks whether stages and the tokenizer are given data sets with the fields they need."""
        stages, model = self.found.values.get("stages"), self.found.values.get("model")
        for name, stage in stages.items() if isinstance(stages, dict) else ():
            if isinstance(stage, dict) and stage.get("kind") in ("pretrain", "sft", "dpo"):
                self._use(stage["kind"], stage.get("data"), ("stages", name, "data"))
        tokenizer = model.get("tokenizer") if isinstance(model, dict) else None
        if isinstance(tokenizer, dict):
            self._use("tokenizer", tokenizer.get("from_data"), ("model", "tokenizer", "from_data"))

    def _use(self, kind: str, refs: object, path: ValuePath) -> None:
        listed = isinstance(refs, list)
        for index, ref in enumerate(refs if isinstance(refs, list) else [refs]):
            name = ref.partition(".")[0] if isinstance(ref, str) else ""
            columns = self._columns(name)
            if columns is None or name not in self.found.data:
                continue
            where = self.layered.mark((*path, index) if listed else path).at_value()
            shape = shape_of(self.blocks, name, columns)
            takes, words = TAKES[kind]
            what = "the tokenizer" if kind == "tokenizer" else f"`{kind}`"
            hint = f"its columns are: {', '.join(columns)}; give `data.{name}` templates, or `columns:`"
            if shape == "pairs" and shape in takes:
                fields = fields_of(self.blocks, chain(self.blocks, name)) | set(columns)
                lacks = "prompt" if "prompt" not in fields else None if fields & {"chosen", "completion"} else "chosen"
                if lacks is not None:
                    self._report(f"{what} cannot use `{ref}`: its pairs have no `{lacks}`", where, words, hint)
            elif shape is not None and shape not in takes and shape_of(self.blocks, name) is None:
                self._report(f"{what} cannot use `{ref}`, which holds {HOLDS[shape]}", where, words, hint)


def _there_are(names: Sequence[str]) -> str:
    return f"there are: {', '.join(names)}"


def _templates(name: str, data: spec.Data, single: bool) -> Iterator[tuple[str, ValuePath]]:
    """The row templates of a data set with their paths; `single` where `rejected` is written without a list."""
    for key in sorted(spec.ROW_TEMPLATES - {"rejected"}):
        if (source := getattr(data, key)) is not None:
            yield source, ("data", name, key)
    for index, source in enumerate(data.rejected or ()):
        yield source, ("data", name, "rejected") if single else ("data", name, "rejected", index)
    for index, text in enumerate(data.pick.of if data.pick else ()):
        for key in ("text", "prompt", "completion"):
            if (source := getattr(text, key)) is not None:
                yield source, ("data", name, "pick", "of", index, key)
