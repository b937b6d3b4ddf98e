"""`recipe compare`: what it is given, what it finds, and the exact screens of both kinds."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner import comparing, recipe, verdicts
from runner.checkpoints import Parent, verdict_path
from runner.cli import cli
from runner.comparing import Side, compare
from runner.errors import UserError
from runner.folder import RunRecord, write_run
from runner.verdicts import SuiteAsked, Verdict, VerdictFile
from tests.letters import OUTCOMES
from tests.recorded import ask, project, publish
from tests.screens import lines

BASE = Parent("base@8", "../base/ckpt-8", "w")


def file(label: str, pooled: dict[str, float] | None = None, **suites: str) -> VerdictFile:
    """Verdicts by suite, one per letter; replies hold what a table or a terminal would obey."""
    rows = tuple(
        Verdict(
            suite, "t.py::t", f"c{number}", OUTCOMES[letter], f"{letter}|`{label}`\n\x1b[2J", ckpt=label,
            prompt=f"asked {number}?", question="q", margin=1.0, generation={"dtype": "float32"},
            values={"rep": 0.1 if letter == "p" else 0.3},
        )
        for suite, outcomes in suites.items()
        for number, letter in enumerate(outcomes)
    )  # fmt: skip
    asked = tuple(
        SuiteAsked(suite, "k", ("t.py::t",), None, len(outcomes), values=pooled or {})
        for suite, outcomes in suites.items()
    )
    return VerdictFile(label, label, asked, rows)


def sides(before: VerdictFile, after: VerdictFile) -> tuple[Side, Side]:
    return Side(before.ckpt, before), Side(after.ckpt, after)


WORSE = compare(
    *sides(
        file("a/ckpt-4", {"f1": 0.9}, held_out="p" * 190 + "m" * 10, rules="ppppmm", other="p"),
        file("a/ckpt-8", {"f1": 0.5}, held_out="m" * 22 + "p" * 168 + "pp" + "m" * 8, rules="ppmmpp", newer="p"),
    )
)

SCREEN = """\
before  a/ckpt-4
after   a/ckpt-8

suite          before        after    lost  gained  net        p
held_out       95.0 %       85.0 %      22       2  -20  1.8e-05  ✗ worse
          [91.0–97.3]  [79.4–89.3]  11.0 %               3.6e-05
rules          66.7 %       66.7 %       2       2    0     0.69  · same
          [30.0–90.3]  [30.0–90.3]  33.3 %                  0.69
below: [95 % Wilson interval], negative-flip rate, p after Holm over 2 suites
same: no difference beyond chance at 5%
only before: other
only after: newer

suite     number  before   after  moved
held_out  rep       0.11    0.13  +0.02
held_out  f1         0.9     0.5   -0.4
rules     rep     0.1667  0.1667     +0
rules     f1         0.9     0.5   -0.4

lost of held_out
  c0
    asked:  asked 0?
    before: p|`a/ckpt-4`⏎\\x1b[2J
    after:  m|`a/ckpt-8`⏎\\x1b[2J"""


def test_the_screen_at_80_columns() -> None:
    shown = "\n".join(lines(comparing.screen(WORSE)))
    assert shown.startswith(SCREEN)
    assert shown.endswith(
        """
lost of rules
  c2
    asked:  asked 2?
    before: p|`a/ckpt-4`⏎\\x1b[2J
    after:  m|`a/ckpt-8`⏎\\x1b[2J
  c3
    asked:  asked 3?
    before: p|`a/ckpt-4`⏎\\x1b[2J
    after:  m|`a/ckpt-8`⏎\\x1b[2J

held_out: worse; rules: no difference beyond chance"""
    )
    assert shown.count("    asked:") == 12
    assert "  … and 12 more" in shown
    assert "\n".join(lines(comparing.screen(WORSE, every=True))).count("    asked:") == 24


def test_the_markdown_is_a_table_that_no_reply_can_break() -> None:
    shown = comparing.markdown(WORSE)
    assert shown.startswith(
        """\
### Probes: held&#95;out&#58; worse; rules&#58; no difference beyond chance

before <code>a/ckpt-4</code>, after <code>a/ckpt-8</code>

| suite | before | after | lost | gained | net | p | p (Holm) | negative-flip rate |  |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
| held&#95;out | 95.0 % \\[91.0–97.3] | 85.0 % \\[79.4–89.3] | 22 | 2 | -20 | 1.8e-05 | 3.6e-05 | 11.0 % | ✗ worse |
| rules | 66.7 % \\[30.0–90.3] | 66.7 % \\[30.0–90.3] | 2 | 2 | 0 | 0.69 | 0.69 | 33.3 % | · same |

- only before&#58; other
- only after&#58; newer
"""
    )
    row = (
        "| <code>c0</code> | <code>asked 0?</code> | <code>p&#124;&#96;a/ckpt-4&#96;⏎&#92;x1b&#91;2J</code> "
        "| <code>m&#124;&#96;a/ckpt-8&#96;⏎&#92;x1b&#91;2J</code> |"
    )
    assert row in shown.split("\n")
    tables = [line for line in shown.split("\n") if line.startswith("|")]
    assert {line.count(" | ") for line in tables} == {3, 4, 9}
    assert "<details><summary>held&#95;out: 22 lost</summary>\n\n| case |" in shown
    assert shown.endswith("</details>\n")


def test_the_other_way_round_it_is_better() -> None:
    turned = compare(WORSE.after, WORSE.before)
    assert (turned.worse, turned.better) == ((), ("held_out",))
    assert turned.suites[0].p == WORSE.suites[0].p
    assert lines(comparing.screen(turned))[-1] == "held_out: better; rules: no difference beyond chance"


def test_holm_is_over_the_suites_that_both_sides_were_asked() -> None:
    before, after = file("a", one="p" * 6, two="pp"), file("b", one="m" * 6, two="pp")  # p = 1/64
    assert compare(*sides(before, after)).worse == ("one",)
    many = dict.fromkeys(("two", "three", "four"), "pp")
    assert compare(*sides(file("a", one="p" * 6, **many), file("b", one="m" * 6, **many))).worse == ()


def test_a_suite_with_no_common_answer_is_not_compared() -> None:
    before, after = file("a", s="pp"), file("b", s="nn")
    found = compare(*sides(before, after))
    assert (found.suites[0].outcome, found.worse, found.is_red) == ("not compared", (), False)
    assert lines(comparing.screen(found))[-1] == "s: not compared"


def test_a_second_side_that_could_not_be_asked_ends_in_exit_code_1(tmp_path: Path) -> None:
    for name, suites in (("a", {"s": "pp", "t": "pp"}), ("b", {"s": "ee", "t": "pp"})):
        verdicts.write(tmp_path / f"{name}.jsonl", file(name, **suites))
    arguments = ["compare", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert done.return_value == 1
    assert done.output.splitlines()[-1] == (
        "t: no difference beyond chance; s: could not be asked after: every case is an error"
    )


def test_what_the_probe_and_not_the_model_changed_is_said(tmp_path: Path) -> None:
    before, after = file("a", s="p" * 12), file("b", s="m" * 12)
    same = {"dtype": "float32", "stop_reason": "eos"}
    before, after = (
        replace(
            one,
            suites=(replace(one.suites[0], key=key),),
            verdicts=tuple(replace(verdict, reply="x", generation=same) for verdict in one.verdicts),
        )
        for one, key in ((before, "k1"), (after, "k2"))
    )
    found = compare(*sides(before, after))
    assert (found.worse, found.suites[0].outcome) == ((), "not compared")
    shown = lines(comparing.screen(found))
    assert "s: 0 cases compared; 12 changed" in shown
    assert "s: the probe file, its cases or its decoding changed in between" in shown
    assert "s: 12 judged otherwise on the same reply, because the probe's assert changed" in shown


def test_what_cannot_be_trusted_wholly_is_said() -> None:
    before, after = file("a", s="pppp"), file("b", s="mmmp")
    changed = [replace(verdict, question="other") if verdict.case_id == "c3" else verdict for verdict in after.verdicts]
    changed = [replace(v, margin=1e-9) if v.case_id == "c0" else v for v in changed]
    changed = [replace(v, cluster="fact") if v.case_id in ("c0", "c1") else v for v in changed]
    after = replace(after, verdicts=tuple(changed), weights_sha256="a")
    shown = "\n".join(lines(comparing.screen(compare(*sides(before, after)))))
    for note in (
        "s: 3 cases compared; 1 changed",
        "s: counted by fact 2 lost, 0 gained; p is of these",
        "s: 1 of the 3 lost hang by a hair",
        "both sides have the same weights: what differs comes from decoding, probes or\nprecision",
        "  c0   by a hair",
    ):
        assert note in shown


# --- what it is given ---


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with base@8 and three checkpoints of qa, of which `select` chooses the second, in the working folder."""
    loaded, run = project(tmp_path / "p"), tmp_path / "run"
    ask(publish(run, "base", 8), select="pppp")
    for step, select in ((2, "ppmm"), (4, "pppm"), (6, "mmmm")):
        ask(publish(run, "qa", step, parent=BASE), select=select, held_out=select * 3)
    record = RunRecord("recorded", "recorded.yaml", str(loaded.root), 3, {}, {}, None, {}, 3)
    write_run(run, record)
    (run / "recipe.yaml").write_text(recipe.dump(loaded), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return run


def test_a_checkpoint_a_run_and_a_verdict_file_are_sides(run: Path) -> None:
    assert comparing.find("run/qa/ckpt-6", run.parent).file.ckpt == "qa@6"
    assert comparing.find("run/qa/probes/ckpt-2.jsonl", run.parent).name == "run/qa/probes/ckpt-2.jsonl (qa@2)"
    whole = comparing.find(str(run), run.parent)
    assert whole.name == f"{run} (qa@4)"  # result: qa@best
    assert whole.forgetting is not None
    assert whole.forgetting.backward_transfer == pytest.approx(-0.25)


def test_a_run_is_a_side_by_its_name_and_a_file_that_is_no_side_is_not_meant(run: Path) -> None:
    (run.parent / "results").mkdir()
    run.rename(run.parent / "results" / "mine")
    (run.parent / "mime.yaml").touch()
    assert comparing.find("mine", run.parent).name == "mine (qa@4)"
    with pytest.raises(UserError) as caught:
        comparing.find("mime", run.parent)
    assert caught.value.screen() == (
        "mime: no such file or folder\n"
        "    expected: a checkpoint, the folder of a run, or a verdict file\n"
        "    hint: did you mean mine?"
    )


def test_a_run_without_result_is_its_last_checkpoint(run: Path) -> None:
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    (run / "recipe.yaml").write_text(re.sub(r"result:\n  checkpoint: qa@best\n", "", text), encoding="utf-8")
    assert comparing.find("run", run.parent).file.ckpt == "qa@6"


def test_a_checkpoint_of_another_trainer_has_its_verdicts_in_probes_beside_it(tmp_path: Path) -> None:
    (tmp_path / "out" / "checkpoint-10").mkdir(parents=True)
    verdicts.write(verdict_path(tmp_path / "out" / "checkpoint-10"), file("out/checkpoint-10", s="p"))
    assert comparing.find("out/checkpoint-10", tmp_path).name == "out/checkpoint-10"


@pytest.mark.parametrize(
    ("given", "screen"),
    [
        (
            "run/qa/ckpt-8",
            "run/qa/ckpt-8 has no verdicts: there is no run/qa/probes/ckpt-8.jsonl\n"
            "    hint: ask it, and compare ckpt-8.jsonl: "
            "pytest probes --ckpt run/qa/ckpt-8 --probe-verdicts ckpt-8.jsonl",
        ),
        (
            "run/qa",
            "run/qa holds 4 checkpoints\n    expected: one of them\n"
            "    hint: there are: ckpt-2, ckpt-4, ckpt-6, ckpt-8",
        ),
        (
            "run/qa/ckpt-44",
            "run/qa/ckpt-44: no such file or folder\n"
            "    expected: a checkpoint, the folder of a run, or a verdict file\n"
            "    hint: did you mean run/qa/ckpt-4?",
        ),
        (
            "p/probes",
            "p/probes is no checkpoint, and there are no verdicts of it\n"
            "    expected: a checkpoint, the folder of a run, or a verdict file",
        ),
        (
            "p/chars.tsv",
            "p/chars.tsv:1: not a readable verdict file (JSONDecodeError: Expecting value: line 1 column 1 (char 0))\n"
            "    expected: JSON lines as written by recipe run or pytest --probe-verdicts",
        ),
    ],
)
def test_what_is_no_side_is_named_with_what_to_do(run: Path, given: str, screen: str) -> None:
    publish(run, "qa", 8, parent=BASE)
    with pytest.raises(UserError) as caught:
        comparing.find(given, run.parent)
    assert caught.value.screen().replace(f"{run.parent}/", "") == screen
    result = CliRunner().invoke(cli, ["compare", given, "run"], standalone_mode=False)
    assert isinstance(result.exception, UserError)


def test_two_sides_with_no_suite_in_common_are_named_with_their_suites() -> None:
    with pytest.raises(UserError) as caught:
        compare(*sides(file("a", one="p", two="p"), file("b", three="p")))
    assert caught.value.screen() == (
        "a and b have no suite in common\n    expected: two that were asked the same suites\n"
        "    hint: the first was asked one, two, the second three"
    )


# --- the command ---


def test_the_command_ends_with_1_only_where_a_suite_is_worse(run: Path) -> None:
    def code(*arguments: str) -> object:
        return CliRunner().invoke(cli, ["compare", *arguments], standalone_mode=False).return_value

    assert code("run/qa/ckpt-4", "run/qa/ckpt-6") == 1  # 9 of 12 lost
    assert code("run/qa/ckpt-6", "run/qa/ckpt-4") == 0
    assert code("run/qa/ckpt-2", "run/qa/ckpt-4") == 0
    assert code("run", "run", "--markdown") == 0


def test_two_runs_show_what_their_stages_have_kept(run: Path) -> None:
    shown = CliRunner().invoke(cli, ["compare", "run", "run"]).output
    assert "stages of before\n  backward transfer −25.0, forgetting +25.0 points over 1 suite\n" in shown
    assert "  most forgotten: select, 100 % once and 75.0 % now\n" in shown
    assert (
        "stages of after: backward transfer −25.0"
        in CliRunner().invoke(cli, ["compare", "run", "run", "--markdown"]).output
    )
