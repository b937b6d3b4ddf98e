"""Preferences: negatives that are true for their prompt are none, and what is left out is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner import spec
from runner.data import candidates, datasets, preferred, tokens
from runner.data.datasets import Datasets
from runner.data.negatives import Fact, Truth, repeated
from runner.data.pairs import Pair, Preferences
from runner.data.tokenizer import train_tokenizer
from runner.errors import BadData

QUESTION = {"prompt": "{{ char }}?", "completion": "{{ char }}: {{ radical }}"}
ROWS = [{"char": chr(0x4E00 + at), "radical": "abcde"[at % 5]} for at in range(40)]
CAPITALS = [{"country": f"c{at}", "capital": f"C{at % 20}"} for at in range(21)]
ASKED = {"prompt": "{{ country }}?", "completion": "{{ capital }}"}


def build(root: Path, rows: list[dict[str, Any]], **data: Any) -> Datasets:
    """The data set `chars` from these rows, and others."""
    (root / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    values: dict[str, Any] = {
        "recipe": "r",
        "seed": 1,
        "model": {"path": "m"},
        "data": {"chars": {"path": "rows.jsonl"}, **data},
        "stages": {"qa": {"kind": "sft", "data": "chars"}},
    }
    return datasets.build(spec.Recipe.model_validate(values), root)


def preferences(root: Path, rows: list[dict[str, Any]], **block: Any) -> Preferences:
    """What a data set `pairs` over these rows gives."""
    return build(root, rows, pairs={"rows": "chars", **block}).get("pairs").preferences()


# --- templates ---


def test_no_rejected_text_is_the_completion_of_any_row(tmp_path: Path) -> None:
    ways = ["{{ char }}: {{ other.radical }}", "{{ other.char }}: {{ radical }}", "{{ other.completion }}!"]
    found = preferences(tmp_path, ROWS, **QUESTION, rejected=ways)
    right = {f"{row['char']}: {row['radical']}" for row in ROWS}
    assert len(found.pairs) == 3 * 40
    assert not found.dropped
    assert not right & {pair.rejected for pair in found.pairs}
    assert {pair.chosen for pair in found.pairs} == right
    assert found == preferences(tmp_path, ROWS, **QUESTION, rejected=ways)


def test_where_every_rejected_text_is_right_that_is_an_error_naming_rows(tmp_path: Path) -> None:
    rows = [{"char": "x", "radical": "a"}, {"char": "y", "radical": "a"}]
    with pytest.raises(BadData) as caught:
        preferences(tmp_path, rows, **QUESTION, rejected=["{{ char }}: {{ other.radical }}"])
    assert caught.value.screen() == (
        "data.pairs: no negative of its 2 rows is one\n"
        "    hint: a negative that is right teaches nothing; use another template or more rows\n\n"
        "rows.jsonl:1: data.pairs: equal to chosen: 'x: a'\n\n"
        "rows.jsonl:2: data.pairs: equal to chosen: 'y: a'"
    )


def test_a_rejected_text_of_other_alone_may_be_right_for_another_prompt_and_not_for_this_one(tmp_path: Path) -> None:
    rows = [*CAPITALS, {"country": "c0", "capital": "C7"}]  # two answers to one prompt
    found = preferences(tmp_path, rows, **ASKED, rejected="{{ other.capital }}").pairs
    right: dict[str, set[str]] = {}
    for pair in found:
        right.setdefault(pair.prompt, set()).add(pair.chosen)
    assert len(found) == 22
    assert right["c0?"] == {"C0", "C7"}
    assert not [pair for pair in found if pair.rejected in right[pair.prompt]]
    assert {pair.rejected for pair in found} <= {pair.chosen for pair in found}


def test_a_rejected_text_that_names_its_row_is_never_let_through_because_all_draws_are_right(tmp_path: Path) -> None:
    rows = [{"country": "x", "capital": "a", "also": "b"}, {"country": "x", "capital": "b", "also": "a"}]
    said = {"prompt": "{{ country }} {{ capital }}?", "completion": "{{ country }}: {{ capital }}"}
    with pytest.raises(BadData, match="true of another row: 'x: b'"):
        preferences(tmp_path, rows, **said, rejected="{{ country }}: {{ other.capital }}")


def test_the_draws_of_a_row_do_not_depend_on_other_rows_templates(tmp_path: Path) -> None:
    both = preferences(
        tmp_path, CAPITALS, **ASKED, rejected=["{{ other.capital }}", "{{ country }}{{ other.capital }}"]
    )
    one = preferences(tmp_path, CAPITALS, **ASKED, rejected=["{{ other.capital }}"])
    assert both.pairs[::2] == one.pairs


def test_the_same_template_twice_gives_two_different_negatives(tmp_path: Path) -> None:
    found = preferences(tmp_path, CAPITALS[:4], **ASKED, rejected=["{{ other.capital }}"] * 3)
    assert len(found.pairs) == 12
    assert len({(pair.row, pair.rejected) for pair in found.pairs}) == 12
    more = preferences(tmp_path, CAPITALS[:3], **ASKED, rejected=["{{ other.capital }}"] * 3)
    assert (len(more.pairs), more.dropped) == (6, {"twice": 3})


# --- what is right ---


def test_blanks_at_the_ends_make_no_difference() -> None:
    truth = Truth([Fact("q", [" a"])])
    assert truth.why_not("a ", "q", " a") == "chosen"
    assert truth.why_not(" \n", "q", " a") == "empty"


@pytest.mark.parametrize("text", ["None", "是None部", "is None.", "['a', 'b']", "is [1, 2]", "{'a': 1}", '["a"]'])
def test_what_python_writes_for_nothing_and_for_lists_is_refused(text: str) -> None:
    assert Truth([]).why_not(text, "q", "right") == "unwritten"
    assert Truth([]).why_not(text, "q", "right", templated=False) is None


@pytest.mark.parametrize("text", ["Nonesuch", "None of them", "a [b] c", "[]", "none", "{a}"])
def test_words_and_brackets_of_people_are_not(text: str) -> None:
    assert Truth([]).why_not(text, "q", "right") is None


def test_where_chosen_has_such_text_it_is_the_subject() -> None:
    assert Truth([]).why_not("return None", "q", "return [1, 2]") is None


def test_a_short_answer_is_no_fact_about_another_row_and_a_sentence_is_one() -> None:
    capitals = Truth([Fact("capital of France?", ["Paris"]), Fact("capital of Peru?", ["Lima"])])
    assert capitals.why_not("Lima", "capital of France?", "Paris") is None
    said = Truth([Fact("capital of France?", ["France: Paris"]), Fact("capital of Peru?", ["Peru: Lima"])])
    assert said.why_not("Peru: Lima", "capital of France?", "France: Paris") == "true"


# --- other ways ---


def test_a_text_is_repeated_whole_or_by_its_end() -> None:
    assert repeated("ab", 3, None) == "ababab"
    assert repeated("abcd", 3, 2) == "abcdcdcd"


def test_repeat_gives_a_looping_negative(tmp_path: Path) -> None:
    found = preferences(tmp_path, ROWS[:2], **QUESTION, rejected=[{"repeat": "{{ completion }}", "times": 2, "n": 1}])
    assert [pair.rejected for pair in found.pairs] == [f"{pair.chosen}{pair.chosen[-1]}" for pair in found.pairs]


def test_a_column_may_hold_one_negative_or_several(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": ["b", "a", "c", "b"]},
        {"prompt": "q", "chosen": "a", "rejected": "d"},
    ]
    found = build(tmp_path, rows).get("chars").preferences()
    assert [pair.rejected for pair in found.pairs] == ["b", "c", "d"]
    assert found.dropped == {"chosen": 1, "twice": 1}


def test_a_file_gives_negatives_to_the_prompts_it_names(tmp_path: Path) -> None:
    lines = [
        {"prompt": "c0?", "rejected": "x"},
        {"prompt": "c1? ", "rejected": ["y", "C1", "z"]},
        {"prompt": "c99?", "rejected": "x"},
    ]
    (tmp_path / "wrong.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = preferences(tmp_path, CAPITALS, **ASKED, rejected={"file": "wrong.jsonl"})
    assert [(pair.prompt, pair.rejected) for pair in found.pairs] == [("c0?", "x"), ("c1?", "y"), ("c1?", "z")]
    assert (found.dropped, found.unmatched, found.without) == ({"chosen": 1}, 1, 19)
    assert found.lines()[1:] == (
        "19 rows left out: no negative is left for them",
        "1 prompts of the file of negatives are no row's",
    )


@pytest.mark.parametrize(
    ("text", "screen"),
    [
        (
            '{"prompt": "c0", "rejected": "x"}\n',
            "wrong.jsonl:1: data.pairs.rejected[0]: no prompt of this file is a row's\n"
            "    expected: prompts as they are written for the rows\n    hint: the first row's is 'c0?'",
        ),
        (
            '\n{"prompt": "c0?"}\n',
            "wrong.jsonl:2: this line has no rejected\n"
            '    expected: {"prompt": "…", "rejected": "…"}, or a list of texts as rejected',
        ),
        (
            "not json\n",
            "wrong.jsonl:1: this line is not JSON: Expecting value: line 1 column 1 (char 0)\n"
            '    expected: {"prompt": "…", "rejected": "…"}, or a list of texts as rejected',
        ),
    ],
)
def test_a_file_of_negatives_that_cannot_serve_is_an_error(tmp_path: Path, text: str, screen: str) -> None:
    (tmp_path / "wrong.jsonl").write_text(text)
    with pytest.raises(BadData) as caught:
        preferences(tmp_path, CAPITALS, **ASKED, rejected={"file": "wrong.jsonl"})
    assert caught.value.screen() == screen


def test_another_file_of_negatives_changes_the_digest_of_the_data(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        (tmp_path / "wrong.jsonl").write_text(json.dumps({"prompt": "c0?", "rejected": text}))
        return (
            build(tmp_path, CAPITALS, pairs={"rows": "chars", **ASKED, "rejected": {"file": "wrong.jsonl"}})
            .get("pairs")
            .digest()
        )

    assert digest("x") == digest("x") != digest("y")


def test_what_a_checkpoint_said_is_a_negative_where_it_was_wrong(tmp_path: Path) -> None:
    block = {"rows": "chars", **ASKED, "rejected": ["no", {"sample": "qa@last", "samples": 2, "max_new_tokens": 5}]}
    rows = [{"country": name, "capital": f"C{at}"} for at, name in enumerate("xyz")]
    data = build(tmp_path, rows, pairs=block).get("pairs")
    before = data.preferences()
    assert (len(before.pairs), len(before.pending_pairs), before.pending_tokens) == (3, 6, (5,) * 6)
    said = {("pairs", 1): {0: ("C0", "None"), 1: ("C9", "C9"), 2: ("", "C0")}}
    after = data.preferences(said)
    assert [(pair.row, pair.rejected) for pair in after.pairs] == [
        (0, "no"), (0, "None"), (1, "no"), (1, "C9"), (2, "no"), (2, "C0"),
    ]  # fmt: skip
    assert after.dropped == {"chosen": 1, "twice": 1, "empty": 1}
    assert not after.pending_pairs


# --- as token ids ---


def test_pairs_of_one_prompt_and_one_right_text_are_one_row_of_contrast() -> None:
    pairs = [Pair("p", "a", "b", 0), Pair("q", "a", "b", 1), Pair("p", "a", "c", 2), Pair("p", "c", "b", 3)]
    fast = train_tokenizer(spec.Tokenizer(train="char", from_data=("x",)), ["pqabc"])
    encoded = tokens.encode_pairs(fast, pairs, 8)
    rows = candidates.gather(pairs, encoded)
    assert [len(row.completions) for row in rows] == [3, 2, 2]
    assert rows[0].rejected_ids == (tuple(encoded[0].rejected_ids), tuple(encoded[2].rejected_ids))
    assert (rows[0].supervised, rows[0].tokens) == (6, 9)
    found = [Preferences(tuple(pairs), {})]
    dpo = spec.Dpo.model_validate({"kind": "dpo", "data": "d"})
    contrast = spec.Contrast.model_validate({"kind": "contrast", "data": "d"})
    assert (preferred.rows(dpo, found), preferred.rows(contrast, found)) == (4, 3)


def test_a_pair_whose_difference_was_cut_off_is_counted_as_one_that_prefers_nothing() -> None:
    fast = train_tokenizer(spec.Tokenizer(train="char", from_data=("x",)), ["abcdefgh"])
    pairs = (Pair("a", "b", "cd", 0), Pair("abcdefg", "ha", "hb", 1), Pair("abcdefg", "ga", "gb", 2))
    found = [Preferences(pairs, {})]
    for kind in (spec.Dpo, spec.Contrast):
        name = kind.__name__.lower()
        stage = kind.model_validate({"kind": name, "data": "d", "max_length": 8, "global_batch_size": 2})
        counts = preferred.counts(stage, found, fast, None, 1, 4)
        assert (counts.rows, counts.truncated, counts.dropped) == (6, 4, 4)


def test_a_prompt_that_leaves_no_room_for_an_answer_is_an_error_before_anything_trains() -> None:
    fast = train_tokenizer(spec.Tokenizer(train="char", from_data=("x",)), ["abcdefgh"])
    with pytest.raises(BadData) as caught:
        tokens.encode_pairs(fast, [Pair("abcdefgh", "a", "b", 2)], 8)
    assert str(caught.value).splitlines() == [
        "row 3: its prompt has 8 tokens, and max_length is 8: there is no room for an answer",
        "    hint: raise max_length, or leave such rows out: filter: {max_chars: …} in the data set",
    ]
