"""The documentation as a site: built with warnings as errors, its reference complete."""

import html
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner import Reply, probe, spec, verdicts
from runner.cli import cli
from runner.probing import fixtures
from tests.documented_commands import PLUGIN_OPTIONS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return out


def described(site: Path, page: str) -> dict[str, str]:
    """What a page of the reference says of each name, markup left out; of a name on several blocks, all of it."""
    text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for term, said in re.findall(r"<dt>(.*?)</dt>\s*<dd>(.*?)</dd>", text, re.DOTALL):
        name = re.split(r"[ =]", html.unescape(re.sub(r"<[^>]+>", "", term)))[0]
        found[name] = found.get(name, "") + " ".join(html.unescape(re.sub(r"<[^>]+>", "", said)).split())
    return found


def test_every_page_is_in_the_table_of_contents_and_none_is_broken(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    pages |= {"reference/language", "reference/commands", "reference/pytest"}
    assert {name for name in pages if f'href="{name}.html"' not in index} == set()


def test_the_reference_has_every_field_of_the_language_with_its_meaning_and_default(site: Path) -> None:
    blocks = [found for found in vars(spec).values() if inspect.isclass(found) and issubclass(found, spec.Block)]
    said = described(site, "language")
    fields = {info.alias or name: info for block in blocks for name, info in block.model_fields.items()}
    assert fields.keys() - said.keys() == set()
    meant = {name: re.findall(r"\w+", info.description or "nothing")[:5] for name, info in fields.items()}
    assert [name for name in fields if " ".join(meant[name]) not in " ".join(re.findall(r"\w+", said[name]))] == []
    assert [name for name in fields if "required" not in said[name] and "default" not in said[name]] == []
    assert said["learning_rate"] == "number, at least 0, default 5e-05. Peak learning rate."


def test_the_reference_has_every_command_with_its_options(site: Path) -> None:
    text = html.unescape((site / "reference" / "commands.html").read_text(encoding="utf-8"))
    assert {name for name in cli.commands if f"recipe {name}" not in text} == set()
    options = {one for command in cli.commands.values() for parameter in command.params for one in parameter.opts}
    assert {one for one in options if one.startswith("--") and one not in text} == set()


def test_the_reference_of_pytest_has_every_option_fixture_argument_and_field(site: Path) -> None:
    said = described(site, "pytest")
    names = {*PLUGIN_OPTIONS, *fixtures.OWN, *inspect.signature(probe).parameters, *Reply.__annotations__}
    names |= verdicts.Verdict.__dataclass_fields__.keys() | verdicts.SuiteAsked.__dataclass_fields__.keys()
    assert {name for name in names if len(said.get(name, "")) < 8} == set()
    assert said["--probe-concurrency"].endswith("default: 16.")
    assert {"$RECIPE_STORE", "$RECIPE_STORE_MIB", "$OPENAI_API_KEY"} <= said.keys()
