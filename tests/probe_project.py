"""Probe files in the fixture `project`, and sessions that ask them."""

from pathlib import Path

import pytest

import runner.probing.warm  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
from runner import verdicts
from runner.verdicts import VerdictFile

PROBE = """
import pytest
from runner import probe

ROWS = [{"id": char, "char": char} for char in "心水木"]

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=6)
def test_not_water(case, reply, record):
    record(length=len(reply))
    assert case.char != "水", "asked about \\x1b[31mwater"
"""


def write(project: pytest.Pytester, text: str, name: str = "test_p.py") -> None:
    """A probe file."""
    (project.path / "probes" / name).write_text(text, encoding="utf-8")


def ask(project: pytest.Pytester, *arguments: str | Path) -> pytest.RunResult:
    """A session with these arguments."""
    return project.runpytest_inprocess(*map(str, arguments))


def verdicts_of(project: pytest.Pytester, checkpoint: Path, text: str, *arguments: str) -> VerdictFile:
    """The verdicts that this probe file gives at the checkpoint."""
    write(project, text)
    ask(project, "probes", "--ckpt", checkpoint, "--probe-verdicts", "v.jsonl", *arguments)
    return verdicts.read(project.path / "v.jsonl")


def probes(body: str) -> str:
    """A probe file of three ROWS."""
    rows = [{"id": char, "char": char, "turns": [{"role": "user", "content": char}]} for char in "心水木"]
    return f"import pytest\nfrom runner import probe, Reply\nROWS = {rows!r}\n{body}"
