"""Data sets whose files are not here: which columns a recipe needs of them, so that rows can stand in."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from runner import spec
from runner.spec.row_formats import ROW_FORMATS
from runner.templates import TemplateProblem, compile_template

_NEEDED = {
    "pretrain": ("text",), "sft": ("prompt", "completion"), "lora": ("prompt", "completion"),
    "dpo": ("prompt", "chosen", "rejected"), "contrast": ("prompt", "chosen", "rejected"),
}  # fmt: skip
"""What the kinds of stages read of rows that no template writes."""
_ROLES = {
    "text": "text content document body passage article",
    "question": "prompt instruction question query problem title",
    "answer": "completion output answer response chosen solution summary target",
    "wrong": "rejected",
    "messages": "messages",
    "conversations": "conversations conversation",
    "context": "input context",
    "label": "label class category type topic lang language level source",
    "number": "id index number",
}
_ROLE = {name: role for role, names in _ROLES.items() for name in names.split()}
_BUILT_IN = frozenset({"range", "dict", "namespace", "cycler", "joiner", "loop", "other", "true", "false", "none"})


def is_here(path: str, root: Path) -> bool:
    """Whether a path names files of this machine; what may be an id of a hub does not."""
    return (root / path).exists() or any(glob.iglob(path, root_dir=root))  # noqa: PTH207 - may be absolute


def columns(recipe: spec.Recipe, name: str, root: Path) -> dict[str, str]:
    """Each column that the rows of a data set need to have, and what stands in it: `text`, `question`, `answer`,
    `wrong` (an answer that is not right), `messages` and `conversations` (lists of turns), `context` (often empty),
    `label` (one of a few), `number`, or `word` (one of its own).

    Args:
        recipe: the whole recipe.
        name: of a data set with `path`.
        root: where the files of probes are looked for.
    """
    block = recipe.data[name]
    found: dict[str, str] = {}
    if block.format is not None:
        needs = [choices[0] for choices in ROW_FORMATS[block.format].needs]
        extra = {"alpaca": ["input"], "preference": ["prompt"]}.get(block.format, [])
        found |= {column: _ROLE.get(column, "word") for column in (*needs, *extra)}
    found |= {column: _ROLE.get(field, _ROLE.get(column, "word")) for field, column in (block.columns or {}).items()}
    given = {*found, *(block.columns or {}), *(ROW_FORMATS[block.format].writes if block.format else ())}
    wanted = [*_of_templates(recipe, name), *_of_stages(recipe, name, given), *_of_probes(recipe, name, root)]
    found |= {column: _ROLE.get(column, "word") for column in wanted if column not in given}
    if block.split is not None:
        found[block.split.by] = _ROLE.get(block.split.by, "word").replace("label", "word")
    return found


def _chain(recipe: spec.Recipe, name: str) -> list[str]:
    """A data set and those that its rows come from, the source last."""
    found = [name]
    while (above := recipe.data[found[-1]].rows) is not None:
        found.append(above.partition(".")[0])
    return found


def _of_templates(recipe: spec.Recipe, source: str) -> Iterator[str]:
    for name, block in recipe.data.items():
        chain = _chain(recipe, name)
        if chain[-1] == source:
            above = {field for other in chain[1:] for field in _written(recipe.data[other])}
            for template, own in _templates(block):
                yield from sorted(_names(template) - above - (_written(block) if own else set()))


def _templates(block: spec.Data) -> Iterator[tuple[str, bool]]:
    """The templates of a block, and whether they also see what the block's others write."""
    plain = [block.text, block.system, block.prompt, block.completion, *(turn.content for turn in block.messages or ())]
    for one in block.pick.of if block.pick else ():
        plain += [one.text, one.prompt, one.completion]
    yield from ((template, False) for template in plain if template is not None)
    negatives = [how.repeat if isinstance(how, spec.Repeat) else how for how in block.rejected or ()]
    late = [block.chosen, *(how for how in negatives if isinstance(how, str))]
    yield from ((template, True) for template in late if template is not None)


def _names(template: str) -> frozenset[str]:
    try:
        made = compile_template(template)
    except TemplateProblem:
        return frozenset()  # reported with the recipe
    return (made.names | made.attributes.get("other", frozenset())) - _BUILT_IN


def _written(block: spec.Data) -> set[str]:
    """The fields that a block gives to its rows besides the columns of its files."""
    found = {name for name in ("text", "prompt", "completion", "chosen", "system") if getattr(block, name) is not None}
    found |= {"messages", "prompt", "completion"} if block.messages else set()
    found |= {"prompt", "completion"} if block.pick is not None and block.pick.of[0].prompt is not None else set()
    found |= set(ROW_FORMATS[block.format].writes) if block.format is not None else set()
    return found | set(block.columns or {})


def _of_stages(recipe: spec.Recipe, source: str, given: Iterable[str]) -> Iterator[str]:
    """What stages read of rows that neither a template nor a format writes."""
    known, uses = set(given), list[tuple[str, str]]()
    for name, stage in recipe.stages.items():
        uses += [(ref, stage.kind) for ref in stage.data]
        # what is only replayed or compared may be anything that a stage can learn
        others = [ref for ref in recipe.reads(name) if not any(ref in other.data for other in recipe.stages.values())]
        uses += [(ref, "pretrain") for ref in others]
    for ref, kind in uses:
        chain = _chain(recipe, ref.partition(".")[0])
        blocks = [recipe.data[name] for name in chain]
        if chain[-1] != source or blocks[-1].format is not None:
            continue
        fields = {field for block in blocks for field in _written(block)} | known
        fields |= {"rejected"} if any(block.rejected for block in blocks) else set()
        fields |= {"chosen"} if "completion" in fields else set()
        if not any(block.writes for block in blocks) or kind in ("dpo", "contrast"):
            yield from (field for field in _NEEDED[kind] if field not in fields)
    for stage in recipe.stages.values():
        for ref, part in stage.mix.items() if isinstance(stage, spec.Causal) else ():
            if part.oversample is not None and _chain(recipe, ref.partition(".")[0])[-1] == source:
                yield part.oversample


def _of_probes(recipe: spec.Recipe, source: str, root: Path) -> Iterator[str]:
    """What the probes of a suite take from cases that come from these rows, as far as their file shows it."""
    for suite in recipe.probes.values():
        chain = _chain(recipe, suite.cases.partition(".")[0]) if suite.cases is not None else []
        if not chain or chain[-1] != source:
            continue
        file = root / suite.file.partition("::")[0]
        text = file.read_text("utf-8", "replace") if file.is_file() else ""
        written = {field for name in chain for field in _written(recipe.data[name])}
        used = re.findall(r"\{\{-?\s*([a-z_]\w*)|\bcase\.([a-z_]\w*)", text)
        names = {one or other for one, other in used} - written - _BUILT_IN - {"id"}
        yield from sorted(names)
