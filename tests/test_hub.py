"""Data sets of a hub and folders: the files of a split, from a mirror, from the cache, and clear words where not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from runner import spec
from runner.data import hub, sources
from runner.errors import BadData
from tests.local_hub import local_hub
from tests.servers import free_port

ROOT = Path(__file__).parent.parent


def write(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def texts(root: Path, **block: object) -> list[str]:
    table = sources.read(spec.Data(**block), "rows", root)  # type: ignore[arg-type]
    return [row.values["text"] for row in table.rows]


def failure(root: Path, **block: object) -> str:
    with pytest.raises(BadData) as caught:
        sources.read(spec.Data(**block), "rows", root)  # type: ignore[arg-type]
    return caught.value.screen()


# --- folders ---


def test_a_folder_of_files_has_the_splits_that_their_names_say(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "data" / "train-00000-of-00002.jsonl", "a")
    write(tmp_path / "rows" / "data" / "train-00001-of-00002.jsonl", "b")
    write(tmp_path / "rows" / "data" / "test-00000-of-00001.jsonl", "c")
    assert texts(tmp_path, path="rows") == ["a", "b"]
    assert texts(tmp_path, path="rows", from_split="test") == ["c"]
    table = sources.read(spec.Data(path="rows"), "rows", tmp_path)
    assert str(table.rows[1].where) == "rows/data/train-00001-of-00002.jsonl:1"


def test_a_subset_is_one_that_the_folders_card_declares(tmp_path: Path) -> None:
    write(tmp_path / "rows" / "zh.jsonl", "汉")
    write(tmp_path / "rows" / "en.jsonl", "e")
    card = "---\nconfigs:\n- config_name: zh\n  data_files: zh.jsonl\n- config_name: en\n  data_files: en.jsonl\n---\n"
    (tmp_path / "rows" / "README.md").write_text(card)
    assert texts(tmp_path, path="rows", subset="zh") == ["汉"]
    screen = failure(tmp_path, path="rows", subset="de")
    assert screen.startswith("data.rows: datasets cannot open rows: BuilderConfig 'de' not found")
    assert screen.endswith("    expected: one of its subsets")


def test_a_folder_that_datasets_saved_is_read_with_and_without_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([{"text": text} for text in "abc"])
    made.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": made, "held": made.select([2])}).save_to_disk(str(tmp_path / "several"))
    assert texts(tmp_path, path="one") == texts(tmp_path, path="several") == ["a", "b", "c"]
    assert texts(tmp_path, path="several", from_split="held") == ["c"]
    assert failure(tmp_path, path="several", from_split="hold") == (
        "data.rows: several has no split 'hold'\n"
        "    expected: from_split: one of held, train\n"
        "    hint: did you mean 'held'?"
    )
    table = sources.read(spec.Data(path="several"), "rows", tmp_path)
    assert str(table.rows[2].where) == "several/train:3"


def test_the_digest_of_a_folder_follows_its_files(tmp_path: Path) -> None:
    def digest() -> str:
        (file,) = sources.digests(sources.find(spec.Data(path="rows"), "rows", tmp_path))
        return file.sha256

    write(tmp_path / "rows" / "train.jsonl", "a")
    first = digest()
    assert digest() == first
    write(tmp_path / "rows" / "train.jsonl", "b")
    assert digest() != first


def test_a_folder_without_data_and_one_of_several_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert failure(tmp_path, path="empty").startswith("data.rows: empty is a folder without data files\n")
    write(tmp_path / "both" / "a.jsonl", "a")
    (tmp_path / "both" / "b.tsv").write_text("text\nb\n")
    assert failure(tmp_path, path="both") == (
        "data.rows: both is a folder with files of several kinds: jsonl, tsv\n"
        "    expected: a folder of files of one kind, or a glob\n"
        "    hint: path: both/*.jsonl"
    )


def test_a_split_of_a_file_is_no_such_thing(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", "a")
    assert failure(tmp_path, path="rows.jsonl", from_split="train") == (
        "data.rows: from_split is of a data set on the hub or in a folder; rows.jsonl is a file"
    )


# --- hubs ---


def test_a_path_is_a_hub_id_only_where_it_can_be_no_file(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    found = {path: hub.is_hub_id(path, tmp_path) for path in ("owner/name", "here/name", "owner/name.jsonl", "a/b/c")}
    assert found == {"owner/name": True, "here/name": False, "owner/name.jsonl": False, "a/b/c": False}
    assert failure(tmp_path, path="here/name").startswith("data.rows: there is no file here/name")


READ = """\
import sys
from pathlib import Path
from runner import spec
from runner.data import sources
from runner.errors import UserError
for path, split in (pair.split(":") for pair in sys.argv[1:]):
    try:
        table = sources.read(spec.Data(path=path, from_split=split or None), "rows", Path.cwd())
        print([row.values["text"] for row in table.rows], table.rows[0].where)
    except UserError as error:
        print(error.screen())
"""


def in_process(folder: Path, *wanted: str, **environment: str) -> list[str]:
    """What reading these hub ids prints; in a process of its own, because the library reads its settings once."""
    env = {**os.environ, "HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    env = {name: value for name, value in env.items() if name not in ("HF_HUB_OFFLINE", "HF_ENDPOINT")} | environment
    done = subprocess.run(
        [sys.executable, "-c", READ, *wanted], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_mirror_gives_a_data_set_and_later_the_cache_does(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    write(tmp_path / "hub" / "me" / "rows" / "train.jsonl", "a", "b")
    write(tmp_path / "hub" / "me" / "rows" / "test.jsonl", "c")
    with local_hub(tmp_path / "hub") as (address, _):
        shown = in_process(tmp_path, "me/rows:", "me/rows:test", "me/rows:tset", "me/none:", HF_ENDPOINT=address)
    assert shown == [
        "['a', 'b'] me/rows/train.jsonl:1",
        "['c'] me/rows/test.jsonl:1",
        "data.rows: me/rows has no split 'tset'",
        "    expected: from_split: one of train, test",
        "    hint: did you mean 'test'?",
        f"data.rows: there is no file or folder me/none, and no such data set on {address}",
        "    hint: one that is private or gated is found after: hf auth login",
    ]
    shown = in_process(tmp_path, "me/rows:", "me/none:", HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
    assert shown == [
        "['a', 'b'] me/rows/train.jsonl:1",
        "data.rows: there is no file or folder me/none, and the hub cannot be asked: HF_HUB_OFFLINE is set",
        "    hint: HF_ENDPOINT names a mirror; or fetch it where there is a network, and give its folder as path",
    ]


def test_a_hub_that_cannot_be_reached_is_given_up_soon(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    address = f"http://127.0.0.1:{free_port()}"
    begun = time.monotonic()
    first, second = in_process(tmp_path, "me/rows:", HF_ENDPOINT=address)
    assert time.monotonic() - begun < 20
    assert first.startswith(
        f"data.rows: there is no file or folder me/rows, and the hub cannot be asked: {address} does"
    )
    assert second.startswith("    hint: HF_ENDPOINT names a mirror")


@pytest.mark.skipif(find_spec("modelscope") is not None, reason="ModelScope's library is installed")
def test_modelscope_without_its_library_is_an_error_that_names_it(tmp_path: Path) -> None:
    assert failure(tmp_path, path="modelscope://me/rows") == (
        "data.rows: modelscope://me/rows needs ModelScope's library\n    hint: pip install modelscope"
    )
