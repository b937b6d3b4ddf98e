"""Screens in a real terminal: at every size and after every resize nothing is torn, and nothing is cut without an
ellipsis."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import cells
from tests import recorded_screen
from tests.terminal import Terminal, needs_tmux, terminal
from tests.tiny_project import leave_out_dpo, wait_until, write_project

pytestmark = needs_tmux
ROOT = Path(__file__).parents[1]
SIZES = [(60, 24), (200, 60), (80, 24), (80, 20)]
"""One after the other: what a resize leaves behind shows in the next."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Terminal, Path]]:
    """The recorded screen, and the folder in which it says its states."""
    folder = tmp_path_factory.mktemp("t")
    argv = [sys.executable, str(ROOT / "tests" / "recorded_screen.py"), str(folder)]
    with terminal(folder, argv, cwd=ROOT, PYTHONPATH=str(ROOT)) as made:
        yield made, folder


def fault(picture: list[str], width: int) -> str:
    """What is wrong with a picture of the live screen; empty where nothing is."""
    title = [line for line in picture if line.startswith(recorded_screen.TITLE)]
    if len(title) != 1:
        return f"the view is there {len(title)} times"
    if wide := [line for line in picture if cells(line) > width]:
        return f"wrapped: {wide[0]}"
    if "Traceback" in "".join(picture):
        return "it broke"
    begin = next((place for place, line in enumerate(picture) if line.startswith("checkpoint ")), None)
    if begin is None:
        return ""
    matrix = picture[begin : picture.index("", begin) if "" in picture[begin:] else len(picture)]
    matrix = [line for line in matrix if "above" not in line]
    if len({cells(line) for line in matrix}) != 1:
        return f"not aligned: {matrix}"
    uncut = [line for line in picture if line.startswith("    before: 字") and not line.endswith("…")]
    return f"cut without an ellipsis: {uncut}" if uncut else ""


def check(made: Terminal, width: int, *words: str) -> list[str]:
    """A picture with these words in it, of which nothing is wrong."""

    def wrong(picture: list[str]) -> str:
        missing = [word for word in words if word not in "\n".join(picture)]
        return f"not there: {missing}" if missing else fault(picture, width)

    return made.seen(wrong, timeout_s=30)


def test_the_live_screen_is_whole_at_every_size_and_after_every_resize(shown: tuple[Terminal, Path]) -> None:
    made, folder = shown

    def reached(state: str) -> None:
        wait_until((folder / state).exists)

    def go_on(state: str) -> None:
        (folder / state).unlink()

    reached("reading")
    made.shows("reading data/", "1.2 GB of 5.0 GB", "left")
    go_on("reading")
    reached("planned")
    check(made, 80, "6 stages to come")
    go_on("planned")
    reached("training")
    for width, height in SIZES:
        made.resize(width, height)
        check(made, width, "40/96", "✗ lost", "… ", "checkpoint", "+1 more" if width == 200 else "more")
    made.resize(80, 24)
    go_on("training")
    reached("probing")
    check(made, 80, "answering: 1,234 of 10,000 questions", "probing")
    go_on("probing")
    reached("leaving")
    check(made, 80, "Ctrl-C again leaves at once")
    go_on("leaving")
    reached("code")
    assert not any(line.startswith((recorded_screen.TITLE, "checkpoint", "Traceback")) for line in made.picture())


def test_a_run_is_looked_at_on_its_way_and_ends_with_ctrl_c(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("r")
    recipe = write_project(folder / "p")
    leave_out_dpo(recipe)
    text = recipe.read_text(encoding="utf-8").replace("num_train_epochs: 24", "num_train_epochs: 150")
    recipe.write_text(text, encoding="utf-8")
    program = str(Path(sys.executable).with_name("recipe"))
    with terminal(folder, [program, "run", "tiny.yaml"], cwd=recipe.parent, PATH=os.environ["PATH"]) as made:
        made.shows("looking at the model")
        training = made.shows("tok/s", "left", "MB")
        assert max(map(cells, training)) <= 80
        assert sum(line.startswith("tiny  ") for line in training) == 1
        made.tmux("send-keys", "C-c")
        wait_until((folder / "code").exists)
        assert (folder / "code").read_text(encoding="utf-8").strip() == "130"
        made.shows("the same command resumes")
