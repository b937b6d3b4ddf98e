"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

from tests.tiny import make_checkpoint

# before torch is imported, here and in every process a test starts: on models this small a second thread only waits,
# and where other processes want the cores too, it makes everything five times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real checkpoint that nobody changes."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint-10")
