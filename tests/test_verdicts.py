"""runner.verdicts: the files verdicts are kept in."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import verdicts
from runner.errors import UserError
from runner.verdicts import SuiteAsked, Verdict, VerdictFile

SUITE = SuiteAsked("held_out", "k1", ("probes/t.py::test",), {"min_pass_rate": 0.9}, 1, 0.25)
VERDICT = Verdict("held_out", "probes/t.py::test", "U+5FC3", "miss", "水部", "assert '水部' == '心部'", ckpt="qa@4")
FILE = VerdictFile("qa@4", "ab" * 32, (SUITE,), (VERDICT,))


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def screen(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        verdicts.read(path)
    return caught.value.screen().replace(str(path), "v.jsonl")


EXPECTED = "\n    expected: JSON lines as written by recipe run or pytest --probe-verdicts"


# A high surrogate before a low one is JSON's spelling of one character, and comes back as that character.
text = st.text(st.characters(exclude_categories=()) | st.sampled_from("\u2028\u2029\x1b\r\n\x00\udc80")).map(
    lambda words: "".join(char for char in words if not "\ud800" <= char <= "\udbff")
)
number = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)
one_verdict = st.builds(
    Verdict, text, text, text, st.sampled_from(["pass", "miss", "error", "not_asked"]), text, text,
    st.dictionaries(text, number, max_size=2), text, text, text,
    st.dictionaries(text, number | text | st.lists(text, max_size=2) | st.none(), max_size=3),
    st.integers(0, 9999), st.none() | number,
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(one_verdict, max_size=3), text)
def test_whatever_a_model_says_comes_back_as_it_was_written(tmp_path: Path, found: list[Verdict], words: str) -> None:
    file = VerdictFile(words, "ab", (SUITE,), tuple(found))
    verdicts.write(tmp_path / "v.jsonl", file)
    assert verdicts.read(tmp_path / "v.jsonl") == file


@pytest.mark.parametrize("said", ["\udc80 and 心", "a\u2028b\u2029c\x85d", "\x1b[31m\r\n\x00", "😀"])
def test_odd_characters_stay_in_one_line_of_valid_utf8(tmp_path: Path, said: str) -> None:
    path = tmp_path / "v.jsonl"
    verdicts.write(path, VerdictFile("qa@4", "ab", (), (Verdict("s", "p", "c", "pass", said),)))
    assert path.read_bytes().decode("utf-8").count("\n") == 2
    assert verdicts.read(path).verdicts[0].reply == said


def test_a_recorded_number_may_be_nan_or_infinite(tmp_path: Path) -> None:
    odd = Verdict("s", "p", "c", "pass", values={"a": math.nan, "b": -math.inf}, margin=math.inf)
    verdicts.write(tmp_path / "v.jsonl", VerdictFile("qa@4", "ab", (), (odd,)))
    (found,) = verdicts.read(tmp_path / "v.jsonl").verdicts
    assert math.isnan(found.values["a"])
    assert (found.values["b"], found.margin) == (-math.inf, math.inf)


def test_the_file_says_what_it_is_then_its_suites_then_its_verdicts(tmp_path: Path) -> None:
    verdicts.write(tmp_path / "probes" / "ckpt-4.jsonl", FILE)
    head, suite, verdict = rows(tmp_path / "probes" / "ckpt-4.jsonl")
    assert head == {"format_version": 2, "kind": "verdicts", "ckpt": "qa@4", "weights_sha256": "ab" * 32}
    assert (suite["kind"], suite["suite"], suite["cases"]) == ("suite", "held_out", 1)
    assert (verdict["kind"], verdict["case_id"], verdict["reply"]) == ("verdict", "U+5FC3", "水部")


def test_writing_leaves_no_temporary_file(tmp_path: Path) -> None:
    verdicts.write(tmp_path / "v.jsonl", FILE)
    assert [path.name for path in tmp_path.iterdir()] == ["v.jsonl"]


def test_half_a_line_at_the_end_is_damage_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    verdicts.write(path, FILE)
    path.write_bytes(path.read_bytes()[:-30])
    assert screen(path).startswith("v.jsonl:3: not a readable verdict file (JSONDecodeError: ")
    assert screen(path).endswith(EXPECTED)


def test_a_row_without_a_field_is_damage_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    verdicts.write(path, FILE)
    head, suite, verdict = rows(path)
    del verdict["case_id"]
    path.write_text("\n".join(json.dumps(row) for row in (head, suite, verdict)) + "\n", encoding="utf-8")
    assert screen(path) == (
        "v.jsonl:3: not a readable verdict file (TypeError: Verdict.__init__() missing 1 required positional argument: "
        "'case_id')" + EXPECTED
    )


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b"3\n", b'{"a": 1}\n', b"\xff\xfe\n", b"id\tchar\n"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.jsonl").write_bytes(content)
    assert "not a readable verdict file (" in screen(tmp_path / "v.jsonl")
    assert screen(tmp_path / "v.jsonl").endswith(EXPECTED)


def test_a_file_without_its_first_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    verdicts.write(path, FILE)
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    assert screen(path) == "v.jsonl:1: not a verdict file: its first row does not say so"


def test_a_first_row_that_does_not_name_its_weights_is_damage(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text('{"format_version": 2, "kind": "verdicts", "ckpt": "qa@4"}\n', encoding="utf-8")
    assert screen(tmp_path / "v.jsonl") == (
        "v.jsonl:1: not a readable verdict file (KeyError: 'weights_sha256')" + EXPECTED
    )


def test_a_newer_format_is_named_whatever_else_it_holds(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text(
        '{"format_version": 3, "kind": "verdicts"}\n{"kind": "verdict"}\n', encoding="utf-8"
    )
    assert screen(tmp_path / "v.jsonl") == (
        "v.jsonl:1: this verdict file has format 3, this version reads up to 2\n"
        "    hint: read it with a newer version of recipe-runner"
    )


def test_newer_verdicts_replace_those_of_the_same_suites_only() -> None:
    loops = SuiteAsked("loops", "k", ("p",), None, 1)
    before = VerdictFile("qa@4", "ab", (SUITE, loops), (VERDICT, Verdict("loops", "p", "c", "pass")))
    passed = Verdict("held_out", "probes/t.py::test", "U+5FC3", "pass")
    after = before.replaced_by(VerdictFile("qa@4", "ab", (SUITE,), (passed,)))
    assert [asked.suite for asked in after.suites] == ["loops", "held_out"]
    assert after.of("held_out") == (passed,)
    assert after.of("loops") == (Verdict("loops", "p", "c", "pass"),)
    assert after.asked("rules") is None
