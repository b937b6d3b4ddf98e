"""Fixtures that several test files share."""

from pathlib import Path

import pytest

from tests.tiny import make_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real checkpoint that nobody changes."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint-10")
