"""runner.atomic: a file is there whole or not at all."""

import os
import threading
from pathlib import Path

import pytest

from runner.atomic import publish_text


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
    for _ in range(50):
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
