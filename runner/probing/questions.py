"""What is asked and what comes of it, between those who ask and whatever answers: local engine, server, store.

No torch here: a store that knows every answer loads no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.asking import Decoding

EndReason = Literal["eos", "stop", "length", "choice"]


_GREEDY = Decoding()


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: str
    content: str


@dataclass(frozen=True)
class Question:
    """One prompt and how it is answered. Equal questions have equal answers: they are asked once."""

    prompt: str = ""
    """The text, where there are no messages. Where the tokenizer has a chat template it is one user message, unless
    `raw`."""
    messages: tuple[Message, ...] = ()
    """A dialogue, for the chat template."""
    raw: bool = False
    """The prompt is continued as it is, never through a chat template."""
    template_kwargs: str = "{}"
    """JSON with sorted keys: arguments of the chat template, such as `{"enable_thinking": false}`."""
    decoding: Decoding = _GREEDY
    choices: tuple[str, ...] = ()
    """A closed question: nothing is generated, the most likely of these continuations is the answer."""
    seed: int = 0
    """Of sampling; 0 where decoding is greedy, so that equal prompts stay equal questions."""


@dataclass(frozen=True)
class Answer:
    """What came of one question. Where `error` is set there is no reply."""

    prompt: str = ""
    """The exact text the model was given; of a server that renders it itself, the messages as JSON."""
    text: str = ""
    tokens: tuple[int, ...] = ()
    """Generated ids, the stop token included; of a closed question the ids of the choice; of a server, none."""
    stop_reason: EndReason = "eos"
    margin: float | None = None
    """Smallest difference between the two best logits over the generated tokens; of a closed question, between the log
    probabilities of the two best choices."""
    logprob: float | None = None
    """Sum of the log probabilities (natural logarithm) of `tokens`, before temperature and penalties."""
    choice_logprobs: tuple[float, ...] = ()
    """Of a closed question: the log probability of each choice, in their order."""
    seconds: float = 0.0
    """This question's share of the time its batch took."""
    again: bool = False
    """Asked again alone in fp32, because the first answer hung by a hair."""
    error: str = ""
