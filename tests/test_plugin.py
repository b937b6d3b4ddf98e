"""The pytest plugin, from outside: real sessions on a real checkpoint of a few thousand parameters."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

import runner.probing.warm  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
from runner import launch, verdicts
from tests.probe_project import PROBE, ask, write
from tests.tiny import copy, make_run

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
GATED = PROBE.replace("max_new_tokens=6", 'max_new_tokens=6, gate={"min_pass_rate": 0.9}')


def reply_otherwise(path: Path) -> None:
    """Change every reply of a verdict file: judged otherwise on the same one, a case would not be compared."""
    file = verdicts.read(path)
    verdicts.write(path, replace(file, verdicts=tuple(replace(one, reply="another") for one in file.verdicts)))


def test_without_a_gate_a_miss_is_an_ordinary_failure_with_prompt_and_reply(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "-v")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*test_p.py::test_not_water[[]test_not_water-checkpoint-10-U+5FC3] PASSED*",
            "*test_p.py::test_not_water[[]test_not_water-checkpoint-10-U+6C34] FAILED*",
            "*asked of checkpoint-10",
            "    prompt  水",
            "    reply   *",
            "E   asked about \\x1b?31mwater",
            "checkpoint-10  66.7 % of 3 *",
        ]
    )
    assert "\x1b[31mwater" not in result.stdout.str()


def test_with_a_gate_misses_are_shown_and_the_gate_alone_fails(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, GATED)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "-v")
    assert result.ret == 1
    assert result.parseoutcomes() == {"passed": 2, "missed": 1, "failed": 1}
    result.stdout.fnmatch_lines(
        [
            "*U+6C34] MISS*",
            "*test_p.py::gate[[]test_not_water-checkpoint-10] FAILED*",
            "E   2 of 3 passed*min_pass_rate is 0.9",
        ]
    )


def test_a_green_gate_passes_and_the_exit_code_with_it(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, GATED.replace("0.9", "0.6"))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    assert (result.ret, result.parseoutcomes()) == (0, {"passed": 3, "missed": 1})


@pytest.mark.parametrize(
    "selection",
    [
        ["-k", "U+6C34 or U+5FC3"],
        ["--deselect", "probes/test_p.py::test_not_water[test_not_water-checkpoint-10-U+5FC3]"],
    ],
)
def test_a_suite_asked_in_part_has_no_gate_and_its_misses_fail(
    project: pytest.Pytester, tiny_checkpoint: Path, selection: list[str]
) -> None:
    write(project, GATED)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, *selection)
    result.assert_outcomes(passed=1, failed=1, deselected=1)


def test_one_case_by_its_id_has_no_gate(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, GATED)
    ask(
        project, "probes/test_p.py::test_not_water[test_not_water-checkpoint-10-U+6C34]", "--ckpt", tiny_checkpoint
    ).assert_outcomes(failed=1)


def test_gated_misses_enter_the_memory_of_lf(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, GATED)
    ask(project, "probes", "--ckpt", tiny_checkpoint)
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--lf").assert_outcomes(failed=1)


def test_a_case_whose_control_missed_is_not_asked(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    dependent = '\n@probe(cases=ROWS, prompt="{{ char }}", given=test_not_water)\ndef test_a_follower(reply): pass\n'
    # the follower is collected first, and asked last all the same
    write(project, PROBE + dependent + "\nlater = test_not_water\ndel test_not_water\ntest_not_water = later\n")
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v.jsonl", "-rs")
    result.assert_outcomes(passed=4, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*its control test_not_water did not pass"])
    file = verdicts.read(project.path / "v.jsonl")
    assert [verdict.outcome for verdict in file.of("test_a_follower")] == ["pass", "not_asked", "pass"]


def test_with_its_control_deselected_every_case_is_asked(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(
        project,
        PROBE + '\n@probe(cases=ROWS, prompt="{{ char }}", given=test_not_water)\ndef test_follower(reply): pass\n',
    )
    ask(project, "probes", "--ckpt", tiny_checkpoint, "-k", "follower").assert_outcomes(passed=3, deselected=3)


def test_the_verdict_file_holds_what_was_asked_and_said(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, PROBE)
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v.jsonl")
    file = verdicts.read(project.path / "v.jsonl")
    asked = file.asked("test_not_water")
    assert asked is not None
    assert (asked.cases, asked.probes, asked.gate) == (3, ("probes/test_p.py::test_not_water",), None)
    assert asked.key
    assert asked.generation_s > 0
    missed = file.verdicts[1]
    assert (missed.case_id, missed.outcome, missed.prompt) == ("U+6C34", "miss", "水")
    assert missed.values == {"length": len(missed.reply)}
    assert missed.generation["max_new_tokens"] == 6
    assert (missed.generation["dtype"], missed.generation["engine"]) == ("float32", "local")
    assert missed.tokens > 0
    assert len(missed.weights_sha256) == 64
    assert missed.margin is not None


def test_a_suite_asked_in_part_is_no_suite_that_need_not_be_asked_again(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE)
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v.jsonl", "-k", "U+6C34")
    asked = verdicts.read(project.path / "v.jsonl").asked("test_not_water")
    assert asked is not None
    assert asked.key == ""


def test_anything_but_an_assertion_is_an_error_and_turns_the_gate_red(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, GATED.replace("assert case.char", "assert case.chr").replace("0.9", "0.0"))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "v.jsonl")
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(["*case U+5FC3 has no column 'chr'; did you mean 'char'?*"])
    assert {v.outcome for v in verdicts.read(project.path / "v.jsonl").verdicts} == {"error"}


def test_a_prompt_naming_a_missing_column_is_an_error_of_its_suite_alone(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE + '\n@probe(cases=ROWS, prompt="{{ chr }}")\ndef test_bad(reply): pass\n')
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(passed=2, failed=1, errors=3)
    result.stdout.fnmatch_lines(
        [
            "the prompt '{{ chr }}' cannot be written for case U+5FC3: 'chr' is undefined; "
            "did you mean 'char'? the case has id, char"
        ]
    )


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ('"data/none.jsonl"', "cases: there is no folder data"),
        ("[]", "*there are no cases"),
        ('[{"id": 1}, {"id": 1}]', "*rows 1 and 2 are the same"),
        ('[{"id": 1, "a": 2}, {"id": 1}]', "*rows 1 and 2 share the id 1"),
    ],
)
def test_bad_cases_are_named_and_other_suites_go_on(
    project: pytest.Pytester, tiny_checkpoint: Path, cases: str, message: str
) -> None:
    write(project, PROBE + f'\n@probe(cases={cases}, prompt="x")\ndef test_bad(reply): pass\n')
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines([message])


@pytest.mark.parametrize(
    ("damage", "message", "errors"),  # one for the whole, or where it takes loading to find out, one for each case
    [
        (lambda path: [file.unlink() for file in path.glob("tok*")], "*no tokenizer: there is no tokenizer.json", 1),
        (lambda path: (path / "model.safetensors").unlink(), "*no weights: there is no [*].safetensors", 1),
        (lambda path: (path / "model.safetensors").write_bytes(b"\1"), "*model.safetensors is cut short or damaged", 1),
        (lambda path: (path / "config.json").write_text("{"), "*config.json is damaged", 1),
        (lambda path: (path / "tokenizer.json").write_text("{"), "*no tokenizer could be loaded*", 3),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named_and_the_others_are_asked(
    project: pytest.Pytester, tiny_checkpoint: Path, damage: object, message: str, errors: int
) -> None:
    damage(copy(tiny_checkpoint, project.path / "broken"))  # type: ignore[operator]
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", "broken", "--ckpt", tiny_checkpoint)
    assert result.parseoutcomes() == {"passed": 2, "failed": 1, "errors": errors}
    result.stdout.fnmatch_lines([message])


def test_parametrize_fixtures_classes_and_markers_work_as_anywhere(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(
        project,
        PROBE
        + """
@pytest.fixture
def shouted(reply): return reply.upper()

class TestMore:
    @pytest.mark.parametrize("language", ["zh", "en"])
    @probe(cases=ROWS[:1], prompt="{{ char }}")
    def test_language(self, language, shouted, reply, tmp_path):
        assert shouted == reply.upper()

    @pytest.mark.skip
    @probe(cases=ROWS[:1], prompt="{{ char }}")
    def test_skipped(self): pass

    @pytest.mark.xfail(strict=True)
    @probe(cases=ROWS[:1], prompt="{{ char }}")
    def test_known_to_fail(self): assert False
""",
    )
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "-v")
    result.assert_outcomes(passed=4, failed=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*TestMore::test_language[[]TestMore.test_language-checkpoint-10-U+5FC3-zh] PASSED*"])


def test_somebody_elses_fixture_of_the_same_name_is_theirs(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(
        project,
        PROBE.replace("record(length=len(reply))", "assert record == 7")
        + "\n@pytest.fixture\ndef record(): return 7\n",
    )
    ask(project, "probes", "--ckpt", tiny_checkpoint).assert_outcomes(passed=2, failed=1)


def test_probes_without_a_checkpoint_are_skipped_beside_other_tests(project: pytest.Pytester) -> None:
    write(project, PROBE + "\ndef test_other(): pass\n")
    result = ask(project, "probes", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*a probe is asked of a checkpoint: give one with --ckpt*"])


def test_probes_without_a_checkpoint_and_nothing_else_are_an_error(project: pytest.Pytester) -> None:
    write(project, PROBE)
    result = ask(project, "probes")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: a probe is asked of a checkpoint: give one with --ckpt"])


def test_a_checkpoint_where_a_test_file_belongs_is_an_unquoted_glob(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE)
    result = ask(project, "--ckpt", tiny_checkpoint, tiny_checkpoint)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is a checkpoint, and stands where pytest expects a test file", "*quote a glob*"])


def test_a_folder_that_is_not_there_gets_the_nearest_name(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint.with_name("checkpoint-1"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no such folder", f"    hint: did you mean {tiny_checkpoint}?"])


def test_a_glob_asks_every_checkpoint_in_the_order_of_steps(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    for step in (9, 10, 100):
        copy(tiny_checkpoint, project.path / "out" / f"checkpoint-{step}")
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", "out/checkpoint-*", "-k", "U+6C34", "-v")
    result.stdout.fnmatch_lines(["*checkpoint-9-U+6C34]*", "*checkpoint-10-U+6C34]*", "*checkpoint-100-U+6C34]*"])


def test_checkpoints_of_one_name_are_told_apart_by_their_folders(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    for run in ("a", "b"):
        copy(tiny_checkpoint, project.path / run / "checkpoint-5")
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", "a", "--ckpt", "b", "-v", "-k", "U+5FC3")
    result.stdout.fnmatch_lines(
        ["*[[]test_not_water-a/checkpoint-5-U+5FC3]*", "*[[]test_not_water-b/checkpoint-5-U+5FC3]*"]
    )


def test_control_characters_of_a_reply_leave_junit_readable(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, GATED)
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--junitxml", "j.xml")
    suite = ET.parse(project.path / "j.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("skipped"), suite.get("tests")) == ("1", "1", "4")


def test_a_verdict_file_is_a_baseline(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, PROBE.replace('"水"', '"木"'))
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "before.jsonl")
    reply_otherwise(project.path / "before.jsonl")
    write(project, PROBE.replace("max_new_tokens=6", 'max_new_tokens=6, gate={"pinned": ["水"], "max_regression": 9}'))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-baseline", "before.jsonl")
    assert result.parseoutcomes() == {"passed": 2, "failed": 2}  # the pinned case by itself, and the gate
    result.stdout.fnmatch_lines(
        ["*pinned, passed at *", "E   pinned and lost: U+6C34", "lost U+6C34   水", "*-1 +1 p 0.75 ✗"]
    )


def test_a_verdict_file_without_the_suite_is_no_baseline_and_said(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE)
    ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", "before.jsonl")
    write(project, PROBE.replace("test_not_water", "test_other").replace("=6", '=6, gate={"max_regression": 9}'))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-baseline", "before.jsonl")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E   the baseline * has no verdicts of test_other, so nothing was compared"])


def test_a_checkpoint_is_a_baseline(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    other = copy(tiny_checkpoint, project.path / "other")
    write(project, PROBE.replace("max_new_tokens=6", 'max_new_tokens=6, gate={"max_regression": 0}'))
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-baseline", other)
    assert (result.ret, result.parseoutcomes()) == (0, {"passed": 5, "missed": 2})
    result.stdout.fnmatch_lines(["checkpoint-10 *-0 +0 p 1 ✓"])


SUITES = """\
  held_out: {file: "probes/test_p.py::test_not_water", cases: questions.held_out, stages: [qa],
             gate: {max_regression: 0}}
  loops: {file: probes/test_p.py}"""
CASES: list[dict[str, object]] = [{"id": "U+6C34", "char": "水"}, {"id": "a", "char": "a"}]


def test_a_checkpoint_of_a_run_knows_its_suites_cases_gate_and_baseline(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE.replace('"水"', '"a"'))
    run = make_run(project.path, tiny_checkpoint, SUITES, CASES)
    before = run / "base" / "probes" / "ckpt-2.jsonl"
    assert ask(project, "probes", "--ckpt", run / "base", "--probe-verdicts", before).ret == 1  # no gate at this stage
    reply_otherwise(before)
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", run / "qa" / "ckpt-4", "-v", "--probe-suite", "held_out")
    assert (result.ret, result.parseoutcomes()) == (0, {"passed": 2, "missed": 1})  # one of the two is the gate
    result.stdout.fnmatch_lines(
        ["*test_not_water[[]held_out-qa@4-U+6C34] MISS*", "*gate[[]held_out-qa@4]*", "qa@4 *-1 +1 p 0.75 ✓"]
    )


def test_by_hand_the_verdicts_are_those_of_the_run(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, PROBE)
    run = make_run(project.path, tiny_checkpoint, SUITES, CASES)
    inside = ["--probe-suite", "held_out", "--probe-suite", "loops", "--tb=no", "-p", "no:logging", "-s"]
    ask(project, "probes", "--ckpt", run / "qa" / "ckpt-8", "--probe-verdicts", "in.jsonl", *inside)
    ask(project, "probes/test_p.py", "--ckpt", run / "qa" / "ckpt-8", "--probe-verdicts", "by_hand.jsonl")
    assert verdicts.read(project.path / "in.jsonl").verdicts == verdicts.read(project.path / "by_hand.jsonl").verdicts


def test_in_a_run_the_options_a_project_has_for_pytest_by_hand_leave_no_case_out(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE)
    run = make_run(project.path, tiny_checkpoint, SUITES, CASES)
    project.makefile(".toml", pyproject="[tool.pytest.ini_options]\naddopts = '-x -k U+6C34'\n")
    written = project.path / "v.jsonl"
    argv = launch.probe_argv(run / "qa" / "ckpt-8", ["probes/test_p.py"], ["held_out", "loops"], written, project.path)
    ask(project, *argv)
    file = verdicts.read(written)
    assert [(asked.suite, asked.cases, bool(asked.key)) for asked in file.suites] == [
        ("held_out", 2, True), ("loops", 3, True),
    ]  # fmt: skip


def test_a_run_folder_means_all_its_checkpoints(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, PROBE)
    run = make_run(project.path, tiny_checkpoint, SUITES, CASES)
    result = ask(project, "probes", "--ckpt", run, "--collect-only", "-q")
    for label in ("base@2", "qa@4", "qa@8"):
        assert f"[held_out-{label}-U+6C34]" in result.stdout.str()
        assert f"[loops-{label}-U+6728]" in result.stdout.str()


def test_a_checkpoint_of_a_run_without_manifest_is_half_written(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE)
    run = make_run(project.path, tiny_checkpoint, SUITES, CASES)
    (run / "qa" / "ckpt-4" / "manifest.json").unlink()
    result = ask(project, "probes", "--ckpt", run / "qa" / "ckpt-4")
    assert result.parseoutcomes()["errors"] == 2
    result.stdout.fnmatch_lines(["*manifest.json is missing: it was not published to its end"])


def test_a_suite_that_cannot_be_collected_gets_a_verdict_that_says_so(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, "import nothing_of_this_name\n")
    write(project, PROBE, "test_q.py")
    run = make_run(project.path, tiny_checkpoint, SUITES + "\n  good: {file: probes/test_q.py}", CASES)
    suites = ["--probe-suite", "loops", "--probe-suite", "good"]
    ask(
        project,
        "probes",
        "--ckpt",
        run / "qa" / "ckpt-8",
        "--probe-verdicts",
        "v.jsonl",
        "--continue-on-collection-errors",
        *suites,
    )
    file = verdicts.read(project.path / "v.jsonl")
    (failed,) = file.of("loops")
    assert failed.outcome == "error"
    assert "nothing_of_this_name" in failed.reason
    assert len(file.of("good")) == 3


def test_a_file_whose_second_probe_cannot_be_collected_gets_a_verdict_that_says_so(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    wrong = '@pytest.mark.parametrize("nobody_takes_this", [1])\n@probe(cases=ROWS, prompt="x")\n'
    write(project, f"{PROBE}\n{wrong}def test_second(reply): pass\n")
    run = make_run(project.path, tiny_checkpoint, SUITES, CASES)
    argv = launch.probe_argv(run / "qa" / "ckpt-8", ["probes/test_p.py"], ["loops"], project.path / "v", project.path)
    ask(project, *argv)
    (failed,) = verdicts.read(project.path / "v").of("loops")
    assert failed.outcome == "error"
    assert "nobody_takes_this" in failed.reason


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, runner.probing.plugin; "
        "print([m for m in ('torch', 'transformers', 'rich', 'pydantic', 'jinja2', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
