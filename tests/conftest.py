"""Fixtures that several test files share."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.tiny import make_checkpoint

# before torch is imported, here and in every process a test starts: on models this small a second thread only waits,
# and where other processes want the cores too, it makes everything five times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")
# a test generates what it looks at, and leaves nothing in the home of who runs it
os.environ["RECIPE_STORE"] = "off"

# properties are looked at a little each time; `--hypothesis-profile=many` is for a change of what they are about.
# No deadlines and no slow draws: CI is busy. A fixture that all examples share is a folder that each writes anew.
_KNOWN = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile("few", max_examples=25, deadline=None, suppress_health_check=_KNOWN)
settings.register_profile("many", max_examples=4000, deadline=None, suppress_health_check=_KNOWN)
settings.load_profile("few")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real checkpoint that nobody changes."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint-10")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the root conftest of this one; for test files that name `pytester` among their plugins."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", pytester.path / "conftest.py")
    pytester.makefile(".toml", pyproject="[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\n")
    (pytester.path / "probes").mkdir()
    return pytester
