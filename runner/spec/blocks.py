"""What every block of the language is made of: strict models, and the shapes of values that several blocks share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

FORMAT_VERSION = 1
"""Of a run's resolved recipe and of its `data/`. Every other file has the version of the module that owns it."""

NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name that becomes a folder, a file or part of a test id: a letter, then letters, digits, `_` and `-`."""


class Block(BaseModel):
    """A block of the recipe: strict, frozen, no unknown keys, documented field by field."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )


def as_tuple(value: object) -> object:
    """A list of YAML as the tuple that a frozen block holds."""
    return tuple(value) if isinstance(value, list) else value


def one_or_many(value: object) -> object:
    """The same, where a single text or number may stand for a list of one."""
    return (value,) if isinstance(value, (str, int)) and not isinstance(value, bool) else as_tuple(value)


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many), Field(min_length=1)]
Step = Annotated[int, Field(ge=1)]
EveryOrSteps = Annotated[Step | Annotated[tuple[Step, ...], Field(min_length=1)], BeforeValidator(as_tuple)]
Templates = Annotated[tuple[str, ...], BeforeValidator(one_or_many), Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
