"""A little of `make fuzz`: whatever is written, a recipe and a data file are taken or refused in words."""

from __future__ import annotations

import json
import random
import struct
from itertools import accumulate
from pathlib import Path

import pytest

from runner.data import negative_files, sources
from runner.errors import BadData, UserError
from runner.spec import Data
from runner.verdicts import read
from tests.fuzz import campaign, readers

INPUTS = {"recipe": 20, "readers": 60}


@pytest.mark.parametrize("target", campaign.TARGETS)
def test_random_input_is_taken_or_refused_in_words(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    tally = campaign.run(target, 7, tmp_path, lambda tally: tally.asked >= INPUTS[target])
    assert tally.found == {}
    assert 0 < tally.taken < tally.asked


def test_what_breaks_is_kept_and_breaks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(folder: Path) -> None:
        if len((folder / "x").read_bytes()) == 3:
            raise ZeroDivisionError

    monkeypatch.setitem(campaign.TARGETS, "three", (lambda draw: {"x": b"x" * draw.randint(0, 9)}, ask))  # type: ignore[arg-type]
    tally = campaign.run("three", 1, tmp_path, lambda tally: tally.found.total() == 2)
    assert tally.found == {"ZeroDivisionError at elsewhere": 2}
    (kept,) = tmp_path.iterdir()
    assert (kept / "x").read_bytes() == b"xxx"
    assert "ZeroDivisionError" in (campaign.ask("three", kept, campaign.Tally()) or "")


def test_a_hang_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(_: Path) -> None:
        while True:
            pass

    monkeypatch.setattr(campaign, "LIMIT_S", 0.05)
    monkeypatch.setitem(campaign.TARGETS, "hang", (lambda _: {}, ask))  # type: ignore[arg-type]
    assert campaign.run("hang", 1, tmp_path, lambda tally: tally.asked == 1).found.total() == 1


# --- what it found ---


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_number_of_thousands_of_digits_is_an_error_of_its_line(tmp_path: Path, name: str) -> None:
    text = '{"a": ' + "9" * 5000 + "}\n"
    (tmp_path / name).write_text("[" + text + "]" if name == "rows.json" else text)
    with pytest.raises(BadData) as caught:
        sources.read(Data(path=name), "rows", tmp_path)
    assert caught.value.screen() == f"{name}:1: a number with more digits than Python reads (4,300)"


@pytest.mark.parametrize("line", ['{"kind": ' + "9" * 5000 + "}", "[" * 100_000], ids=["digits", "nested"])
def test_a_verdict_file_that_json_gives_up_on_is_not_readable(tmp_path: Path, line: str) -> None:
    (tmp_path / "v.jsonl").write_text(line)
    with pytest.raises(UserError, match="not a readable verdict file"):
        read(tmp_path / "v.jsonl")


def test_negatives_nested_too_deep_are_an_error_of_their_line(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text("[" * 100_000)
    with pytest.raises(BadData, match=r"n\.jsonl:1: this line is not JSON"):
        negative_files.read("n.jsonl", tmp_path)


def test_a_parquet_file_with_a_damaged_page_is_an_error_of_the_file(tmp_path: Path) -> None:
    content = bytearray(readers.arrow_file([{"text": "x" * at} for at in range(50)]))
    content[4:40] = b"\xff" * 36  # the first page's header
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(BadData, match=r"rows\.parquet: damaged after row 0: .*\n    hint: fetch or write it again"):
        sources.read(Data(path="rows.parquet"), "rows", tmp_path)


@pytest.mark.parametrize("damage", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_folder_that_datasets_saved_is_an_error_of_the_folder(tmp_path: Path, damage: str) -> None:
    for name, content in readers.saved_files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content[: len(content) // 2] if name == damage else content)
    with pytest.raises(BadData, match="cannot be read as a folder that datasets saved"):
        sources.read(Data(path="."), "rows", tmp_path)


def test_offsets_that_lead_out_of_a_folder_that_datasets_saved_do_not_end_the_process(tmp_path: Path) -> None:
    for name, content in readers.saved_files().items():
        (tmp_path / name).write_bytes(content)
    (arrow,) = tmp_path.glob("*.arrow")
    ends = [0, *accumulate(len(row["prompt"].encode()) for row in readers.ROWS["plain"])]
    wrong = [0, *(end + 2**30 for end in ends[1:])]
    good, bad = (struct.pack(f"<{len(ends)}i", *offsets) for offsets in (ends, wrong))
    content = arrow.read_bytes()
    assert good in content
    arrow.write_bytes(content.replace(good, bad))
    with pytest.raises(BadData, match="cannot be read as a folder that datasets saved: ArrowInvalid"):
        sources.read(Data(path="."), "rows", tmp_path)


def test_the_same_seed_makes_the_same_inputs() -> None:
    made = [[dict(readers.written(random.Random(f"{at}"))) for at in range(30)] for _ in range(2)]
    assert json.dumps(made[0], default=repr) == json.dumps(made[1], default=repr)
