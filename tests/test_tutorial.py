"""The tutorial shows the files that `recipe new` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import starter
from tests.documented_blocks import blocks


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tutorial")
    starter.write_starter("elements", folder)
    return folder


@pytest.mark.parametrize("file", ["elements.yaml", "probes/test_elements.py"])
def test_the_tutorial_shows_what_recipe_new_writes(written: Path, file: str) -> None:
    (block,) = (one for one in blocks() if one.page == "docs/tutorial.md" and one.file == file)
    assert block.text == (written / file).read_text(encoding="utf-8")


def test_the_rows_that_the_tutorial_shows_are_the_first_that_recipe_new_writes(written: Path) -> None:
    (block,) = (one for one in blocks() if one.page == "docs/tutorial.md" and one.file == "data/elements.tsv")
    assert (written / block.file).read_text(encoding="utf-8").startswith(block.text)
