"""Bits that flipped, files that were cut short or are of a newer version: found before use, named, the rest usable."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from runner import checkpoints, export, jobs, saving, verdicts, verifying
from runner.checkpoints import verdict_path
from runner.cli.root import cli, guarded
from runner.errors import BadCheckpoint, UserError
from runner.folder import writing
from runner.probing.engine import Engine
from runner.train import exporting, resuming
from runner.verdicts import SuiteAsked, Verdict, VerdictFile
from runner.verifying import Verified, verify
from runner.verifying.published import of_checkpoint
from tests.in_process import begin, prepare
from tests.tiny import copy
from tests.tiny_project import write_project

FLIPS = 200


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run of one stage of two checkpoints, which still has the state that it would resume from."""
    recipe = write_project(tmp_path_factory.mktemp("damaged"))
    sets = ("stages.base.save_steps=2", "stages.base.max_steps=3", "launch.probing=beside")
    prepared = prepare(recipe, recipe.parent / "results" / "tiny", *sets)
    prepared.keep_tokens()
    prepared.epochs("base").counts(8, 3)
    assert begin(prepared, "base") == 0
    run = prepared.run
    ckpt = run / "base" / "ckpt-2"
    weights = checkpoints.read_manifest(ckpt).weights_sha256
    rows = tuple(
        Verdict("always", "p", f"c{n}", "pass", "red", ckpt="base@2", weights_sha256=weights) for n in range(3)
    )
    asked = SuiteAsked("always", "k", ("p",), None, 3)
    verdicts.write(verdict_path(ckpt), VerdictFile("base@2", weights, (asked,), rows))
    return recipe.parent


@pytest.fixture
def run(project: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return copy(project / "results" / "tiny", tmp_path / "run")


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.unlink()  # it may be a second name of the same file elsewhere
    path.write_bytes(content)


def shown(found: Verified) -> str:
    console = Console(width=400, highlight=False)
    with console.capture() as captured:
        console.print(verifying.screen(found, found.folder), soft_wrap=True)
    return captured.get()


# --- a flipped bit of a checkpoint ---


def test_every_flipped_bit_of_every_file_of_a_checkpoint_is_found(run: Path, tmp_path: Path) -> None:
    folder, draw = run / "base" / "ckpt-2", random.Random(7)
    files = sorted(folder.iterdir())
    assert {"manifest.json", "model.safetensors", "tokenizer.json", "config.json"} <= {file.name for file in files}
    for number in range(FLIPS):
        file = files[number % len(files)]
        whole = file.read_bytes()
        bit = draw.randrange(8 * len(whole))
        flip(file, bit)
        with pytest.raises(BadCheckpoint) as caught:
            checkpoints.check(folder)
        assert file.name in str(caught.value), (file.name, bit)
        file.write_bytes(whole)
    checkpoints.check(folder)


def test_a_damaged_checkpoint_says_which_file_what_was_expected_and_what_to_do(run: Path) -> None:
    folder = run / "base" / "ckpt-2"
    expected = checkpoints.read_manifest(folder).files["model.safetensors"]
    flip(folder / "model.safetensors", 100_000)
    actual = checkpoints.sha256_file(folder / "model.safetensors")
    with pytest.raises(BadCheckpoint) as caught:
        checkpoints.check(folder)
    assert str(caught.value) == (
        f"{folder / 'model.safetensors'} is damaged: it has SHA-256 {actual}\n"
        f"    expected: {expected}\n"
        "    hint: restore it from a copy, or move the folder of its stage away: recipe run then trains it again"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_prober_and_a_chat_refuse_it(run: Path, name: str) -> None:
    Engine(run / "base" / "ckpt-2").close()
    flip(run / "base" / "ckpt-2" / name, 700)
    with pytest.raises(BadCheckpoint, match=rf"{name} is damaged"):
        Engine(run / "base" / "ckpt-2")


def test_a_stage_does_not_start_from_it(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = copy(project / "results" / "tiny" / "base" / "ckpt-2", tmp_path / "source")
    sets = ("model.config=null", "model.tokenizer=null", f"model.path={source}", "stages.base.max_steps=1")
    prepared = prepare(project / "tiny.yaml", tmp_path / "run", *sets)
    flip(source / "model.safetensors", 100_000)
    assert begin(prepared, "base") == 2
    assert "model.safetensors is damaged: it has SHA-256 " in capsys.readouterr().err


def test_it_is_not_exported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "base" / "ckpt-2"
    flip(folder / "config.json", 8)
    with pytest.raises(BadCheckpoint, match=r"config\.json"):
        export.export(str(folder), tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
    assert exporting.main([str(folder), str(tmp_path / "out")]) == 2
    assert "config.json" in capsys.readouterr().err


def test_a_file_that_came_to_a_checkpoint_and_that_loading_may_read_is_named(run: Path) -> None:
    folder = run / "base" / "ckpt-2"
    (folder / "README.md").write_text("mine", encoding="utf-8")  # which nothing reads
    checkpoints.check(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(BadCheckpoint, match=r"adapter_model\.safetensors is damaged: it is not in the manifest"):
        checkpoints.check(folder)


def test_a_checkpoint_of_another_trainer_has_nothing_to_compare_with(run: Path) -> None:
    (run / "base" / "ckpt-2" / "manifest.json").unlink()
    flip(run / "base" / "ckpt-2" / "model.safetensors", 300_000)
    checkpoints.check(run / "base" / "ckpt-2")
    Engine(run / "base" / "ckpt-2").close()


# --- the state that a stage resumes from ---


def test_a_damaged_state_is_not_resumed_from(project: Path, tmp_path: Path) -> None:
    prepared = prepare(project / "tiny.yaml", tmp_path / "run", "stages.base.save_steps=2", "stages.base.max_steps=3",
                       "launch.probing=beside")  # fmt: skip
    assert begin(prepared, "base") == 0
    stage = prepared.run / "base"
    (saved,) = (stage / "state").glob("checkpoint-*")
    resuming.check(saved, stage)
    for name, bit in (("model.safetensors", 100_000), ("optimizer.pt", 100_000), ("trainer_state.json", 6)):
        whole = (saved / name).read_bytes()
        flip(saved / name, bit)
        with pytest.raises(
            BadCheckpoint, match=rf"{name} is damaged(.|\n)*remove base/state: the same command"
        ) as caught:
            resuming.check(saved, stage)
        assert len(caught.value.problems) == 1
        assert begin(prepared, "base") == 2
        (saved / name).write_bytes(whole)
    resuming.check(saved, stage)


def test_a_flipped_bit_in_a_state_that_was_never_published_is_found(run: Path) -> None:
    (saved,) = (run / "base" / "state").glob("checkpoint-*")
    alone = saved.rename(saved.with_name("checkpoint-9"))  # as Ctrl-C saves it
    resuming.check(alone, run / "base")
    flip(alone / "model.safetensors", 100_000)
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors is damaged: it is not what was saved"):
        resuming.check(alone, run / "base")
    (one,) = verify(run).damages
    assert (one.path, one.found) == (alone / "model.safetensors", "is not what was saved")
    (alone / saving.COMPLETE).write_text('{"format_version": 1}', encoding="utf-8")  # which noted no digests
    resuming.check(alone, run / "base")
    with pytest.raises(BadCheckpoint, match=r"it is not what ckpt-3 was made of"):
        resuming.check(alone.rename(saved), run / "base")


# --- recipe verify ---


def test_a_whole_run_is_whole(run: Path) -> None:
    found = verify(run)
    assert found.findings == ()
    assert (found.exit_code, found.checkpoints, found.verdict_files) == (0, 2, 1)
    assert shown(found).startswith(".: whole. 2 checkpoints (0.1 MB), 1 verdict file\n")


def test_each_damage_is_named_with_what_to_do_and_the_rest_is_whole(run: Path) -> None:
    flip(run / "base" / "ckpt-2" / "model.safetensors", 100_000)
    (run / "base" / "ckpt-3" / "tokenizer.json").unlink()
    path = verdict_path(run / "base" / "ckpt-2")
    path.write_bytes(path.read_bytes()[:-20])
    flip(run / "data" / "questions.train.jsonl", 100)
    found = verify(run)
    assert found.exit_code == 1
    assert [str(one.path.relative_to(run)) for one in found.damages] == [
        "base/ckpt-2/model.safetensors", "base/ckpt-3/tokenizer.json", "base/probes/ckpt-2.jsonl",
        "data/questions.train.jsonl",
    ]  # fmt: skip
    screen = shown(found)
    assert "✗ base/probes/ckpt-2.jsonl: line 5 not a readable verdict file (JSONDecodeError" in screen
    assert "    hint: move it away: recipe run asks this checkpoint again; every other one keeps its verdicts" in screen
    assert "    hint: remove data/manifest.json: recipe run then writes the folder again" in screen
    assert screen.rstrip().endswith(".: 4 damaged; the rest is whole: of 2 checkpoints (0.1 MB), 1 verdict file")


def test_what_a_trainer_takes_away_while_its_run_is_looked_at_is_no_damage(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[Path] = []

    def taken_away(look: Callable[[Path], object], folder: Path) -> Callable[[Path], object]:
        def looks(path: Path) -> object:
            if path == folder and folder not in gone:
                gone.append(folder)
                shutil.rmtree(folder)
            return look(path)

        return looks

    (saved,) = (run / "base" / "state").glob("checkpoint-*")
    monkeypatch.setattr(saving, "damage", taken_away(saving.damage, saved))
    monkeypatch.setattr(verifying, "of_checkpoint", taken_away(of_checkpoint, run / "base" / "ckpt-3"))
    half = run / "base" / "state" / "checkpoint-7"
    half.mkdir()
    (half / "trainer_state.json").write_text("{", encoding="utf-8")  # is being written
    with writing(run):
        found = verify(run)
    assert gone == [run / "base" / "ckpt-3", saved]
    assert [one.found for one in found.findings] == ["is being written now: what is not there yet may come"]
    assert found.checkpoints == 1


def test_a_truncated_safetensors_is_found_by_its_digest_and_by_its_header(run: Path) -> None:
    file = run / "base" / "ckpt-2" / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-100])
    (one,) = verify(run).damages
    assert one.path == file
    (run / "base" / "ckpt-2" / "manifest.json").unlink()
    (alone,) = verify(run / "base" / "ckpt-2").damages
    assert alone.found == f"model.safetensors is cut short: {len(content) - 100} of {len(content)} bytes"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run.json", "has format 99, this version reads up to"),
        ("base/stage.json", "has format 99, this version reads up to"),
        ("base/ckpt-2/manifest.json", "has format 99, this version reads up to"),
        ("base/probes/ckpt-2.jsonl", "this verdict file has format 99, this version reads up to"),
        ("events/train-base.jsonl", "has format 99, this version reads up to"),
    ],
)
def test_a_file_of_a_newer_version_is_named_and_not_guessed_at(run: Path, name: str, words: str) -> None:
    lines = (run / name).read_text(encoding="utf-8").split("\n")
    if name.endswith(".jsonl"):
        lines[0] = json.dumps({**json.loads(lines[0]), "format_version": 99})
        text = "\n".join(lines)
    else:
        text = json.dumps({**json.loads("\n".join(lines)), "format_version": 99})
    (run / name).write_text(text, encoding="utf-8")
    (one,) = verify(run).damages
    assert words in one.found


def test_half_a_line_of_a_writer_that_was_killed_is_told_and_is_no_damage(run: Path) -> None:
    journal = run / "events" / "train-base.jsonl"
    whole = journal.read_text(encoding="utf-8")
    lines = whole.splitlines()
    for half in (lines[1][:40], lines[1][: lines[1].index(": ") + 1], lines[1][:-1]):
        journal.write_text("\n".join([lines[0], half, *lines[1:]]) + "\n", encoding="utf-8")
        found = verify(run)
        assert found.exit_code == 0, half
        (note,) = found.findings
        assert note.found == "line 2 is half a line, left by a writer that was killed"
    journal.write_text(whole.replace('"step"', '"step', 1), encoding="utf-8")
    (one,) = verify(run).damages
    assert one.found.startswith("line 1 cannot be read")


def test_what_files_say_of_each_other_is_compared(run: Path) -> None:
    verdict_file = verdicts.read(verdict_path(run / "base" / "ckpt-2"))
    fewer = VerdictFile("base@2", "other", verdict_file.suites, verdict_file.verdicts[:-1])
    verdicts.write(verdict_path(run / "base" / "ckpt-2"), fewer)
    job = jobs.read(run / "base")
    assert job is not None
    jobs.write(run / "base", jobs.Job(**{**vars(job), "inputs": {**job.inputs, "seed": "8"}}))
    (run / "base" / "ckpt-9").mkdir()
    shutil.copytree(run / "base" / "ckpt-3", run / "base" / "ckpt-4")
    assert {one.found for one in verify(run).damages} >= {
        "is about other weights than the checkpoint beside it",
        "has 2 verdicts of suite always",
        "is damaged: its key is not that of its inputs",
        "has no manifest.json, and is no checkpoint of the run",
        "is base@3 by its manifest",
    }


def test_data_that_is_another_one_now_is_told_and_is_no_damage(project: Path, tmp_path: Path) -> None:
    root = copy(project, tmp_path / "project")
    run = root / "results" / "tiny"
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**record, "project_root": str(root)}), encoding="utf-8")
    (root / "words.tsv").write_text((root / "words.tsv").read_text(encoding="utf-8") + "new\tred\n", encoding="utf-8")
    found = verify(run)
    assert found.exit_code == 0
    assert any(one.found.startswith("data facts is not what the run was made with") for one in found.findings)
    (run / "recipe.yaml").write_text("recipe: [", encoding="utf-8")
    (one,) = verify(run).damages
    assert one.path.name == "recipe.yaml"


def test_what_is_no_run_and_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        verify(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is neither a run nor a checkpoint\n"
        "    expected: a folder with run.json, or with the files of a model"
    )


def test_token_ids_and_optimizer_states_are_looked_at(run: Path) -> None:
    (saved,) = (run / "base" / "state").glob("checkpoint-*")
    flip(saved / "optimizer.pt", 100_000)
    for store in (run / "data" / "tokens").glob("[!.]*"):
        ids = store / "ids.i32"
        ids.write_bytes(ids.read_bytes()[:-4])
    found = {one.path.name: one for one in verify(run).damages}
    assert found["optimizer.pt"].hint == "remove base/state: recipe run then trains the stage from its start"
    assert found["optimizer.pt"].found.startswith("is damaged in ")
    assert sum("token ids" in one.found for one in found.values()) == 1


def test_the_command_says_it_and_ends_with_its_exit_code(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def code(*arguments: str) -> int:
        return guarded(lambda: cli.main(["verify", *arguments], prog_name="recipe", standalone_mode=False))

    assert code(str(run)) == 0
    assert ": whole. 2 checkpoints" in capsys.readouterr().out
    (run / "base" / "ckpt-3" / "config.json").unlink()
    assert code(str(run / "base" / "ckpt-3")) == 1
    assert "config.json: is missing" in capsys.readouterr().out
    assert code(str(run / "base" / "ckpt-2")) == 0
    assert code(str(run / "data" / "tokens")) == 2
    assert "is neither a run nor a checkpoint" in capsys.readouterr().err
    assert code(str(run / "gone")) == 2
    assert "is not the folder of a run" in capsys.readouterr().err
