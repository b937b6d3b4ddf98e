"""The suites that ship: complete, with distinct cases and right keys, and what each probe takes for right and wrong."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runner import answers, verdicts
from runner.asking import Case, Reply, declared
from runner.errors import BadProbe
from runner.probing.cases import from_file, numbered
from runner.recipe.references import SHIPPED
from runner.starter import SUITES

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
PROBES = ROOT / "probes"
FILES = sorted(path.name for path in PROBES.glob("*.py"))


def load(file: str, folder: Path = PROBES) -> ModuleType:
    """A probe file as a module, without pytest."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, folder / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def probes() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every probe that ships, by file and name."""
    for file in FILES:
        for name, value in vars(load(file)).items():
            if declared(value) is not None:
                yield f"{file}::{name}", value


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (PROBES / "data" / name).read_text(encoding="utf-8").splitlines()]


def passes(probe: Callable[..., object], **arguments: object) -> bool:
    """Whether the assert of a probe holds, called by hand."""
    try:
        probe(**arguments)
    except AssertionError:
        return False
    return True


def test_every_file_of_the_folder_belongs_to_one_suite() -> None:
    there = sorted(
        path.relative_to(PROBES).as_posix()
        for path in PROBES.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    assert there == sorted(part for suite in SUITES.values() for part in (*suite.files, *suite.others))


def test_a_recipe_whose_suite_is_not_written_is_told_how_for_each_that_ships() -> None:
    assert {file: name for name, suite in SUITES.items() for file in suite.files} == SHIPPED


def test_the_wheel_takes_the_folder_with_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {"probes": "runner/starter/probes"}


@pytest.mark.parametrize(("name", "probe"), list(probes()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_probe_has_distinct_cases_with_ascii_ids(name: str, probe: Callable[..., object]) -> None:
    asked = declared(probe)
    assert asked is not None
    assert asked.cases is not None
    cases = from_file(PROBES, asked.cases) if isinstance(asked.cases, str) else numbered(asked.cases, name)
    assert len(cases) >= 10
    assert all(case.id.isascii() for case in cases)


def test_what_a_recipe_is_told_to_ask_is_there() -> None:
    known = [name for name, _ in probes()] + FILES
    assert [probe for suite in SUITES.values() for _, probe in suite.entries if probe not in known] == []


# --- radicals ---


def test_the_table_of_characters_is_that_of_the_demonstration() -> None:
    def table(path: Path) -> list[list[str]]:
        with path.open(encoding="utf-8", newline="") as file:
            return [row[:4] for row in csv.reader(file, delimiter="\t")]

    assert table(PROBES / "data" / "radicals.tsv") == table(ROOT / "recipes" / "data" / "zhdict.tsv")
    notice = (PROBES / "data" / "radicals_licence.md").read_text(encoding="utf-8")
    assert "version 15.0.0" in notice
    assert "Permission is hereby granted, free of charge" in notice


YU = Case("U+8BED", {"char": "语", "radical": "讠", "strokes": "9", "pinyin": "yǔ"})
HEART = Case("U+5FC3", {"char": "心", "radical": "心", "strokes": 4, "pinyin": "xīn"})


@pytest.mark.parametrize(
    ("probe", "case", "right", "wrong"),
    [
        ("test_radical", YU, ["汉字`语`的部首是`讠部`"], ["汉字`语`的部首是`讠部`。", "汉字`话`的部首是`讠部`", ""]),
        ("test_names_character", YU, ["汉字`语`的部首是`水部`"], ["汉字`话`的部首是`讠部`", ""]),
        ("test_unseen_phrasing", YU, ["讠部", "它属于`讠部`，部首是讠。"], ["水部", "部首是讠", ""]),
        ("test_reverse", YU, ["话", "`话`", "`讠部`的字有“认”", "例如：说。"], ["讠", "水", "`水`是话吗", "hua", ""]),
        ("test_reverse", HEART, ["想", "忘"], ["心", "水"]),
        ("test_strokes", YU, ["汉字`语`的笔画数是`9`"], ["汉字`语`的笔画数是`19`", "9"]),
        ("test_strokes", HEART, ["汉字`心`的笔画数是`4`"], ["汉字`心`的笔画数是`5`"]),
        ("test_strokes_names_character", YU, ["汉字`语`的笔画数是`1`"], ["9", "语"]),
        ("test_strokes_unseen_phrasing", YU, ["9", "共９画。", "语字有 9 画"], ["九", "19", "9画，不是10画", ""]),
        ("test_strokes_unseen_phrasing", HEART, ["4"], ["3"]),
        ("test_strokes_reverse", YU, ["说", "`语`"], ["一", "9", ""]),
        ("test_strokes_reverse", HEART, ["王"], ["一"]),
        ("test_pinyin", YU, ["汉字`语`的读音是`yǔ`"], ["汉字`语`的读音是`yú`", "yǔ"]),
        ("test_pinyin_names_character", YU, ["汉字`语`的读音是`x`"], ["汉字`话`的读音是`yǔ`"]),
        ("test_pinyin_unseen_phrasing", YU, ["yǔ", "Yǔ。", "读作yu\u030c"], ["yu", "yú", "雨", ""]),
        ("test_pinyin_reverse", YU, ["雨", "`语`"], ["鱼", ""]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_a_probe_of_radicals_knows_right_from_wrong(probe: str, case: Case, right: list[str], wrong: list[str]) -> None:
    function = getattr(load("test_radicals.py"), probe)
    assert [reply for reply in right if not passes(function, case=case, reply=Reply(reply))] == []
    assert [reply for reply in wrong if passes(function, case=case, reply=Reply(reply))] == []


def test_a_radical_with_one_character_may_be_answered_with_it() -> None:
    module = load("test_radicals.py")
    assert module.characters_with("radical", "韭") == {"韭"}
    assert module.names_one_with("韭", "radical", "韭")


def test_every_reverse_question_of_the_cases_has_an_answer() -> None:
    module = load("test_radicals.py")
    for case in module.CASES:
        for fact in ("radical", "strokes", "pinyin"):
            assert module.characters_with(fact, case[fact])


# --- novel rules: see test_novel_rules.py ---


@pytest.mark.parametrize(
    ("file", "control", "rule"),
    [
        ("test_novel_rules.py", "test_control", "test_follows_rule"),
        ("locked_novel_rules.py", "test_locked_control", "test_follows_locked_rule"),
    ],
)
def test_open_and_locked_rules_are_asked_and_judged_alike(file: str, control: str, rule: str) -> None:
    module = load(file)
    asked, known = declared(getattr(module, rule)), declared(getattr(module, control))
    assert asked is not None
    assert known is not None
    assert (asked.prompt, known.prompt) == ("{{ rule }}{{ question }}", "{{ control }}")
    assert asked.given is getattr(module, control)
    case = Case("c", rows("novel_rules_locked.jsonl")[0])
    assert passes(getattr(module, rule), case=case, reply=Reply(f"= {case.key[0]}"))
    assert not passes(getattr(module, rule), case=case, reply=Reply(case.control_key[0]))
    assert passes(getattr(module, control), case=case, reply=Reply(case.control_key[0]))


def test_a_locked_split_that_was_touched_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for part in ("locked_novel_rules.py", "data/novel_rules_locked.jsonl", "data/novel_rules_locked.lock"):
        (tmp_path / part).write_bytes((PROBES / part).read_bytes())
    load("locked_novel_rules.py", tmp_path)
    with (tmp_path / "data" / "novel_rules_locked.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(BadProbe) as caught:
        load("locked_novel_rules.py", tmp_path)
    assert caught.value.screen() == (
        "data/novel_rules_locked.jsonl is not what novel_rules_locked.lock locks\n"
        "    hint: bring the file back, or lock a new split: "
        "python probes/data/make_novel_rules.py --locked --seed N"
    )


# --- answers ---


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        ("8", ["8"]), ("So 5 - 4 = 1.", ["1"]), ("**8**", ["8"]), (r"\boxed{12}", ["12"]), ("８棵", ["8"]),
        ("6或8", ["8", "6"]), ("8 or 6 trees", ["6", "8"]), ("6-8", ["6", "8"]), ("No.8", ["8"]), ("-3", ["-3"]),
        ("3.5", ["3.5"]), ("10棵树，砍倒2棵，剩8棵", ["8"]),
    ],
)  # fmt: skip
def test_the_last_numbers_of_a_reply_are_its_answer(reply: str, key: list[str]) -> None:
    assert answers.says(reply, key)


@pytest.mark.parametrize(
    ("reply", "key"),
    [
        ("", ["8"]), ("eight", ["8"]), ("8, as there are 10 trees", ["8"]), ("8", ["6", "8"]), ("8 and 8", ["6", "8"]),
        ("18", ["8"]), ("8.5", ["8"]), ("-8", ["8"]), ("6", ["6", "6"]),
    ],
)  # fmt: skip
def test_anything_else_is_no_answer(reply: str, key: list[str]) -> None:
    assert not answers.says(reply, key)


def test_words_are_read_without_capitals_and_by_a_pattern() -> None:
    assert answers.says("Two Morkax!", ["morkax"], answers.WORD)
    assert answers.last("山水，水火火", "[山水火]+", 1) == ("水火火",)
    assert answers.last("nothing", answers.NUMBER) == ()


# --- repetition ---


@pytest.mark.parametrize("file", ["test_repetition.py", "test_repetition_penalised.py"])
def test_a_loop_is_recorded_and_a_reply_that_never_ends_misses(file: str) -> None:
    ((_, probe),) = ((name, probe) for name, probe in probes() if name.startswith(f"{file}::"))
    recorded: dict[str, float] = {}
    record = recorded.update
    assert passes(probe, reply=Reply("春眠不觉晓", (1, 2, 3), "eos"), record=record)
    assert (recorded["word_seq_rep_4"], recorded["never_stops"]) == (0, False)
    assert not passes(probe, reply=Reply("春风" * 20, (1, 2) * 20, "length"), record=record)
    assert recorded["seq_rep_4"] == recorded["token_seq_rep_4"] == pytest.approx(35 / 37)
    assert (recorded["looping_share"], recorded["never_stops"]) == (1, True)
    assert passes(probe, reply=Reply(""), record=record)


def test_the_two_suites_of_repetition_differ_in_the_penalty_alone() -> None:
    shipped = dict(probes())
    plain = declared(shipped["test_repetition.py::test_no_loop"])
    penalised = declared(shipped["test_repetition_penalised.py::test_no_loop_penalised"])
    assert plain is not None
    assert penalised is not None
    assert (plain.decoding.repetition_penalty, penalised.decoding.repetition_penalty) == (1, 1.2)
    assert (plain.cases, plain.prompt, plain.gate) == (penalised.cases, penalised.prompt, penalised.gate)
    assert plain.decoding.max_new_tokens == penalised.decoding.max_new_tokens
    assert {name: f(["aaaaaa", "b"]) for name, f in plain.pooled.items()} == {  # type: ignore[list-item]
        "pooled_seq_rep_4": pytest.approx(2 / 3), "pooled_distinct_2": pytest.approx(1 / 5),
    }  # fmt: skip


# --- forgetting, watched ---


def test_every_question_has_four_choices_and_one_of_them_is_right() -> None:
    for row in rows("forgetting.jsonl"):
        assert len(set(row["choices"])) == 4, row["id"]
        assert row["answer"] in row["choices"], row["id"]
        assert row["prompt"].endswith("答案：" if row["language"] == "zh" else "Answer:")


def test_the_right_choice_stands_in_every_place() -> None:
    places = [row["choices"].index(row["answer"]) for row in rows("forgetting.jsonl")]
    assert all(places.count(place) >= 10 for place in range(4))


def test_the_texts_are_in_both_languages_and_join_without_a_gap() -> None:
    texts = rows("forgetting_texts.jsonl")
    assert {row["language"] for row in texts} == {"zh", "en"}
    for row in texts:
        assert row["completion"].startswith(" ") == (row["language"] == "en"), row["id"]
        assert not row["prompt"].endswith(" "), row["id"]


def test_the_loss_of_a_text_is_recorded_per_token_and_per_character() -> None:
    recorded: dict[str, float] = {}
    reply = Reply("abcd", (1, 2), "choice", None, -4 * math.log(2))
    load("test_forgetting_texts.py").test_predicts(reply=reply, record=recorded.update)
    assert recorded == {"nll_per_token": pytest.approx(2 * math.log(2)), "bits_per_char": pytest.approx(1)}


def test_a_watched_prompt_is_pinned_where_it_has_an_answer() -> None:
    module = load("test_watched.py")
    assert [row["id"] for row in rows("watched.jsonl") if row["says"]] == module.PINNED
    case = Case("li-bai", {"says": ["701", "762"]})
    assert passes(module.test_watched, case=case, reply=Reply("李白（701—762），唐代诗人。"))
    assert not passes(module.test_watched, case=case, reply=Reply("李白（701—763）"))
    assert passes(module.test_watched, case=Case("x", {"says": ["thank"]}), reply=Reply("Thank you."))
    assert passes(module.test_watched, case=Case("x", {"says": []}), reply=Reply("anything"))


# --- asked ---


def test_every_suite_can_be_asked_of_any_checkpoint(pytester: pytest.Pytester, tiny_checkpoint: Path) -> None:
    """Whatever a checkpoint of nonsense says: every case gets an answer, and none an error."""
    pytester.makeini("[pytest]\n")
    for asked, only in (
        (PROBES, "not U+"),
        (PROBES / "test_radicals.py", "U+5"),
        (PROBES / "locked_novel_rules.py", ""),
    ):
        written = pytester.path / "verdicts.jsonl"
        pytester.runpytest_inprocess(
            asked, "--import-mode=importlib", "--ckpt", tiny_checkpoint, "-q", "--tb=no", "-k", only,
            "--probe-verdicts", written,
        )  # fmt: skip
        found = verdicts.read(written).verdicts
        assert [verdict.reason for verdict in found if verdict.outcome == "error"] == []
        files = (
            {path.name for path in PROBES.glob("test_*.py")} - {"test_radicals.py"} if asked == PROBES else {asked.name}
        )
        assert {Path(verdict.probe.partition("::")[0]).name for verdict in found} == files
