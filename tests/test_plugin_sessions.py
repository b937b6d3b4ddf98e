"""What a session asks and writes, whatever is narrowed, misspelt, linked or broken."""

from pathlib import Path

import pytest

from runner import verdicts
from tests import servers
from tests.probe_project import PROBE, ask, probes, verdicts_of, write
from tests.tiny import copy, make_checkpoint, make_run

pytest_plugins = ["pytester"]

CLASSES = """
class TestA:
    @probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=2)
    def test_one(self, case, reply): pass

class TestB:
    @probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=2)
    def test_one(self, case, reply): assert False
"""


def test_a_suite_of_which_an_id_leaves_out_a_class_is_not_judged(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, probes(CLASSES))
    suites = "  both: {file: probes/test_p.py, gate: {min_pass_rate: 0.9}}\n"
    suites += '  a: {file: "probes/test_p.py::TestA::test_one", gate: {min_pass_rate: 0.3}}'
    run = make_run(project.path, tiny_checkpoint, suites, [])
    arguments = ["--ckpt", run / "qa" / "ckpt-8", "-v", "--probe-verdicts", "v.jsonl"]
    for narrower in ("TestA", "TestA::test_one"):
        result = ask(project, f"probes/test_p.py::{narrower}", *arguments)
        assert "gate[both" not in result.stdout.str()
        result.stdout.fnmatch_lines(["*gate[[]a-qa@8] PASSED*"])
        file = verdicts.read(project.path / "v.jsonl")
        assert {asked.suite: bool(asked.key) for asked in file.suites} == {"both": False, "a": True}
    result = ask(project, "probes/test_p.py::TestA", "probes/test_p.py::TestB", *arguments)
    result.stdout.fnmatch_lines(["*gate[[]both-qa@8] FAILED*"])


def test_a_checkpoint_that_breaks_the_engine_costs_the_others_nothing(
    project: pytest.Pytester, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.probing import engine

    begin = engine.Engine.__init__

    def breaks(self: engine.Engine, path: Path, *arguments: object, **options: object) -> None:
        if path.name == "broken":
            raise IndexError("index out of range in self\nand more")
        begin(self, path, *arguments, **options)  # type: ignore[arg-type]

    copy(tiny_checkpoint, project.path / "broken")
    monkeypatch.setattr(engine.Engine, "__init__", breaks)
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", "broken", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v")
    result.assert_outcomes(passed=2, failed=1, errors=3)
    reasons = {one.reason for one in verdicts.read(project.path / "v" / "broken.jsonl").verdicts}
    assert reasons == {"IndexError: index out of range in self"}


def test_a_project_is_asked_once_whatever_link_leads_to_it(
    project: pytest.Pytester, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    write(project, PROBE)
    run = make_run(project.path, tiny_checkpoint, "  plain: {file: probes/test_p.py}", [])
    link = tmp_path / "link"
    link.symlink_to(project.path)
    arguments = [f"{link}/probes", f"--rootdir={link}", "-c", link / "pyproject.toml", "--ckpt"]
    ask(project, *arguments, run / "qa" / "ckpt-8").assert_outcomes(passed=2, failed=1)
    ask(project, *arguments, tiny_checkpoint).assert_outcomes(passed=2, failed=1)


@pytest.mark.parametrize(
    ("written", "screen"),
    [
        ("file/v.jsonl", "*--probe-verdicts file/v.jsonl: */file is a file"),
        ("file", "*--probe-verdicts file is a file"),
    ],
)
def test_verdicts_that_cannot_be_written_are_refused_before_anything_is_asked(
    project: pytest.Pytester, tiny_checkpoint: Path, written: str, screen: str
) -> None:
    write(project, PROBE)
    (project.path / "file").touch()
    copy(tiny_checkpoint, project.path / "other")
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--ckpt", "other", "--probe-verdicts", written)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([screen])


def test_a_folder_that_is_there_gets_a_verdict_file_of_the_one_checkpoint(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE)
    (project.path / "v").mkdir()
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v")
    assert len(verdicts.read(project.path / "v" / "checkpoint-10.jsonl").verdicts) == 3


def test_cases_keep_their_ids_where_those_of_tests_would_be_the_same(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    copy(tiny_checkpoint, project.path / "m")
    copy(tiny_checkpoint, project.path / "m-1")
    body = """
@pytest.mark.parametrize("more", ["x", "y"])
@probe(cases=[{"id": "1-2"}, {"id": "2"}], prompt="a", max_new_tokens=1)
def test_it(case, reply, more): pass
"""
    write(project, probes(body))
    ask(project, "probes", "--ckpt", "m", "--ckpt", "m-1", "--probe-verdicts", "v").assert_outcomes(passed=8)
    for name in ("m", "m-1"):
        found = verdicts.read(project.path / "v" / f"{name}.jsonl").verdicts
        assert sorted(one.case_id for one in found) == ["1-2-x", "1-2-y", "2-x", "2-y"]


def test_a_pinned_loss_fails_wherever_its_baseline_is_named(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    make_checkpoint(project.path / "before", seed=3)
    body = """
@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=4, gate={"pinned": ["心"], "max_regression": 9})
def test_it(case, reply, request): assert "before" in request.node.name
"""
    write(project, probes(body))
    for order in (["before", tiny_checkpoint], [tiny_checkpoint, "before"]):
        named = [argument for one in order for argument in ("--ckpt", one)]
        result = ask(project, "probes", *named, "--probe-baseline", "before", "-v")
        result.stdout.fnmatch_lines(["*checkpoint-10-U+5FC3] FAILED*"])


def test_a_pinned_case_whose_assert_changed_is_not_lost(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    body = """
@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=4, gate={"pinned": ["心"], "max_regression": 9})
def test_it(case, reply): assert not reply.startswith("never said")
"""
    verdicts_of(project, tiny_checkpoint, probes(body))
    (project.path / "v.jsonl").rename(project.path / "before.jsonl")
    write(project, probes(body.replace("assert not", "assert")))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-baseline", "before.jsonl", "-v")
    result.stdout.fnmatch_lines(["*U+5FC3] MISS*", "*pinned, but changed since the baseline: U+5FC3*"])


def test_what_a_test_does_to_its_row_changes_no_other_prompt(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    copy(tiny_checkpoint, project.path / "other")
    body = """
@probe(cases=[{"id": "a", "l": [1]}], prompt="{{ l }}", max_new_tokens=1)
def test_it(case, reply): case.l.append(2)
"""
    write(project, probes(body))
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--ckpt", "other", "--probe-verdicts", "v")
    for name in ("checkpoint-10", "other"):
        assert verdicts.read(project.path / "v" / f"{name}.jsonl").verdicts[0].prompt == "[1]"


def test_a_suite_that_there_is_not_is_refused_with_the_nearest(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-suite", "tset_not_water")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*--probe-suite tset_not_water: there is no such suite here",
            "    expected: one of test_not_water",
            "    hint: did you mean test_not_water?",
        ],
        consecutive=True,
    )


def test_a_server_alone_is_named_too(project: pytest.Pytester) -> None:
    write(project, PROBE)

    def script(asked: servers.Asked) -> servers.Reply:
        return servers.models("q") if asked.path.endswith("models") else servers.chat("a")

    with servers.scripted(script) as server:
        result = ask(project, "probes", "--probe-endpoint", server.url)
        result.stdout.fnmatch_lines([f"* at {server.url}"])


@pytest.mark.parametrize(
    ("option", "screen"),
    [
        (["--probe-batch-tokens=-5"], "*--probe-batch-tokens is -5"),
        (["--probe-baseline", "no.jsonl"], "*--probe-baseline no.jsonl: no such folder"),
    ],
)
def test_options_that_mean_nothing_are_refused_by_their_name(
    project: pytest.Pytester, tiny_checkpoint: Path, option: list[str], screen: str
) -> None:
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, *option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([screen])


def test_an_empty_cell_is_empty_text(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    (project.path / "probes" / "cases.tsv").write_text("id\tq\na\t\n", encoding="utf-8")
    probe = probes('@probe(cases="cases.tsv", prompt="x{{ q }}", max_new_tokens=1)\ndef test_it(reply): pass\n')
    (found,) = verdicts_of(project, tiny_checkpoint, probe).verdicts
    assert (found.outcome, found.prompt) == ("pass", "x")
