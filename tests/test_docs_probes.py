"""docs/probes.md: every probe on that page runs, and every argument and attribute stands in it."""

import inspect
import json
import re
from pathlib import Path

import pytest

from runner import Reply, probe, recipe, verdicts
from tests.probe_project import ask, write
from tests.tiny import make_checkpoint

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[1] / "docs" / "probes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
POEMS = [{"id": topic, "topic": topic} for topic in ("rain", "stone")]
CAPITALS = [{"id": "fr", "country": "France", "capital": "Paris", "wrong": ["Lyon", "Rome"]}]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if not enable_thinking %}a:{% endif %}"


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("docs") / "checkpoint-500", chat_template=TEMPLATE)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.findall(r"def (test_\w+)", block)[-1])
def test_a_probe_of_the_page_is_asked_without_an_error(project: pytest.Pytester, chatting: Path, block: str) -> None:
    data = project.path / "probes" / "data"
    data.mkdir()
    for name, rows in (("poems", POEMS), ("capitals", CAPITALS)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    write(project, block)
    ask(project, "probes", "--ckpt", chatting, "--probe-verdicts", "v.jsonl")
    found = verdicts.read(project.path / "v.jsonl").verdicts
    assert found
    assert {verdict.outcome for verdict in found} <= {"pass", "miss", "not_asked"}


def test_every_argument_of_the_decorator_stands_in_the_table() -> None:
    table = PAGE.partition("## What the decorator takes")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)(?:=[^`]*)?`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))
    assert named == list(inspect.signature(probe).parameters)


def test_every_attribute_of_a_reply_stands_in_the_table() -> None:
    table = PAGE.partition("| `reply.…` | is |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(Reply.__annotations__)


def test_every_field_of_a_verdict_stands_in_the_table() -> None:
    table = PAGE.partition("## A verdict")[2].partition("\n\n`again")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))
    assert set(named) == set(verdicts.Verdict.__dataclass_fields__) - {"leak"}


def test_the_suites_of_the_page_are_suites() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    known = recipe.schema()["$defs"]["DecodingChange"]["properties"]
    assert set(re.findall(r"decoding: \{(\w+):", block)) <= set(known)
