"""What holds of whatever is given: readers, templates, masks, negatives, statistics, gates and record files.

Few examples, drawn anew each time; `pytest --hypothesis-profile=many` takes a hundred times as many. Splits, mixtures,
packing, measures, token stores and verdict files have their properties beside their other tests.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import gate, spec
from runner.data import chat, sources, tokens
from runner.data.datasets import Example, Pair
from runner.data.examples import Message
from runner.data.negatives import Fact, Truth
from runner.data.tokens import Encoding
from runner.events import Follower, Journal, Logged
from runner.gate import Matter, compare, holm, mcnemar, wilson
from runner.recipe import dump, load
from runner.templates import compile_template, render_value
from runner.verdicts import Verdict
from tests.chats import trained
from tests.letters import OUTCOMES, verdicts
from tests.recorded import project

TEXT = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
WORDS = st.text("abcdefgh ", max_size=20)
OUTCOME = st.text(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For files that each example writes anew."""
    return tmp_path_factory.mktemp("properties")


# --- readers ---


@given(
    rows=st.lists(st.dictionaries(TEXT, VALUES, min_size=1, max_size=3), min_size=1, max_size=6), packed=st.booleans()
)
def test_rows_written_as_json_are_read_as_they_were_and_again_by_number(
    folder: Path, rows: list[dict[str, Any]], packed: bool
) -> None:
    for name, text in (
        ("rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)),
        ("rows.json", json.dumps(rows, indent=1)),
    ):
        path = folder / (name + ".gz" * packed)
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        table = sources.read(spec.Data(path=path.name), "rows", folder)
        assert [row.values for row in table.rows] == rows
        assert [table.rows[at].values for at in reversed(range(len(rows)))] == rows[::-1]


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=6))
def test_any_text_in_a_csv_is_read_as_it_was(folder: Path, rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    (folder / "rows.csv").write_bytes(text.getvalue().encode())
    table = sources.read(spec.Data(path="rows.csv"), "rows", folder)
    assert [[row.values["a"], row.values["b"]] for row in table.rows] == rows


# --- recipes and templates ---


@given(
    value=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_recipe_that_was_written_down_is_the_same_when_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, value: str, seed: int
) -> None:
    loaded = project(tmp_path_factory.mktemp("dumped") / "p")
    loaded.values["data"]["texts"]["text"] = "x" + value.replace("{", "")
    loaded.values["seed"] = seed
    again = loaded.root / "again.yaml"
    again.write_text(dump(loaded), encoding="utf-8")
    assert load(again).values == loaded.values


@given(before=TEXT, value=TEXT, after=TEXT)
def test_a_value_stands_in_a_text_as_it_is_and_is_no_template_itself(before: str, value: str, after: str) -> None:
    before, after = before.replace("{", ""), after.replace("{", "").replace("}", "")
    for said in (value, "{{ x }}" + value, "{% raw %}"):
        assert compile_template(before + "{{ x }}" + after).render({"x": said}) == before + said + after


@given(VALUES)
def test_a_template_that_is_one_value_keeps_its_type(value: Any) -> None:
    found = render_value("{{ x }}", {"x": value})
    assert type(found) is type(value)
    assert found == value


# --- masks ---

CHAT = chat.shipped("chatml")
FAST = trained("char", CHAT, "abcdefgh ")


def _said(row: tokens.Tokens) -> list[str]:
    return [FAST.tokenizer.decode(row.ids[a:b], skip_special_tokens=False) for a, b in row.spans]


@given(prompt=WORDS, completion=WORDS)
def test_the_loss_sees_the_completion_and_its_end_and_nothing_else(prompt: str, completion: str) -> None:
    ((row,),) = tokens.encode(FAST, [Example(prompt, completion, 0)], Encoding(1000))
    assert _said(row) == [completion + "<eos>"]
    assert FAST.tokenizer.decode(row.ids, skip_special_tokens=False) == prompt + completion + "<eos>"


@given(prompt=WORDS, completion=WORDS, longest=st.integers(2, 30), how=st.sampled_from(["keep_start", "keep_end"]))
def test_cutting_an_end_moves_no_token_into_the_loss_or_out_of_it(
    prompt: str, completion: str, longest: int, how: Any
) -> None:
    ((whole,),) = tokens.encode(FAST, [Example(prompt, completion, 0)], Encoding(1000))
    ((row,),) = tokens.encode(FAST, [Example(prompt, completion, 0)], Encoding(longest, truncation=how))

    def marked(of: tokens.Tokens) -> list[tuple[int, bool]]:
        return [(token, any(a <= at < b for a, b in of.spans)) for at, token in enumerate(of.ids)]

    kept = marked(whole)[:longest] if how == "keep_start" else marked(whole)[-longest:]
    assert marked(row) == kept
    assert row.truncated == (len(whole.ids) > longest)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), st.booleans(), st.sampled_from(["all", "last"]))
def test_of_a_conversation_the_loss_sees_what_the_assistant_says(
    rounds: list[tuple[str, str]], system: bool, turns: Any
) -> None:
    said = [Message(role, text) for pair in rounds for role, text in zip(("user", "assistant"), pair, strict=True)]
    messages = (*([Message("system", "be")] if system else []), *said)
    ((row,),) = tokens.encode(FAST, [Example("", "", 0, messages)], Encoding(1000, turns=turns, chat=CHAT))
    learned = [answer + "<|im_end|>" for _, answer in rounds]
    assert "".join(_said(row)) == "".join(learned if turns == "all" else learned[-1:])


@given(prompt=WORDS, sides=st.tuples(WORDS, WORDS), room=st.integers(1, 25))
def test_both_sides_of_a_pair_follow_the_whole_prompt(prompt: str, sides: tuple[str, str], room: int) -> None:
    given_ids = FAST.ids([prompt])[0]
    (row,) = tokens.encode_pairs(FAST, [Pair(prompt, *sides, 0)], len(given_ids) + room)
    assert row.prompt_ids == given_ids
    for ids, text in zip((row.chosen_ids, row.rejected_ids), sides, strict=True):
        assert FAST.tokenizer.decode(ids, skip_special_tokens=False) == "".join([*text, "<eos>"][:room])
    assert row.truncated == (max(map(len, sides)) + 1 > room)


# --- negatives ---


@given(
    answers=st.lists(st.tuples(st.sampled_from("xyz"), st.text("ab ", max_size=3)), min_size=1, max_size=8),
    wrong=st.text("ab ", max_size=3),
    states=st.sampled_from([None, True, False]),
)
def test_what_is_right_for_a_prompt_is_no_negative_of_it(
    answers: list[tuple[str, str]], wrong: str, states: bool | None
) -> None:
    truth = Truth(Fact(prompt, (text,)) for prompt, text in answers)
    for prompt, chosen in answers:
        right = {text.strip() for other, text in answers if other == prompt}
        found = truth.why_not(wrong, prompt, chosen, states_its_row=states)
        assert (found in ("empty", "chosen", "right")) == (not wrong.strip() or wrong.strip() in right)
        if states:
            assert (found is None) == (wrong.strip() not in {"", *(text.strip() for _, text in answers)})


# --- statistics ---


@given(st.integers(1, 3000).flatmap(lambda asked: st.tuples(st.integers(0, asked), st.just(asked))))
def test_a_wilson_interval_holds_the_rate_and_its_mirror_is_that_of_the_misses(found: tuple[int, int]) -> None:
    passed, asked = found
    low, high = wilson(passed, asked)
    assert 0 <= low <= passed / asked <= high <= 1
    assert wilson(asked - passed, asked) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    wider = wilson(passed, asked, 0.99)
    assert wider[0] <= low <= high <= wider[1]


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_counts_every_way_the_coins_may_fall(lost: int, gained: int) -> None:
    flips = lost + gained
    assert mcnemar(lost, gained) == sum(math.comb(flips, k) for k in range(lost, flips + 1)) / 2**flips
    assert mcnemar(lost, gained) + mcnemar(gained, lost) == pytest.approx(1 + math.comb(flips, lost) / 2**flips)
    assert mcnemar(lost + 1, gained) < mcnemar(lost, gained) or flips == 0


@given(st.lists(st.floats(0, 1), max_size=8), st.integers(0, 4), st.randoms(use_true_random=False))
def test_holm_lowers_no_p_keeps_their_order_and_knows_no_order_of_tests(
    ps: list[float], unseen: int, draw: Any
) -> None:
    adjusted = holm(ps, unseen)
    assert all(p <= held <= min(1, (len(ps) + unseen) * p) for p, held in zip(ps, adjusted, strict=True))
    assert [adjusted[at] for at in sorted(range(len(ps)), key=ps.__getitem__)] == sorted(adjusted)
    order = list(range(len(ps)))
    draw.shuffle(order)
    assert holm([ps[at] for at in order], unseen) == tuple(adjusted[at] for at in order)


# --- gates ---


def _outcomes(word: str, length: int) -> list[Verdict]:
    return verdicts((word * length)[:length])


@given(OUTCOME, OUTCOME, st.randoms(use_true_random=False))
def test_a_comparison_turned_round_loses_what_it_gained_and_knows_no_order(now: str, then: str, draw: Any) -> None:
    here, there = _outcomes(now, 12), _outcomes(then, 12)
    found, back = compare(here, there), compare(there, here)
    assert [flip.case_id for flip in found.lost] == [flip.case_id for flip in back.gained]
    assert (found.common, found.unanswered, found.p) == (back.common, back.unanswered, back.p_better)
    assert found.common + found.unanswered + len(found.changed) + found.new == len(here)
    mixed = list(here)
    draw.shuffle(mixed)
    assert {flip.case_id for flip in compare(mixed, there).lost} == {flip.case_id for flip in found.lost}


@given(OUTCOME, OUTCOME, st.floats(0, 1), st.integers(0, 5), st.integers(0, 11))
def test_one_more_right_answer_turns_no_green_gate_red(
    now: str, then: str, rate: float, most: int, better: int
) -> None:
    here, there = _outcomes(now, 12), _outcomes(then, 12)
    rules = spec.Gate.model_validate({"min_pass_rate": rate, "max_regression": most, "pinned": ["c0"]})
    risen = [replace(one, outcome="pass") if at == better else one for at, one in enumerate(here)]
    (before,) = gate.judge([Matter("s", rules, here, there)])
    (after,) = gate.judge([Matter("s", rules, risen, there)])
    assert after.green or not before.green


# --- record files ---

LOSSES = st.lists(st.floats(allow_nan=False), min_size=1, max_size=6)


@given(losses=LOSSES, cut=st.integers(0, 2000), words=TEXT)
def test_of_a_journal_that_was_cut_off_the_whole_lines_are_read_and_it_goes_on(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], cut: int, words: str
) -> None:
    path = tmp_path_factory.mktemp("events") / "e.jsonl"
    events = [Logged(words, step, 0.5, loss, 1e-3, 0.1, 8, 1.0, {}) for step, loss in enumerate(losses)]
    journal = Journal(path)
    for event in events:
        journal.write(event)
    journal.close()
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    left = events[: content.count(b"\n")]
    follower = Follower(path)
    assert [one.event for one in follower.new()] == left
    journal = Journal(path)
    journal.write(events[0])
    journal.close()
    read = [one.event for one in Follower(path).new()]
    assert read[: len(left)] == left
    assert read[-1] == events[0]
    assert len(read) - len(left) in (1, 2)  # of a line that lacked nothing but its end, one more
    assert Counter(map(repr, follower.new())) <= Counter(map(repr, Follower(path).new()))
