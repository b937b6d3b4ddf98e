"""The documentation as a site: built with warnings as errors, its reference complete."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner import spec
from runner.cli import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return out


def test_every_page_is_in_the_table_of_contents_and_none_is_broken(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {name for name in pages if f'href="{name}.html"' not in index} == set()


def test_the_reference_has_every_field_of_the_language_with_its_meaning(site: Path) -> None:
    text = (site / "reference" / "language.html").read_text(encoding="utf-8")
    described = set(re.findall(r'<dt><code[^>]*><span class="pre">(\w+)</span></code></dt><dd>', text))
    blocks = [found for found in vars(spec).values() if inspect.isclass(found) and issubclass(found, spec.Block)]
    fields = {info.alias or name for block in blocks for name, info in block.model_fields.items()}
    assert fields - described == set()
    assert "Peak learning rate." in text


def test_the_reference_has_every_command(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert {name for name in cli.commands if f"recipe {name}" not in text} == set()
