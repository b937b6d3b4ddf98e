"""Chat templates: rendered as transformers does, found where a recipe says, learned answer by answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner import spec
from runner.data import chat, tokens
from runner.data.chat import ChatTemplate, TemplateFault
from runner.data.conversations import Conversations
from runner.data.datasets import Example
from runner.data.examples import Message
from runner.data.pairs import Pair
from runner.data.tokenizer import Fast, load_tokenizer
from runner.data.tokens import Encoding, Tokens
from runner.errors import BadCheckpoint, BadData, BadRecipe, UserError
from tests.chats import ONE, REWRITING, SYSTEM, THINKS_FIRST, TWO, in_transformers, shipped, template, trained, turns

KINDS = pytest.mark.parametrize("kind", ["char", "bpe"])
SHIPPED = pytest.mark.parametrize("made", shipped(), ids=lambda made: made.origin)

QUIRKS = """\
{%- set found = namespace(last=0) -%}
{% for message in messages %}
    {%- if message.role == 'tool' %}{% continue %}{% endif %}
    {% set found.last = loop.index %}
    {% generation %}
    [{{ message | tojson }}{{ found.last }}{{ bos_token }}]
    {% endgeneration %}
{% endfor %}
{% if not tools %}{{ strftime_now('%Y') | length }}{% endif %}
  {# gone #}
{% if add_generation_prompt %}ask{% endif %}
"""


def rendered(made: ChatTemplate, messages: tuple[Message, ...], fast: Fast, *, ask: bool = False) -> str:
    return made.render(messages, fast.names, ask=ask)


def said(fast: Fast, row: Tokens) -> list[str]:
    """The texts of a row that are supervised."""
    return [fast.tokenizer.decode(row.ids[start:stop], skip_special_tokens=False) for start, stop in row.spans]


# --- rendering ---


@pytest.mark.parametrize("made", [*shipped(), template(QUIRKS), template(REWRITING)], ids=lambda made: made.origin)
def test_a_template_gives_the_text_that_transformers_gives(made: ChatTemplate, tmp_path: Path) -> None:
    fast = trained("char", made)
    theirs = in_transformers(fast, made, tmp_path)
    for messages in (ONE, TWO, (SYSTEM, *TWO), TWO[:1], TWO[:3]):
        for ask in (False, True):
            expected = theirs.apply_chat_template(turns(messages), tokenize=False, add_generation_prompt=ask)
            assert rendered(made, messages, fast, ask=ask) == expected


def test_a_template_that_refuses_says_why() -> None:
    made = template("{{ raise_exception('only users') }}")
    with pytest.raises(TemplateFault, match="only users"):
        made.render(ONE, {})


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    with pytest.raises(TemplateFault, match="unsafe"):
        template("{{ messages.__class__.__mro__ }}").render(ONE, {})


# --- where it is found ---


def test_the_recipes_template_goes_before_the_tokenizers_own(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "mine.jinja").write_text("mine")
    (tmp_path / "model" / "chat_template.jinja").write_text("own")
    for name, source in (("mine.jinja", "mine"), (None, "own"), ("chatml", chat.shipped("chatml").source)):
        found = chat.of(spec.Model(path="model", chat_template=name), tmp_path)
        assert found is not None
        assert (found.source, found.chosen) == (source, name is not None)
    assert chat.of(spec.Model(path="model", chat_template="none"), tmp_path) is None


@pytest.mark.parametrize(
    "given", ["own", [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "own"}]]
)
def test_a_template_in_the_configuration_of_a_tokenizer_is_its_own(tmp_path: Path, given: object) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": given}))
    assert chat.own(tmp_path) == "own"


def test_a_tokenizer_without_a_template_and_a_new_one_have_none(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert chat.of(spec.Model(path="model"), tmp_path) is None
    new = spec.Model(config={"model_type": "qwen3"}, tokenizer=spec.Tokenizer(train="char", from_data=("x",)))
    assert chat.of(new, tmp_path) is None


def test_a_file_that_is_no_template_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{% for x in y %}")
    with pytest.raises(BadRecipe) as caught:
        chat.of(spec.Model(path="model", chat_template="mine.jinja"), tmp_path)
    assert caught.value.screen() == (
        "mine.jinja is no chat template: Unexpected end of template\n"
        "    expected: a Jinja template, or one that ships: chatml, qwen3, llama3, alpaca, plain"
    )


# --- tokenizers ---


@SHIPPED
@KINDS
def test_a_trained_tokenizer_knows_all_that_a_template_writes(kind: str, made: ChatTemplate, tmp_path: Path) -> None:
    fast = trained(kind, made)
    theirs = in_transformers(fast, made, tmp_path)
    assert theirs.chat_template == made.source
    assert all(theirs.convert_tokens_to_ids(token) in fast.special_ids for token in made.tokens)
    assert set(made.tokens) <= set(theirs.all_special_tokens)
    text = rendered(made, (SYSTEM, *TWO), fast, ask=True)
    (ids,) = fast.ids([text])
    assert fast.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    loaded = load_tokenizer(tmp_path)
    assert (loaded.ids([text]), loaded.names) == ([ids], fast.names)


def test_a_tokenizer_that_lacks_the_tokens_of_a_template_is_refused() -> None:
    with pytest.raises(BadCheckpoint) as caught:
        Conversations(chat.shipped("chatml"), trained("bpe", chat.shipped("plain")))
    assert caught.value.screen() == (
        "the tokenizer has no token <|im_start|> and no <|im_end|>, which chat template chatml writes\n"
        "    expected: the tokenizer of a model that was trained with this template, or one that this run trains\n"
        "    hint: alpaca and plain need no tokens of their own"
    )


def test_a_template_after_whose_answers_nothing_would_stop_is_refused() -> None:
    made = template("{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}")
    with pytest.raises(UserError) as caught:
        Conversations(made, trained("char", made))
    assert caught.value.screen() == (
        "the chat template of mine.jinja writes no special token after an answer, so a model that learns it never "
        "stops\n"
        "    expected: a token such as {{ eos_token }} behind what the assistant says\n"
        "    hint: model.chat_template: a shipped name, or a file with a template of your own"
    )


# --- what is learned ---


@SHIPPED
@KINDS
def test_every_answer_with_its_stop_token_is_supervised_and_nothing_else_is(kind: str, made: ChatTemplate) -> None:
    fast = trained(kind, made)
    stop = Conversations(made, fast).stop
    think = "<think>\n\n</think>\n\n" if made.origin == "qwen3" else ""
    answers = [f"{think}很好。{stop}", f"{think} It is\n4 {stop}"]
    for turns_learned, expected in (("all", answers), ("last", answers[1:])):
        how = Encoding(512, turns=turns_learned, chat=made)  # type: ignore[arg-type]
        ((row,),) = tokens.encode(fast, [Example("", "", 0, (SYSTEM, *TWO))], how)
        assert said(fast, row) == expected
        assert [row.ids[stop - 1] for _, stop in row.spans] == [Conversations(made, fast).stop_id] * len(expected)
        assert row.spans[-1][1] == len(row.ids)  # and nothing follows
    ((whole,),) = tokens.encode(fast, [Example("", "", 0, TWO)], Encoding(512, whole=True, chat=made))
    assert whole.spans == ((0, len(whole.ids)),)


@SHIPPED
@KINDS
def test_the_ids_of_each_prompt_as_transformers_makes_it_begin_the_row(
    kind: str, made: ChatTemplate, tmp_path: Path
) -> None:
    fast = trained(kind, made)
    theirs = in_transformers(fast, made, tmp_path)
    ((row,),) = tokens.encode(fast, [Example("", "", 0, TWO)], Encoding(512, chat=made))
    # of several line breaks before a word this bpe's rules make other tokens than of the same at the end of a prompt
    places = (1,) if (kind, made.origin) == ("bpe", "llama3") else (1, 3)
    for (start, _), place in zip(row.spans, places, strict=False):
        prompt = theirs.apply_chat_template(turns(TWO[:place]), add_generation_prompt=True, return_dict=False)
        assert list(row.ids[:start]) == prompt


def test_prompt_and_completion_are_a_users_and_an_assistants_turn() -> None:
    made = chat.shipped("chatml")
    fast = trained("char", made)
    asked, conversed = (
        tokens.encode(fast, [example], Encoding(512, chat=made))
        for example in (Example(ONE[0].content, ONE[1].content, 0), Example("", "", 0, ONE))
    )
    assert asked == conversed
    ((document,),) = tokens.encode(fast, [Example("", "4", 0)], Encoding(512, chat=made))
    assert document.ids == [*fast.ids(["4"])[0], fast.eos_id]  # a document is no conversation


def test_where_earlier_answers_are_rewritten_each_is_learned_in_a_row_of_its_own() -> None:
    made = template(REWRITING)
    fast = trained("char", made)
    empty = "<think>\n\n</think>\n\n"
    ((first, second),) = tokens.encode(fast, [Example("", "", 7, TWO)], Encoding(512, chat=made))
    assert said(fast, first) == [f"{empty}很好。<|im_end|>"]
    assert said(fast, second) == [f"{empty} It is\n4 <|im_end|>"]
    assert fast.tokenizer.decode(second.ids, skip_special_tokens=False).count("<think>") == 1
    assert first.row == second.row == 7
    ((last,),) = tokens.encode(fast, [Example("", "", 7, TWO)], Encoding(512, turns="last", chat=made))
    assert last == second
    ((whole,),) = tokens.encode(fast, [Example("", "", 7, TWO)], Encoding(512, whole=True, chat=made))
    assert (whole.ids, whole.spans) == (second.ids, ((0, len(second.ids)),))


def test_a_conversation_without_an_answer_teaches_nothing_and_one_that_ends_with_its_user_loses_that() -> None:
    made = chat.shipped("chatml")
    fast = trained("char", made)
    ((asked,), (row,), (same,)) = tokens.encode(
        fast, [Example("", "", at, turns) for at, turns in enumerate((ONE[:1], TWO[:3], ONE))], Encoding(512, chat=made)
    )
    assert (asked.spans, asked.supervised) == ((), 0)
    assert row.ids == same.ids


def test_a_conversation_without_a_template_is_refused() -> None:
    with pytest.raises(BadData) as caught:
        tokens.encode(trained("char", chat.shipped("plain")), [Example("", "", 4, TWO)], Encoding(64))
    assert caught.value.screen() == (
        "row 5: a conversation, and no chat template is set\n"
        "    hint: say model.chat_template: chatml, qwen3, llama3, alpaca, plain, or a file"
    )


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    made = chat.shipped("alpaca")
    with pytest.raises(BadData, match="row 3: the chat template of alpaca cannot write it: alpaca has no role tool"):
        tokens.encode(
            trained("char", made), [Example("", "", 2, (Message("tool", "x"), *ONE))], Encoding(64, chat=made)
        )


def test_pairs_go_through_the_template_too() -> None:
    made = chat.shipped("chatml")
    fast = trained("char", made)
    short, long = tokens.encode_pairs(
        fast, [Pair("你好吗？", "好", "吗", 0), Pair("", "4", "2", 1, TWO[:3])], 512, made
    )
    decode = fast.tokenizer.decode
    assert decode(short.prompt_ids, skip_special_tokens=False) == rendered(made, ONE[:1], fast, ask=True)
    assert decode(long.prompt_ids, skip_special_tokens=False) == rendered(made, TWO[:3], fast, ask=True)
    assert [decode(ids, skip_special_tokens=False) for ids in (short.chosen_ids, short.rejected_ids)] == [
        "好<|im_end|>", "吗<|im_end|>",
    ]  # fmt: skip


def test_a_prompt_that_asks_for_more_than_was_written_is_shown() -> None:
    made = template(THINKS_FIRST)
    with pytest.raises(BadData) as caught:
        tokens.encode(trained("char", made), [Example("a", "b", 11)], Encoding(64, chat=made))
    assert caught.value.screen() == (
        "row 12: the prompt as probes ask it is not a prefix of the text that is trained: after "
        "'>user\\na<|im_end|>\\n<|im_start|>assistant\\n' comes '<think>\\n' and not 'b<|im_end|>\\n'\n"
        "    expected: a chat template that writes what is said before an answer alike without it; mine.jinja does "
        "not\n"
        "    hint: model.chat_template: a shipped name, a file, or none"
    )
