"""`recipe chat`: a talk with a checkpoint in the terminal, through its own template and the engine that probes ask.

A process of its own, because it imports torch. What is read and said are plain lines: a file can be piped in.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from runner.asking import Decoding
from runner.errors import EXIT_INTERRUPTED, UserError, printable
from runner.probing import engine
from runner.probing.questions import Message, Question

_HELP = "/new begins anew, /quit or Ctrl-D leaves"


class Talk:
    """A dialogue with a checkpoint, or, where it has no chat template, one continuation after the other."""

    def __init__(self, local: engine.Engine, decoding: Decoding, system: str | None = None) -> None:
        self._local, self._decoding = local, decoding
        self._opening = (Message("system", system),) if system else ()
        self.messages = self._opening
        self._turn = 0

    @property
    def has_template(self) -> bool:
        """Whether what was said before is sent along."""
        return bool(getattr(self._local.tokenizer, "chat_template", None))

    def new(self) -> None:
        """Forget what was said."""
        self.messages = self._opening

    def say(self, text: str) -> str:
        """The reply to a turn.

        Raises:
            UserError: the template cannot write it, or it is longer than the model can read.
        """
        self._turn += 1
        seed = self._turn if self._decoding.temperature else 0
        if self.has_template:
            asked = (*self.messages, Message("user", text))
            question = Question(messages=asked, decoding=self._decoding, seed=seed)
        else:
            asked = ()
            question = Question(prompt=text, raw=True, decoding=self._decoding, seed=seed)
        (answer,) = self._local.generate([question])
        if answer.error:
            raise UserError(answer.error, hint="/new begins anew")
        if self.has_template:
            self.messages = (*asked, Message("assistant", answer.text))
        return answer.text


def main(arguments: Sequence[str]) -> int:
    """Talk until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--system")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    given = parser.parse_args(arguments)
    decoding = Decoding(max_new_tokens=given.max_new_tokens, temperature=given.temperature, top_p=given.top_p)
    try:
        talk = Talk(engine.Engine(given.checkpoint), decoding, given.system)
    except UserError as error:
        print("\n".join(map(printable, error.screen().split("\n"))), file=sys.stderr)
        return error.exit_code
    if sys.stdin.isatty():
        how = "" if talk.has_template else "; it has no chat template: it goes on with what you type"
        print(f"{printable(str(given.checkpoint))}, {talk_words(decoding)}{how}. {_HELP}")
    try:
        converse(talk, _lines(), print)
    except KeyboardInterrupt:  # while it answered
        return EXIT_INTERRUPTED
    return 0


def talk_words(decoding: Decoding) -> str:
    """`greedy`, or how it draws."""
    return f"temperature {decoding.temperature:g}, top_p {decoding.top_p:g}" if decoding.temperature else "greedy"


def converse(talk: Talk, lines: Iterator[str], tell: Callable[[str], None]) -> None:
    """Answer line after line."""
    for line in lines:
        text = line.strip()
        if text == "/quit":
            return
        if text == "/new":
            talk.new()
        elif text:
            try:
                reply = talk.say(text)
            except UserError as error:
                reply = error.screen()  # which may quote the checkpoint
            tell("\n".join(printable(part) for part in reply.split("\n")))


def _lines() -> Iterator[str]:
    """What is typed, with a prompt where somebody types it."""
    prompt = "› " if sys.stdin.isatty() else ""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a piped file may be in another encoding
    while True:
        try:
            yield input(prompt)
        except (EOFError, KeyboardInterrupt):
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
