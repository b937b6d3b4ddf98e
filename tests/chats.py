"""Conversations, tokenizers and chat templates of other projects' kinds, for tests of what is learned of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner import spec
from runner.data import chat
from runner.data.chat import ChatTemplate
from runner.data.examples import Message
from runner.data.tokenizer import Fast, save_tokenizer, train_tokenizer

SYSTEM = Message("system", "You are brief.")
ONE = (Message("user", "你好吗？"), Message("assistant", "很好。"))
TWO = (*ONE, Message("user", "2 + 2?\n"), Message("assistant", " It is\n4 "))
TEXTS = ["".join(message.content for message in (SYSTEM, *TWO))]

REWRITING = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.last %}
            {{- '<think>\\n\\n</think>\\n\\n' }}
        {%- endif %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
"""Writes the newest answer with a block of thinking and takes it out of earlier ones, as Qwen3's own does."""

THINKS_FIRST = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}
"""
"""Asks for thoughts that it does not write."""


def template(source: str) -> ChatTemplate:
    """A template from a file of the user's."""
    return ChatTemplate(source, "mine.jinja", chosen=True)


def trained(kind: str, made: ChatTemplate, *texts: str) -> Fast:
    """A tokenizer of the texts here, for a template."""
    how = spec.Tokenizer(train="char", from_data=("x",))
    if kind == "bpe":
        how = spec.Tokenizer(train="bpe", from_data=("x",), vocab_size=320)
    return train_tokenizer(how, [*TEXTS, *texts], made)


def in_transformers(fast: Fast, made: ChatTemplate, folder: Path) -> Any:
    """The same tokenizer as transformers loads it."""
    from transformers import AutoTokenizer

    save_tokenizer(fast, folder, made)
    return AutoTokenizer.from_pretrained(folder)


def shipped() -> list[ChatTemplate]:
    """All that ship."""
    return [chat.shipped(name) for name in spec.CHAT_TEMPLATES]


def turns(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    """As transformers takes them."""
    return [{"role": message.role, "content": message.content} for message in messages]
