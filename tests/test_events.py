"""runner.events: appending, and following a file that another process is writing."""

import json
import math
from pathlib import Path

from runner.events import Event, Follower, GateJudged, Journal, Logged, Published, StageState, parse

LOGGED = Logged("qa", 10, 0.5, 1.25, 1e-3, 0.7, 640, 2000.0, {"rewards/margins": 0.1})


def journal(path: Path, *events: Event) -> None:
    writer = Journal(path)
    for event in events:
        writer.write(event)
    writer.close()


def events(path: Path) -> list[Event]:
    return [stamped.event for stamped in Follower(path).new()]


def test_an_event_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written: list[Event] = [
        LOGGED,
        Published("qa", 10, 0.5, 3.25, False),
        StageState("qa", "changed", "learning_rate 0.1 -> 0.2"),
        GateJudged("held_out", "qa@10", False, ("3 lost", "汉字\u2028")),
    ]
    journal(tmp_path / "events" / "train.jsonl", *written)
    assert events(tmp_path / "events" / "train.jsonl") == written


def test_a_row_carries_its_format_version_and_the_time(tmp_path: Path) -> None:
    journal(tmp_path / "e.jsonl", StageState("qa", "running"))
    row = json.loads((tmp_path / "e.jsonl").read_text(encoding="utf-8"))
    assert row.pop("time") > 1_700_000_000
    assert row == {"format_version": 1, "event": "stage", "stage": "qa", "state": "running", "why": ""}


def test_a_loss_that_is_not_a_number_is_written_and_read(tmp_path: Path) -> None:
    journal(tmp_path / "e.jsonl", Logged("qa", 1, 0.1, math.nan, 0.0, math.inf, 1, 1.0, {}))
    (event,) = events(tmp_path / "e.jsonl")
    assert isinstance(event, Logged)
    assert math.isnan(event.loss)
    assert event.grad_norm == math.inf


def test_words_of_a_broken_tokenizer_can_be_written(tmp_path: Path) -> None:
    odd = GateJudged("held_out", "qa@10", False, ("said '\udc80'",))
    journal(tmp_path / "e.jsonl", odd)
    assert events(tmp_path / "e.jsonl") == [odd]


def test_a_follower_returns_each_event_once(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    follower = Follower(path)
    assert list(follower.new()) == []
    writer = Journal(path)
    writer.write(LOGGED)
    assert [stamped.event for stamped in follower.new()] == [LOGGED]
    assert list(follower.new()) == []
    writer.write(StageState("qa", "done"))
    assert [stamped.event for stamped in follower.new()] == [StageState("qa", "done")]
    writer.close()


def test_half_a_line_is_left_until_its_newline_comes(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    journal(path, StageState("qa", "done", "汉字"))
    whole = path.read_bytes()
    cut = whole.index("字".encode()) + 1  # in the middle of a character
    path.write_bytes(whole[:cut])
    follower = Follower(path)
    assert list(follower.new()) == []
    with path.open("ab") as file:
        file.write(whole[cut:])
    assert [stamped.event for stamped in follower.new()] == [StageState("qa", "done", "汉字")]


def test_a_writer_after_one_that_was_killed_starts_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"event": "stage", "sta', encoding="utf-8")
    journal(path, LOGGED)
    assert events(path) == [LOGGED]


def test_a_follower_from_the_end_sees_only_what_comes_after(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    journal(path, LOGGED)
    follower = Follower(path, from_end=True)
    journal(path, StageState("qa", "done"))
    assert [stamped.event for stamped in follower.new()] == [StageState("qa", "done")]


def test_a_line_that_is_no_known_event_is_passed_over() -> None:
    for line in ("", "{", "[]", "3", '"stage"', '{"event": []}', '{"event": "newer", "time": 1}',
                 '{"event": "stage", "stage": "qa", "state": "done"}', '{"event": "stage", "time": 1}'):  # fmt: skip
        assert parse(line) is None


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    stamped = parse('{"event": "stage", "time": 2.5, "stage": "qa", "state": "done", "mood": "good"}')
    assert stamped is not None
    assert (stamped.time, stamped.event) == (2.5, StageState("qa", "done"))
