"""What a model says reaches no terminal raw, and breaks no file."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from runner import verdicts
from tests.probe_project import ask, verdicts_of, write
from tests.tiny import TEXT, copy

pytest_plugins = ["pytester"]

PROBE = """
import warnings
import pytest
from runner import probe

ROWS = [{"id": char, "char": char} for char in "汉字的部首是什么心水木？"]

@pytest.fixture
def broken(reply):
    raise ValueError(f"of {reply}")

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=30)
def test_missed(reply):
    print("said", reply)
    assert reply == "x\\ny", f"said \\x1b[31m{reply}\\udc80\\x00"

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=30)
def test_compared(reply):
    assert reply == "\\x1b[31mx\\ny"

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=30)
def test_raised(reply):
    raise ValueError(f"no {reply}\\udc80")

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=30)
def test_in_a_fixture(reply, broken): pass

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=30)
def test_skipped(reply):
    pytest.skip(f"because {reply}")

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=30)
def test_known(reply):
    pytest.xfail(f"known to say {reply}")

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=30, gate={"min_pass_rate": 0.9})
def test_gated(reply):
    assert not reply, f"said \\x1b[31m{reply}\\udc80\\x00"

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=30)
def test_failed(reply):
    pytest.fail(f"it said {reply}")
"""


@pytest.fixture
def wild(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint whose letters and digits are control characters."""
    made = copy(tiny_checkpoint, tmp_path / "wild")
    path = made / "tokenizer.json"
    about = json.loads(path.read_text("utf-8"))
    spoken = [char for char in sorted(set(TEXT)) if char.isascii()]
    control = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0xFEFF)]
    replaced = dict(zip(spoken, control, strict=False))
    about["model"]["vocab"] = {replaced.get(token, token): id for token, id in about["model"]["vocab"].items()}
    path.write_text(json.dumps(about), "utf-8")
    return made


def test_the_model_does_say_control_characters(project: pytest.Pytester, wild: Path) -> None:
    said = "".join(verdict.reply for verdict in verdicts_of(project, wild, PROBE).verdicts)
    assert len({char for char in said if not char.isprintable()}) > 3


@pytest.mark.parametrize("style", ["auto", "long", "short", "line", "native", "no"])
@pytest.mark.parametrize("more", [[], ["-rA", "-vv", "-l"]], ids=["", "all"])
def test_no_control_character_reaches_the_terminal(
    project: pytest.Pytester, wild: Path, style: str, more: list[str]
) -> None:
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", wild, f"--tb={style}", *more)
    assert result.parseoutcomes()["missed"] == 12
    shown = result.stdout.str() + result.stderr.str()
    assert sorted({char for char in shown if not char.isprintable() and char != "\n"}) == []


def test_junit_stays_readable_with_all_output_in_it(project: pytest.Pytester, wild: Path) -> None:
    write(project, PROBE)
    ask(project, "probes", "--ckpt", wild, "--junitxml", "j.xml", "-o", "junit_logging=all", "--tb=long")
    suite = ET.parse(project.path / "j.xml").getroot()[0]
    assert suite.get("tests") == str(8 * 12 + 1)
    assert suite.get("errors") == "12"
    assert suite.get("failures") == str(4 * 12 + 1)


def test_the_verdict_file_is_valid_utf8_and_holds_what_was_said(project: pytest.Pytester, wild: Path) -> None:
    file = verdicts_of(project, wild, PROBE)
    (project.path / "v.jsonl").read_bytes().decode("utf-8")
    first = file.of("test_missed")[0]
    assert first.reason == verdicts.read(project.path / "v.jsonl").of("test_missed")[0].reason
    assert "\x1b" in "".join(verdict.reason for verdict in file.of("test_missed"))
