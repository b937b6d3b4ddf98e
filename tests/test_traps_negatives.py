"""The trap of negatives, from real projects: ways in which a negative was none, and what is said of them."""

from __future__ import annotations

import locale
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from runner import underway
from runner.data import candidates, chat, negative_files, tokens
from runner.data.negatives import Fact, Truth
from runner.data.pairs import Pair, Preferences
from runner.data.rejecting import prompts_of
from runner.data.texts import Message
from runner.data.tokens import PairTokens
from runner.errors import BadData
from tests.chats import trained
from tests.test_pairs import build, preferences

Rows = list[dict[str, Any]]
QUESTION = {"prompt": "汉字`{{ char }}`的部首是什么？", "completion": "汉字`{{ char }}`的部首是`{{ radical }}部`"}
ROWS = [
    {"char": "恙", "radical": "心", "wrong": "汉字`恙`的部首是`None部`"},
    {"char": "歆", "radical": "欠", "wrong": "汉字`歆`的部首是`['心', '欠']部`"},
    {"char": "松", "radical": "木", "wrong": "汉字`柏`的部首是`木部`"},  # true, and about another row
    {"char": "柏", "radical": "木", "wrong": "汉字`柏`的部首是`木部`"},  # right
    {"char": "江", "radical": "水", "wrong": "汉字`江`的部首是`木部`"},
]


def test_generated_negatives_contained_none_list_reprs_and_true_facts_about_another_row(tmp_path: Path) -> None:
    found = preferences(tmp_path, ROWS, **QUESTION, rejected="{{ wrong }}")
    assert [pair.rejected for pair in found.pairs] == ["汉字`江`的部首是`木部`"]
    assert found.dropped == {"unwritten": 2, "true": 1, "chosen": 1}
    assert found.without == 4


def test_so_they_are_in_a_file_of_pairs_that_another_script_has_written(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"汉字`{row['char']}`的部首是什么？", "chosen": f"汉字`{row['char']}`的部首是`{row['radical']}部`",
         "rejected": row["wrong"]}
        for row in ROWS
    ]  # fmt: skip
    found = build(tmp_path, rows).get("chars").preferences()
    assert found.dropped == {"unwritten": 2, "true": 1, "chosen": 1}
    assert [pair.row for pair in found.pairs] == [4]


def test_an_empty_column_or_a_list_is_never_written_into_a_negative(tmp_path: Path) -> None:
    rows: Rows = [{"char": "恙", "radical": "心", "bad": None}, {"char": "歆", "radical": "欠", "bad": ["a", "b"]},
            {"char": "江", "radical": "水", "bad": "木"}]  # fmt: skip
    found = preferences(tmp_path, rows, **QUESTION, rejected="汉字`{{ char }}`的部首是`{{ bad }}部`")
    assert found.dropped == {"unwritten": 2}
    assert [str(drop.where) for drop in found.first] == ["rows.jsonl:1", "rows.jsonl:2"]


def test_what_was_left_out_is_said_with_its_place_and_its_words(tmp_path: Path) -> None:
    found = preferences(tmp_path, ROWS, **QUESTION, rejected="{{ wrong }}")
    assert found.lines() == (
        "4 negatives left out (2 with None, a list or an object in them, 1 true of another row, 1 equal to chosen): "
        "rows.jsonl:1: 汉字`恙`的部首是`None部`; rows.jsonl:2: 汉字`歆`的部首是`['心', '欠']部`; "
        "rows.jsonl:3: 汉字`柏`的部首是`木部`",
        "4 rows left out: no negative is left for them",
    )


# --- files of negatives, and what is counted ---

EXPECTED = '\n    expected: {"prompt": "…", "rejected": "…"}, or a list of texts as rejected'


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[1]", "this line has no prompt"),
        ('{"rejected": "x"}', "this line has no prompt"),
        ('{"prompt": 1, "rejected": "x"}', "this line has no prompt"),
        ('{"prompt": "p", "rejected": null}', "this line has no rejected"),
        ('{"prompt": "p", "rejected": {"a": 1}}', "this line has no rejected"),
        ('{"prompt": "p", "rejected": 3}', "this line has no rejected"),
    ],
)
def test_a_line_that_is_no_negative_is_shown_with_its_number(tmp_path: Path, line: str, fault: str) -> None:
    (tmp_path / "n.jsonl").write_text('{"prompt": "好", "rejected": "坏"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(BadData) as caught:
        negative_files.read("n.jsonl", tmp_path)
    assert caught.value.screen() == f"n.jsonl:2: {fault}{EXPECTED}"


def test_a_file_of_negatives_that_is_not_there_or_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        negative_files.read("n.jsonl", tmp_path)
    assert caught.value.screen() == ("there is no file n.jsonl\n    expected: a jsonl file, from the project's root")
    (tmp_path / "n.jsonl").write_bytes("坏".encode("gb18030"))
    with pytest.raises(BadData) as caught:
        negative_files.read("n.jsonl", tmp_path)
    assert caught.value.screen() == "n.jsonl: n.jsonl is not UTF-8: invalid start byte"


def test_one_text_is_one_negative_and_a_conversation_is_found_by_what_was_asked_last(tmp_path: Path) -> None:
    lines = ['{"prompt": " 好 ", "rejected": "坏的"}', '{"prompt": "好", "rejected": ["a", null]}']
    (tmp_path / "n.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert negative_files.read("n.jsonl", tmp_path).rejected == {"好": ("坏的", "a", "None")}
    said = [Message("user", "first"), Message("assistant", "one"), Message("user", " last ")]
    assert negative_files.key("", said) == "last"
    assert negative_files.key(" alone ", ()) == "alone"


def test_the_prompts_of_rows_are_given_with_their_place_in_the_source(tmp_path: Path) -> None:
    data = build(tmp_path, ROWS, pairs={"rows": "chars", **QUESTION, "rejected": "x"}).get("pairs")
    found = list(prompts_of(data))
    assert [row for row, _, _ in found] == [0, 1, 2, 3, 4]
    assert found[4][1:] == ("汉字`江`的部首是什么？", ())


def test_what_was_left_out_is_counted_in_the_record_and_said_where_some_may_come_yet() -> None:
    pair = Pair("p", "a", "b", 0)
    found = Preferences((pair,), {"empty": 2}, (), 3, 4, (pair, pair), (5, 5))
    assert found.record() == {
        "pairs": 1, "dropped": {"empty": 2}, "rows_without": 3, "unmatched_prompts": 4, "pending": 2,
    }  # fmt: skip
    assert found.lines()[-1] == "up to 2 of its pairs are known when the checkpoint has been asked"


def test_prompts_of_which_one_begins_another_are_told_apart() -> None:
    truth = Truth([Fact("is it red", ("it is red",)), Fact("is it red now", ("it is red now",))])
    assert truth.why_not("it is red now", "is it red", "it is red", states_its_row=True) == "true"
    assert truth.why_not("it is blue", "is it red", "it is red", states_its_row=True) is None
    assert Truth([]).why_not("x", "p", "y") is None


def test_a_sentence_is_a_fact_where_one_prompt_begins_all_others_too() -> None:
    facts = [("what", "nothing"), ("what is red", "is red: 1"), ("what is blue", "is blue: 2")]
    truth = Truth(Fact(prompt, (text,)) for prompt, text in facts)
    assert truth.why_not("is blue: 2", "what is red", "is red: 1") == "true"
    assert truth.why_not("nothing", "what is red", "is red: 1") is None  # it says nothing of its prompt


def test_a_template_that_names_its_own_row_says_nothing_that_is_right_of_another(tmp_path: Path) -> None:
    guesses = {"x": "Cy", "y": "Cx", "z": "Q"}
    rows = [{"country": name, "capital": f"C{name}", "guess": guess} for name, guess in guesses.items()]
    asked = {"prompt": "{{ country }}?", "completion": "{{ capital }}."}
    found = preferences(tmp_path, rows, **asked, rejected="{{ guess }}.")
    assert ([pair.rejected for pair in found.pairs], found.dropped) == (["Q."], {"true": 2})
    alone = preferences(tmp_path, rows, **asked, rejected="Cx.")  # it names none: it is wrong for the others
    assert ([pair.row for pair in alone.pairs], alone.dropped) == ([1, 2], {"chosen": 1})


def test_where_no_other_row_is_to_draw_from_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        preferences(tmp_path, ROWS[4:], **QUESTION, rejected="汉字`{{ char }}`的部首是`{{ other.radical }}部`")
    assert caught.value.screen() == (
        "data.pairs: no negative of its 1 rows is one\n"
        "    hint: a negative that is right teaches nothing; use another template or more rows\n\n"
        "rows.jsonl:1: data.pairs: with None, a list or an object in them: "
        "'data.pairs.rejected[0]: there is no other row'"
    )


def test_a_row_whose_column_is_empty_is_drawn_past_and_said_where_all_are(tmp_path: Path) -> None:
    rows: Rows = [{"char": char, "radical": "心", "bad": None} for char in "恙恩恶怒"]
    rejected = "汉字`{{ char }}`的部首是`{{ other.bad }}部`"
    with pytest.raises(
        BadData, match=r"data\.pairs\.rejected\[0\]: \{\{ other\.bad \}\} is nothing \(null\) in this row"
    ):
        preferences(tmp_path, rows, **QUESTION, rejected=rejected)
    some = [*rows, {"char": "江", "radical": "水", "bad": "木"}, {"char": "炎", "radical": "火", "bad": "土"}]
    found = preferences(tmp_path, some, **QUESTION, rejected=rejected)
    assert ([pair.row for pair in found.pairs], found.dropped) == ([0, 1, 2, 3, 4, 5], {})


def test_another_right_answer_to_the_same_prompt_is_no_negative_of_it(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "b", "rejected": "c"}]
    found = build(tmp_path, rows).get("chars").preferences()
    assert ([pair.rejected for pair in found.pairs], found.dropped) == (["c"], {"right": 1})


def test_where_a_row_has_a_chosen_text_and_a_completion_both_are_right(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "completion": "b", "rejected": ["b", "c"]}
    alone = {"prompt": "q", "chosen": "a", "completion": None, "rejected": ["b", "None."]}
    found = build(tmp_path, [row, alone]).get("chars").preferences()
    assert [(pair.prompt, pair.rejected) for pair in found.pairs] == [("p", "c"), ("q", "b")]
    assert found.dropped == {"right": 1, "unwritten": 1}


@pytest.mark.parametrize(("given", "found"), [(["b"], "a list"), (True, "a bool")])
def test_a_completion_beside_the_chosen_text_that_is_no_text_is_told(tmp_path: Path, given: Any, found: str) -> None:
    row = {"prompt": "p", "chosen": "a", "completion": given, "rejected": "c"}
    with pytest.raises(BadData) as caught:
        build(tmp_path, [row]).get("chars").preferences()
    assert caught.value.screen() == (f"rows.jsonl:1: data.chars: completion is {found} in this row\n    expected: text")


def test_the_right_answer_of_one_conversation_may_be_wrong_in_another_that_ends_alike(tmp_path: Path) -> None:
    def row(topic: str, chosen: str, rejected: str) -> dict[str, Any]:
        asked = [
            {"role": role, "content": text} for role, text in (("user", topic), ("assistant", "yes"), ("user", "?"))
        ]
        sides = {"chosen": chosen, "rejected": rejected}
        return {name: [*asked, {"role": "assistant", "content": text}] for name, text in sides.items()}

    rows = [row("red", "a", "b"), row("blue", "b", "a"), row("blue", "c", "b")]
    found = build(tmp_path, rows).get("chars").preferences()
    assert [(pair.messages[0].content, pair.rejected) for pair in found.pairs] == [("red", "b"), ("blue", "a")]
    assert found.dropped == {"right": 1}


def test_a_file_gives_a_conversation_what_it_names_by_the_last_question(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"prompt": "汉字`江`的部首是什么？", "rejected": "木"}', encoding="utf-8")
    found = preferences(tmp_path, ROWS, **QUESTION, system="be brief", rejected={"file": "n.jsonl"})
    assert [(pair.row, pair.rejected) for pair in found.pairs] == [(4, "木")]


def test_a_fault_of_a_pair_is_told_with_its_data_set_file_and_line(tmp_path: Path) -> None:
    found = preferences(tmp_path, ROWS, **QUESTION, rejected="{{ wrong }}")
    with pytest.raises(BadData) as caught, found.placing():
        tokens.encode_pairs(trained("char", chat.shipped("plain")), found.pairs, 5)
    assert caught.value.screen().startswith("rows.jsonl:5: data.pairs: its prompt has 12 tokens, and max_length is 5")


def test_no_row_is_left_out_for_want_of_negatives_before_the_checkpoint_was_asked(tmp_path: Path) -> None:
    rejected = ["{{ wrong }}", {"sample": "qa@last", "max_new_tokens": 5}]
    data = build(tmp_path, ROWS, pairs={"rows": "chars", **QUESTION, "rejected": rejected}).get("pairs")
    assert (data.preferences().without, len(data.preferences().pending_pairs)) == (0, 5)
    assert data.preferences({("pairs", 1): {}}).without == 4


def test_what_a_checkpoint_will_be_asked_is_known_before_all_but_its_reply(tmp_path: Path) -> None:
    block = {"rows": "chars", **QUESTION, "rejected": {"sample": "qa@last", "max_new_tokens": 7}}
    alone = build(tmp_path, ROWS[:1], pairs=block).get("pairs").preferences()
    assert alone.pending_pairs == (Pair("汉字`恙`的部首是什么？", "汉字`恙`的部首是`心部`", "", 0),)
    assert alone.pending_tokens == (7,)
    system = build(tmp_path, ROWS[:1], pairs={**block, "system": "be brief"}).get("pairs").preferences()
    messages = (Message("system", "be brief"), Message("user", "汉字`恙`的部首是什么？"))
    assert system.pending_pairs == (Pair("", "汉字`恙`的部首是`心部`", "", 0, messages),)


def test_while_negatives_are_written_it_is_told_of_which_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, work = set(), underway.work

    def noted(what: str, *more: Any) -> AbstractContextManager[underway.Work]:
        told.add(what)
        return work(what, *more)

    monkeypatch.setattr(underway, "work", noted)
    preferences(tmp_path, ROWS, **QUESTION, rejected="{{ wrong }}")
    assert {"writing the negatives of pairs", "noting what is right in pairs"} <= told


def test_a_text_said_twice_is_a_loop_though_it_is_the_answer_to_another_prompt(tmp_path: Path) -> None:
    rows = [{"char": "a", "said": "ab"}, {"char": "b", "said": "abab"}]
    asked = {"prompt": "say {{ char }}?", "completion": "{{ said }}"}
    found = preferences(tmp_path, rows, **asked, rejected={"repeat": "{{ completion }}", "times": 2})
    assert [pair.rejected for pair in found.pairs] == ["abab", "abababab"]


def test_a_column_that_is_called_other_is_not_the_row_that_is_drawn(tmp_path: Path) -> None:
    rows = [{"country": f"c{at}", "capital": f"C{at}", "other": "x"} for at in range(3)]
    asked = {"prompt": "{{ country }}?", "completion": "{{ capital }}."}
    found = preferences(tmp_path, rows, **asked, rejected="{{ other.capital }}.")
    assert (len(found.pairs), found.dropped) == (3, {})


def test_a_long_text_is_shown_by_its_beginning(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": "x" * 300, "rejected": "x" * 300}]
    with pytest.raises(BadData) as caught:
        build(tmp_path, rows).get("chars").preferences()
    assert f"equal to chosen: '{'x' * 200}'" in caught.value.screen()
    rows.append({"prompt": "q", "chosen": "a", "rejected": "b"})
    (line, _) = build(tmp_path, rows).get("chars").preferences().lines()
    assert line == f"1 negatives left out (1 equal to chosen): rows.jsonl:1: {'x' * 60}"
    (tmp_path / "n.jsonl").write_text('{"prompt": "p", "rejected": "x"}')
    with pytest.raises(BadData) as caught:
        preferences(tmp_path, ROWS, prompt="x" * 90, completion="y", rejected={"file": "n.jsonl"})
    assert caught.value.screen().endswith(f"hint: the first row's is '{'x' * 80}'")


def test_a_file_of_negatives_is_utf8_whatever_the_machine_speaks(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"prompt": "好", "rejected": "坏"}\n', encoding="utf-8")
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        assert negative_files.read("n.jsonl", tmp_path).rejected == {"好": ("坏",)}
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def test_pairs_and_token_ids_that_do_not_belong_together_are_never_gathered() -> None:
    pair = Pair("p", "a", "b", 0)
    with pytest.raises(ValueError, match="shorter"):
        candidates.gather([pair, pair], [PairTokens([1], [2], [3], 0)])
