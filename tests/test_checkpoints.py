"""runner.checkpoints: a checkpoint is published whole or not at all, and never changed."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from runner import checkpoints
from runner.checkpoints import Manifest, Parent
from runner.errors import BadCheckpoint


def state_folder(folder: Path, weights: bytes = b"weights") -> Path:
    """What transformers' Trainer leaves: what can be loaded, and what only resuming needs."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "training_args.bin",
                 "trainer_state.json", "README.md"):  # fmt: skip
        (folder / name).write_bytes(b"only for resuming")
    (folder / "global_step8").mkdir()
    return folder


def publish(source: Path, target: Path, parent: Parent | None = None) -> Manifest:
    return checkpoints.publish(
        source, target, recipe="r", stage="qa", kind="sft", step=8, epoch=0.5, stage_key="key", parent=parent,
        tokens=640, versions={"torch": "2"},
    )  # fmt: skip


def message(folder: Path) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        checkpoints.read_manifest(folder)
    return caught.value.screen().replace(str(folder), "ckpt-8")


def test_only_what_can_be_loaded_is_published(tmp_path: Path) -> None:
    publish(state_folder(tmp_path / "state"), tmp_path / "qa" / "ckpt-8")
    names = sorted(path.name for path in (tmp_path / "qa" / "ckpt-8").iterdir())
    assert names == ["chat_template.jinja", "config.json", "manifest.json", "model.safetensors"]


def test_the_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = publish(state_folder(tmp_path / "state"), tmp_path / "ckpt-8", Parent("base@2", "../base/ckpt-2", "ab"))
    assert checkpoints.read_manifest(tmp_path / "ckpt-8") == written
    assert written.label == "qa@8"
    assert written.parent == Parent("base@2", "../base/ckpt-2", "ab")
    assert written.files["model.safetensors"] == written.weights_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert json.loads((tmp_path / "ckpt-8" / "manifest.json").read_text(encoding="utf-8"))["format_version"] == 3


def test_weights_are_written_to_disk_once(tmp_path: Path) -> None:
    source = state_folder(tmp_path / "state")
    publish(source, tmp_path / "ckpt-8")
    assert (tmp_path / "ckpt-8" / "model.safetensors").samefile(source / "model.safetensors")


def test_a_checkpoint_survives_the_state_folder_it_was_made_from(tmp_path: Path) -> None:
    source = state_folder(tmp_path / "state")
    publish(source, tmp_path / "ckpt-8")
    (source / "model.safetensors").unlink()
    assert (tmp_path / "ckpt-8" / "model.safetensors").read_bytes() == b"weights"


def test_a_checkpoint_that_is_already_there_is_left_untouched(tmp_path: Path) -> None:
    target = tmp_path / "ckpt-8"
    first = publish(state_folder(tmp_path / "state"), target)
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in target.iterdir()}
    assert publish(state_folder(tmp_path / "other", b"other weights"), target) == first
    assert {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in target.iterdir()} == before


def test_publishing_leaves_nothing_beside_the_checkpoint(tmp_path: Path) -> None:
    publish(state_folder(tmp_path / "state"), tmp_path / "qa" / "ckpt-8")
    assert os.listdir(tmp_path / "qa") == ["ckpt-8"]


def test_a_checkpoint_without_weights_is_not_published_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    source = state_folder(tmp_path / "state")
    (source / "model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"no \*\.safetensors in "):
        publish(source, tmp_path / "qa" / "ckpt-8")
    assert os.listdir(tmp_path / "qa") == []


def test_a_folder_in_the_way_of_a_checkpoint_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "ckpt-8"
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"somebody's")
    with pytest.raises(BadCheckpoint) as caught:
        publish(state_folder(tmp_path / "state"), target)
    assert caught.value.screen() == (
        f"{target} is in the way of a checkpoint: it has no manifest.json\n"
        "    hint: move it away, and run the same command again: it goes on where it was"
    )
    assert os.listdir(target) == ["model.safetensors"]


def test_the_order_of_checkpoints_does_not_come_from_their_times(tmp_path: Path) -> None:
    stage = tmp_path / "qa"
    for age, name in enumerate(("ckpt-90", "ckpt-8", "ckpt-100")):
        publish(state_folder(tmp_path / f"state-{name}"), stage / name)
        os.utime(stage / name, (2e9 - age * 1e8, 2e9 - age * 1e8))  # as if the clock went backwards
    assert [step for step, _ in checkpoints.published(stage)] == [8, 90, 100]


def test_a_stage_that_is_moved_aside_in_this_moment_has_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert list(checkpoints.published(tmp_path / "file")) == []


def test_published_checkpoints_are_listed_by_step_and_half_ones_are_not(tmp_path: Path) -> None:
    stage = tmp_path / "qa"
    for name in ("ckpt-90", "ckpt-8", "ckpt-100"):
        publish(state_folder(tmp_path / f"state-{name}"), stage / name)
    for name in (".ckpt-110.4711", "ckpt-110", "ckpt-x", "probes", "state"):
        (stage / name).mkdir()
    (stage / ".ckpt-110.4711" / "manifest.json").write_text("{}", encoding="utf-8")
    assert [(step, path.name) for step, path in checkpoints.published(stage)] == [
        (8, "ckpt-8"), (90, "ckpt-90"), (100, "ckpt-100"),
    ]  # fmt: skip


def test_a_stage_that_never_began_has_no_checkpoints(tmp_path: Path) -> None:
    assert list(checkpoints.published(tmp_path / "qa")) == []


def test_what_a_killed_trainer_left_half_published_is_removed(tmp_path: Path) -> None:
    publish(state_folder(tmp_path / "state"), tmp_path / "qa" / "ckpt-8")
    (tmp_path / "qa" / ".ckpt-16.4711").mkdir()
    (tmp_path / "qa" / ".ckpt-16.4711" / "model.safetensors").write_bytes(b"half")
    checkpoints.remove_unfinished(tmp_path / "qa")
    assert os.listdir(tmp_path / "qa") == ["ckpt-8"]


def test_a_folder_without_a_manifest_is_no_checkpoint_of_a_run(tmp_path: Path) -> None:
    assert message(tmp_path) == "ckpt-8 has no manifest.json\n    hint: it is not a published checkpoint of a run"


@pytest.mark.parametrize("content", [b"", b'{"format_version": 1, "recipe"', b"[]", b"3", b"{}", b"\xff\xfe",
                                     b'{"format_version": 1, "parent": null}'])  # fmt: skip
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert message(tmp_path).startswith("ckpt-8/manifest.json is not a readable manifest (")


def test_a_manifest_of_a_newer_version_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format_version": 4, "ancestors": []}', encoding="utf-8")
    assert message(tmp_path) == "ckpt-8/manifest.json has format 4, this version reads up to 3"


def test_one_digest_stands_for_sharded_weights_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number, weights in ((2, b"b"), (1, b"a")):
        (tmp_path / f"model-0000{number}-of-00002.safetensors").write_bytes(weights)
    digests = hashlib.sha256(b"a").hexdigest() + hashlib.sha256(b"b").hexdigest()
    assert checkpoints.weights_sha256(tmp_path) == hashlib.sha256(digests.encode()).hexdigest()


def test_verdicts_of_a_checkpoint_stand_beside_it_not_in_it() -> None:
    assert checkpoints.verdict_path(Path("run/qa/ckpt-8")) == Path("run/qa/probes/ckpt-8.jsonl")
