"""The hostile corpus where rows of data and names come from strangers, and in the log of a job of GitHub Actions."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from rich.text import Text

from runner import checkpoints, model_card, recipe, starter
from runner.check import load_checked
from runner.cli import cli
from runner.cli.actions import NoCommands, unheard
from runner.cli.printing import Screen
from runner.console import RunView, StageProgress, run_screen
from runner.errors import UserError
from runner.gate import Number
from runner.standings import open_run
from runner.starter.wording import quoted
from runner.underway import Work
from runner.verdicts import SuiteAsked, Verdict, VerdictFile
from runner.watching.sweep import Sweep
from tests.hostile_replies import FILES, REPLIES
from tests.recorded_run import write_run_folder
from tests.test_hostile_replies import (
    assert_a_terminal_obeys_nothing,
    assert_markdown_holds_no_markup_of_a_reply,
    printed,
    rendered,
)

TEXTS = tuple(text for text in REPLIES if text.strip())
RECIPE = """\
recipe: rows
model: {config: {model_type: qwen3}, tokenizer: {train: char, from_data: said}}
data:
  said: {path: %s}
stages:
  base: {kind: pretrain, data: said, max_steps: 1, max_length: 8192}
"""


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


# --- rows, and the names of their files and columns ---


def test_a_preview_shows_every_hostile_row_and_none_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "rows\x1b[31m\u202e.jsonl"
    write_rows(tmp_path / name, [{"text": text} for text in TEXTS])
    (tmp_path / "r.yaml").write_text(RECIPE % json.dumps(name), encoding="utf-8")
    shown = printed("preview", "r.yaml", "--rows", str(len(TEXTS)))
    assert r"rows\x1b[31m\u202e.jsonl:1:" in shown
    assert r"\x1b" in shown.split("learned", 1)[1].split("said, rows")[0]
    assert_a_terminal_obeys_nothing(shown)


def test_a_plan_a_check_and_a_fault_show_the_names_of_files_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "rows\x1b[31m\u202e.jsonl"
    (tmp_path / name).write_text('{"text": "a"}\n' + TEXTS[0] + "\n", encoding="utf-8")
    (tmp_path / "r.yaml").write_text(RECIPE % json.dumps(name), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_checked(tmp_path / "r.yaml")
    said = io.StringIO()
    Screen(file=said, width=80).print(Text(caught.value.screen()))
    assert r"rows\x1b[31m\u202e.jsonl" in said.getvalue()
    assert_a_terminal_obeys_nothing(said.getvalue())


def test_every_hostile_text_stands_in_a_recipe_as_it_is(tmp_path: Path) -> None:
    texts = (*TEXTS, "{{ a }}{% endraw %}{{ 7 * 7 }}", "{# \" \\ ' \x1b endraw", "{% raw %}")
    lines = [f"  t{number}: {quoted(text)}" for number, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    (tmp_path / "r.yaml").write_text("\n".join([RECIPE % "rows.jsonl", "vars:", *lines]), encoding="utf-8")
    assert tuple(recipe.load(tmp_path / "r.yaml").spec.vars.values()) == texts


@pytest.mark.parametrize("name", [*TEXTS[:72:6], "{{ a }}{% endraw %}{{ 7 * 7 }}"])
def test_a_recipe_made_from_hostile_columns_reads_them_and_its_screen_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = name.replace("/", "_").replace("\0", "_")[:60] + ".jsonl"
    rows = [{name: f"{text} {row}", f"{name}2": row} for row, text in enumerate(TEXTS[:12])]
    write_rows(tmp_path / file, rows)
    found = starter.look(file)
    proposal = starter.propose(found)
    assert_a_terminal_obeys_nothing(rendered(starter.found_screen(found, proposal), 160))
    made, *_ = starter.write_from_data("made", found, proposal, tmp_path)
    assert_a_terminal_obeys_nothing(made.read_text(encoding="utf-8"))
    block = load_checked(made).spec.data["rows"]
    assert block.path == file
    assert set((block.columns or {}).values()) == {name, f"{name}2"}


# --- screens ---


def test_a_folder_whose_name_is_hostile_is_listed_and_reported_as_text(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "p", 1, 2)
    run.rename(run.with_name("r\x1b[2J\u202e"))
    for text in (printed("list", run.parent), printed("verify", run.with_name("r\x1b[2J\u202e"))):
        assert r"r\x1b[2J\u202e" in text
        assert_a_terminal_obeys_nothing(text)


def test_notes_titles_and_work_of_a_run_are_text_in_its_screen_and_in_its_log() -> None:
    for text in TEXTS:
        works = [Work(text, 2, text, 1, 0.0)]
        view = RunView(text, 1.0, [StageProgress(text, 2, "waiting", note=text)], works, note=text)
        assert_a_terminal_obeys_nothing(rendered(run_screen(view, 80, 24)))


def test_a_watch_shows_what_checkpoints_of_strangers_say_as_text() -> None:
    for text in TEXTS:
        sweep = Sweep()
        asked = SuiteAsked("suite", "k", ("p",), {"min_pass_rate": 0.9}, 2)
        rows = (Verdict("suite", "p", text, "miss", text, text), Verdict("suite", "p", "b", "error", text, text))
        sweep.put("checkpoint-1", VerdictFile(text, "", (asked, replace(asked, suite=text, gate=None)), rows), None)
        screen, _ = sweep.ending(Screen(width=100))
        assert_a_terminal_obeys_nothing(rendered(screen) + "\n".join(sweep.lines("checkpoint-1")))


def test_the_last_console_spells_out_what_no_screen_thought_of() -> None:
    said = io.StringIO()
    console = Screen(file=said, width=100, force_terminal=True, color_system=None)
    for text in TEXTS:
        console.print(Text(text))
    assert_a_terminal_obeys_nothing(said.getvalue())


# --- a model card ---


def test_a_model_card_is_a_head_and_text_whatever_the_run_said(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "p", 1, 4)
    opened = open_run(run)
    at = opened.standings.all_checkpoints()[-1]
    manifest = checkpoints.read_manifest(at.path)
    (known,) = opened.standings.decisions(at)[:1]
    for start in range(0, len(TEXTS), 9):
        text, said = TEXTS[start], TEXTS[start : start + 9]
        loud = replace(known, reasons=said, numbers=tuple(Number(one, 1.0) for one in said))
        data = {name: block.model_copy(update={"path": text} if block.path else {})
                for name, block in opened.loaded.spec.data.items()}  # fmt: skip
        model = opened.loaded.spec.model.model_copy(update={"path": text, "config": None})
        spec = opened.loaded.spec.model_copy(update={"data": data, "model": model})
        record = replace(opened.record, versions=dict(zip(said, said, strict=True)), git_commit=text)
        (run / "recipe.yaml").write_text(yaml.safe_dump({"vars": list(said)}), encoding="utf-8")
        card = model_card.card(model_card.Subject(run, run, spec, record, manifest, True, True, [loud], 1))
        assert_markdown_holds_no_markup_of_a_reply(ModelCard(card).text)
        assert set(ModelCard(card).data.to_dict()) <= {
            "library_name", "pipeline_tag", "base_model", "datasets", "tags", "model-index",
        }  # fmt: skip


# --- GitHub Actions ---


def obeyed(text: str) -> list[str]:
    """The lines that GitHub's runner takes for commands."""
    lines = text.replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip().startswith("::") or "##[" in line]


@pytest.mark.parametrize("size", [1, 2, 3, 10_000])
def test_no_line_that_a_command_prints_is_one_to_the_runner_in_whatever_pieces_it_comes(size: int) -> None:
    said = io.StringIO()
    stream = NoCommands(said)
    whole = "".join(
        f"{text}\n  {text}\n\t{text} ##[{text}]\n" for text in (*FILES, "##[error]x", ":: :", "a::b", "###[")
    )
    for at in range(0, len(whole), size):
        assert stream.write(whole[at : at + size]) == len(whole[at : at + size])
    assert obeyed(whole) != []
    assert obeyed(said.getvalue()) == []
    assert said.getvalue().replace(r"\x3a", ":").replace(r"##\x5b", "##[") == whole.replace(r"\x3a", ":")


def test_the_streams_of_a_command_are_guarded_in_actions_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = sys.stdout, sys.stderr
    for value, shown in (("true", r"\x3a:error::a" + "\n" + r"##\x5berror]b" + "\n"), ("", "::error::a\n##[error]b\n")):
        with unheard({"GITHUB_ACTIONS": value}):
            print("::error::a")
            print("##[error]b", file=sys.stderr)
        out, err = capsys.readouterr()
        assert out + err == shown
    assert (sys.stdout, sys.stderr) == streams


def test_what_commands_print_of_a_run_is_no_command_in_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run_folder(tmp_path / "p", 2, len(FILES), said=FILES, lost_at_end=len(FILES))
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", NoCommands(said))
    for command in (["show", run], ["compare", "--all", run / "qa" / "ckpt-2", run / "qa" / "ckpt-4"]):
        cli.main(list(map(str, command)), standalone_mode=False)
    assert r"##\x5berror]said" in said.getvalue()
    assert obeyed(said.getvalue()) == []
