"""Nothing about a probe is special: classes, markers, parameters, fixtures."""

import json
import logging
from pathlib import Path

import pytest

from tests.probe_project import PROBE, ask, probes, verdicts_of, write

pytest_plugins = ["pytester"]


def test_several_probes_of_a_file_in_classes_with_markers_and_parameters(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    file = verdicts_of(
        project,
        tiny_checkpoint,
        probes("""
@pytest.fixture
def shouted(reply): return reply.upper()

@pytest.fixture
def together(replies, case, record):
    record(samples=len(replies))
    return case.char + replies[0]

class TestOuter:
    class TestInner:
        @pytest.mark.parametrize("language", ["zh", "en"])
        @probe(cases=ROWS[:2], prompt="{{ char }}", max_new_tokens=3)
        def test_nested(self, language, shouted, together, reply, request, tmp_path):
            assert shouted == reply.upper() and together[1:] == reply and request.node.name

    @pytest.mark.skip(reason="not today")
    @probe(cases=ROWS[:1], prompt="{{ nothing }}", max_new_tokens=3)
    def test_skipped(self, reply): pass

    @pytest.mark.skipif(True, reason="never")
    @probe(cases=ROWS[:1], prompt="{{ char }}", max_new_tokens=3)
    def test_skipped_if(self, reply): pass

    @pytest.mark.xfail(strict=True)
    @probe(cases=ROWS[:1], prompt="{{ char }}", max_new_tokens=3)
    def test_known(self, reply): assert reply == "never"

    @pytest.mark.usefixtures("together")
    @probe(cases=ROWS[:1], prompt="{{ char }}", max_new_tokens=3)
    def test_used(self): pass
"""),
    )
    found = {suite: [verdict.outcome for verdict in file.of(suite)] for suite in (asked.suite for asked in file.suites)}
    assert found == {
        "TestOuter.TestInner.test_nested": ["pass"] * 4,
        "TestOuter.test_skipped": ["not_asked"],
        "TestOuter.test_skipped_if": ["not_asked"],
        "TestOuter.test_known": ["miss"],
        "TestOuter.test_used": ["pass"],
    }
    nested = file.of("TestOuter.TestInner.test_nested")
    assert nested[0].probe == "probes/test_p.py::TestOuter::TestInner::test_nested"
    assert {verdict.case_id for verdict in nested} == {"U+5FC3-zh", "U+5FC3-en", "U+6C34-zh", "U+6C34-en"}
    assert {verdict.cluster for verdict in nested} == {"U+5FC3", "U+6C34"}
    assert all(verdict.values == {"samples": 1.0} for verdict in nested)
    assert file.of("TestOuter.test_skipped")[0].reason == "not today"


def test_fixtures_of_probes_say_where_they_belong(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, PROBE + "\ndef test_no_probe(replies): pass\n")
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*case, reply, replies and record belong to probes*"])


def test_torchs_loggers_are_left_as_they_were(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    def propagating() -> set[str]:
        known = logging.root.manager.loggerDict.items()
        return {name for name, logger in known if isinstance(logger, logging.Logger) and logger.propagate}

    before = propagating()
    write(project, PROBE)
    ask(project, "probes", "--ckpt", tiny_checkpoint)
    assert before <= propagating()
    assert "torch" not in propagating()


def test_the_verdict_file_keeps_all_that_a_session_knows(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    verdicts_of(project, tiny_checkpoint, PROBE)
    row = json.loads((project.path / "v.jsonl").read_text("utf-8").splitlines()[2])
    assert {"question", "cluster", "expected", "answered", "logprob", "margin", "prompt", "generation"} <= set(row)
