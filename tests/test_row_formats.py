"""Named formats of rows: what people's data sets hold becomes prompts, conversations and pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner import spec
from runner.data import datasets
from runner.data.datasets import Dataset
from runner.data.examples import Message
from runner.errors import BadData

TINY = {"config": {"model_type": "qwen3"}, "tokenizer": {"train": "char", "from_data": "rows"}}


def rows(root: Path, *found: dict[str, Any], chat: str | None = None, **block: Any) -> Dataset:
    """A data set of these rows."""
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": {**TINY, "chat_template": chat},
            "data": {"rows": {"path": "rows.jsonl", **block}},
            "stages": {"s": {"kind": "sft", "data": "rows"}},
        }
    )
    return datasets.build(recipe, root).get("rows")


def said(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in turns)


def refused(root: Path, row: dict[str, Any], **block: Any) -> str:
    with pytest.raises(BadData) as caught:
        rows(root, row, **block).examples(0)
    return caught.value.screen()


ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}


# --- alpaca ---


def test_alpaca_is_written_in_its_published_wording_with_and_without_input(tmp_path: Path) -> None:
    first, second = rows(tmp_path, ALPACA, {**ALPACA, "input": ""}).examples(0)
    assert first.prompt == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:"
    )
    assert second.prompt == (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Response:"
    )
    assert (first.completion, first.messages) == ("3", ())


def test_with_a_chat_template_instruction_and_input_are_what_the_user_says(tmp_path: Path) -> None:
    first, second = rows(tmp_path, ALPACA, {**ALPACA, "input": None}, chat="chatml").examples(0)
    assert (first.prompt, second.prompt) == ("Add.\n1 and 2", "Add.")


def test_a_system_text_and_a_history_of_alpaca_make_a_conversation(tmp_path: Path) -> None:
    (example,) = rows(tmp_path, {**ALPACA, "system": "Count.", "history": [["1 and 1", "2"]]}).examples(0)
    assert example.messages == said(
        ("system", "Count."), ("user", "1 and 1"), ("assistant", "2"), ("user", "Add.\n1 and 2"), ("assistant", "3")
    )


def test_the_digest_of_alpaca_follows_whether_a_chat_template_writes_it(tmp_path: Path) -> None:
    assert rows(tmp_path, ALPACA).digest() != rows(tmp_path, ALPACA, chat="chatml").digest()


# --- conversations ---


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"from": "gpt", "value": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "Human", "value": "q"}, {"from": "chatgpt", "value": "a"}]},
        {"conversation": [{"human": "q", "assistant": "a"}]},
    ],
)
def test_all_ways_to_write_a_conversation_are_recognised_and_mean_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    data = rows(tmp_path, row)
    (example,) = data.examples(0)
    assert data.shape == "messages"
    assert (example.prompt, example.completion) == ("", "")
    assert example.messages == said(("user", "q"), ("assistant", "a"))


def test_a_conversation_keeps_its_turns_its_tools_and_its_system_text(tmp_path: Path) -> None:
    turns = [("human", "q"), ("function_call", "f()"), ("observation", "1"), ("gpt", "a"), ("human", "thanks")]
    row = {"system": "s", "conversations": [{"from": name, "value": text} for name, text in turns]}
    (example,) = rows(tmp_path, row).examples(0)
    assert example.messages == said(
        ("system", "s"), ("user", "q"), ("assistant", "f()"), ("tool", "1"), ("assistant", "a"), ("user", "thanks")
    )


def test_messages_are_written_by_templates_per_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "{{ char }}?"}, {"role": "assistant", "content": "{{ radical }}"}]
    data = rows(tmp_path, {"char": "x", "radical": "y"}, messages=turns, system="about {{ char }}", chat="chatml")
    (example,) = data.examples(0)
    assert example.messages == said(("system", "about x"), ("user", "x?"), ("assistant", "y"))
    assert set(data.texts()) == {"about x", "x?", "y"}


def test_a_system_template_opens_prompts_and_picks_too(tmp_path: Path) -> None:
    row = {"char": "x"}
    (example,) = rows(tmp_path, row, prompt="{{ char }}?", completion="y", system="s").examples(0)
    assert example.messages == said(("system", "s"), ("user", "x?"), ("assistant", "y"))
    pick = {"n": 1, "of": [{"prompt": "{{ char }}!", "completion": "z"}]}
    (example,) = rows(tmp_path, row, pick=pick, system="s").examples(0)
    assert example.messages == said(("system", "s"), ("user", "x!"), ("assistant", "z"))


def test_two_system_messages_are_refused(tmp_path: Path) -> None:
    row = {"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert refused(tmp_path, row, system="s") == (
        "rows.jsonl:1: data.rows: system: writes a message, and this row has one of its own\n"
        "    hint: leave system: out; the row's is used"
    )


def test_a_case_of_a_conversation_has_what_was_said_before_the_answer(tmp_path: Path) -> None:
    (case,) = rows(tmp_path, {"conversations": [{"human": "q", "assistant": "a"}], "id": "one"}).cases()
    assert case["messages"] == [{"role": "user", "content": "q"}]
    assert (case["id"], case["prompt"], case["completion"]) == ("one", "q", "a")


# --- preferences ---


def pair(root: Path, row: dict[str, Any], **block: Any) -> tuple[str, str, str, tuple[Message, ...]]:
    (found,) = rows(root, row, **block).pairs()
    return found.prompt, found.chosen, found.rejected, found.messages


USER, SYSTEM = {"role": "user", "content": "q"}, {"role": "system", "content": "s"}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_a_preference_of_texts_has_a_prompt_or_none_and_no_common_beginning_is_made_up(tmp_path: Path) -> None:
    assert pair(tmp_path, {"prompt": "q", "chosen": "ab", "rejected": "ac"}) == ("q", "ab", "ac", ())
    assert pair(tmp_path, {"chosen": "the same: a", "rejected": "the same: b"}) == (
        "",
        "the same: a",
        "the same: b",
        (),
    )


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {"prompt": "q", "chosen": [USER, assistant("a")], "rejected": [USER, assistant("b")]},
        {"prompt": "q", "chosen": [assistant("a")], "rejected": [assistant("b")]},
        {"chosen": [USER, assistant("a")], "rejected": [USER, assistant("b")]},
        {"messages": [USER], "chosen": assistant("a"), "rejected": assistant("b")},
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"},
         "rejected": {"from": "gpt", "value": "b"}},
        {"prompt": [USER], "chosen": "a", "rejected": "b"},
    ],
)  # fmt: skip
def test_a_preference_of_conversations_is_asked_with_what_both_begin_with(tmp_path: Path, row: dict[str, Any]) -> None:
    assert pair(tmp_path, row) == ("", "a", "b", said(("user", "q")))


def test_answers_that_begin_alike_are_whole_answers(tmp_path: Path) -> None:
    row = {"chosen": [USER, assistant("It is red.")], "rejected": [USER, assistant("It is blue.")]}
    assert pair(tmp_path, row)[1:3] == ("It is red.", "It is blue.")


def test_the_shared_part_of_a_long_conversation_is_asked(tmp_path: Path) -> None:
    shared = [SYSTEM, USER, assistant("x"), {"role": "user", "content": "and?"}]
    row = {"chosen": [*shared, assistant("a")], "rejected": [*shared, assistant("b")]}
    assert pair(tmp_path, row)[3] == said(("system", "s"), ("user", "q"), ("assistant", "x"), ("user", "and?"))


def test_a_system_template_stands_before_what_a_preference_asks(tmp_path: Path) -> None:
    assert pair(tmp_path, {"prompt": "q", "chosen": "a", "rejected": "b"}, system="s") == (
        "", "a", "b", said(("system", "s"), ("user", "q")),
    )  # fmt: skip


def test_conversations_that_part_before_their_last_message_are_no_preference(tmp_path: Path) -> None:
    again = {"role": "user", "content": "and?"}
    row = {
        "chosen": [USER, assistant("a"), again, assistant("c")],
        "rejected": [USER, assistant("b"), again, assistant("d")],
    }
    assert refused(tmp_path, row) == (
        "rows.jsonl:1: data.rows: chosen and rejected part after 1 of 4 and 4 messages\n"
        "    expected: conversations that differ in their last message alone (format: preference)"
    )


# --- what is recognised, and what is not ---


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        (ALPACA, "prompt"),
        ({"text": "x"}, "text"),
        ({"prompt": "q", "completion": "a", "messages": "not looked at"}, "prompt"),
        ({"char": "x", "radical": "y"}, "rows"),
    ],
)
def test_a_format_is_recognised_from_the_columns(tmp_path: Path, row: dict[str, Any], shape: str) -> None:
    assert rows(tmp_path, row).shape == shape


def test_columns_can_be_renamed_into_a_format(tmp_path: Path) -> None:
    columns = {"instruction": "question", "output": "answer"}
    (example,) = rows(tmp_path, {"question": "q", "answer": "a"}, columns=columns, chat="chatml").examples(0)
    assert (example.prompt, example.completion) == ("q", "a")


def test_templates_say_what_columns_mean_and_nothing_is_recognised(tmp_path: Path) -> None:
    (example,) = rows(tmp_path, ALPACA, prompt="{{ instruction }}", completion="{{ output }}").examples(0)
    assert (example.prompt, example.completion) == ("Add.", "3")


def test_data_sets_made_from_a_format_use_its_fields(tmp_path: Path) -> None:
    recipe = spec.Recipe.model_validate(
        {
            "recipe": "r",
            "model": TINY,
            "data": {
                "rows": {"path": "rows.jsonl", "format": "alpaca"},
                "short": {"rows": "rows", "prompt": "{{ instruction }}"},
                "pairs": {"rows": "rows", "rejected": "{{ other.completion }}"},
            },
            "stages": {"s": {"kind": "sft", "data": "rows"}},
        }
    )
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(ALPACA)}\n" + json.dumps({**ALPACA, "output": "4"}))
    data = datasets.build(recipe, tmp_path)
    assert [(example.prompt, example.completion) for example in data.get("short").examples(0)] == [
        ("Add.", "3"),
        ("Add.", "4"),
    ]
    assert data.get("pairs").shape == "pairs"


@pytest.mark.parametrize(
    ("row", "screen"),
    [
        ({"messages": "hello"}, "messages is a string in this row\n    expected: a list of turns (format: messages)"),
        ({"messages": []}, "messages is empty\n    expected: turns of a conversation (format: messages)"),
        (
            {"messages": [{"role": "user", "content": "q"}]},
            "messages: the assistant says nothing\n"
            "    expected: a turn of the assistant, to be learned (format: messages)",
        ),
        (
            {"messages": [{"speaker": "user", "content": "q"}]},
            "messages: turn 1 has speaker, content\n"
            "    expected: role and content, or from and value (format: messages)",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
            "messages: turn 1 calls tools and says nothing\n"
            "    expected: text: write calls of tools into the content (format: messages)",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "image_url"}]}]},
            "messages: turn 1 has parts that are no text\n"
            "    expected: text alone: pictures and sounds are not trained on (format: messages)",
        ),
        (
            {"instruction": ["a"], "output": "b"},
            "instruction is a list in this row\n    expected: text (format: alpaca)",
        ),
    ],
)
def test_a_row_that_is_not_of_its_format_is_shown_with_its_line_and_what_was_found(
    tmp_path: Path, row: dict[str, Any], screen: str
) -> None:
    assert refused(tmp_path, row) == f"rows.jsonl:1: data.rows: {screen}"


def test_an_unknown_speaker_is_an_error_and_the_known_ones_are_named(tmp_path: Path) -> None:
    screen = refused(tmp_path, {"conversations": [{"from": "narrator", "value": "x"}]})
    assert screen.startswith(
        "rows.jsonl:1: data.rows: conversations: turn 1 is said by 'narrator'\n    expected: one of"
    )


def test_a_declared_format_whose_columns_are_not_there_is_an_error_of_the_file(tmp_path: Path) -> None:
    assert refused(tmp_path, {"conversations": []}, format="alpaca") == (
        "rows.jsonl:1: data.rows: format: alpaca needs instruction and output\n"
        "    expected: found conversations\n"
        "    hint: these columns are those of format: sharegpt"
    )
