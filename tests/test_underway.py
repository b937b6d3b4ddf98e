"""runner.underway, and the lines and views that are made of it: how far long work has come, and who hears of it."""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from runner import underway
from runner.console import is_live, waiting
from runner.console.log_lines import FIRST_S, THEN_S, Pace
from runner.errors import Interrupted
from runner.interruption import Interruption
from runner.underway import Relay, Work, each, work
from tests.tiny_project import wait_until


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    underway.tell(None)
    assert underway.now() == ()


def test_work_is_under_way_while_its_block_lasts_even_where_that_breaks() -> None:
    with work("reading", 10, "rows") as reading:
        reading.advance(4)
        (found,) = underway.now()
        assert (found.what, found.done, found.total) == ("reading", 4, 10)
    with pytest.raises(KeyError), work("reading"):
        raise KeyError
    assert underway.now() == ()


def test_the_innermost_work_that_lasts_is_told_and_a_moment_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    monkeypatch.setattr("runner.underway.time.monotonic", lambda: began)
    with work("planning"):
        for _ in range(3):
            with work("a moment"):
                assert [one.what for one in underway.now()] == ["planning"]
        with work("counting") as counting:
            counting.began -= 1
            with work("a moment"):
                assert [one.what for one in underway.now()] == ["counting"]


def test_items_are_counted_as_they_are_taken_and_a_loop_may_be_left() -> None:
    for item in each(range(1000), "counting", unit="epochs"):
        if item == 600:
            (found,) = underway.now()
            assert (found.done, found.total, found.unit) == (600, 1000, "epochs")
            break
    assert list(each(iter("ab"), "letters")) == ["a", "b"]  # of what does not say how many it has


@pytest.mark.parametrize(
    ("done", "total", "elapsed_s", "left"),
    [(25, 100, 60.0, 180.0), (0, 100, 60.0, None), (5, None, 60.0, None), (25, 100, 0.1, None), (120, 100, 60.0, 0.0)],
)
def test_the_time_left_is_said_where_there_is_a_pace(
    done: float, total: float | None, elapsed_s: float, left: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.underway.time.monotonic", lambda: 1000.0)
    found = Work("reading", total, "rows", done, 1000.0 - elapsed_s).seconds_left
    assert found == (None if left is None else pytest.approx(left))


def test_what_a_child_tells_is_work_of_its_parent_until_it_has_ended(tmp_path: Path) -> None:
    path = underway.beside(tmp_path / "probe-qa-96.log")
    assert path.name == "probe-qa-96.underway"
    underway.tell(path)
    with Relay(path, "qa@96") as relay:
        with work("answering", 10_000, "questions"):
            told = json.loads(path.read_text(encoding="utf-8"))
            assert (told["what"], told["total"]) == ("answering", 10_000)
            relay.look()
            assert [(one.what, one.total) for one in underway.now()] == [
                ("answering", 10_000),
                ("qa@96 answering", 10_000),
            ]
        assert not path.exists()
        path.write_text("{half", encoding="utf-8")
        relay._looked = 0
        relay.look()
        assert underway.now() == ()
    assert list(tmp_path.iterdir()) == []  # of a child that was killed, too


def test_a_log_gets_a_line_after_a_while_and_then_one_a_minute() -> None:
    began = time.monotonic()
    reading = Work("reading data/字典.jsonl", 4e9, "bytes", 1e9, began)
    pace, lines = Pace(), []
    for second in range(150):
        lines += [(second, line) for line in pace.lines([reading], began + second)]
    assert [second for second, _ in lines] == [FIRST_S, FIRST_S + THEN_S, FIRST_S + 2 * THEN_S]
    assert lines[0][1].startswith("reading data/字典.jsonl: 1.0 GB of 4.0 GB")


def test_nothing_is_said_in_a_pipe_of_what_is_soon_done() -> None:
    made = Console(file=io.StringIO(), width=80)
    assert not is_live(made)
    with waiting(made), work("planning"):
        pass
    assert made.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_terminal_sees_what_is_under_way_and_keeps_nothing_of_it() -> None:
    shown = io.StringIO()
    made = Console(file=shown, width=80, height=24, force_terminal=True)
    with waiting(made) as note, work("reading data/字典.jsonl", 100) as reading:
        reading.advance(40)
        note.say("interrupted: leaving")
        wait_until(lambda: "40 of 100 rows" in shown.getvalue() and "interrupted: leaving" in shown.getvalue())
    assert shown.getvalue().endswith("\x1b[2K")  # the last line that it stood on is erased


def test_the_first_ctrl_c_is_heard_at_once_and_ends_what_has_nothing_to_save() -> None:
    heard: list[str] = []
    with ExitStack() as stack:
        interruption = Interruption(stack, "kept", lambda: heard.append("heard"))
        with (
            pytest.raises(Interrupted, match="nothing trained yet"),
            interruption.leaving_at_once("nothing trained yet"),
        ):
            signal.raise_signal(signal.SIGINT)
        assert heard == []
        with (
            pytest.raises(Interrupted, match="nothing trained yet"),
            interruption.leaving_at_once("nothing trained yet"),
        ):
            raise AssertionError("it was asked for before")
    with ExitStack() as stack:
        interruption = Interruption(stack, "kept", lambda: heard.append("heard"))
        signal.raise_signal(signal.SIGTERM)
        assert heard == ["heard"]
        assert interruption.asked_for
        with pytest.raises(Interrupted, match="twice: left at once; kept"):
            signal.raise_signal(signal.SIGINT)
