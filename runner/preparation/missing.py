"""What a recipe names and is not here: in words for a plan, and refused before a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner import deepspeed_config, spec
from runner.data import sources
from runner.errors import BadData, BadRecipe, Problem
from runner.folder import folder_or_hub_id
from runner.preparation.prepared import Prepared


def words(prepared: Prepared) -> tuple[str, ...]:
    """A line for each thing that is not here, and what the plan says instead."""
    recipe = prepared.recipe
    found = []
    for name in _sources(prepared):
        block = recipe.data[name]
        found.append(f"data.{name}: {block.path} is not here; it has {block.num_rows:,} rows, as num_rows says")
    if not prepared.has_tokenizer:
        wanted = recipe.model.tokenizer
        if isinstance(wanted, spec.Tokenizer):
            found.append("the tokenizer cannot be trained before its data is here")
        else:
            found.append(f"the tokenizer: {prepared.tokenizer_fault}")
    path = recipe.model.path
    if path is not None and not Path(folder_or_hub_id(path, prepared.loaded.root)).is_dir():
        then = "a run takes it from the hub" if prepared.has_tokenizer else "a run would take it from the hub"
        found.append(f"the model {path} is no folder here; {then}")
    if found:
        found.append("what needs them is unknown: tokens, truncation, duplicates, leaks")
    return tuple(found)


def check_here(prepared: Prepared) -> None:
    """Whether everything that a run reads is here, or can be fetched.

    Raises:
        BadRecipe: it is not; which file, and how another place is given.
    """
    problems = [*_missing_data(prepared), *_missing_tokenizer(prepared)]
    if problems:
        raise BadRecipe(problems)
    if prepared.recipe.launch.deepspeed is not None:
        deepspeed_config.check_installed()


def _missing_data(prepared: Prepared) -> Iterator[Problem]:
    recipe, root = prepared.recipe, prepared.loaded.root
    for name in _sources(prepared):
        block = recipe.data[name]
        try:
            sources.find(block, name, root)
        except BadData as error:
            yield Problem(
                error.problems[0].message,
                prepared.loaded.mark("data", name, "path").at_value(),
                f"the file with its {block.num_rows:,} rows, at {root / (block.path or '')}",
                f"put it there, or say where it is: --set data.{name}.path=PATH",
            )


def _missing_tokenizer(prepared: Prepared) -> Iterator[Problem]:
    model = prepared.recipe.model
    if isinstance(model.tokenizer, spec.Tokenizer):
        return
    if prepared.tokenizer_fault:
        key = "tokenizer" if model.tokenizer is not None else "path"
        yield Problem(
            f"model.{key}: {prepared.tokenizer_fault}",
            prepared.loaded.mark("model", key).at_value(),
            f"a folder with {'a tokenizer' if key == 'tokenizer' else 'weights and their tokenizer'}",
            f"say where it is: --set model.{key}=PATH; HF_ENDPOINT names another hub",
        )


def _sources(prepared: Prepared) -> tuple[str, ...]:
    """The data sets with files that are not here, of those that something of the recipe reads."""
    recipe = prepared.recipe
    wanted = recipe.model.tokenizer
    refs = [ref for stage in recipe.stages for ref in recipe.reads(stage)]
    refs += [suite.cases for suite in recipe.probes.values() if suite.cases]
    refs += wanted.from_data if isinstance(wanted, spec.Tokenizer) else ()
    return tuple(dict.fromkeys(name for ref in refs if (name := prepared.data.missing(ref)) is not None))
