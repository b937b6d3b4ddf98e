"""runner.folder: who a run folder belongs to, who is writing it (real processes hold locks), what is moved aside."""

import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from runner.errors import FolderTaken, UserError
from runner.folder import RunRecord, Superseded, check_owner, is_held, read_run, write_run, writing

RECORD = RunRecord(
    recipe="mine",
    recipe_path="recipes/mine.yaml",
    project_root="/p",
    seed=1,
    versions={"torch": "2"},
    hardware={"gpus": 0},
    git_commit=None,
    data={"questions": "ab"},
    looks=2,
)


@contextmanager
def held_by_another_process(run: Path) -> Iterator[subprocess.Popen[str]]:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom runner.folder import writing\n"
        f"with writing(Path({str(run)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with its time and its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def refusal(run: Path, recipe: str = "mine", path: str = "recipes/mine.yaml") -> str:
    with pytest.raises(FolderTaken) as caught:
        check_owner(run, recipe, path)
    return caught.value.screen().replace(str(run), "RUN")


# --- whose folder ---


def test_the_record_of_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    assert read_run(tmp_path) == RECORD
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_record_of_format_1_told_its_looks_suite_by_suite(tmp_path: Path) -> None:
    row = {"format_version": 1, **asdict(RECORD), "looks": {"held_out": 3, "rules": 2}}
    (tmp_path / "run.json").write_text(json.dumps(row), encoding="utf-8")
    assert read_run(tmp_path) == replace(RECORD, looks=3)


def test_a_folder_that_is_not_there_or_empty_is_free(tmp_path: Path) -> None:
    check_owner(tmp_path / "new", "mine", "recipes/mine.yaml")
    check_owner(tmp_path, "mine", "recipes/mine.yaml")
    (tmp_path / "lock").touch()
    check_owner(tmp_path, "mine", "recipes/mine.yaml")


def test_a_folder_belongs_to_the_recipe_that_made_it(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    check_owner(tmp_path, "mine", "recipes/mine.yaml")


def test_the_folder_of_another_recipe_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    before = tree(tmp_path)
    assert refusal(tmp_path, "other", "recipes/other.yaml") == (
        "RUN belongs to the recipe 'mine' of recipes/mine.yaml\n"
        "    expected: the folder of 'other' of recipes/other.yaml\n"
        "    hint: rename the recipe, or give another folder with --out; nothing was written"
    )
    assert tree(tmp_path) == before


def test_a_recipe_of_the_same_name_in_another_place_is_another_recipe(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD)
    assert refusal(tmp_path, "mine", "elsewhere/mine.yaml").startswith("RUN belongs to the recipe 'mine' of recipes/")


def test_a_folder_with_other_things_in_it_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years", encoding="utf-8")
    before = tree(tmp_path)
    assert refusal(tmp_path) == (
        "RUN is not empty and is not the folder of a run (it holds 'thesis.tex', but no run.json)\n"
        "    hint: give another folder with --out; nothing was written"
    )
    assert tree(tmp_path) == before


def test_a_folder_named_events_of_someone_else_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    assert "it holds 'events', but no run.json" in refusal(tmp_path)


def test_a_run_that_ended_while_it_was_planned_can_be_started_again(tmp_path: Path) -> None:
    with writing(tmp_path):
        (tmp_path / "events").mkdir()
        (tmp_path / "data").mkdir()
        (tmp_path / "recipe.yaml").touch()
    check_owner(tmp_path, "mine", "recipes/mine.yaml")
    (tmp_path / "qa").mkdir()
    assert "it holds 'qa', but no run.json" in refusal(tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    assert refusal(tmp_path / "run") == (
        "RUN is a file, and a run needs a folder\n    hint: give another one with --out"
    )


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = tmp_path / "file" / "run"
    check_owner(run, "mine", "recipes/mine.yaml")
    with pytest.raises(FolderTaken) as caught, writing(run):
        pass
    assert caught.value.screen() == f"{run} cannot be made: Not a directory\n    hint: give another one with --out"


def test_a_disk_that_is_full_is_no_reason_to_ask_for_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, **how: bool) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left on device"), writing(tmp_path / "run"):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format_version": 1, "recipe": "mine"}', b"\xff"])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/run.json is damaged (")):
        read_run(tmp_path)


def test_a_record_of_a_newer_version_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format_version": 4}', encoding="utf-8")
    with pytest.raises(UserError, match="run.json has format 4, this version reads up to 3$"):
        read_run(tmp_path)


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder: it has no run.json$"):
        read_run(tmp_path)


# --- who is writing ---


def test_a_folder_that_another_process_writes_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as holder:
        before = tree(tmp_path)
        with pytest.raises(FolderTaken) as caught, writing(tmp_path):
            pass
        shown = caught.value.screen().replace(str(tmp_path), "RUN")
        assert re.fullmatch(
            rf"RUN is being written by process {holder.pid} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\n"
            r"    hint: wait for it, stop it, or give another folder with --out",
            shown,
        )
        assert tree(tmp_path) == before


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as holder:
        holder.kill()
        holder.wait()
        with writing(tmp_path):
            assert json.loads((tmp_path / "lock").read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_a_lock_file_that_was_left_behind_holds_nobody_up(tmp_path: Path) -> None:
    left = {"pid": os.getppid(), "host": "elsewhere", "started": "2026-01-01 00:00:00" + " " * 200}
    (tmp_path / "lock").write_text(json.dumps(left), encoding="utf-8")
    with writing(tmp_path):
        now = json.loads((tmp_path / "lock").read_text(encoding="utf-8"))
    assert (now["pid"], now["host"]) == (os.getpid(), os.uname().nodename)


def test_a_lock_ends_with_its_holder_even_where_a_child_of_it_lives_on(tmp_path: Path) -> None:
    code = (
        "import subprocess\nfrom pathlib import Path\nfrom runner.folder import writing\n"
        f"with writing(Path({str(tmp_path)!r})):\n"
        "    print(subprocess.Popen(['sleep', '30'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)\n"
    )
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    try:
        os.kill(child, 0)
        with writing(tmp_path):
            pass
    finally:
        os.kill(child, 9)


def test_who_only_looks_whether_a_run_is_held_keeps_nobody_from_it(tmp_path: Path) -> None:
    ends = threading.Event()
    (tmp_path / "lock").touch()

    def look() -> None:
        while not ends.is_set():
            is_held(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            with writing(tmp_path):
                assert is_held(tmp_path)
    finally:
        ends.set()
        looking.join()
    assert not is_held(tmp_path)


def test_of_many_that_want_a_folder_one_has_it(tmp_path: Path) -> None:
    has, told = [], []
    ready, done = threading.Barrier(8), threading.Barrier(8)

    def want() -> None:
        ready.wait()
        try:
            with writing(tmp_path):
                has.append(1)
                done.wait()
        except FolderTaken as error:
            told.append(error.problems[0].message)
            done.wait()

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(has), len(told)) == (1, 7)
    assert all(f"is being written by process {os.getpid()} on " in message for message in told)


def test_a_lock_that_looks_like_that_of_a_process_which_runs_but_is_not_held_is_taken_over(tmp_path: Path) -> None:
    # after a reboot another process may have its number; on another machine the number says nothing
    for holder in ({"pid": 1, "host": os.uname().nodename}, {"pid": os.getpid(), "host": "another-machine"}):
        (tmp_path / "lock").write_text(json.dumps({**holder, "started": "2030-01-01 00:00:00"}), encoding="utf-8")
        assert not is_held(tmp_path)
        with writing(tmp_path):
            assert is_held(tmp_path)


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "qa" / "probes" / "ckpt-8.jsonl"
    path.parent.mkdir(parents=True)
    for number, now in enumerate((2e9, 1e9, 1.0), 1):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        path.write_text(str(number), encoding="utf-8")
        os.utime(path, (now, now))
        with writing(tmp_path):
            kept = Superseded(tmp_path).take(path)
        assert kept.relative_to(tmp_path).parts[:2] == ("superseded", str(number))
    assert (tmp_path / "superseded" / "1" / "qa" / "probes" / "ckpt-8.jsonl").read_text(encoding="utf-8") == "1"


def test_a_lock_without_words_names_another_process(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path):
        (tmp_path / "lock").write_text("", encoding="utf-8")
        with pytest.raises(FolderTaken, match="is being written by another process"), writing(tmp_path):
            pass


# --- what is moved aside ---


def test_what_one_invocation_sets_aside_lands_in_one_numbered_folder_with_the_old_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 1", encoding="utf-8")
    for name in ("qa", "prefer"):
        (tmp_path / name / "ckpt-8").mkdir(parents=True)
    aside = Superseded(tmp_path)
    assert not (tmp_path / "superseded").exists()
    assert aside.take(tmp_path / "qa") == tmp_path / "superseded" / "1" / "qa"
    assert aside.take(tmp_path / "prefer" / "ckpt-8") == tmp_path / "superseded" / "1" / "prefer" / "ckpt-8"
    assert (tmp_path / "superseded" / "1" / "qa" / "ckpt-8").is_dir()
    assert (tmp_path / "superseded" / "1" / "recipe.yaml").read_text(encoding="utf-8") == "seed: 1"
    assert (tmp_path / "recipe.yaml").exists()


def test_the_next_invocation_takes_the_next_number(tmp_path: Path) -> None:
    for number in ("2", "10"):
        (tmp_path / "superseded" / number).mkdir(parents=True)
    (tmp_path / "notes").touch()
    assert Superseded(tmp_path).take(tmp_path / "notes") == tmp_path / "superseded" / "11" / "notes"


def test_a_file_that_will_be_replaced_is_kept_as_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "qa" / "probes" / "ckpt-8.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("old", encoding="utf-8")
    Superseded(tmp_path).copy(path)
    path.write_text("new", encoding="utf-8")
    kept = tmp_path / "superseded" / "1" / "qa" / "probes" / "ckpt-8.jsonl"
    assert (path.read_text(encoding="utf-8"), kept.read_text(encoding="utf-8")) == ("new", "old")
    assert time.time() - kept.stat().st_mtime < 60


def test_what_is_replaced_twice_by_one_invocation_is_kept_twice(tmp_path: Path) -> None:
    path = tmp_path / "qa" / "probes" / "ckpt-8.jsonl"
    path.parent.mkdir(parents=True)
    aside = Superseded(tmp_path)
    for text in ("first", "second", "third"):
        path.write_text(text, encoding="utf-8")
        aside.copy(path)
    kept = sorted(tmp_path.glob("superseded/*/qa/probes/ckpt-8.jsonl"))
    assert [file.read_text(encoding="utf-8") for file in kept] == ["first", "second", "third"]
