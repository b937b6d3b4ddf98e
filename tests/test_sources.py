"""Reading data files: every format gives the same rows, and every fault has a file and a line."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest

from runner import spec
from runner.data import sources
from runner.errors import BadData

ROWS = [{"char": "语", "note": "a`b\u2028c"}, {"char": "鱼", "note": " two  spaces "}]


def written(kind: str) -> bytes:
    if kind == "tsv":
        lines = ["char\tnote", *("\t".join(row.values()) for row in ROWS)]
        return ("\n".join(lines) + "\n").encode()
    if kind == "csv":
        lines = ["char,note", *(f'{row["char"]},"{row["note"]}"' for row in ROWS)]
        return ("\n".join(lines) + "\n").encode()
    if kind == "json":
        return json.dumps(ROWS, ensure_ascii=False, indent=1).encode()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def read(root: Path, **block: object) -> sources.Table:
    return sources.read(spec.Data(**block), "chars", root)  # type: ignore[arg-type]


def failure(root: Path, content: bytes, name: str = "rows.tsv", **block: object) -> str:
    (root / name).write_bytes(content)
    with pytest.raises(BadData) as caught:
        read(root, path=name, **block)
    return caught.value.screen()


@pytest.mark.parametrize("kind", ["tsv", "csv", "json", "jsonl"])
@pytest.mark.parametrize("compress", [None, "gz", "xz"])
def test_every_format_gives_the_same_rows_plain_and_compressed(tmp_path: Path, kind: str, compress: str | None) -> None:
    content = written(kind)
    name = f"rows.{kind}" + (f".{compress}" if compress else "")
    pack = {None: bytes, "gz": gzip.compress, "xz": lzma.compress}[compress]
    (tmp_path / name).write_bytes(pack(content))
    table = read(tmp_path, path=name)
    assert [dict(row.values) for row in table.rows] == ROWS
    assert table.columns == ("char", "note") == sources.head(spec.Data(path=name), "chars", tmp_path)


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    table = read(tmp_path, path="rows.parquet")
    assert [dict(row.values) for row in table.rows] == ROWS
    assert sources.head(spec.Data(path="rows.parquet"), "chars", tmp_path) == ("char", "note")


def test_a_byte_order_mark_and_crlf_are_taken_off(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_bytes(b"\xef\xbb\xbfchar\tnote\r\n" + "语\tx\r\n\r\n".encode())
    assert [dict(row.values) for row in read(tmp_path, path="rows.tsv").rows] == [{"char": "语", "note": "x"}]


def test_a_quoted_csv_value_may_hold_line_breaks_and_rows_keep_their_line(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('a,b\n1,"x\ny"\n2,z\n', newline="")
    table = read(tmp_path, path="rows.csv")
    assert [(row.line, row.values["b"]) for row in table.rows] == [(2, "x\ny"), (4, "z")]


def test_txt_is_cut_at_its_separator_and_rows_keep_their_line(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("one\ntwo\n\n\n\nthree\n")
    table = read(tmp_path, path="rows.txt", separator="\n\n")
    assert [(row.line, row.values["text"]) for row in table.rows] == [(1, "one\ntwo"), (6, "three")]
    assert [row.values["text"] for row in read(tmp_path, path="rows.txt").rows] == ["one", "two", "three"]


def test_a_glob_reads_its_files_in_sorted_order_and_take_stops_early(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"x": "{name}1"}}\n{{"x": "{name}2"}}\n')
    assert [row.values["x"] for row in read(tmp_path, path="*.jsonl", take=3).rows] == ["a1", "a2", "b1"]
    assert [row.file for row in read(tmp_path, path="*.jsonl").rows] == ["a.jsonl"] * 2 + ["b.jsonl"] * 2


def test_a_column_can_be_used_as_a_field_and_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    table = read(tmp_path, path="rows.jsonl", columns={"prompt": "instruction"})
    assert dict(table.rows[0].values) == {"instruction": "q", "output": "a", "prompt": "q"}
    assert table.columns == ("instruction", "output", "prompt")


@pytest.mark.parametrize(
    ("name", "content", "screen"),
    [
        ("r.tsv", b"a\tb\n1\t2\n3\n", "r.tsv:3: 1 values, but the header has 2 columns\n    expected: a, b"),
        ("r.csv", b"a,b\n1,2,3\n", "r.csv:2: 3 values, but the header has 2 columns\n    expected: a, b"),
        ("r.csv", b'a,b\n1,"2\n', "r.csv:2: not CSV: unexpected end of data"),
        ("r.tsv", b"a\ta\n1\t2\n", "r.tsv:1: two columns are named 'a'\n    expected: a header of distinct names"),
        ("r.jsonl", b'{"a": 1}\n{"a": }\n', "r.jsonl:2:7: not JSON: Expecting value"),
        ("r.jsonl", b'{"a": NaN}\n', "r.jsonl:1: not JSON: NaN is no JSON value"),
        ("r.jsonl", b'{"a": 1} {"b": 2}\n', "r.jsonl:1:9: not JSON: more text after the object"),
        ("r.jsonl", b'{"a": "\\ud800"}\n', "r.jsonl:1: half of a \\u surrogate pair, which is no character"),
        ("r.json", b'[{"a": 1},\n {"a": 2}\n {"a": 3}]', "r.json:3: not JSON: Expecting ',' or ']'"),
        ("r.json", b'[{"a": 1},\n {"a": \n}]', "r.json:3:1: not JSON: Expecting value"),
        ("r.tsv", b"", "data.chars: r.tsv has no rows\n    expected: at least one row"),
        ("r.tsv", b"a\tb\n", "data.chars: r.tsv has no rows\n    expected: at least one row"),
        ("r.json", b"[]", "data.chars: r.json has no rows\n    expected: at least one row"),
        ("r.txt", b"\n \n", "data.chars: r.txt has no rows\n    expected: at least one row"),
    ],
)
def test_a_bad_file_is_shown_with_its_line(tmp_path: Path, name: str, content: bytes, screen: str) -> None:
    assert failure(tmp_path, content, name) == screen


def test_bytes_that_are_not_utf8_are_shown_with_line_and_column(tmp_path: Path) -> None:
    screen = failure(tmp_path, "char\n语言".encode() + "汉".encode("gb18030") + b"\n")
    assert screen.startswith("rows.tsv:2:3: byte 0xba is not UTF-8")
    assert "iconv -f GB18030" in screen


def test_a_file_in_utf16_is_named_as_such(tmp_path: Path) -> None:
    assert "iconv -f UTF-16" in failure(tmp_path, "char\n".encode("utf-16-le"))


@pytest.mark.parametrize("name", ["rows.tsv.gz", "rows.tsv.xz", "rows.parquet"])
def test_a_broken_archive_is_an_error_of_the_file(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    assert failure(tmp_path, b"no such thing", name).startswith(f"{name}: ")


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "zhdict.tsv").write_text("a\n1\n")
    with pytest.raises(BadData) as caught:
        sources.head(spec.Data(path="zhdcit.tsv"), "chars", tmp_path)
    assert caught.value.screen() == "data.chars: there is no file zhdcit.tsv\n    hint: did you mean zhdict.tsv?"


def test_an_unknown_extension_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.doc").write_text("x")
    for path, words in (("rows.doc", "of no known format"), (".", "is a folder"), ("*.tsv", "no file matches")):
        with pytest.raises(BadData, match=words):
            sources.find(spec.Data(path=path), "chars", tmp_path)


def test_a_column_that_is_not_there_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    screen = failure(tmp_path, b"instruction\toutput\nq\ta\n", columns={"prompt": "instructions"})
    assert "which rows.tsv does not have" in screen
    assert "did you mean 'instruction'?" in screen
