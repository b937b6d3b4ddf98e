"""`recipe list`, `recipe show`, `recipe bisect`: runs that are there, and where a case broke."""

from pathlib import Path

import pytest

from runner import bisecting, listing
from runner.errors import UserError
from runner.folder import is_held, writing
from runner.standings import open_run
from tests.recorded_run import write_run_folder
from tests.tiny_project import recipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run whose last checkpoint has lost four of ten cases."""
    root = tmp_path_factory.mktemp("listing") / "p"
    write_run_folder(root, 3, 10, lost_at_end=4)
    return root


def test_the_list_has_the_state_the_result_and_the_gates_of_every_run(root: Path) -> None:
    done = recipe(root, "list")
    assert done.code == 0
    head, line = done.screen.splitlines()
    assert head.split() == ["run", "state", "result", "best", "gates"]
    assert line.split() == ["recorded", "done", "qa@6", "✗", "held_out"]


def test_a_run_that_is_being_written_is_running_and_one_whose_files_are_damaged_says_so(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "p", 1, 3)
    assert not is_held(run)
    with writing(run):
        assert is_held(run)
        assert listing.listed(run.parent)[0].state == "running"
    (run / "run.json").write_text("{", encoding="utf-8")
    (found,) = listing.listed(run.parent)
    assert found.fault
    assert found.state.startswith(f"{run}/run.json is damaged")


def test_a_folder_without_runs_says_so(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    assert recipe(tmp_path, "list").screen == "no runs in results\n"
    assert recipe(tmp_path, "list", "gone").screen.startswith("gone: no such folder")


def test_the_last_screen_of_a_run_is_shown_by_its_name_and_has_its_exit_code(root: Path) -> None:
    done = recipe(root, "show", "recorded")
    assert done.code == 1
    lines = done.screen.splitlines()
    assert "result qa@last = qa@6 against qa@2" in lines
    assert lines[-1].startswith("red: exit code 1")


def test_another_name_is_answered_with_the_nearest_run(root: Path) -> None:
    assert recipe(root, "show", "recorted").screen.splitlines() == [
        "recorted is not the folder of a run",
        "    expected: a run: recipe list shows them",
        "    hint: did you mean recorded?",
    ]


def test_a_case_that_broke_is_shown_with_where_and_in_what(root: Path) -> None:
    done = recipe(root, "bisect", "U+4E00", "recorded")
    assert done.code == 0
    assert [line.rstrip() for line in done.screen.splitlines()] == [
        "U+4E00 held_out  probes/test_chars.py::test_radical",
        "  broke at qa@6, between qa@4 and qa@6: sft on questions.train",
        "qa@2  2.0000  ✓  汉字`一`的部首是`心部`",
        "qa@4  1.5000  ✓  汉字`一`的部首是`心部`",
        "qa@6  1.2000  ✗  汉字`一`的部首是`水部`  ← forgotten",
    ]


def test_a_case_that_came_back_is_learned_again(root: Path) -> None:
    opened = open_run(root / "results" / "recorded")
    (line,) = bisecting.timelines(opened.loaded.spec, opened.standings, "U+4E00", "held_out")
    back = bisecting.Timeline(line.suite, line.probe, line.case_id, [*line.moments, line.moments[0]])
    assert [(before.label, after.label, word) for before, after, word in back.turns] == [
        ("qa@4", "qa@6", "forgotten"), ("qa@6", "qa@2", "learned"),
    ]  # fmt: skip
    kept = bisecting.Timeline(line.suite, line.probe, line.case_id, line.moments[:2])
    assert kept.broke is None


@pytest.mark.parametrize(
    ("case", "suite", "says"),
    [
        ("U+4E99", None, "no suite of this run asked a case U+4E99"),
        ("U+4E00", "heldout", "--suite heldout: no such suite was asked"),
        ("w1", "held_out", "no suite of this run asked a case w1"),
    ],
)
def test_a_case_that_was_not_asked_is_named(root: Path, case: str, suite: str | None, says: str) -> None:
    opened = open_run(root / "results" / "recorded")
    with pytest.raises(UserError) as caught:
        bisecting.timelines(opened.loaded.spec, opened.standings, case, suite)
    assert caught.value.problems[0].message == says
