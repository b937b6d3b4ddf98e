"""A recipe and its data files checked together, before anything trains: every fault at once, each with its place.

Of a data file only the names of its columns are looked at, so that a check takes no longer for much data; faults of
single rows are found when the rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner import deepspeed_config, spec
from runner.data import chat, formats, sources, standins
from runner.errors import BadData, BadRecipe, Problem, UserError, Where, nearest
from runner.recipe import Draft, Loaded, drafts, loaded, merged
from runner.recipe.layers import Layered
from runner.recipe.penalty_blocks import PENALTIES
from runner.recipe.references import HOLDS, TAKES
from runner.recipe.shapes import Blocks, chain, fields_of, format_of, shape_of
from runner.spec.row_formats import ROW_FORMATS, missing, recognise
from runner.templates import TemplateProblem, compile_template
from runner.yaml_marks import Path as ValuePath

_BUILT_IN = frozenset({"range", "dict", "namespace", "cycler", "joiner", "loop"})
"""Names that Jinja itself gives to every template."""


def load_checked(
    path: str | Path,
    sets: Sequence[str] = (),
    root: Path | None = None,
    variant: str | None = None,
    scale: str | None = None,
) -> Loaded:
    """The recipe at `path`, after a look at the files it names; of its variants the named one, else the first.

    Raises:
        BadRecipe: with every fault of the recipe and of all its variants, and of its data as far as it names it.
    """
    return load_variants(path, sets, root, variant, scale)[0]


def load_variants(
    path: str | Path,
    sets: Sequence[str] = (),
    root: Path | None = None,
    variant: str | None = None,
    scale: str | None = None,
) -> tuple[Loaded, ...]:
    """All variants of the recipe at `path`, in the order written, or the named one; the recipe itself where it has
    no `matrix:`. With `scale` it is cut down (see `recipe.scaling`), and rows stand in for files that are not here.

    Raises:
        BadRecipe: with every fault of the recipe and of all its variants, and of its data as far as it names it.
        UserError: it has no such variant.
    """
    found = drafts(path, sets, root, scale=scale)
    for one in found:
        _stand_in(one)
    by_variant = {one.variant: ([*one.problems, *_data_problems(one, scale)], one.overlay) for one in found}
    made = [loaded(one, one.spec) for one in found if one.spec is not None]
    if problems := merged(by_variant):
        raise BadRecipe(sorted(problems, key=lambda problem: _place(problem, found[0])))
    if variant is None:
        return tuple(made)
    chosen = tuple(one for one in made if one.variant == variant)
    if not chosen:
        names = [one.variant for one in made if one.variant]
        near = nearest(variant, names)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(names)}" if names else "leave --variant out"
        raise UserError(f"{path} has no variant {variant}" + ("" if names else ": it has no `matrix:`"), hint=hint)
    return chosen


def _data_problems(found: Draft, scale: str | None) -> list[Problem]:
    """See `data_problems`; none where rows would stand in once the recipe is right."""
    return data_problems(found) if scale is None or found.scaled is not None else []


def _stand_in(found: Draft) -> None:
    """Write the rows that stand in for files that are not here."""
    for rows in found.scaled.stand_ins if found.scaled is not None else ():
        standins.write(found.root / rows.path, rows.columns, rows.rows, rows.seed)


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
        # of files that are not here, but counted in the recipe, a plan needs nothing; a run asks for them
        if data.path is not None and (data.num_rows is None or sources.is_here(data, found.root)):
            checks.source(name, data)
    for name, data in found.data.items():
        checks.templates(name, data)
    checks.uses()
    checks.chat_template()
    checks.deepspeed()
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

    def deepspeed(self) -> None:
        """Whether the recipe goes with its DeepSpeed, and a configuration of the user's says what the recipe says."""
        if self.found.spec is not None:
            self.problems += deepspeed_config.problems(self.found.spec, self.found.root, self.layered.mark)

    def chat_template(self) -> None:
        """Whether the template that the recipe names is one; that there is such a file is known."""
        model = self.found.values.get("model")
        name = model.get("chat_template") if isinstance(model, dict) else None
        if not isinstance(name, str) or name in spec.CHAT_TEMPLATES or not (self.found.root / name).is_file():
            return
        try:
            chat.chosen(name, self.found.root)
        except BadRecipe as error:
            where = self.layered.mark(("model", "chat_template")).at_value()
            self.problems += [Problem(p.message, where, p.expected, p.hint) for p in error.problems]

    def source(self, name: str, data: spec.Data) -> None:
        """Finds the columns of a data set's files, and what its own block says about them."""
        try:
            names = sources.head(data.model_copy(update={"columns": None}), name, self.found.root)
        except BadData as error:
            where = self.layered.mark(("data", name, "path")).at_value()
            # a fault inside the file has its own place; a fault of the path has its place in the recipe
            self.problems += [Problem(p.message, p.where or where, p.expected, p.hint) for p in error.problems]
            return
        kinds = {formats.kind_of(file.path) for file in sources.find(data, name, self.found.root)}
        if data.separator is not None and "txt" not in kinds:
            where = self.layered.mark(("data", name, "separator")).at_key()
            self._report(f"{data.path} has no `separator`: it parts the records of txt files", where, None, "remove it")
        absent = False
        for new, column in (data.columns or {}).items():
            if column not in names:
                absent = True
                where = self.layered.mark(("data", name, "columns", new)).at_value()
                self._no_column(column, names, f"{data.path} has no column", where)
        if data.split is not None and data.split.by not in (*names, *(data.columns or ())):
            where = self.layered.mark(("data", name, "split", "by")).at_value()
            self._no_column(data.split.by, names, f"{data.path} has no column", where)
        if not absent:
            self._format(name, data, (*names, *(data.columns or ())))
            self.columns[name] = (*names, *(new for new in data.columns or () if new not in names))

    def _format(self, name: str, data: spec.Data, names: Sequence[str]) -> None:
        """Looks whether the files have the columns of the declared format."""
        if data.format is not None and (lacks := missing(data.format, names)):
            where = self.layered.mark(("data", name, "format")).at_value()
            close = recognise(names)
            first = sources.find(data, name, self.found.root)[0].shown
            hint = f"its columns are those of format: {close}" if close else _there_are(names)
            needs = " and ".join(f"`{column}`" for column in lacks)
            self._report(f"`{data.format}` needs {needs}, which {first} does not have", where, None, hint)

    def _filter(self, name: str, columns: Sequence[str]) -> None:
        """Looks whether there are texts where a filter wants them."""
        if shape_of(self.blocks, name, columns) == "rows":
            where = self.layered.mark(("data", name, "filter")).at_key()
            expected = "a data set with `text`, `prompt` and `completion`, or `messages`"
            hint = "filter where the rows are written, or say what the columns mean with `columns` or `format`"
            self._report(f"`{name}` writes no texts that a `filter` could look at", where, expected, hint)

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
        if data.filter is not None:
            self._filter(name, columns)
        above, *below = chain(self.blocks, name)
        given = tuple(dict.fromkeys([*columns, *sorted(self._given(above, below, columns))]))
        written = tuple(dict.fromkeys([*given, *sorted(fields_of(self.blocks, [above]))]))
        for source, path in _templates(name, data, isinstance(self.blocks[name].get("rejected"), (str, dict))):
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
            if path[2] != "rejected" or path[-1] == "repeat":
                whose = "a template of `rejected`" if path[2] == "rejected" else "`rejected`"
                self._report(
                    f"`other` is another row, which only {whose} has", mark.within("other"), None, _there_are(columns)
                )
                continue
            for unknown in sorted(template.attributes.get("other", frozenset()) - set(columns)):
                self._unknown_field(unknown, columns, mark.within(f"other.{unknown}"), "other.")

    def _given(self, above: str, below: Sequence[str], columns: Sequence[str]) -> frozenset[str]:
        """What the templates of `above` see besides columns: what is written below, and by the format of its files."""
        own = format_of(self.blocks[above], columns)
        found = fields_of(self.blocks, below, columns)
        return found | set(ROW_FORMATS[own].writes) if own is not None else found

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
            if isinstance(stage, dict) and stage.get("kind") in ("pretrain", "sft", "lora", "dpo", "contrast"):
                self._use(stage["kind"], stage.get("data"), ("stages", name, "data"))
            for key in PENALTIES if isinstance(stage, dict) else ():
                if isinstance(stage.get(key), dict):
                    self._use(key, stage[key].get("data"), ("stages", name, key, "data"))
            replay = stage.get("replay") if isinstance(stage, dict) else None
            if isinstance(replay, dict):
                self._use("replay", replay.get("of"), ("stages", name, "replay", "of"))
            mix = stage.get("mix") if isinstance(stage, dict) else None
            for ref, part in mix.items() if isinstance(mix, dict) else ():
                if isinstance(part, dict) and isinstance(part.get("oversample"), str):
                    self._oversampled(str(ref), part["oversample"], ("stages", name, "mix", ref, "oversample"))
        tokenizer = model.get("tokenizer") if isinstance(model, dict) else None
        if isinstance(tokenizer, dict):
            self._use("tokenizer", tokenizer.get("from_data"), ("model", "tokenizer", "from_data"))

    def _oversampled(self, ref: str, column: str, path: ValuePath) -> None:
        columns, names = self._columns(ref.partition(".")[0]), chain(self.blocks, ref.partition(".")[0])
        if columns is not None and column not in (known := {*columns, *fields_of(self.blocks, names, columns)}):
            self._no_column(column, sorted(known), f"`{ref}` has no column", self.layered.mark(path).at_value())

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
                fields = fields_of(self.blocks, chain(self.blocks, name), columns) | set(columns)
                lacks = "prompt" if "prompt" not in fields else None if fields & {"chosen", "completion"} else "chosen"
                if lacks is not None:
                    self._report(f"{what} cannot use `{ref}`: its pairs have no `{lacks}`", where, words, hint)
            elif shape is not None and shape not in takes and shape_of(self.blocks, name) is None:
                self._report(f"{what} cannot use `{ref}`, which holds {HOLDS[shape]}", where, words, hint)


def _there_are(names: Sequence[str]) -> str:
    return f"there are: {', '.join(names)}"


def _templates(name: str, data: spec.Data, single: bool) -> Iterator[tuple[str, ValuePath]]:
    """The row templates of a data set with their paths; `single` where `rejected` is written without a list."""
    for key in sorted(spec.ROW_TEMPLATES & spec.Data.model_fields.keys() - {"rejected", "messages"}):
        if (source := getattr(data, key)) is not None:
            yield source, ("data", name, key)
    for index, how in enumerate(data.rejected or ()):
        path: ValuePath = ("data", name, "rejected") if single else ("data", name, "rejected", index)
        if isinstance(how, spec.Repeat):
            yield how.repeat, (*path, "repeat")
        elif isinstance(how, str):
            yield how, path
    for index, turn in enumerate(data.messages or ()):
        yield turn.content, ("data", name, "messages", index, "content")
    for index, text in enumerate(data.pick.of if data.pick else ()):
        for key in ("text", "prompt", "completion"):
            if (source := getattr(text, key)) is not None:
                yield source, ("data", name, "pick", "of", index, key)
