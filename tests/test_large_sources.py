"""Files larger than the memory: rows are found again by where they begin, whatever the format, and nothing piles up."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import spec
from runner.data import containers, datasets, formats, sources, stored
from runner.data.recent import Recent
from runner.data.stored import StoredFile
from runner.errors import BadData

ROOT = Path(__file__).parent.parent


def tables(count: int) -> list[dict[str, Any]]:
    texts = random.Random(0)
    return [{"key": f"k{n}", "said": "".join(texts.choices('ab语,"\n ', k=texts.randint(0, 60)))} for n in range(count)]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    made = io.StringIO(newline="")
    writer = csv.DictWriter(made, ["key", "said"])
    writer.writeheader()
    writer.writerows(rows)
    return made.getvalue().encode()


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n\n".join(json.dumps(row) for row in rows).encode()


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def as_txt(rows: list[dict[str, Any]]) -> bytes:
    return "|||\r\n".join(row["key"] + "\r\n" + row["said"].replace("\n", "\r\n") for row in rows).encode()


@pytest.mark.parametrize("pack", [None, gzip.compress, lzma.compress])
@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_json, as_txt])
def test_every_row_is_found_again_in_any_order(
    tmp_path: Path, write: Any, pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # small enough that windows, chunks and copies in memory are all outgrown
    for module, name, size in ((stored, "_WINDOW", 100), (stored, "_IN_MEMORY", 3000), (formats, "CHUNK", 700),
                               (stored, "CHUNK", 700), (containers, "CHUNK", 700)):  # fmt: skip
        monkeypatch.setattr(module, name, size)
    rows = tables(400)
    name = f"rows.{write.__name__.removeprefix('as_')}" + {None: "", gzip.compress: ".gz", lzma.compress: ".xz"}[pack]
    (tmp_path / name).write_bytes(pack(write(rows)) if pack else write(rows))
    file = StoredFile(tmp_path / name, name, "|||\n" if write is as_txt else None)
    scanned = [(line, values) for line, _, values in file.scan()]
    assert len(file) == len(scanned) == 400
    for number in random.Random(1).sample(range(400), 400):
        assert (file.lines[number], file.values(number)) == scanned[number]
    if write is not as_txt:
        assert [values for _, values in scanned] == rows


def test_rows_of_several_files_keep_their_numbers_and_places(tmp_path: Path) -> None:
    for name in "abc":
        lines = [json.dumps({"x": f"{name}{number}"}) for number in range(5)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(["{", *lines]) + "\n")
    table = sources.read(spec.Data(path="*.jsonl", on_bad_row="skip"), "rows", tmp_path)
    assert table.bad == 3
    last = table.rows[-1]
    assert (last.index, last.values, str(last.where)) == (17, {"x": "c4"}, "c.jsonl:6")
    assert [row.index for row in table.rows[4:7]] == [5, 7, 8]


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": "' + "a" * 200_000 + '"}\n' * 1 + '{"x": "b"}\n')
    file = StoredFile(path, "rows.jsonl", None)
    list(file.scan())
    path.write_text('{"x": "c"}\n')
    with pytest.raises(BadData, match=r"rows\.jsonl: was changed while it was being read"):
        file.values(1)


def test_what_was_made_lately_is_bounded() -> None:
    recent: Recent[str] = Recent(budget=100_000)
    for number in range(1000):
        recent.put(number, "x", 500)
    held = [number for number in range(1000) if recent.get(number) is not None]
    assert held == list(range(1000 - len(held), 1000))
    assert 40 < len(held) < 100


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), max_size=30))
def test_records_of_a_txt_are_those_of_a_split_of_its_text(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("txt") / "rows.txt"
    text = "---\n".join(parts)
    path.write_bytes(text.encode())
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n")
    expected = [part.strip("\n") for part in plain.split("---\n") if part.strip()]
    found = [values for _, _, values in StoredFile(path, "rows.txt", "---\n").scan()]
    assert found == [{"text": part} for part in expected]


BOUND_MIB = 180
MEASURE = """\
import resource, sys
from pathlib import Path
from runner import spec
from runner.data import datasets
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
root = Path(sys.argv[1])
data = datasets.build(spec.Recipe.model_validate({
    "recipe": "r", "model": {"config": {"model_type": "qwen3"}, "tokenizer": {"train": "char", "from_data": "src"}},
    "data": {"src": {"path": sys.argv[2], "split": {"by": "key", "train": 0.9, "held_out": 0.1}},
             "qa": {"rows": "src", "prompt": "{{ key }}?", "completion": "{{ said }}", "filter": {"duplicates": True}}},
    "stages": {"s": {"kind": "sft", "data": "qa.train"}}}), root)
train = data.get("qa.train")
chars = sum(len(train.variants(position)[0].completion) for position in range(len(train)))
from runner.data import seen
seen.gather(train)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(train), chars, (after - before) // 1024)
"""


def measured(root: Path, name: str) -> tuple[int, int, int]:
    """Rows on the training side, their characters, and MiB that it took to read them all several times."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root), name], env=environment, capture_output=True, text=True, check=True
    )
    rows, chars, grown = map(int, done.stdout.split())
    return rows, chars, grown


def write_rows(path: Path, size_bytes: int) -> int:
    said, count, opener = "the quick brown fox " * 400, 0, gzip.open if path.suffix == ".gz" else open
    level = {"compresslevel": 1} if path.suffix == ".gz" else {}
    with opener(path, "wt", encoding="utf-8", **level) as file:
        while size_bytes > 0:
            line = json.dumps({"key": f"k{count}", "said": f"{count} {said}"}) + "\n"
            size_bytes -= file.write(line)
            count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("rows.jsonl", 200 << 20), ("rows.jsonl.gz", 60 << 20)])
def test_large_files_are_split_filtered_written_and_digested_without_being_held(
    tmp_path: Path, name: str, size: int
) -> None:
    count = write_rows(tmp_path / name, size)
    rows, chars, grown = measured(tmp_path, name)
    assert rows == round(0.9 * count)
    assert chars > 0.85 * size
    # three caches of at most BUDGET each; every row held in one list would be the file's size and more
    assert grown < BOUND_MIB, f"{grown} MiB for {size >> 20} MiB of rows"


def test_a_large_split_that_no_suite_asks_about_is_not_copied_into_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "WRITTEN_ROWS", 10)
    write_rows(tmp_path / "rows.jsonl", 200_000)
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": {"path": "m"},
            "data": {"src": {"path": "rows.jsonl", "split": {"by": "key", "train": 0.6, "dev": 0.2, "held_out": 0.2}}},
            "stages": {"s": {"kind": "sft", "data": "src.train"}},
            "probes": {"suite": {"file": "p.py", "cases": "src.train"}},
        }
    )
    data = datasets.build(recipe, tmp_path)
    assert [len(data.get(f"src.{side}")) for side in ("train", "dev", "held_out")] == [15, 5, 5]
    assert data.files() == ("src.dev", "src.held_out", "src.train")
