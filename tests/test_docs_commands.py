"""Commands of README and docs that can run in a prepared project are run, in this process, and succeed.

Those that train or wait (`recipe run`, `plan`, `watch`, `export`, `chat`) are parsed only, and their recipes are
checked (`test_docs.py`); what they do is tested where it is built.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from runner.cli import cli
from runner.cli.root import guarded
from tests.documented_blocks import ROOT
from tests.documented_commands import Command, commands
from tests.documented_projects import Projects, stub
from tests.probe_project import ask

pytest_plugins = ["pytester"]

READING = frozenset(
    {"check", "preview", "compare", "list", "show", "report", "bisect", "schema", "completion", "store"}
)
"""Commands that read what is there, and train nothing. Plots are drawn by a browser: see `test_report_pictures.py`."""
JUDGING = frozenset({"compare", "show"})
"""Of those, the ones whose exit code is that of gates."""


def of(program: str) -> list[Command]:
    """Each once, on whatever page; without those that name no file but stand for any, as `recipe check FILE`."""
    found = {}
    for command in commands():
        any_file = any(re.fullmatch(r"[A-Z][A-Z|]*…?|名字", word) for word in command.words)
        if command.words[0] == program and len(command.words) > 1 and not any_file:
            found.setdefault((command.words, command.printed), command)
    return list(found.values())


def arguments_stand(command: Command) -> bool:
    """Among words a command may be named without its arguments."""
    name = command.words[1]
    needs = any(parameter.required for parameter in cli.commands[name].params)
    return not command.in_text or not needs or any(not word.startswith("-") for word in command.words[2:])


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Projects:
    return Projects(tmp_path_factory.mktemp("pages"))


def succeed(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with exit code 0, or with that of gates, and prints what its page says, where the page says so."""
    code = guarded(lambda: cli.main(list(command.words[1:]), prog_name="recipe", standalone_mode=False))
    printed, errors = capsys.readouterr()
    assert code in ({0, 1} if command.words[1] in JUDGING else {0}), errors
    if command.mark == "compared":
        shown = ".*".join(re.escape(" ".join(part.split())) for part in command.printed.split("…"))
        assert re.search(shown, " ".join(printed.split())), printed


@pytest.mark.parametrize(
    "command",
    [one for one in of("recipe") if one.words[1] in READING and "--plots" not in one.words and arguments_stand(one)],
    ids=lambda command: command.name,
)
def test_a_command_that_reads_succeeds(
    projects: Projects, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = command.words[1:]
    root = projects.of(command.page)
    if name in ("check", "preview"):
        file = next(word for word in rest if not word.startswith("-"))
        root = ROOT if projects.recipe_of_command(command.page, file).is_relative_to(ROOT) else root
    else:
        named = [f"results/{word}" for word in rest if name in ("show", "bisect") and re.fullmatch(r"[a-z]\w+", word)]
        named += ["results/listed"] if name == "list" else []
        projects.make_what_it_names(root, " ".join([*command.words, *named]))
        if name == "bisect":
            projects.rename_case(root, rest[1].removeprefix("results/"), rest[0])
    monkeypatch.chdir(root)
    monkeypatch.setenv("RECIPE_STORE", str(root / "replies.sqlite3"))
    succeed(command, capsys)


@pytest.mark.parametrize(
    "command",
    [one for one in of("recipe") if one.words[1] == "new" and (not one.in_text or len(one.words) > 3)],
    ids=lambda one: one.name,
)
def test_a_command_that_writes_a_beginning_succeeds(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in command.words:
        if word.endswith(".jsonl"):
            (tmp_path / word).parent.mkdir(exist_ok=True, parents=True)
            shutil.copy(ROOT / "tests" / "documented" / "rows.jsonl", tmp_path / word)
    monkeypatch.chdir(tmp_path)
    succeed(command, capsys)


@pytest.mark.parametrize(
    "command",
    [one for one in of("pytest") if "--ckpt" in one.words and not re.search(r"results/|--ckpt$", one.name)],
    ids=lambda command: command.name,
)
def test_a_command_that_asks_succeeds(project: pytest.Pytester, projects: Projects, command: Command) -> None:
    named = " ".join(command.words).replace("checkpoint-*", "checkpoint-500")
    if re.search(r"--ckpt out\b(?!/)", named):
        named += " out/checkpoint-500 out/checkpoint-1000"
    stub(project.path, "probes/test_asked.py")
    projects.make_what_it_names(project.path, named)
    assert ask(project, *command.words[1:]).ret == 0
