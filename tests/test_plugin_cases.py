"""Cases of every source, and what is wrong with some, in real sessions."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from runner.verdicts import VerdictFile
from tests.probe_project import PROBE, ask, verdicts_of, write

pytest_plugins = ["pytester"]

ROWS: list[dict[str, Any]] = [{"id": f"c{number}", "q": text, "n": str(number)} for number, text in enumerate("心水木")]
FROM_FILE = """
from runner import probe

@probe(cases="data/cases.KIND", prompt="{{ q }}{{ n }}", max_new_tokens=2)
def test_it(case, reply): assert case.n != "1"
"""


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict[str, Any]], separator: str) -> bytes:
    lines = [list(rows[0]), *(row.values() for row in rows)]
    return "".join(separator.join(map(str, line)) + "\n" for line in lines).encode()


def save(project: pytest.Pytester, name: str, content: bytes) -> Path:
    path = project.path / "probes" / "data" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def outcomes(file: VerdictFile, suite: str = "test_it") -> list[tuple[str, str]]:
    return [(verdict.case_id, verdict.outcome) for verdict in file.of(suite)]


EXPECTED = [("c0", "pass"), ("c1", "miss"), ("c2", "pass")]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("jsonl", jsonl(ROWS)),
        ("json", json.dumps(ROWS).encode()),
        ("tsv", table(ROWS, "\t")),
        ("csv", table(ROWS, ",")),
        ("jsonl.gz", gzip.compress(jsonl(ROWS))),
    ],
    ids=["jsonl", "json", "tsv", "csv", "gz"],
)
def test_cases_are_read_from_a_file(project: pytest.Pytester, tiny_checkpoint: Path, kind: str, content: bytes) -> None:
    save(project, f"cases.{kind}", content)
    file = verdicts_of(project, tiny_checkpoint, FROM_FILE.replace("KIND", kind))
    assert outcomes(file) == EXPECTED
    assert [verdict.prompt for verdict in file.verdicts] == ["心0", "水1", "木2"]


def test_cases_are_read_from_parquet_with_their_types(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    rows = [{**row, "n": number, "tags": ["a"], "absent": None} for number, row in enumerate(ROWS)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), save(project, "cases.parquet", b""))
    probe = FROM_FILE.replace("KIND", "parquet").replace('case.n != "1"', 'case.n != 1 and case.tags == ["a"]')
    assert outcomes(verdicts_of(project, tiny_checkpoint, probe)) == EXPECTED


def test_a_glob_reads_many_files(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    save(project, "cases.a.jsonl", jsonl(ROWS[:2]))
    save(project, "cases.b.jsonl", jsonl(ROWS[2:]))
    assert outcomes(verdicts_of(project, tiny_checkpoint, FROM_FILE.replace("KIND", "*.jsonl"))) == EXPECTED


@pytest.mark.parametrize(
    "cases",
    [
        '[{"id": f"c{n}", "q": "心", "n": str(n)} for n in range(3)]',
        '({"id": f"c{n}", "q": "心", "n": str(n)} for n in range(3))',
        'map(lambda n: {"id": f"c{n}", "q": "心", "n": str(n)}, range(3))',
        '{n: {"id": f"c{n}", "q": "心", "n": str(n)} for n in range(3)}.values()',
    ],
    ids=["list", "generator", "map", "view"],
)
def test_cases_are_any_iterable_of_rows(project: pytest.Pytester, tiny_checkpoint: Path, cases: str) -> None:
    assert outcomes(verdicts_of(project, tiny_checkpoint, FROM_FILE.replace('"data/cases.KIND"', cases))) == EXPECTED


def test_ids_that_are_numbers_or_chinese_are_written_in_ascii(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    cases = '[{"id": 7, "q": "a", "n": "1"}, {"id": 0.5, "q": "b", "n": "2"}, {"id": "心 水", "q": "c", "n": "3"}]'
    file = verdicts_of(project, tiny_checkpoint, FROM_FILE.replace('"data/cases.KIND"', cases))
    assert outcomes(file) == [("7", "miss"), ("0.5", "pass"), ("U+5FC3_U+0020_U+6C34", "pass")]


def test_one_row_without_a_value_is_an_error_of_its_own(project: pytest.Pytester, tiny_checkpoint: Path) -> None:
    cases = '[{"q": "a", "n": "0"}, {"q": None, "n": "3"}, {"q": float("nan"), "n": "2"}, {"n": "4"}]'
    file = verdicts_of(project, tiny_checkpoint, FROM_FILE.replace('"data/cases.KIND"', cases) + "\n" + PROBE)
    reasons = [verdict.reason.partition(": ")[2] for verdict in file.of("test_it")]
    assert reasons == [
        "", "'q' has no value there (None)", "'q' has no value there (nan)", "'q' is undefined; the case has n",
    ]  # fmt: skip
    assert [verdict.outcome for verdict in file.of("test_it")] == ["pass", "error", "error", "error"]
    assert [verdict.outcome for verdict in file.of("test_not_water")] == ["pass", "miss", "pass"]


@pytest.mark.parametrize(
    ("cases", "screen"),
    [
        (
            "(row for row in [])",
            [
                "{file}: there are no cases",
                "    expected: at least one row",
                "    hint: a generator gives its rows once: make it a list where two probes share it",
            ],
        ),
        ('[{"id": ["a"], "q": 1}]', ["{file}: row 1: the id ['a'] is of type list", "    expected: text or a number"]),
        (
            '[{"id": "心"}, {"id": "U+5FC3"}]',
            ["{file}: rows 1 and 2 share the id U+5FC3", "    expected: distinct cases"],
        ),
        (
            '"data/case.jsonl"',
            ["cases: there is no file data/case.jsonl", "    hint: did you mean data/cases.jsonl?"],
        ),
        ('"data/bad.jsonl"', ["data/bad.jsonl:1:2: cases: not JSON: *"]),
    ],
    ids=["none", "list", "same", "name", "broken"],
)
def test_cases_that_cannot_be_asked_are_named_and_other_suites_go_on(
    project: pytest.Pytester, tiny_checkpoint: Path, cases: str, screen: list[str]
) -> None:
    save(project, "cases.jsonl", jsonl(ROWS))
    save(project, "bad.jsonl", b"{\n")
    write(project, FROM_FILE.replace('"data/cases.KIND"', cases) + "\n" + PROBE)
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    result.assert_outcomes(passed=2, failed=1, errors=1)
    file = str(project.path / "probes" / "test_p.py")
    result.stdout.fnmatch_lines([line.replace("{file}", file).replace("[", "[[]") for line in screen], consecutive=True)


def test_a_probe_without_cases_that_no_suite_names_is_said_to_be_asked_nothing(
    project: pytest.Pytester, tiny_checkpoint: Path
) -> None:
    write(project, 'from runner import probe\n\n@probe(prompt="{{ q }}")\ndef test_it(case, reply): pass\n')
    result = ask(project, "probes", "--ckpt", tiny_checkpoint)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(
        ["test_*.py::test_it is not asked: it has no cases of its own, and no recipe's suite *"]
    )
