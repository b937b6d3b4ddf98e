"""Rows of token ids on disk and in flat arrays: appended to in batches, read row by row, kept from one process to the
next.

The ids of large stores are read with `pread`, not mapped: the pages of a mapped file count as memory of the process
that read them. What a store holds besides, some forty bytes for each row, are arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.data.tokenizer import Fast
from runner.data.tokens import Encoding, Tokens

TOKENS = "tokens"
"""The folder of kept stores in the `data/` of a run: no part of what the run promises, and made again where it is not
there."""
FORMAT_VERSION = 1
ENCODING_VERSION = 1
"""Counts up when the same texts, tokenizer and `Encoding` would give other rows than before."""
IN_MEMORY_BYTES = 64 * 2**20
"""Ids of a store that is no larger are read at once and kept."""

_COLUMNS = ("offsets", "span_offsets", "spans", "rows", "supervised", "unknown", "truncated", "groups")
_IDS = "ids.i32"

Ints = NDArray[np.int64]


class _Column:
    """An array that grows: appended to in blocks, put together when it is read."""

    def __init__(self, first: NDArray[np.generic]) -> None:
        self._blocks = [first]

    def add(self, block: NDArray[np.generic]) -> None:
        self._blocks.append(block)

    def add_lengths(self, lengths: Ints) -> None:
        """Of a column of offsets: the ends of what comes next."""
        self.add(self._blocks[-1][-1] + np.cumsum(lengths) if len(lengths) else lengths)
        if not len(lengths):
            self._blocks.pop()

    @property
    def values(self) -> NDArray[np.generic]:
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0]


class _Ids:
    """The file of a store's ids: int32, one after the other; closed when nobody holds it any more.

    Args:
        path: an existing file, or one to be made; None makes one without a name.
        writes: whether it is appended to, from its beginning.
    """

    def __init__(self, path: Path | None, *, writes: bool) -> None:
        if path is None:
            self._file, name = tempfile.mkstemp(prefix="recipe-tokens-")
            os.unlink(name)  # noqa: PTH108 - a name of the operating system
        else:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC if writes else os.O_RDONLY, 0o644)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return os.fstat(self._file).st_size // 4

    def append(self, ids: NDArray[np.int32]) -> None:
        rest = memoryview(ids.tobytes())
        while len(rest):
            rest = rest[os.write(self._file, rest) :]

    def read(self, start: int, stop: int) -> NDArray[np.int32]:
        return np.frombuffer(os.pread(self._file, (stop - start) * 4, start * 4), np.int32)


class TokenStore:
    """Rows of token ids, in groups: a group holds the rows of one example, which may be none or several.

    Args:
        file: the ids.
        columns: the arrays of `_COLUMNS`.
        unknown_id: the id of `<unk>`, counted row by row; None where the tokenizer has none.
    """

    def __init__(self, file: _Ids, columns: dict[str, NDArray[np.generic]], unknown_id: int | None) -> None:
        self._file, self._unknown_id = file, unknown_id
        self._columns = {name: _Column(array) for name, array in columns.items()}
        self._loaded: NDArray[np.int32] | None = None

    @classmethod
    def empty(cls, unknown_id: int | None, path: Path | None = None) -> TokenStore:
        """A store without rows; its ids go to the file at `path`, or to a temporary one that has no name."""
        start = np.zeros(1, np.int64)
        columns: dict[str, NDArray[np.generic]] = {
            "offsets": start, "span_offsets": start, "groups": start, "spans": np.zeros((0, 2), np.int32),
            "rows": np.zeros(0, np.int64), "supervised": np.zeros(0, np.int32), "unknown": np.zeros(0, np.int32),
            "truncated": np.zeros(0, np.bool_),
        }  # fmt: skip
        return cls(_Ids(path, writes=True), columns, unknown_id)

    # --- writing ---

    def append(self, encoded: Sequence[Sequence[Tokens]]) -> None:
        """Add a group for each example."""
        rows = list(chain.from_iterable(encoded))
        lengths = np.fromiter((len(row.ids) for row in rows), np.int64, len(rows))
        ids = np.fromiter(chain.from_iterable(row.ids for row in rows), np.int32, int(lengths.sum()))
        ends = np.cumsum(lengths)
        unknown = np.concatenate([[0], np.cumsum(ids == self._unknown_id)]) if self._unknown_id is not None else None
        add = self._columns
        add["offsets"].add_lengths(lengths)
        add["span_offsets"].add_lengths(np.fromiter((len(row.spans) for row in rows), np.int64, len(rows)))
        add["groups"].add_lengths(np.fromiter((len(group) for group in encoded), np.int64, len(encoded)))
        add["spans"].add(np.array([span for row in rows for span in row.spans], np.int32).reshape(-1, 2))
        add["rows"].add(np.fromiter((row.row for row in rows), np.int64, len(rows)))
        add["supervised"].add(np.fromiter((row.supervised for row in rows), np.int32, len(rows)))
        add["truncated"].add(np.fromiter((row.truncated for row in rows), np.bool_, len(rows)))
        counted = unknown[ends] - unknown[ends - lengths] if unknown is not None else np.zeros(len(rows))
        add["unknown"].add(counted.astype(np.int32))
        self._file.append(ids)
        self._loaded = None

    def save_columns(self, folder: Path) -> None:
        """Write what belongs to the ids beside them."""
        for name in _COLUMNS:
            np.save(folder / f"{name}.npy", self._columns[name].values)

    # --- reading ---

    def __len__(self) -> int:
        return len(self._columns["rows"].values)

    @property
    def offsets(self) -> Ints:
        """Where the ids of each row begin, and the end: (rows + 1,)."""
        return self._columns["offsets"].values  # type: ignore[return-value]

    @property
    def groups(self) -> Ints:
        """The first row of each group, and the end: (groups + 1,)."""
        return self._columns["groups"].values  # type: ignore[return-value]

    def measured(self, name: str) -> NDArray[np.generic]:
        """`supervised` and `unknown` tokens of each row, whether it is `truncated`, `rows` of its source: (rows,)."""
        return self._columns[name].values

    def take(self, rows: Ints) -> list[Tokens]:
        """The rows of these numbers: what a batch needs is looked up at once."""
        columns = {name: column.values for name, column in self._columns.items()}
        spans, ids = columns["spans"], self._all_ids()
        found = []
        for start, stop, first, last, row, truncated in zip(
            columns["offsets"][rows].tolist(),
            columns["offsets"][rows + 1].tolist(),
            columns["span_offsets"][rows].tolist(),
            columns["span_offsets"][rows + 1].tolist(),
            columns["rows"][rows].tolist(),
            columns["truncated"][rows].tolist(),
            strict=True,
        ):
            mine = self._file.read(start, stop) if ids is None else ids[start:stop]
            kept = tuple((begin, end) for begin, end in spans[first:last].tolist())
            found.append(Tokens(mine.tolist(), kept, row, truncated))
        return found

    def __getitem__(self, index: int) -> Tokens:
        return self.take(np.array([index]))[0]

    def ids(self, start: int, stop: int) -> NDArray[np.int32]:
        """The ids from one offset to another."""
        ids = self._all_ids()
        return self._file.read(start, stop) if ids is None else ids[start:stop]

    def _all_ids(self) -> NDArray[np.int32] | None:
        """All of them, where they are few."""
        end = int(self.offsets[-1])
        if self._loaded is None and end * 4 <= IN_MEMORY_BYTES:
            self._loaded = self._file.read(0, end)
        return self._loaded

    def unknown_in(self, start: int, stop: int) -> int:
        """How many of the ids from one offset to another are `<unk>`."""
        return 0 if self._unknown_id is None else int((self.ids(start, stop) == self._unknown_id).sum())


# --- kept stores ---


@dataclass(frozen=True)
class Kept:
    """Where stores are kept for other processes, and what they are made of."""

    folder: Path
    digests: Mapping[str, str]
    """Of each data set."""
    writes: bool = False
    """Whether what is missing is written there; otherwise it is made again and lasts as long as the process."""
    beside: tuple[Path, ...] = ()
    """Such folders of others, of the variants of one recipe: what they hold is linked, not made again. A store never
    changes once it is there, and whoever removes his removes a name of it."""

    def key(self, ref: str, tokenizer: Fast, how: Encoding, drawn: str = "") -> str:
        """Digest of everything that the rows of a data set depend on.

        Args:
            drawn: how its examples are drawn, where the store holds the drawn ones.
        """
        parts = [self.digests[ref], fingerprint(tokenizer), repr(how), drawn, str(ENCODING_VERSION)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

    def open(self, key: str, unknown_id: int | None) -> TokenStore | None:
        """The store that is kept under `key`; None where there is none, or not a whole one."""
        found = self._whole(self.folder / key, unknown_id)
        if found is None and self.writes:
            shared = (other / key for other in self.beside if self._whole(other / key, unknown_id) is not None)
            if (other := next(shared, None)) is not None and self._link(other, key):
                return self._whole(self.folder / key, unknown_id)
        return found

    def _link(self, other: Path, key: str) -> bool:
        """Give a store that lies elsewhere a second name here; False where the file system has no such links."""
        partial, folder = self._partial(key), self.folder / key
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(other, partial, copy_function=os.link)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        except OSError:  # shutil.Error is one; the other may have removed it meanwhile
            return False
        return True

    @staticmethod
    def _whole(folder: Path, unknown_id: int | None) -> TokenStore | None:
        try:
            about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            file = _Ids(folder / _IDS, writes=False)
            columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _COLUMNS}
        except (OSError, ValueError):
            return None
        whole = about.get("format_version") == FORMAT_VERSION and len(file) == about.get("ids")
        return TokenStore(file, columns, unknown_id) if whole else None

    def begin(self, key: str, unknown_id: int | None) -> TokenStore:
        """An empty store whose ids are already written where `publish` will put it; only where it `writes`."""
        partial = self._partial(key)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return TokenStore.empty(unknown_id, partial / _IDS)

    def publish(self, key: str, store: TokenStore) -> None:
        """Make a store that was begun visible to others, whole."""
        partial, folder = self._partial(key), self.folder / key
        store.save_columns(partial)
        about = {"format_version": FORMAT_VERSION, "ids": int(store.offsets[-1])}
        (partial / "about.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def _partial(self, key: str) -> Path:
        return self.folder / f".{key}"

    def clean(self, used: set[str]) -> None:
        """Remove the stores that nothing names any more, and what was left half-written."""
        for found in self._found():
            if found.name not in used:
                shutil.rmtree(found, ignore_errors=True)

    def _found(self) -> Iterator[Path]:
        return self.folder.iterdir() if self.folder.is_dir() else iter(())


def fingerprint(tokenizer: Fast) -> str:
    """Digest of what a tokenizer does: the same before and after transformers saved it."""
    rules = json.loads(tokenizer.tokenizer.to_str())
    for name in ("truncation", "padding", "version", "decoder", "post_processor"):
        rules.pop(name, None)  # not used here; what is put before a text are its `prefix_ids`
    text = json.dumps([rules, tokenizer.prefix_ids, tokenizer.eos_id], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
