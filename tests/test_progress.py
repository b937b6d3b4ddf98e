"""runner.progress: plain lines in a pipe, a live screen in a terminal."""

from dataclasses import replace

import pytest

from runner import spec
from runner.console import Ending
from runner.events import Logged, Published, Started
from runner.gate import Comparison
from runner.progress import Screen
from runner.tables import CheckpointRow
from tests.screens import PLAN, console, decision, flip, text_of

STARTED = Started("qa", 0, 96, "cpu", "float32", "sdpa", 569_728)
JUDGED = CheckpointRow(
    "qa@32", 0.5, {"held_out": decision(False, 4, 6, reasons=("4 of 10 passed",), lost=(flip("a", "b"),))}
)
ENDING = Ending([], [], "", "", (), (), (), (), None, (), (), {"training": 1.0}, (), "", 0)


def logged(step: int, total_tokens: int = 0) -> Logged:
    return Logged("qa", step, step / 32, 0.25, 3e-4, 1.0, total_tokens or step * 100, 2000.0, {})


def test_a_pipe_gets_one_plain_line_for_each_thing_that_happens() -> None:
    made = console(160)
    with Screen(made) as screen:
        screen.planned(PLAN)
        begin = len(text_of(made))
        screen.stage("base", "skipped", "nothing changed")
        screen.stage("qa", "running")
        screen.started(STARTED)
        for step in range(1, 33):
            screen.logged(logged(step))
        screen.published(Published("qa", 32, 1.0, 1.5, False))
        screen.judged(JUDGED, again=False)
        screen.stage("qa", "done")
    assert text_of(made)[begin:] == (
        "stage base: skipped (nothing changed)\n"
        "stage qa: running\n"
        "stage qa: 569,728 parameters, float32 on cpu, attention sdpa\n"
        "qa 10/96 epoch 0.31 loss 0.2500 lr 3.00e-04 2,000 tokens/s\n"
        "qa 20/96 epoch 0.62 loss 0.2500 lr 3.00e-04 2,000 tokens/s\n"
        "qa 30/96 epoch 0.94 loss 0.2500 lr 3.00e-04 2,000 tokens/s\n"
        "qa@32 held_out: 40.0 % of 10 red (4 of 10 passed)\n"
        "stage qa: done\n"
    )
    assert "\x1b" not in text_of(made)


def test_what_was_judged_by_an_earlier_invocation_is_not_told_again() -> None:
    made = console(160)
    with Screen(made) as screen:
        screen.planned(PLAN)
        begin = len(text_of(made))
        screen.judged(JUDGED, again=True)
    assert text_of(made)[begin:] == ""


def test_a_long_line_is_not_wrapped() -> None:
    made = console(40)
    with Screen(made) as screen:
        screen.planned(PLAN)
        begin = len(text_of(made))
        screen.stage("qa", "changed", "learning_rate 0.1 -> 0.2, data questions, weight_decay 0.0 -> 0.1")
    assert text_of(made)[begin:].count("\n") == 1


def test_a_terminal_gets_a_live_screen_that_is_gone_at_the_end() -> None:
    made = console(terminal=True)
    with Screen(made) as screen:
        screen.planned(PLAN)
        screen.started(STARTED)
        screen.logged(logged(32))
        screen.published(Published("qa", 32, 1.0, 1.5, False))
        screen.judged(JUDGED, again=False)
        made.print(screen._render())
        screen.ended(ENDING)
    shown = text_of(made)
    assert "32/96" in shown
    assert "attention sdpa" in shown  # has no place in the live screen, and stays above it
    assert "qa 32/96 epoch" not in shown  # a line for a log
    assert "loss 0.2500 ▁" in shown
    assert "U+5FC3 held_out at qa@32 against qa@32" in shown.replace("\x1b[0m\x1b[90m", "").replace("\x1b[1m", "")
    assert shown.rstrip().endswith("green: exit code 0\x1b[0m")
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden, and comes back


def test_the_latest_flips_are_lost_and_gained_of_several_suites_and_checkpoints() -> None:
    def row(step: int) -> CheckpointRow:
        lost = tuple(flip("a", "b", f"c{number}") for number in range(5))
        gained = Comparison("qa@32", 9, (), lost[:1])
        return CheckpointRow(
            f"qa@{step}",
            0.5,
            {
                "held_out": decision(False, 4, 6, lost=lost),
                "select": replace(decision(None, 9, suite="select"), comparison=gained),
            },
        )

    made = console(terminal=True)
    with Screen(made) as screen:
        screen.planned(PLAN)
        screen.judged(row(64), again=False)
        screen.judged(row(96), again=False)
        turned = [(one.kind, one.where.partition(" against")[0]) for one in screen._turned]
    assert turned == [
        *[("lost", "held_out at qa@96")] * 3,
        ("gained", "select at qa@96"),
        *[("lost", "held_out at qa@64")] * 3,
        ("gained", "select at qa@64"),
    ]


def test_memory_stands_beside_the_pace() -> None:
    made = console(160)
    with Screen(made) as screen:
        screen.planned(PLAN)
        screen.logged(replace(logged(40), memory_bytes=64_300_000_000))
        assert screen._stages["qa"].memory_bytes == 64_300_000_000
    assert text_of(made).endswith("2,000 tokens/s 64 GB\n")


def test_a_wish_to_leave_is_heard_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with Screen(console(160)) as screen:
        screen.planned(PLAN)
        screen.leaving()
        assert capfd.readouterr().err == "interrupted: state is being saved; Ctrl-C again leaves at once\n"
    made = console(terminal=True)
    with Screen(made) as screen:
        screen.planned(PLAN)
        screen.leaving()
        made.print(screen._render())
    assert "Ctrl-C again leaves at once" in text_of(made)
    assert capfd.readouterr().err == ""


def test_the_cursor_comes_back_after_an_error_too() -> None:
    made = console(terminal=True)
    try:
        with Screen(made) as screen:
            screen.planned(PLAN)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert text_of(made).count("\x1b[?25h") == 1


def test_the_time_left_comes_from_tokens_and_pace() -> None:
    with Screen(console()) as screen:
        screen.planned(PLAN)
        screen.logged(logged(32, total_tokens=64_000))
        assert screen._stages["qa"].seconds_left == (96 - 32) * 64_000 / 32 / 2000.0


def test_a_run_with_nothing_to_train_shows_its_stages_as_they_are() -> None:
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": {"path": "m"},
            "data": {"q": {"path": "q"}},
            "stages": {"qa": {"kind": "sft", "data": "q"}},
        }
    )
    made = console()
    with Screen(made) as screen:
        screen.nothing_to_train(recipe)
        screen.stage("qa", "skipped", "nothing changed")
        screen.ended(replace(ENDING, exit_code=1))
    assert text_of(made).startswith("stage qa: skipped (nothing changed)\n")
    assert text_of(made).endswith("red: exit code 1\n")
