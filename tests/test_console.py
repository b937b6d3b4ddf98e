"""runner.console: the exact lines of every screen at 80 columns, and nothing in them that a terminal would obey."""

import math
import time
from dataclasses import replace

import pytest
from rich.console import Console

from runner.console import (
    Ending,
    RunView,
    StageProgress,
    Turned,
    duration,
    ending_screen,
    plan_screen,
    print_error,
    run_screen,
    sparkline,
    works_screen,
)
from runner.errors import Problem, UserError, Where, cells
from runner.forgetting import measure
from runner.tables import CheckpointRow, decision_line, fitting, matrix, matrix_that_fits, percent, said
from runner.underway import Work
from tests.screens import BASE, PLAN, QA, console, decision, flip, lines, text_of

ROWS = [
    CheckpointRow(
        "qa@32", 0.1234567, {"select": decision(None, 195, 5, suite="select"), "held_out": decision(True, 299, 1)}
    ),
    CheckpointRow("qa@64", None, {"held_out": decision(False, 141, 159, errors=2)}),
    CheckpointRow("qa@96", 0.01, {"select": decision(None, 0, suite="select"), "held_out": decision(False, 141, 159)}),
]
LOST = tuple(flip("汉字`心`的部首是`心部`", f"汉字`心`的部首是`水部`\x1b[{number}m\n") for number in range(31, 36))
RED = decision(
    False,
    141,
    159,
    lost=LOST,
    notes=("300 cases compared with qa@32; 0 are new, 0 gone since",),
    reasons=("141 of 300 passed (47.0%), min_pass_rate is 0.95", "1 case ended in an error, the first c1: \x1b[2J\x07"),
)
ENDING = Ending(
    rows=ROWS,
    suites=["select", "held_out"],
    result_label="qa@last = qa@96",
    result_baseline="qa@32",
    result=[decision(None, 195, 5, suite="select"), RED, decision(None, 0, suite="rules")],
    ended=[],
    turned=["held_out turned at qa@64: 99.7 % at qa@32, 47.0 % here"],
    line=["base@8", "qa@96"],
    forgetting=None,
    also_red=(),
    regressions=[("held_out at qa@96 against qa@32", LOST)],
    seconds={"training": 61.2, "generating": 8.24, "all else": 3725.0},
    commands=["pytest probes --ckpt results/zhdict/qa/ckpt-96"],
    stopped="",
    exit_code=1,
)

MATRIX = """\
checkpoint    loss    select     held_out
qa@32       0.1235    97.5 %     99.7 % ✓
qa@64                         46.7 % 2! ✗
qa@96       0.0100         –     47.0 % ✗"""


# --- words and numbers ---


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("汉字`心`", "汉字`心`"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\tc", r"a⏎b\tc"),
        ("\x00\x07\r", r"\x00\x07\r"),
        ("\u202eevil", r"\u202eevil"),
        ("\udc80", r"\udc80"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u2028b\u200bc", r"a\u2028b\u200bc"),
        ("[bold]no markup[/bold]", "[bold]no markup[/bold]"),
    ],
)
def test_what_a_model_said_cannot_command_a_terminal(words: str, shown: str) -> None:
    assert said(words) == shown


def test_a_long_reply_ends_in_an_ellipsis() -> None:
    assert said("字" * 300, 10) == "字" * 9 + "…"
    assert said("字" * 10, 10) == "字" * 10


@pytest.mark.parametrize(
    ("share", "shown"),
    [(1, "100 %"), (0, "0 %"), (0.977, "97.7 %"), (0.9999, "99.9 %"), (0.00001, "0.1 %"), (299 / 300, "99.7 %")],
)
def test_only_all_is_100_percent_and_only_none_is_0(share: float, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(8.24, "8.2 s"), (59.9, "59.9 s"), (60, "1:00"), (252.9, "4:12"), (3753, "1:02:33")]
)
def test_a_duration_is_as_long_as_it_needs_to_be(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("values", "width", "shown"),
    [([], 5, ""), ([2.0], 5, "▁"), ([1.0, 1.0], 5, "▁▁"), ([0.0, 1.0], 5, "▁█"), (list(range(16)), 8, "▁▂▃▄▅▆▇█")],
)
def test_a_curve_of_losses_fits_its_width(values: list[float], width: int, shown: str) -> None:
    assert sparkline(values, width) == shown


def test_a_loss_that_is_not_a_number_does_not_end_the_run() -> None:
    assert sparkline([1.0, math.nan, 0.5, math.inf], 4) == "█!▁!"
    assert sparkline([math.nan], 4) == "!"


# --- the plan ---


def test_the_plan_at_80_columns() -> None:
    assert (
        "\n".join(lines(plan_screen(PLAN)))
        == """\
recipe   配方/字典.yaml
writes   results/zhdict
model    new qwen3, hidden_size 128
runs on  the CPU, 2 cores, float32

stage  kind      from        rows   batch  steps   tokens  seen by loss  state
base   pretrain  model      2,000      32  1,890   2.15 M        97.2 %  done
qa     sft       base@last    500  8×2=16     96  39.00 k        53.8 %  changed

base: checkpoints at 500, 1,000, 1,890; asked: no suite
qa: checkpoints at 9 steps to 90; asked: select, held_out
  changed: learning_rate 0.0003 -> 0.001
  3 rows truncated to max_length
  1,200 tokens are <unk>
warning: probes.select both chooses @best and gates: choosing by it flatters its
own result
result: the gates of qa@best set the exit code"""
    )


def test_no_line_of_the_plan_is_wider_than_the_terminal() -> None:
    stages = (replace(BASE, name="a_stage_with_a_long_name", state="resumes at step 1,234"), QA)
    assert max(cells(line) for line in lines(plan_screen(replace(PLAN, stages=stages)))) <= 80


# --- the matrix ---


def test_the_matrix_shows_rates_and_what_the_gates_decided() -> None:
    assert "\n".join(lines(matrix(ROWS, ["select", "held_out"]))) == MATRIX


@pytest.mark.parametrize(("suites", "wide"), [(1, True), (8, False)])
def test_what_is_too_wide_for_80_columns_is_listed_line_by_line(suites: int, wide: bool) -> None:
    names = [f"test_suite_{number}" for number in range(suites)]
    rows = [CheckpointRow("qa@32", None, {name: decision(True, 1, suite=name) for name in names})]
    shown = lines(fitting(rows, names, Console(width=80)))
    assert len(shown) == suites + wide
    assert shown[0].startswith("checkpoint" if wide else "test_suite_0  qa@32")
    assert all(len(line) <= 80 for line in shown)


def test_a_matrix_with_little_room_shows_its_end() -> None:
    assert (
        "\n".join(lines(matrix_that_fits(ROWS, ["select", "held_out"], 80, 3)))
        == """\
checkpoint    loss  select  held_out
… 2 above
qa@96       0.0100       –  47.0 % ✗"""
    )


def test_suites_that_do_not_fit_are_folded_and_those_that_are_red_are_not() -> None:
    suites = [f"suite_{number}" for number in range(8)]
    rows = [
        CheckpointRow(
            f"qa@{step}", 0.5, {name: decision(name != "suite_6" or step == 1, 1, suite=name) for name in suites}
        )
        for step in (1, 2)
    ]
    assert lines(matrix_that_fits(rows, suites, 60, 10), 60) == [
        "checkpoint    loss  suite_0  suite_1  suite_6  +5 more",
        "qa@1        0.5000  100 % ✓  100 % ✓  100 % ✓        ✓",
        "qa@2        0.5000  100 % ✓  100 % ✓  100 % ✗        ✓",
    ]


def test_many_suites_fit_the_terminal_and_none_is_lost() -> None:
    suites = [f"a_suite_with_a_name_{number}" for number in range(8)]
    shown = lines(
        matrix([CheckpointRow("qa@32", 0.5, {name: decision(True, 1, suite=name) for name in suites})], suites)
    )
    assert max(cells(line) for line in shown) <= 80
    (row,) = (line for line in shown if line.startswith("qa@32"))
    assert row.count("100 %") == 8


# --- while it runs ---


VIEW = RunView(
    "zhdict",
    75.3,
    stages=[
        StageProgress("base", 1890, "done", 1890, [3.0, 2.0, 1.0]),
        StageProgress("qa", 96, "running", 32, [0.5, 0.4, 0.3], 24_000, 12.0, memory_bytes=1_210_000_000),
        StageProgress("prefer", 63),
    ],
    rows=ROWS,
    suites=["select", "held_out"],
    turned=[Turned("lost", "held_out at qa@96 against qa@32", LOST[0]), Turned("gained", "select at qa@96", LOST[1])],
)


def test_the_live_screen_shows_where_it_is_the_matrix_and_the_latest_flips() -> None:
    assert (
        "\n".join(lines(run_screen(VIEW, 80, 24)))
        == f"""\
zhdict  1:15
✓ base   ━━━━━━━━ 1,890/1,890 loss 1.0000 █▅▁
› qa     ━━╸      32/96       loss 0.3000 █▅▁ 24,000 tok/s  1.2 GB  12.0 s left
  prefer          0/63        to do

{MATRIX}

✗ lost  U+5FC3 held_out at qa@96 against qa@32
    before: 汉字`心`的部首是`心部`
    after:  汉字`心`的部首是`水部`\\x1b[31m⏎
✓ gained  U+5FC3 select at qa@96
    before: 汉字`心`的部首是`心部`
    after:  汉字`心`的部首是`水部`\\x1b[32m⏎"""
    )


def test_work_that_is_under_way_is_told_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic() - 60
    monkeypatch.setattr("runner.underway.time.monotonic", lambda: began + 60)
    reading = Work("reading data/字典.jsonl", 4e9, "bytes", 1e9, began)
    (line,) = lines(works_screen([reading], 80))
    assert line == "  reading data/字典.jsonl: 1.0 GB of 4.0 GB ━━━          3:00 left"
    (endless,) = lines(works_screen([Work("looking at the model", began=began)], 80))
    assert endless == "  looking at the model for 1:00"


def wide(lines: list[str]) -> int:
    return max(map(cells, lines))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (200, 60), (40, 12)])
def test_the_live_screen_fits_every_terminal(width: int, height: int) -> None:
    suites = [f"套件_{number}_with_a_long_name" for number in range(12)]
    rows = [
        CheckpointRow(f"一个很长的阶段名@{number}", 0.5, {name: decision(True, 1, suite=name) for name in suites})
        for number in range(100)
    ]
    stages = [
        StageProgress(
            f"一个很长的阶段名_{number}", 12_650, "done" if number < 4 else "running", 9_999, [0.5] * 50, 123_456
        )
        for number in range(15)
    ]
    works = [Work("一" * 200, 10_000, "questions", 1200)] * 3
    turned = [Turned("lost", "where " * 20, flip("before " * 40, "之后" * 60))] * 9
    view = RunView("一个很长的配方名" * 9, 1e6, stages, works, rows, suites, turned, "interrupted: " * 9)
    shown = lines(run_screen(view, width, height), width)
    assert len(shown) < height
    assert wide(shown) <= width
    assert any("more" in line for line in shown)  # suites are folded
    assert any("above" in line for line in shown)


def test_stages_that_do_not_fit_are_those_furthest_from_the_one_that_runs() -> None:
    stages = [StageProgress(f"s{number}", 10, "done" if number < 6 else "to do") for number in range(15)]
    shown = lines(run_screen(RunView("r", 1.0, stages), 80, 21))
    assert shown[1].split() == ["…", "6", "stages", "done"]
    assert shown[2].split()[:1] == ["s6"]
    assert shown[-1].split() == ["…", "4", "stages", "to", "come"]


# --- the end ---


def test_the_last_screen_of_a_red_run() -> None:
    before_and_after = "".join(
        f"\n  U+5FC3\n    before: 汉字`心`的部首是`心部`\n    after:  汉字`心`的部首是`水部`\\x1b[{number}m⏎"
        for number in (31, 32, 33)
    )
    assert (
        "\n".join(lines(ending_screen(ENDING)))
        == f"""\
{MATRIX}

result qa@last = qa@96 against qa@32
  · select 97.5 % of 200 [94.3 % – 98.9 %]
  ✗ held_out 47.0 % of 300 [41.4 % – 52.6 %]
      141 of 300 passed (47.0%), min_pass_rate is 0.95
      1 case ended in an error, the first c1: \\x1b[2J\\x07
      300 cases compared with qa@32; 0 are new, 0 gone since
  · rules not asked
  held_out turned at qa@64: 99.7 % at qa@32, 47.0 % here

5 lost: held_out at qa@96 against qa@32{before_and_after}
  … and 2 more

time: 1:01 training, 8.2 s generating, 1:02:05 all else
look further:
  pytest probes --ckpt results/zhdict/qa/ckpt-96

red: exit code 1"""
    )


def test_the_last_screen_tells_what_the_line_of_stages_has_kept() -> None:
    kept = measure([{"a": 0.9, "b": 0.5}, {"a": 0.78, "b": 0.52}])
    shown = "\n".join(lines(ending_screen(replace(ENDING, forgetting=kept))))
    assert (
        """
base@8 → qa@96
  backward transfer −5.0, forgetting +5.0 points over 2 suites
  most forgotten: a, 90.0 % once and 78.0 % now

5 lost: held_out"""
        in shown
    )


def test_the_last_screen_of_a_green_run_and_of_one_that_was_stopped() -> None:
    green = replace(ENDING, rows=ROWS[:1], result=[decision(True, 300)], turned=[], regressions=[], exit_code=0)
    assert lines(ending_screen(green))[-1] == "green: exit code 0"
    stopped = replace(green, stopped="stopped at qa@64: a gate with on_fail: stop is red", exit_code=1)
    assert lines(ending_screen(stopped))[-3:] == [
        "stopped at qa@64: a gate with on_fail: stop is red",
        "",
        "red: exit code 1",
    ]


def test_a_line_for_a_log_says_why_a_gate_is_red_without_commanding_a_terminal() -> None:
    assert decision_line("qa@32", decision(True, 299, 1)) == "qa@32 held_out: 99.7 % of 300 green"
    assert decision_line("qa@32", decision(None, 0)) == "qa@32 held_out: none asked recorded"
    assert decision_line("qa@96", RED) == (
        "qa@96 held_out: 47.0 % of 300 red (141 of 300 passed (47.0%), min_pass_rate is 0.95; "
        r"1 case ended in an error, the first c1: \x1b[2J\x07)"
    )


@pytest.mark.parametrize("screen", [plan_screen(PLAN), ending_screen(ENDING)], ids=["plan", "ending"])
def test_without_colour_a_terminal_gets_the_same_words_and_signs(
    screen: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured = console(terminal=True)
    coloured.print(screen)
    assert "\x1b[" in text_of(coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Console(
        file=type(coloured.file)(), width=80, force_terminal=True, highlight=False, emoji=False, markup=False
    )
    plain.print(screen)
    colours = [code for code in text_of(plain).split("\x1b[")[1:] if code[0] in "34" or code.startswith(("9", "10"))]
    assert colours == []  # bold is allowed, a colour is not
    dumb = console()
    dumb.print(screen)
    assert "\x1b" not in text_of(dumb)
    assert [sign in text_of(dumb) for sign in "✓✗·"] == [sign in text_of(plain) for sign in "✓✗·"]


# --- errors ---


def test_the_caret_stands_under_what_is_wrong_where_chinese_stands_before_it() -> None:
    where = Where("字.yaml", 3, 5, 4, "汉字: typo # 注释")
    made = console(60)
    print_error(made, UserError([Problem("unknown key", where, "a key", "did you mean type?"), Problem("and this")]))
    assert text_of(made) == (
        "字.yaml:3:5: unknown key\n"
        "    3 | 汉字: typo # 注释\n"
        "      |       ^^^^\n"
        "    expected: a key\n"
        "    hint: did you mean type?\n"
        "\n"
        "and this\n"
    )


def test_an_error_is_not_wrapped_and_not_read_as_markup() -> None:
    made = console(40)
    print_error(made, UserError("[red]" + "long " * 20))
    assert text_of(made) == "[red]" + "long " * 20 + "\n"


def test_an_error_that_quotes_a_data_file_cannot_command_a_terminal() -> None:
    made = console(80)
    print_error(made, UserError("found '\x1b[2J'", where=Where("a\x1b[31m.tsv", 2, 1, 1, "x\x1b]0;owned\x07")))
    assert "\x1b" not in text_of(made)
    assert r"found '\x1b[2J'" in text_of(made)
    assert r"x\x1b]0;owned\x07" in text_of(made)
