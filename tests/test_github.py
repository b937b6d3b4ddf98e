"""In GitHub Actions: annotations beside the probe files, and a summary of the step."""

import shutil
from pathlib import Path

import pytest
import yaml

import runner.probing.warm  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
from runner.probing.github import Annotation

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
PROBE = """
from runner import probe

ROWS = [{"id": char, "char": char} for char in "abc"]

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=6, gate={"min_pass_rate": 0.9})
def test_not_b(case, reply):
    assert case.char != "b"

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=6)
def test_not_c(case, reply):
    assert case.char != "c", "50%: a, b"
"""


@pytest.fixture
def summary(pytester: pytest.Pytester, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "conftest.py", pytester.path / "conftest.py")
    (pytester.path / "test_p.py").write_text(PROBE, encoding="utf-8")
    summary = pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    return summary


def test_red_gates_come_first_then_other_failures(
    pytester: pytest.Pytester, tiny_checkpoint: Path, summary: Path
) -> None:
    lines = pytester.runpytest_inprocess("--ckpt", str(tiny_checkpoint)).outlines
    gate, miss = (line for line in lines if line.startswith("::error "))
    assert gate.startswith("::error file=test_p.py,line=1,title=gate[test_not_b-checkpoint-10]::red: 2 of 3")
    assert gate.endswith("red: 2 of 3 passed (66.7%25), min_pass_rate is 0.9")
    assert miss == "::error file=test_p.py,line=12,title=test_not_c[test_not_c-checkpoint-10-c]::50%25: a, b"


def test_the_summary_has_a_row_for_every_suite_and_says_why_a_gate_is_red(
    pytester: pytest.Pytester, tiny_checkpoint: Path, summary: Path
) -> None:
    pytester.runpytest_inprocess("--ckpt", str(tiny_checkpoint))
    assert summary.read_text(encoding="utf-8").splitlines() == [
        "### Probes",
        "",
        "| checkpoint | suite | passed | 95 % Wilson | lost | gained | gate |",
        "|---|---|---|---|---|---|---|",
        "| checkpoint-10 | test&#95;not&#95;b | 66.7 % of 3 | [20.8–93.9] |  |  | **red** |",
        "| checkpoint-10 | test&#95;not&#95;c | 66.7 % of 3 | [20.8–93.9] |  |  |  |",
        "",
        "**test&#95;not&#95;b at checkpoint-10** is red:",
        "",
        "- 2 of 3 passed (66.7%), min&#95;pass&#95;rate is 0.9",
        "",
    ]


def test_elsewhere_nothing_of_it_is_written(
    pytester: pytest.Pytester, tiny_checkpoint: Path, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    result = pytester.runpytest_inprocess("--ckpt", str(tiny_checkpoint))
    assert not summary.exists()
    assert not [line for line in result.outlines if line.startswith("::")]


def test_what_a_model_says_cannot_end_an_annotation() -> None:
    said = Annotation("a,b.py", 3, "x:y", "100%\n::warning::z")
    assert str(said) == "::error file=a%2Cb.py,line=3,title=x%3Ay::100%25%0A::warning::z"


def test_in_the_shipped_workflow_what_is_only_reported_fails_no_job() -> None:
    steps = yaml.safe_load((ROOT / "docs" / "ci" / "github.yml").read_text(encoding="utf-8"))["jobs"]["recipe"]["steps"]
    (judging,) = (step for step in steps if "recipe run" in step.get("run", ""))
    (reporting,) = (step for step in steps if "pytest" in step.get("run", ""))
    assert "continue-on-error" not in judging
    assert reporting["continue-on-error"] is True
