"""In which ways a probe file can be wrong, and what is said of it."""

from pathlib import Path

import pytest

from runner import verdicts
from tests.probe_project import PROBE, ask, probes, write
from tests.tiny import make_run

pytest_plugins = ["pytester"]


def test_a_parameter_that_is_no_fixture_is_named_in_short(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, probes('@probe(cases=ROWS[:1], prompt="x")\ndef test_it(case, replys): pass\n') + PROBE)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_it*",
            "test_it takes 'replys', which is no fixture",
            "    expected: case, reply, replies, record, or a fixture of pytest",
            "    hint: did you mean 'reply'?",
        ],
        consecutive=True,
    )
    assert "available fixtures" not in result.stdout.str()


WRONG = {
    'gate={"min_passrate": 0.9}': [
        "{where}: gate has the unknown key 'min_passrate'",
        "    expected: min_pass_rate, confidence, max_regression, pinned, baseline, on_fail; "
        "or bounds on a recorded number",
        "    hint: did you mean min_pass_rate?",
    ],
    'gate={"length": {"max_men": 3}}': [
        "{where}: gate: length has the unknown key 'max_men'",
        "    expected: max_mean, min_mean, max, min, max_mean_rise",
        "    hint: did you mean max_mean?",
    ],
    'gate={"min_pass_rate": 95}': [
        "{where}: gate: min_pass_rate is 95: Input should be less than or equal to 1",
        "    expected: the keys of gate: in a recipe",
    ],
    "gate={}": [
        "{where}: gate: a gate needs a rule, for example min_pass_rate: 0.95",
        "    expected: the keys of gate: in a recipe",
    ],
    'system="{{ char }"': ["{where}: system '{{ char }': unexpected '}'", "    expected: a Jinja template"],
}


@pytest.mark.parametrize("argument", WRONG)
def test_what_is_wrong_with_a_probe_is_named_and_the_other_suites_of_its_file_go_on(
    project: pytest.Pytester, tiny_checkpoint: Path, argument: str
) -> None:
    write(project, PROBE + f'\n@probe(cases=ROWS, prompt="x", {argument})\ndef test_bad(reply): pass\n')
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    where = f"{project.path / 'probes' / 'test_p.py'}:12"
    lines = [line.replace("{where}", where).replace("[", "[[]") for line in WRONG[argument]]
    result.stdout.fnmatch_lines(lines, consecutive=True)


@pytest.mark.parametrize("given_checkpoint", [True, False], ids=["asked", "not asked"])
def test_an_argument_that_is_wrong_is_said_in_a_few_lines(
    project: pytest.Pytester, tiny_checkpoint: Path, given_checkpoint: bool
) -> None:
    write(project, "from runner import probe\n\n@probe(prompt='x', samples=5)\ndef test_bad(reply): pass\n")
    write(project, PROBE, "test_q.py")
    result = ask(project, "probes", *(["--ckpt", tiny_checkpoint] if given_checkpoint else []))
    # the other file is asked all the same
    result.assert_outcomes(errors=1, **({"passed": 2, "failed": 1} if given_checkpoint else {}))
    assert result.ret != 0
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting probes/test_p.py*",
            f"{project.path / 'probes' / 'test_p.py'}:3: samples is 5 and temperature is 0",
            "    expected: a temperature above 0: greedy samples are all the same",
        ],
        consecutive=True,
    )
    assert "Traceback" not in result.stdout.str()
    assert "declaring.py" not in result.stdout.str()


@pytest.mark.parametrize(
    ("decorator", "screen"),
    [
        (
            "@probe(promt='x')",
            [
                "{where}: @probe has no argument 'promt'",
                "    expected: cases, prompt, *",
                "    hint: did you mean prompt?",
            ],
        ),
        (
            "@probe",
            ["{where}: @probe takes arguments with names only", '    expected: for example @probe(prompt="…")'],
        ),
        (
            "@probe('x')",
            ["{where}: @probe takes arguments with names only", '    expected: for example @probe(prompt="…")'],
        ),
    ],
)
def test_an_argument_that_there_is_not_is_said_in_a_few_lines(
    project: pytest.Pytester, tiny_checkpoint: Path, decorator: str, screen: list[str]
) -> None:
    write(project, f"from runner import probe\n\n{decorator}\ndef test_bad(reply): pass\n")
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(errors=1)
    where = f"{project.path / 'probes' / 'test_p.py'}:3"
    result.stdout.fnmatch_lines([line.replace("{where}", where) for line in screen], consecutive=True)
    assert "Traceback" not in result.stdout.str()


def test_a_type_error_of_somebody_elses_is_shown_as_ever(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, "def probe(a): pass\nprobe(b=1)\ndef test_it(): pass\n")
    ask(project, "probes", "--ckpt", tiny_checkpoint).stdout.fnmatch_lines(["E   TypeError: probe() got *"])


def test_two_probes_of_one_name_in_two_files_are_an_error_of_the_second(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE, "test_q.py")
    write(project, PROBE)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(["two probes are named test_not_water: in *test_p.py and in *test_q.py"])


def test_in_a_run_the_reason_of_a_file_that_is_wrong_is_in_the_verdict(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, "from runner import probe\n\n@probe(prompt='x', samples=5)\ndef test_bad(reply): pass\n")
    run = make_run(project.path, tiny_checkpoint, "  plain: {file: probes/test_p.py}", [])
    arguments = ["--probe-suite", "plain", "--probe-verdicts", "v.jsonl"]
    assert ask(project, "probes", "--ckpt", run / "qa" / "ckpt-8", *arguments).ret == 1
    (failed,) = verdicts.read(project.path / "v.jsonl").of("plain")
    assert failed.reason.endswith("test_p.py:3: samples is 5 and temperature is 0")


def test_verdicts_that_cannot_be_written_end_the_session_in_a_few_words(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE)
    name = "v" * 254  # fits, but not its temporary name
    result = ask(project, "probes", "--ckpt", tiny_checkpoint, "--probe-verdicts", name)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    assert result.stderr.lines[-2:] == [
        f"Exit: no verdicts were written: {project.path / name}: the name is too long for the file system",
        "    hint: choose a shorter one",
    ]
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_an_error_that_every_case_has_is_shown_once_and_counted(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, PROBE.replace('case.char != "水"', "repyl"))
    arguments = ["probes", "--ckpt", tiny_checkpoint, "--junit-xml", "junit.xml"]
    result = ask(project, *arguments)
    result.assert_outcomes(failed=3)
    shown = result.stdout.str()
    assert shown.count("E       NameError: name 'repyl' is not defined") == 1
    assert shown.count("FAILED probes/test_p.py::test_not_water") == 3
    result.stdout.fnmatch_lines(["*- and 2 more alike -*", "-vv shows each"], consecutive=True)
    assert (project.path / "junit.xml").read_text(encoding="utf-8").count("<failure") == 3
    assert "more alike" not in ask(project, *arguments, "-vv").stdout.str()
