"""`recipe chat`: a talk with a checkpoint, as it was trained to be talked to."""

import subprocess
import sys
from pathlib import Path

import pytest

from runner.asking import Decoding
from runner.probing import engine
from runner.probing.chatting import Talk, converse
from tests.tiny import copy
from tests.tiny_project import recipe

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"


@pytest.fixture
def talks(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint with a chat template."""
    path = copy(tiny_checkpoint, tmp_path / "talks")
    (path / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return path


def test_a_talk_sends_along_what_was_said_and_can_begin_anew(talks: Path) -> None:
    talk = Talk(engine.Engine(talks), Decoding(max_new_tokens=4), "心")
    told: list[str] = []
    converse(talk, iter(["水", "木", "/new", "水", "", "/quit", "never asked"]), told.append)
    assert len(told) == 3
    assert told[2] == told[0]  # greedy, and nothing of before is left
    roles = [message.role for message in talk.messages]
    assert roles == ["system", "user", "assistant"]
    assert [message.content for message in talk.messages] == ["心", "水", told[2]]


def test_without_a_template_it_goes_on_with_what_is_typed(tiny_checkpoint: Path) -> None:
    talk = Talk(engine.Engine(tiny_checkpoint), Decoding(max_new_tokens=4))
    assert not talk.has_template
    assert talk.say("水") == talk.say("水")
    assert talk.messages == ()


def test_a_turn_that_is_too_long_is_said_and_the_talk_goes_on(talks: Path) -> None:
    talk = Talk(engine.Engine(talks), Decoding(max_new_tokens=4))
    told: list[str] = []
    converse(talk, iter(["水" * 5000, "水"]), told.append)
    assert "hint: /new begins anew" in told[0]
    assert len(told) == 2


def test_lines_are_answered_from_a_pipe(talks: Path) -> None:
    command = [str(Path(sys.executable).with_name("recipe")), "chat", str(talks), "--max-new-tokens", "3"]
    done = subprocess.run(command, input="水\n木\n", capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr


@pytest.mark.parametrize(("make", "says"), [(False, "no such folder"), (True, "the folder is empty")])
def test_what_is_no_checkpoint_says_so(tmp_path: Path, make: bool, says: str) -> None:
    if make:
        (tmp_path / "ckpt").mkdir()
    done = recipe(tmp_path, "chat", "ckpt")
    assert (done.code, done.screen.splitlines()[0]) == (2, f"ckpt: {says}")


def test_a_folder_with_a_typing_error_is_given_the_name_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "ckpt-12").mkdir()
    assert recipe(tmp_path, "chat", "ckpt-14").screen.splitlines() == [
        "ckpt-14: no such folder",
        "    expected: a checkpoint's folder",
        "    hint: did you mean ckpt-12?",
    ]
    assert recipe(tmp_path, "export", "ckpt-14").screen.splitlines() == [
        "ckpt-14: no such folder",
        "    hint: did you mean ckpt-12?",
    ]
