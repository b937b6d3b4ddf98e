"""runner.atomic: a file is there whole or not at all."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.atomic import publish_parts, publish_text, settle


def test_a_file_is_written_as_it_is_given_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.jsonl"
    publish_text(path, "汉\r\nx\n")
    assert path.read_bytes() == "汉\r\nx\n".encode()
    assert os.listdir(path.parent) == ["file.jsonl"]


def test_a_reader_never_sees_a_part_of_it(tmp_path: Path) -> None:
    path, seen, done = tmp_path / "file", set(), threading.Event()
    texts = {letter * 200_000 for letter in "ab"}
    publish_text(path, "a" * 200_000)

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text(encoding="utf-8"))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        for text in sorted(texts):
            publish_text(path, text)
    done.set()
    reader.join()
    assert seen <= texts


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    publish_text(path, "before")
    with pytest.raises(UnicodeEncodeError):
        publish_text(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "before"


def test_a_writer_that_fails_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def parts() -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as caught:
        publish_parts(path, parts())
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == []


def test_files_of_others_are_waited_for_and_one_that_is_gone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    settle([tmp_path / "a"] * 20)
    with pytest.raises(FileNotFoundError):
        settle([tmp_path / "a", tmp_path / "gone"])
