"""recipe new --from-data: a look at a file of rows, and a recipe with its suite that run as they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import starter
from runner.check import load_checked
from runner.data import datasets
from runner.errors import UserError
from runner.preparation import Prepared
from runner.recipe import Loaded
from tests.screens import lines
from tests.test_starter import new
from tests.tiny_project import recipe as run_recipe

ROWS = 30


def conversation(asked: str, said: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


ROW: dict[str, Callable[[int], dict[str, Any]]] = {
    "alpaca": lambda i: {"instruction": f"Add {i} and 3.", "input": "" if i % 2 else "Quickly!", "output": str(i + 3)},
    "alpaca_history": lambda i: {
        "instruction": f"Add {i} and 3.", "input": "", "output": str(i + 3), "history": [["hi", "hello"]] * (i % 2),
    },
    "sharegpt": lambda i: {
        "conversations": [{"from": "human", "value": f"今天{i}号吗？"}, {"from": "gpt", "value": f"是的，{i}号。" * 9}]
    },
    "messages": lambda i: {"messages": conversation("hello", "hi") + conversation(f"and {i}?", "no")},
    "preference": lambda i: {"prompt": f"colour of {i}?", "chosen": f"red {i}", "rejected": "blue"},
    "preferred_turns": lambda i: {
        "chosen": conversation(f"colour of {i}?", "red"), "rejected": conversation(f"colour of {i}?", "blue"),
    },
    "preferred_texts": lambda i: {"chosen": f"A good text about {i}.", "rejected": f"bad {i}"},
    "several_rejected": lambda i: {"prompt": f"colour of {i}?", "chosen": f"red {i}", "rejected": ["blue", "green"]},
    "completion": lambda i: {"id": f"n{i}", "prompt": f"capital of {i}?", "completion": f"City{i}"},
    "text": lambda i: {"text": f"Story {i}. " + "Once upon a time there was a fox. " * (i % 7 + 1)},
    "named": lambda i: {"来源": "书", "问题": f"第{i}个字是什么？", "答案": f"字{i}"},
    "classes": lambda i: {"text": f"film {i} was {'good' if i % 2 else 'bad'}", "label": i % 2},
    "unknown": lambda i: {"the sign": f"s{i}", "its part": f"p{i % 9}", "n": i},
}  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def proposed(folder: Path, file: Path, name: str = "mine") -> tuple[starter.Look, starter.Proposal, Loaded]:
    found = starter.look(str(file))
    proposal = starter.propose(found)
    written = starter.write_from_data(name, found, proposal, folder)
    return found, proposal, load_checked(written[0])


@pytest.mark.parametrize(
    ("kind", "stages", "suites"),
    [
        ("alpaca", {"answer": "sft"}, ["seen", "held_out"]),
        ("alpaca_history", {"answer": "sft"}, ["seen", "held_out"]),
        ("sharegpt", {"answer": "sft"}, ["replies", "predicts"]),
        ("messages", {"answer": "sft"}, ["seen", "held_out"]),
        ("preference", {"answer": "sft", "prefer": "dpo"}, ["seen", "held_out"]),
        ("preferred_turns", {"answer": "sft", "prefer": "dpo"}, ["seen", "held_out"]),
        ("preferred_texts", {"read": "pretrain", "prefer": "dpo"}, ["replies", "predicts"]),
        ("several_rejected", {"answer": "sft", "prefer": "dpo"}, ["seen", "held_out"]),
        ("completion", {"answer": "sft"}, ["seen", "held_out"]),
        ("text", {"read": "pretrain"}, ["replies", "predicts"]),
        ("named", {"answer": "sft"}, ["seen", "held_out"]),
        ("classes", {"answer": "sft"}, ["seen", "held_out"]),
        ("unknown", {"answer": "sft"}, ["seen", "held_out"]),
    ],
)
def test_a_recipe_for_every_format_passes_every_check_and_its_rows_can_be_learned_and_asked(
    tmp_path: Path, kind: str, stages: dict[str, str], suites: list[str]
) -> None:
    file = write(tmp_path / "rows.jsonl", [ROW[kind](i) for i in range(ROWS)])
    _, _, loaded = proposed(tmp_path, file)
    assert {name: stage.kind for name, stage in loaded.spec.stages.items()} == stages
    assert list(loaded.spec.probes) == suites
    prepared = Prepared(loaded, tmp_path / "run")
    assert all(arithmetic.total_steps > 1 for arithmetic in prepared.arithmetic.values())
    data = datasets.build(loaded.spec, loaded.root)
    for suite in loaded.spec.probes.values():
        cases = data.get(suite.cases or "").cases()
        assert all({"messages", "prompt", "text"} & case.keys() for case in cases)
        assert len({type(case.get("messages")) for case in cases}) == 1  # all are asked in the same way


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "list.json", "rows.jsonl.gz", "rows.parquet", "lines.txt"])
def test_every_kind_of_file_that_a_recipe_reads_can_be_looked_at(tmp_path: Path, name: str) -> None:
    rows = [{"word": f"w{i}", "colour": f"colour {i % 5}"} for i in range(ROWS)]
    path = tmp_path / name
    if name.startswith("table"):
        mark = "," if name.endswith("csv") else "\t"
        path.write_text(
            "".join(mark.join(row) + "\n" for row in [("word", "colour"), *map(dict.values, rows)]), "utf-8"
        )
    elif name.endswith("json"):
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif name.endswith("parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    elif name.endswith("txt"):
        path.write_text("".join(f"{row['word']} is {row['colour']}\n" for row in rows), encoding="utf-8")
    else:
        write(path, rows)
    found, _, loaded = proposed(tmp_path, path)
    assert found.rows == ROWS
    assert loaded.spec.data["rows"].path == name  # from the project's root


def test_the_look_says_what_was_found_and_what_is_made_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"问题": f"{i}加1是多少?", "答案": str(i + 1) if i else ""} for i in range(20)]
    file = write(tmp_path / "rows.jsonl", [*rows, rows[3]])
    with file.open("a", encoding="utf-8") as more:
        more.write('{"问题": "never ends\n')
    monkeypatch.chdir(tmp_path)
    found = starter.look("rows.jsonl")
    assert lines(starter.found_screen(found, starter.propose(found)), 100) == [
        "rows.jsonl: 21 rows",
        "column  holds  filled  different  characters  95 %  longest",
        "问题    text    100 %         20           7     8        8",
        "答案    text     95 %         19           2     2        2",
        "",
        "left out    1 that cannot be used",
        "            rows.jsonl:22:8: not JSON: a string that begins here does not end",
        "empty       1 with an empty text; left out too",
        "duplicates  1",
        "letters     Han 100 %; 15 different characters",
        "read as     问题 as prompt, 答案 as completion (by their names)",
        "split by    prompt: 20 different ones in 21 rows: the same question never stands on two sides",
        "learned by  sft; asked for the right answer, to the letter",
    ]


def test_the_same_question_is_never_on_two_sides_and_where_none_comes_twice_a_short_column_names_the_cases(
    tmp_path: Path,
) -> None:
    rows = [{"id": f"r{i}", "question": f"what is {i}?", "answer": str(i)} for i in range(ROWS)]
    unique = starter.propose(starter.look(str(write(tmp_path / "unique.jsonl", rows))))
    assert (unique.key.name, unique.key.why) == ("id", "different in every row, and short: id names the cases")
    twice = [*rows, {"id": "again", "question": "what is 3?", "answer": "three"}]
    repeated = starter.propose(starter.look(str(write(tmp_path / "twice.jsonl", twice))))
    assert repeated.key.name == "prompt"


def test_of_many_rows_a_hundred_are_held_out_and_the_run_stays_short(tmp_path: Path) -> None:
    rows = [{"question": f"what is the name of number {i}?", "answer": f"number {i}"} for i in range(4000)]
    found, proposal, loaded = proposed(tmp_path, write(tmp_path / "rows.jsonl", rows))
    data = datasets.build(loaded.spec, loaded.root)
    assert (found.rows, len(data.get("answers.held_out")), len(data.get("seen"))) == (4000, 100, 50)
    assert proposal.training.steps < 1000


def test_a_recipe_says_what_is_a_guess_and_names_its_schema(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", [ROW["unknown"](i) for i in range(ROWS)])
    proposed(tmp_path, file)
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    assert 'columns: {prompt: "the sign", completion: "its part"}    # a guess: the two columns that vary most' in text
    assert (tmp_path / "recipe.schema.json").is_file()


def test_columns_with_strange_names_are_quoted_and_no_template_in_a_name_is_run(tmp_path: Path) -> None:
    asked, said = 'a "{{ 7 * 7 }}"\n# column', "b: {% raise %}"
    file = write(tmp_path / "rows.jsonl", [{asked: f"question {i}", said: str(i)} for i in range(ROWS)])
    _, _, loaded = proposed(tmp_path, file)
    assert loaded.spec.data["rows"].columns == {"prompt": asked, "completion": said}


def test_the_command_names_the_recipe_after_the_file_asks_nothing_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "my rows.jsonl", [ROW["completion"](i) for i in range(ROWS)])
    assert new(tmp_path, monkeypatch, "--from-data", "my rows.jsonl") == 0
    assert capsys.readouterr().out.endswith(
        "\n\nwrote my_rows.yaml\nwrote probes/test_my_rows.py\nwrote recipe.schema.json\n"
        "\nnow:  recipe run my_rows.yaml\n"
    )
    before = (tmp_path / "my_rows.yaml").read_bytes()
    assert new(tmp_path, monkeypatch, "--from-data", "my rows.jsonl") == 2
    assert capsys.readouterr().err == (
        f"{tmp_path / 'my_rows.yaml'} is there already\n    hint: choose another name; nothing was written\n"
    )
    assert new(tmp_path, monkeypatch, "--from-data", "my rows.jsonl", "other", "--suites", "watched") == 0
    assert load_checked(tmp_path / "other.yaml").spec.recipe == "other"
    assert (tmp_path / "my_rows.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "text", "screen"),
    [
        ("rows.jsonl", "", "data.rows: rows.jsonl has no rows\n    expected: at least one row"),
        ("gone.jsonl", None, "gone.jsonl: no such file\n    expected: a file of rows"),
        (
            "rows.docx", "x",
            "rows.docx is of no known format\n"
            "    expected: one of .tsv, .csv, .json, .jsonl, .txt, .parquet; plain, .gz or .xz",
        ),
        (
            "rows.jsonl", '{"a": [1], "b": {"c": 2}}\n' * 9,
            "rows.jsonl has no column of texts that could be learned: a (list), b (map)\n"
            "    expected: a column of texts, or two, such as question and answer; or alpaca, sharegpt, messages, "
            "preference",
        ),
        (
            "rows.jsonl", '{"question": "q", "answer": "a"}\n{"question\n{"question": "r", "answer": "b"}\nnone\n',
            "rows.jsonl: 2 of 4 rows cannot be read; the first of them:\n\n"
            "rows.jsonl:2:2: not JSON: a string that begins here does not end\n\n"
            "rows.jsonl:4:1: not JSON: Expecting value",
        ),
        (
            "rows.jsonl", '{"messages": [{"role": "user", "content": "hello"}]}\n' * 9,
            "rows.jsonl: 9 of 9 rows cannot be read; the first of them:\n\n"
            + "\n\n".join(
                f"rows.jsonl:{line}: messages: the assistant says nothing; expected a turn of the assistant, to be "
                "learned (format: messages)"
                for line in (1, 2, 3)
            ),
        ),
        (
            "rows.jsonl", '{"question": "q", "answer": "a"}\n',
            "rows.jsonl has 1 row that can be used\n"
            "    expected: at least 5: some are learned, and some are held out to ask about",
        ),
        (
            "rows.jsonl", '{"question": "q", "answer": "a"}\n' * 9,
            "rows.jsonl: nothing tells its rows apart: what is asked is empty somewhere, or nearly always the same\n"
            "    expected: a column with at least 5 different values, in every row",
        ),
        (
            "1.jsonl", "{}\n",
            "no name of a recipe can be made of 1.jsonl\n"
            "    expected: a letter, then letters, digits, _ and -\n"
            "    hint: give one: recipe new NAME --from-data 1.jsonl",
        ),
    ],
)  # fmt: skip
def test_a_file_that_no_recipe_can_be_made_of_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, text: str | None,
    screen: str,
) -> None:  # fmt: skip
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert new(tmp_path, monkeypatch, "--from-data", name) == 2
    assert capsys.readouterr().err == screen + "\n"
    assert [path.name for path in tmp_path.iterdir()] == [name] * (text is not None)


def test_what_is_written_runs_as_it_is(tmp_path: Path) -> None:
    rows = [{"question": f"{i} plus 1?", "answer": str(i + 1)} for i in range(12)]
    write(tmp_path / "sums.jsonl", rows)
    assert run_recipe(tmp_path, "new", "--from-data", "sums.jsonl").code == 0
    short = ("--set", "stages.answer.num_train_epochs=4", "--set", "stages.answer.save_strategy=no")
    done = run_recipe(tmp_path, "run", "sums.yaml", *short)
    assert done.code == 0, done.screen
    assert "held_out" in done.screen


def test_a_look_reads_only_so_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter.looking, "LOOKED_AT", 10)
    found = starter.look(str(write(tmp_path / "rows.jsonl", [ROW["completion"](i) for i in range(ROWS)])))
    assert (found.rows, found.more) == (10, True)


def test_a_name_that_cannot_be_a_recipe_s_is_refused() -> None:
    assert starter.name_of("data/my-rows.v2.jsonl.gz") == "my-rows_v2"
    with pytest.raises(UserError, match="no name of a recipe can be made of 汉字.jsonl"):
        starter.name_of("汉字.jsonl")
