"""runner.probing.judging: by hand, in real pytest sessions, every gate says what it says in the run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import runner.probing.warm  # noqa: F401 - pytester forgets, and imports anew, what a session imports first
from runner import recipe, verdicts
from runner.folder import read_run
from runner.standings import Checkpoint, Standings
from runner.verdicts import SuiteAsked, Verdict, VerdictFile
from tests.letters import OUTCOMES
from tests.tiny import copy, make_run

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
WRONG = "qwert"
"""Cases that the probe calls wrong."""
CASES: list[dict[str, object]] = [{"id": char, "char": char} for char in "qwertyuiopas"]
PROBE = """
from runner import probe

ROWS = [{"id": char, "char": char} for char in "qwertyuiopas"]

@probe(cases=ROWS, prompt="{{ char }}", max_new_tokens=2GATE)
def test_a(case, reply, record):
    record(length=len(reply))
    assert case.char not in "qwert"
"""
SIGNIFICANT = ', gate={"max_regression": "significant"}'
SUITES = """\
  a: {file: "probes/test_p.py::test_a", cases: questions.held_out, gate: {max_regression: significant}}
  b: {file: "probes/test_p.py::test_a", cases: questions.held_out, gate: {max_regression: significant}}"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    shutil.copy(ROOT / "conftest.py", pytester.path / "conftest.py")
    pytester.makefile(".toml", pyproject="[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\n")
    (pytester.path / "probes").mkdir()
    return pytester


def write(project: pytest.Pytester, gate: str = "") -> None:
    (project.path / "probes" / "test_p.py").write_text(PROBE.replace("GATE", gate), encoding="utf-8")


def ask(project: pytest.Pytester, *arguments: str | Path) -> pytest.RunResult:
    return project.runpytest_inprocess("probes", *map(str, arguments))


def recorded(label: str, **suites: str) -> VerdictFile:
    """Verdicts of the twelve cases by suite, one letter each."""
    rows = tuple(
        Verdict(suite, "probes/test_p.py::test_a", str(case["id"]), OUTCOMES[letter], ckpt=label)
        for suite, letters in suites.items()
        for case, letter in zip(CASES, letters, strict=True)
    )
    asked = tuple(SuiteAsked(suite, "k", ("p",), None, len(CASES)) for suite in suites)
    return VerdictFile(label, "w", asked, rows)


@pytest.fixture
def run(project: pytest.Pytester, tiny_checkpoint: Path) -> Path:
    """A run with one look whose suites all passed at base@2; at qa@4 suite `a` will lose five cases: p = 1/32."""
    write(project)
    run = make_run(project.path, tiny_checkpoint, SUITES, CASES)
    record = (run / "run.json").read_text(encoding="utf-8")
    (run / "run.json").write_text(record.replace('"looks": 2', '"looks": 1'), encoding="utf-8")
    (run / "base" / "probes").mkdir()
    (run / "qa" / "probes").mkdir()
    verdicts.write(run / "base" / "probes" / "ckpt-2.jsonl", recorded("base@2", a="p" * 12, b="p" * 12))
    return run


def in_run(project: pytest.Pytester, run: Path) -> dict[str, bool | None]:
    made = recipe.load(run / "recipe.yaml", root=project.path).spec
    standings = Standings(made, run, read_run(run).looks)
    return {one.suite: one.green for one in standings.decisions(Checkpoint("qa", 4, run / "qa" / "ckpt-4"))}


@pytest.mark.parametrize(
    ("others", "green"),
    [
        ("p" * 12, False),  # nothing else is lost: p * 2 = 0.0625 is not below 5 %
        ("m" * 7 + "p" * 5, True),  # b is beyond chance by itself, and a is the last of the two
        ("e" * 12, False),
    ],
)
def test_one_suite_by_hand_is_judged_beside_what_the_run_recorded_of_the_others(
    project: pytest.Pytester, run: Path, others: str, green: bool
) -> None:
    lost = "m" * 5 + "p" * 7
    verdicts.write(run / "qa" / "probes" / "ckpt-4.jsonl", recorded("qa@4", a=lost, b=others))
    result = ask(project, "--ckpt", run / "qa" / "ckpt-4", "--probe-suite", "a")
    assert result.parseoutcomes().get("failed", 0) == int(green)
    assert in_run(project, run)["a"] is not green


def test_a_suite_that_the_run_has_not_asked_yet_counts_all_the_same(project: pytest.Pytester, run: Path) -> None:
    result = ask(project, "--ckpt", run / "qa" / "ckpt-4", "--probe-suite", "a")
    assert (result.ret, result.parseoutcomes()) == (0, {"passed": 8, "missed": 5})
    # both at once are judged as one family: each has p = 1/32, twice that is no loss beyond chance
    assert ask(project, "--ckpt", run / "qa" / "ckpt-4").ret == 0


def test_a_suite_asked_in_part_counts_as_the_run_recorded_it(project: pytest.Pytester, run: Path) -> None:
    verdicts.write(run / "qa" / "probes" / "ckpt-4.jsonl", recorded("qa@4", a="p" * 12, b="m" * 7 + "p" * 5))
    result = ask(project, "--ckpt", run / "qa" / "ckpt-4", "--deselect", "probes/test_p.py::test_a[b-qa@4-y]", "-v")
    result.stdout.fnmatch_lines(["*gate[[]a-qa@4] FAILED*"])


def test_a_probe_that_the_recipe_does_not_name_is_a_family_of_its_own(project: pytest.Pytester, run: Path) -> None:
    other = PROBE.replace("GATE", SIGNIFICANT).replace("test_a", "test_other")
    (project.path / "probes" / "test_q.py").write_text(other, encoding="utf-8")
    before = recorded("base@2", a="p" * 12, b="p" * 12, test_other="p" * 12)
    rows = [replace(v, probe="probes/test_q.py::test_other") if v.suite == "test_other" else v for v in before.verdicts]
    verdicts.write(run / "base" / "probes" / "ckpt-2.jsonl", replace(before, verdicts=tuple(rows)))
    result = ask(project, "--ckpt", run / "qa" / "ckpt-4", "-v")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*gate[[]test_other-qa@4] FAILED*", "E   5 lost and 0 gained*: p = 0.031, below 0.05"])


def test_a_sweep_by_hand_is_corrected_for_its_checkpoints(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, SIGNIFICANT)
    before = recorded("before", test_a="p" * 12)
    verdicts.write(project.path / "before.jsonl", before)
    for step in (1, 2):
        copy(tiny_checkpoint, project.path / "out" / f"checkpoint-{step}")
    one = ask(project, "--ckpt", "out/checkpoint-1", "--probe-baseline", "before.jsonl")
    assert (one.ret, one.parseoutcomes()["failed"]) == (1, 1)
    both = ask(project, "--ckpt", "out", "--probe-baseline", "before.jsonl")
    assert (both.ret, both.parseoutcomes()) == (0, {"passed": 16, "missed": 10})  # 1/32 is not below 5 % / 2


def test_what_parametrize_makes_of_one_case_is_one_fact(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    twice = PROBE.replace("@probe", '@pytest.mark.parametrize("language", ["zh", "en"])\n@probe').replace(
        "(case, ", "(language, case, "
    )
    (project.path / "probes" / "test_p.py").write_text(
        "import pytest\n" + twice.replace("GATE", SIGNIFICANT), encoding="utf-8"
    )
    ask(project, "--ckpt", tiny_checkpoint, "--probe-verdicts", "now.jsonl")
    file = verdicts.read(project.path / "now.jsonl")
    passed = tuple(replace(verdict, outcome="pass", reply="another") for verdict in file.verdicts)
    verdicts.write(project.path / "before.jsonl", replace(file, verdicts=passed))
    result = ask(project, "--ckpt", tiny_checkpoint, "--probe-baseline", "before.jsonl")
    result.stdout.fnmatch_lines(["E   10 lost and 0 gained against * (by fact 5 and 0): p = 0.031, below 0.05"])


def test_without_a_baseline_it_is_recorded_unless_one_is_required(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, SIGNIFICANT)
    assert ask(project, "--ckpt", tiny_checkpoint).ret == 0
    result = ask(project, "--ckpt", tiny_checkpoint, "--probe-require-baseline")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E   there is no baseline to compare with, and one is required"])


def test_a_checkpoint_need_not_be_compared_with_itself(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    write(project, SIGNIFICANT)
    copy(tiny_checkpoint, project.path / "out" / "checkpoint-1")
    copy(tiny_checkpoint, project.path / "out" / "checkpoint-2")
    sweep = ["--ckpt", "out", "--probe-baseline", "out/checkpoint-1", "--probe-require-baseline"]
    assert ask(project, *sweep).ret == 0


def test_the_end_of_pytest_shows_what_was_recorded_and_how_it_moved(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, ', gate={"max_regression": 0, "length": {"max": 9}}')
    before = recorded("before", test_a="m" * 5 + "p" * 7)
    rows = tuple(replace(verdict, values={"length": 1}) for verdict in before.verdicts)
    verdicts.write(project.path / "before.jsonl", replace(before, verdicts=rows))
    result = ask(project, "--ckpt", tiny_checkpoint, "--probe-baseline", "before.jsonl")
    result.stdout.fnmatch_lines(
        [
            "checkpoint-10  58.3 % of 12 [[]32.0–80.7] -0 +0 p 1 ✓",
            "passed of asked [[]95 % Wilson interval] -lost +gained p (so many lost by chance)",
            "test_a  checkpoint-10  length * (+*)",
        ]
    )


# --- what is no work of the model, and what cannot be judged ---


def test_another_answer_key_or_assert_since_the_baseline_is_not_the_model_that_got_worse(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    gate = ', gate={"max_regression": 2}'
    probe = PROBE.replace('"char": char}', '"char": char, "answer": KEY}').replace("GATE", gate)
    probe = probe.replace('assert case.char not in "qwert"', 'assert case.answer == "right"')
    file = project.path / "probes" / "test_p.py"
    file.write_text(probe.replace("KEY", '"right"'), encoding="utf-8")
    ask(project, "--ckpt", tiny_checkpoint, "--probe-verdicts", "before.jsonl")
    assert all(len(verdict.row) == 12 for verdict in verdicts.read(project.path / "before.jsonl").verdicts)
    compared = ("--ckpt", tiny_checkpoint, "--probe-baseline", "before.jsonl")

    file.write_text(probe.replace("KEY", '"wrong" if char in "qwert" else "right"'), encoding="utf-8")
    result = ask(project, *compared, "-v")
    assert (result.ret, result.parseoutcomes()) == (0, {"passed": 8, "missed": 5})
    result.stdout.fnmatch_lines(
        [
            "*58.3 % of 12 [[]32.0–80.7] -0 +0 p 1 ✓",
            "test_a at checkpoint-10: 7 cases compared with *; 5 changed",
            "test_a at checkpoint-10: the probe file, its cases or its decoding changed in between",
        ]
    )

    file.write_text(probe.replace("KEY", '"right"').replace("assert case", "assert not case"), encoding="utf-8")
    result = ask(project, *compared)
    result.stdout.fnmatch_lines(
        [
            "E   no case was answered both here and at *",
            "    0 cases compared with *; 12 changed",
            "    judged otherwise on the same reply, because the probe's assert changed: q, w, e, r, t and 7 more",
            "    the probe file, its cases or its decoding changed in between",
        ]
    )


@pytest.mark.parametrize("how", ["raise KeyboardInterrupt", 'pytest.exit("enough")'])
def test_a_suite_that_was_broken_off_is_neither_green_nor_red(
    project: pytest.Pytester, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    probe = "import pytest\n" + PROBE.replace('assert case.char not in "qwert"', f'if case.char == "p": {how}')
    gate = ', gate={"min_pass_rate": 0.5}'
    (project.path / "probes" / "test_p.py").write_text(probe.replace("GATE", gate), encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path / "summary.md"))
    result = project.runpytest_inprocess("probes", "--ckpt", str(tiny_checkpoint), no_reraise_ctrlc=True)
    assert result.ret == 2
    result.stdout.fnmatch_lines(["checkpoint-10  100 % of 9 [[]70.1–100.0] broken off"])
    row = "| checkpoint-10 | test&#95;a | 100 % of 9 | [70.1–100.0] |  |  | broken off |"
    assert row in (project.path / "summary.md").read_text(encoding="utf-8")


def test_a_damaged_baseline_in_a_run_is_a_reason_and_no_traceback(project: pytest.Pytester, run: Path) -> None:
    (run / "base" / "probes" / "ckpt-2.jsonl").write_text("{", encoding="utf-8")
    result = ask(project, "--ckpt", run / "qa" / "ckpt-4")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["E   *ckpt-2.jsonl*: not a readable verdict file (*", "*suite* *", "*58.3 % of 12*✗*"])
    result.stdout.no_fnmatch_line("*Traceback*")
