"""Links in a folder that came from a stranger: nothing outside of it is written, moved, deleted or given away."""

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from runner import checkpoints, export, recipe, starter
from runner import run as running
from runner.atomic import publish_text
from runner.errors import BadCheckpoint, BadRecipe, FolderTaken, UserError
from runner.folder import check_inside, check_owner, read_run
from runner.matrix.running import claim
from runner.nodes import ALONE
from runner.progress import Screen
from runner.watching import holding
from runner.watching.following import watch
from runner.watching.options import Options
from tests.recorded_run import write_run_folder

SILENT = Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, which tests copy."""
    return write_run_folder(tmp_path_factory.mktemp("whole") / "p", 2, 5).parents[1]


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The folder of a run that a test may change, in its project."""
    shutil.copytree(whole, tmp_path / "p")
    return tmp_path / "p" / "results" / "recorded"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A file and a folder that are none of the run's business."""
    folder = tmp_path / "outside"
    (folder / "ckpt-2").mkdir(parents=True)
    for name in ("secret", "run.jsonl", "qa", "ckpt-2/model.safetensors"):
        (folder / name).write_text(f"{name} of somebody else")
    before = seen(folder)
    yield folder
    assert seen(folder) == before


def seen(folder: Path) -> dict[str, tuple[str, int]]:
    files = {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
    return {str(path): (text, path.stat().st_mtime_ns) for path, text in files.items()}


def replace_by_link(place: Path, target: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


FILES = (
    "lock", "run.json", "recipe.yaml", "report.html", "events/run.jsonl", "events/host.log", "data/manifest.json",
    "data/questions.held_out.jsonl", "qa/stage.json", "qa/probes/ckpt-2.jsonl", "qa/ckpt-2/model.safetensors",
)  # fmt: skip
FOLDERS = (
    "qa", "qa/ckpt-2", "qa/state", "qa/.ckpt-2.77", "qa/probes", "events", "data", "data/tokenizer", "superseded",
    "nodes", "slurm", "exports", "trackers/tensorboard",
)  # fmt: skip


@pytest.mark.parametrize("place", [*FILES, *FOLDERS])
def test_a_run_folder_with_a_link_that_leads_outside_is_refused_before_anything_is_written(
    run: Path, outside: Path, place: str
) -> None:
    target = outside if place in FOLDERS else outside / "secret"
    replace_by_link(run / place, target)
    loaded = recipe.load(run.parents[1] / "recorded.yaml")
    before = seen(run)
    with pytest.raises(FolderTaken) as caught:
        running.run(loaded, run, Screen(SILENT))
    assert caught.value.screen() == (
        f"{run / place} is a link to {target}, outside of this folder\n    expected: files of its own in {run}\n"
        "    hint: look whose folder this is; remove that, or put the whole folder where there is room: "
        "it may be a link"
    )
    assert seen(run) == before


def test_a_link_that_leads_nowhere_yet_is_refused_too(run: Path, tmp_path: Path) -> None:
    (run / "superseded").symlink_to(tmp_path / "new")
    with pytest.raises(FolderTaken, match=r"superseded is a link to .*/new, outside of this folder"):
        check_owner(run, "recorded", "recorded.yaml")
    assert not (tmp_path / "new").exists()


def test_a_relative_link_that_climbs_out_is_refused_and_one_that_stays_is_not(run: Path, outside: Path) -> None:
    (run / "latest").symlink_to("qa/ckpt-2")
    (run / "qa" / "up").symlink_to("..")
    check_owner(run, "recorded", "recorded.yaml")
    (run / "qa" / "more").symlink_to("../../../../outside")
    with pytest.raises(FolderTaken, match=r"more is a link to \.\./\.\./\.\./\.\./outside"):
        check_owner(run, "recorded", "recorded.yaml")


def test_results_may_be_a_link_to_where_there_is_room_by_the_users_own_wish(run: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    run.rename(tmp_path / "disk" / "recorded")
    run.symlink_to(tmp_path / "disk" / "recorded")
    check_owner(run, "recorded", "recorded.yaml")


def test_a_pipe_in_place_of_a_file_is_named_and_not_opened(run: Path) -> None:
    os.mkfifo(run / "events" / "watch.jsonl")
    with pytest.raises(FolderTaken, match=r"watch\.jsonl is no file, no folder and no link"):
        check_inside(run)


def test_a_watch_a_matrix_a_node_and_a_job_of_slurm_refuse_it_too(run: Path, outside: Path) -> None:
    replace_by_link(run / "events", outside)
    refused = r"events is a link to .*outside, outside of this folder"
    loaded = recipe.load(run.parents[1] / "recorded.yaml")
    with pytest.raises(FolderTaken, match=refused):
        watch(Options(run, (), once=True), SILENT)
    with pytest.raises(FolderTaken, match=refused):
        running.join_run([loaded], run, ALONE, print)
    (run / "run.json").unlink()
    with pytest.raises(FolderTaken, match=refused):
        claim(run, loaded)


def test_a_file_is_published_beside_what_has_its_name_and_never_through_it(tmp_path: Path, outside: Path) -> None:
    place = tmp_path / "report.html"
    place.symlink_to(outside / "secret")
    (tmp_path / f".report.html.{os.getpid()}").symlink_to(outside / "run.jsonl")
    publish_text(place, "new")
    assert (place.read_text(), place.is_symlink()) == ("new", False)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


# --- folders of other trainers ---


def test_what_a_watch_left_behind_is_removed_and_not_what_a_link_of_that_name_leads_to(
    tmp_path: Path, outside: Path
) -> None:
    folder, kept = tmp_path / "out", tmp_path / "out" / "checkpoint-3"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text("{}")
    (folder / "_watched-checkpoint-3").symlink_to(outside)
    with holding.held(kept) as held:
        assert [file.name for file in held.iterdir()] == ["config.json"]
    (folder / "_watched-checkpoint-9").symlink_to(outside / "ckpt-2")
    holding.release_all(folder)
    assert [path.name for path in folder.iterdir()] == ["checkpoint-3"]


def test_a_watched_folder_whose_probes_are_a_link_is_refused(
    tmp_path: Path, tiny_checkpoint: Path, outside: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(tiny_checkpoint, folder / "checkpoint-3")
    (folder / "checkpoint-3" / "trainer_state.json").write_text("{}")
    (folder / "probes").symlink_to(outside)
    (tmp_path / "test_p.py").write_text("")
    with pytest.raises(FolderTaken, match="probes is a link, and verdicts are to be written there"):
        watch(Options(folder, (str(tmp_path / "test_p.py"),), once=True), SILENT)


# --- checkpoints that are given away ---


@pytest.fixture
def given(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A checkpoint that is no run's."""
    shutil.copytree(tiny_checkpoint, tmp_path / "given")
    return tmp_path / "given"


def test_an_export_takes_no_file_that_a_link_in_the_checkpoint_leads_to(
    given: Path, outside: Path, tmp_path: Path
) -> None:
    (given / "chat_template.jinja").symlink_to(outside / "secret")
    with pytest.raises(BadCheckpoint) as caught:
        export.export(str(given), None, tmp_path)
    assert caught.value.screen() == (
        f"{given}/chat_template.jinja is a link to {outside}/secret, outside of the checkpoint\n"
        "    expected: files of its own: an export is made to be given away\n"
        "    hint: where that file belongs to it, put a copy in the place of the link"
    )
    assert not (tmp_path / "given-exported").exists()


def test_a_checkpoint_in_a_hubs_cache_is_all_links_and_is_exported_as_files(given: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(given.iterdir())):
        file.rename(cache / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    exported = export.export(str(snapshot), tmp_path / "exported", tmp_path)
    assert {file.name for file in exported.folder.iterdir()} >= {"model.safetensors", "tokenizer.json"}
    assert not any(file.is_symlink() for file in exported.folder.iterdir())


def test_the_exports_of_a_run_do_not_land_where_a_link_leads(run: Path, outside: Path, tiny_checkpoint: Path) -> None:
    (run / "exports").symlink_to(outside)
    shutil.copytree(tiny_checkpoint, run / "qa" / "ckpt-2", dirs_exist_ok=True)
    with pytest.raises(UserError, match="exports is a link"):
        export.export(str(run / "qa" / "ckpt-2"), None, run)


def test_a_manifest_names_files_of_its_checkpoint_only_and_a_pipe_is_none(run: Path) -> None:
    folder = run / "qa" / "ckpt-2"
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    (found,) = checkpoints.damage(folder)
    assert (found.path.name, found.found) == ("model.safetensors", "is missing")
    said = json.loads((folder / "manifest.json").read_text())
    del said["sha256"]  # as in older ones: nothing else keeps a stranger from writing his own
    (folder / "manifest.json").write_text(json.dumps({**said, "files": {"../../../../../dev/zero": "0"}}))
    with pytest.raises(BadCheckpoint, match=r"\.\./dev/zero is no file of the checkpoint"):
        checkpoints.damage(folder)


# --- names that become names of files ---


def test_a_run_whose_record_calls_it_a_path_is_damaged(run: Path) -> None:
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"recipe": "recorded"', '"recipe": "../../../\\u001b[31mx"'))
    with pytest.raises(UserError, match=r"run\.json is damaged \(ValueError: \.\./\.\./\.\./\\x1b\[31mx is no name\)"):
        read_run(run)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".x", "a\nb", "x\0", "a.b", "é", "-x"])
def test_nothing_in_a_recipe_that_becomes_a_file_or_a_folder_can_be_called_a_path(run: Path, name: str) -> None:
    file = run.parents[1] / "recorded.yaml"
    text = file.read_text(encoding="utf-8") + "matrix:\n  one: {}\n  two: {}\n"
    quoted = json.dumps(name)
    for before in ("recipe: recorded", "  texts: {", "  qa: {", "  select: {", "held_out: 0.5", "  two: {"):
        assert text.count(before) == 1
        now = f"recipe: {quoted}" if ": r" in before else re.sub(r"\w+(?=:)", lambda _: quoted, before)
        file.write_text(text.replace(before, now), encoding="utf-8")
        with pytest.raises(BadRecipe, match="a letter, then letters, digits"):
            recipe.load(file)


def test_a_new_recipe_is_no_path_and_is_not_written_through_a_link(tmp_path: Path, outside: Path) -> None:
    folder = tmp_path / "new"
    (folder / "data").mkdir(parents=True)
    with pytest.raises(UserError, match=re.escape("'../x' cannot name a recipe")):
        starter.write_starter("../x", folder)
    (folder / "data" / "mine.tsv").symlink_to(outside / "not there")
    with pytest.raises(UserError, match=r"mine\.tsv is there already"):
        starter.write_starter("mine", folder)
    assert [path.name for path in folder.iterdir()] == ["data"]
