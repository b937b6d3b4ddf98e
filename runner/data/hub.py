"""Data sets of a hub, and folders: which files they are made of. The only module that imports `datasets`.

`datasets` says which files a subset and a split are; `huggingface_hub` keeps them in its cache (`HF_HOME`), from a
mirror where `HF_ENDPOINT` names one, so that the next run, and one without a network, finds them there. The rows are
then read as those of any other file, with their lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runner.data.formats import KINDS, kind_of
from runner.data.json_text import Values
from runner.errors import BadData, Where, first_line, nearest

MODELSCOPE = "modelscope://"
DEFAULT_SPLIT = "train"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "configuration.json")
"""Files that say something about data and hold none."""
_WAIT_S = 10.0
"""Until a hub that does not answer is given up; asked once, before anything is fetched."""


@dataclass(frozen=True)
class Wanted:
    """A data set, as a recipe asks for it."""

    name: str
    """Of the block, for errors: `data.NAME`."""
    path: str
    subset: str | None
    split: str | None

    @property
    def label(self) -> str:
        """The block that asks."""
        return f"data.{self.name}"


@dataclass(frozen=True)
class DataFile:
    """A file of rows."""

    shown: str
    """Its name in errors: as the recipe writes it, or as it stands in the repository of a hub."""
    path: Path

    @property
    def size_bytes(self) -> int:
        """As it lies on the disk; 0 of a folder, or where it is gone."""
        return self.path.stat().st_size if self.path.is_file() else 0


def is_hub_id(path: str, root: Path) -> bool:
    """Whether a path that is no file here may be meant as `owner/name` on a hub: where its first part is no folder."""
    if path.startswith(MODELSCOPE):
        return True
    return bool(_HUB_ID.fullmatch(path)) and kind_of(Path(path)) is None and not (root / path).parent.is_dir()


def is_fetched(path: str) -> bool:
    """Whether a data set of a hub lies in the cache of this machine; nothing is asked of the hub."""
    return not path.startswith(MODELSCOPE) and _cached(path) is not None


@cache
def of_hub(wanted: Wanted) -> tuple[DataFile, ...]:
    """The files of a data set on the hub, fetched where they are not here yet; asked of it once in a process.

    Raises:
        BadData: the hub cannot be reached or has no such data set, subset or split, or its files are of no known
            format.
    """
    if wanted.path.startswith(MODELSCOPE):
        return _of_modelscope(wanted)
    folder = _described(wanted)
    if folder is not None:
        return in_folder(wanted, folder, fetched=True)
    files = _choose(wanted, wanted.path)
    names = [_inside(url) for url in files]
    _check_kinds(wanted, names)
    return tuple(DataFile(f"{wanted.path}/{name}", _fetched(wanted, name)) for name in names)


def in_folder(wanted: Wanted, folder: Path, *, fetched: bool = False) -> tuple[DataFile, ...]:
    """The files of a folder of data files, or the folder itself where `datasets` saved it.

    Args:
        fetched: it came from a hub, where files may lie beside the data that are none.

    Raises:
        BadData: it has no data files, or not that subset or split.
    """
    if saved := _saved(wanted, folder):
        return (saved,)
    entries = {path: kind_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    kinds = sorted({kind for path, kind in entries.items() if kind is not None and path.name not in _ABOUT})
    if not kinds:
        raise BadData(
            f"{wanted.label}: {wanted.path} is a folder without data files",
            expected="a file, a glob, a folder of data files, or one that datasets saved",
            hint=f"files are {', '.join(f'.{kind}' for kind in KINDS)}; plain, .gz or .xz",
        )
    if len(kinds) > 1 and not fetched:
        raise BadData(
            f"{wanted.label}: {wanted.path} is a folder with files of several kinds: {', '.join(kinds)}",
            expected="a folder of files of one kind, or a glob",
            hint=f"path: {wanted.path.rstrip('/')}/*.{kinds[0]}",
        )
    files = _choose(wanted, str(folder.resolve()))
    _check_kinds(wanted, files)
    return _shown_from([DataFile(file, Path(file)) for file in files], wanted.path, folder.resolve())


def saved_rows(folder: Path, shown: str) -> Iterator[tuple[int, Values]]:
    """The rows of a folder that `save_to_disk` wrote, with their numbers from 1.

    Raises:
        BadData: it is damaged.
    """
    import datasets
    import pyarrow

    number = 0
    try:
        for table in datasets.load_from_disk(str(folder)).with_format("arrow").iter(batch_size=1024):
            table.validate(full=True)  # an offset that leads out of the file would end this process
            batch = table.to_pydict()
            names = list(batch)
            for values in zip(*batch.values(), strict=True):
                number += 1
                yield number, dict(zip(names, values, strict=True))
    # `datasets` trusts what it wrote: a damaged file fails wherever its values are used first
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
        pyarrow.ArrowException,
    ) as error:
        raise BadData(
            f"cannot be read as a folder that datasets saved: {type(error).__name__}: {first_line(error)}",
            where=Where(shown),
            hint="save it again with save_to_disk",
        ) from error


def _saved(wanted: Wanted, folder: Path) -> DataFile | None:
    """The folder of the rows that `save_to_disk` wrote; None where it did not write this one."""
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        if wanted.split is not None:
            raise BadData(f"{wanted.label}: {wanted.path} holds one data set, not splits", hint="remove from_split")
        return DataFile(wanted.path, folder)
    if not (folder / "dataset_dict.json").is_file():
        return None
    splits = sorted(path.parent.name for path in folder.glob("*/state.json"))
    split = wanted.split or DEFAULT_SPLIT
    if split not in splits:
        raise _no_split(wanted, split, splits)
    return DataFile(f"{wanted.path.rstrip('/')}/{split}", folder / split)


def _choose(wanted: Wanted, place: str) -> list[str]:
    """Paths or addresses of the files of the subset and split, as `datasets` finds them."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    try:
        builder = datasets.load_dataset_builder(place, name=wanted.subset)
    except Exception as error:  # whatever the library meets in files of others
        words = first_line(error).replace(place, wanted.path)
        what = "one of its subsets" if wanted.subset is not None else "files that datasets can tell apart"
        raise BadData(f"{wanted.label}: datasets cannot open {wanted.path}: {words}", expected=what) from error
    files: Mapping[Any, Any] = builder.config.data_files or {}
    split = wanted.split or DEFAULT_SPLIT
    if split not in files:
        raise _no_split(wanted, split, [str(name) for name in files])
    return [str(file) for file in files[split]]


def _no_split(wanted: Wanted, split: str, splits: list[str]) -> BadData:
    close = nearest(split, splits)
    return BadData(
        f"{wanted.label}: {wanted.path} has no split {split!r}",
        expected=f"from_split: one of {', '.join(splits)}" if splits else "data files",
        hint=f"did you mean {close!r}?" if close else None,
    )


def _check_kinds(wanted: Wanted, names: list[str]) -> None:
    strange = next((name for name in names if kind_of(Path(name)) is None), None)
    if strange is not None:
        known = ", ".join(f".{kind}" for kind in KINDS)
        raise BadData(
            f"{wanted.label}: {Path(strange).name} of {wanted.path} is of no known format",
            expected=f"one of {known}; plain, .gz or .xz",
        )


def _shown_from(files: list[DataFile], path: str, folder: Path) -> tuple[DataFile, ...]:
    """The same files, by names that begin with what the recipe says."""
    inside = (file.path.relative_to(folder).as_posix() for file in files)
    return tuple(DataFile(f"{path.rstrip('/')}/{name}", file.path) for file, name in zip(files, inside, strict=True))


# --- the hub ---


def _described(wanted: Wanted) -> Path | None:
    """Whether the hub has the data set: None; where there is no network, the folder of the cache that has it.

    Raises:
        BadData: neither.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        huggingface_hub.HfApi().dataset_info(wanted.path, timeout=_WAIT_S)
        return None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise BadData(
            f"{wanted.label}: there is no file or folder {wanted.path}, and no such data set on {constants.ENDPOINT}",
            hint="one that is private or gated is found after: hf auth login",
        ) from error
    except Exception as error:  # of whichever HTTP library the installed version stands on
        cached = _cached(wanted.path)
        if cached is not None:
            return cached
        silent = f"{constants.ENDPOINT} does not answer ({first_line(error)})"
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else silent
        raise BadData(
            f"{wanted.label}: there is no file or folder {wanted.path}, and the hub cannot be asked: {why}",
            hint="HF_ENDPOINT names a mirror; or fetch it where there is a network, and give its folder as path",
        ) from error


def _cached(name: str) -> Path | None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None


def _inside(url: str) -> str:
    """The path of a file inside its repository: `hf://datasets/owner/name@revision/data/train.jsonl`."""
    return url.partition("@")[2].partition("/")[2]


def _fetched(wanted: Wanted, name: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(wanted.path, name, repo_type="dataset"))
    except Exception as error:  # as above
        raise BadData(f"{wanted.label}: {wanted.path}/{name} cannot be fetched: {first_line(error)}") from error


def _of_modelscope(wanted: Wanted) -> tuple[DataFile, ...]:
    try:
        from modelscope.hub.snapshot_download import dataset_snapshot_download
    except ImportError as error:
        raise BadData(
            f"{wanted.label}: {wanted.path} needs ModelScope's library", hint="pip install modelscope"
        ) from error
    name = wanted.path.removeprefix(MODELSCOPE)
    try:
        folder = Path(dataset_snapshot_download(name))
    except Exception as error:  # the library raises what its network layer raises
        raise BadData(f"{wanted.label}: {wanted.path} cannot be fetched: {first_line(error)}") from error
    return in_folder(wanted, folder, fetched=True)
