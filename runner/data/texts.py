"""What a row is written as: a text to train on, or a conversation."""

from __future__ import annotations

from dataclasses import dataclass

from runner.errors import BadData, Where


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


class BadExample(BadData):
    """A text that cannot become token ids. It knows the number of its row; where that stands, its data set says."""

    def __init__(self, row: int, message: str, *, expected: str | None = None, hint: str | None = None) -> None:
        """`row` is the index of the row in its source."""
        super().__init__(f"row {row + 1}: {message}", expected=expected, hint=hint)
        self.row = row
        self._message, self._expected, self._hint = message, expected, hint

    def at(self, data: str, where: Where) -> BadData:
        """The same error with the data set's name, and the file and line of the row."""
        return BadData(f"data.{data}: {self._message}", where=where, expected=self._expected, hint=self._hint)
