"""What a row is written as: a text to train on, or a conversation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A text to train on; a document has the prompt ""."""

    prompt: str
    completion: str
    row: int
    """Index of the row in its source."""
    messages: tuple[Message, ...] = ()
    """A conversation, where there is one; prompt and completion are "" then."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All its texts, in order; without a prompt where it has none."""
        if self.messages:
            return tuple(message.content for message in self.messages)
        return (self.prompt, self.completion) if self.prompt else (self.completion,)
