"""The reply store: answers that were generated once, kept on this machine, so that asking again loads no model.

One SQLite file, used by any number of processes at once. An answer is found by the fingerprint of what gave it
(`runner.probing.fingerprint`) and the whole question. The store may be damaged, full, read-only or away: then there are
fewer answers in it, a sentence in `troubles` says why, and nothing else happens.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from runner.checkpoints import sha256_file
from runner.errors import UserError
from runner.probing.questions import Answer, Question
from runner.probing.store_file import NotAStore, aside_of, connect, inode_of, is_damage, move_aside, number, used_bytes

PLACE, BOUND = "RECIPE_STORE", "RECIPE_STORE_MIB"
"""Environment variables: the file, or `off`; and how large it may grow."""
DEFAULT_BOUND_MIB = 1024
_TOUCH_S = 3600
"""An answer's last use is noted this coarsely, so that reading rarely writes."""
_RACY_NS = 2_000_000_000
"""A file that changed so recently may change again without its times showing it: some file systems count in seconds."""
_CHUNK = 500
_KNOWN_FILES = 100_000
_SHAPE = ",".join(field.name for field in fields(Answer))
"""Part of every key: an answer of a version whose answers say less is not found."""
T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """An answer and what gave it, as a verdict names it."""

    answer: Answer
    dtype: str
    engine: str


def place() -> Path | None:
    """Where the store lies: `$RECIPE_STORE`, else below `$XDG_CACHE_HOME`, else below `~/.cache`; None for `off`."""
    if given := os.environ.get(PLACE):
        return None if given == "off" else Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "recipe-runner" / "replies.sqlite3"


def bound_bytes() -> int:
    """How large the store may grow, `$RECIPE_STORE_MIB` or 1 GiB.

    Raises:
        UserError: the variable is no number above 0.
    """
    given = os.environ.get(BOUND) or str(DEFAULT_BOUND_MIB)
    if not given.isascii() or not given.isdigit() or int(given) < 1:
        raise UserError(f"${BOUND} is {given!r}", expected="a whole number of MiB, at least 1")
    return int(given) * 2**20


class Store:
    """The reply store at `path`, made where it is missing."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path, self.most_bytes = path, most_bytes
        self.troubles: list[str] = []
        """What went wrong, each sentence once; for the screen."""
        self.sought = self.found = 0
        """Answers that were looked for, and those that were there."""
        self._writable, self._renewed = True, False
        self._connection: sqlite3.Connection | None = None
        self._open()

    @classmethod
    def open(cls, choice: str = "auto") -> Store | None:
        """The store that `--probe-store` names: `auto` is where `place` says, `off` is none, else a file.

        Raises:
            UserError: the bound in the environment is no number.
        """
        path = place() if choice == "auto" else None if choice == "off" else Path(choice)
        return cls(path, bound_bytes()) if path is not None else None

    def close(self) -> None:
        """Let go of the file; a closed store knows nothing and keeps nothing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- answers ---

    def get(self, fingerprint: str, questions: Sequence[Question]) -> list[Kept | None]:
        """What is known, in the order of the questions; nothing where there is no fingerprint."""
        if not fingerprint:
            return [None] * len(questions)
        keys = [_key(fingerprint, question) for question in questions]
        found: dict[bytes, Kept] = self._try(lambda connection: self._read(connection, keys), {})
        self.sought, self.found = self.sought + len(keys), self.found + len(found)
        return [found.get(key) for key in keys]

    def put(self, fingerprint: str, pairs: Iterable[tuple[Question, Kept]]) -> None:
        """Keep answers; those with an `error` are not kept. What was not used for longest goes where room is short."""
        now = int(time.time())
        rows = [_row(_key(fingerprint, question), kept, now) for question, kept in pairs if not kept.answer.error]
        if fingerprint and rows:
            self._try_writing(lambda connection: self._insert(connection, rows))

    def _read(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        found, stale, now = {}, [], int(time.time())
        for chunk in _chunks(keys):
            marks = ",".join("?" * len(chunk))
            sql = f"SELECT key, reply, crc, used FROM replies WHERE key IN ({marks})"
            for key, reply, crc, used in connection.execute(sql, chunk):
                if (kept := _kept(key, reply, crc)) is not None:
                    found[key] = kept
                    if used < now - _TOUCH_S:
                        stale.append(key)
        if stale:
            self._try_writing(lambda connection: _touch(connection, stale, now))
        return found

    def _insert(self, connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes, int, int]]) -> None:
        connection.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", rows)
        excess = used_bytes(connection) - self.most_bytes
        while excess > 0:
            # a tenth more than must go, so that not every further answer evicts one
            gone = connection.execute(
                "DELETE FROM replies WHERE key IN (SELECT key FROM (SELECT key, SUM(LENGTH(reply)) OVER"
                " (ORDER BY used, key) - LENGTH(reply) AS older FROM replies) WHERE older <= ?)",
                (excess + self.most_bytes // 10,),
            )
            if gone.rowcount < 1:
                break
            excess = used_bytes(connection) - self.most_bytes

    # --- files ---

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file, hashed once for as long as device, inode, size and both times stay the same.

        Raises:
            OSError: the file cannot be read.
        """
        mark = _mark(before := path.stat())
        sql = "SELECT sha256 FROM files WHERE mark = ?"
        row: tuple[str] | None = self._try(lambda connection: connection.execute(sql, (mark,)).fetchone(), None)
        if row is not None:
            return row[0]
        digest = sha256_file(path)
        changed_ns = max(before.st_mtime_ns, before.st_ctime_ns)
        if _mark(path.stat()) == mark and time.time_ns() - changed_ns > _RACY_NS:
            self._try_writing(lambda connection: _remember(connection, mark, digest))
        return digest

    # --- the whole ---

    def report(self) -> list[str]:
        """What a session should say about it: how many replies came from here, and what went wrong."""
        known = f"{self.found:,} of {self.sought:,} replies came from the reply store" if self.found else ""
        return [*([known] if known else []), *(f"reply store: {trouble}" for trouble in self.troubles)]

    def entries(self) -> int:
        """How many answers there are."""
        return self._try(lambda connection: number(connection, "SELECT COUNT(*) FROM replies"), 0)

    def size_bytes(self) -> int:
        """How much of the disk it takes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def clear(self) -> None:
        """Forget everything. Other processes may go on using the store."""

        def empty(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM replies")
            connection.execute("DELETE FROM files")

        self._try_writing(empty)
        aside_of(self.path).unlink(missing_ok=True)

    # --- the file and what can happen to it ---

    def _open(self) -> None:
        try:
            self._inode = inode_of(self.path)
            self._connection = connect(self.path)
        except NotAStore:
            self._say(f"{self.path} is no reply store: left alone, and no reply is kept")
        except sqlite3.Error as error:
            self._failed(error)
        except OSError as error:
            self._say(f"{self.path} cannot be made ({error.strerror}): no reply is kept")

    def _try(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        if self._connection is None:
            return otherwise
        try:
            return work(self._connection)
        except sqlite3.Error as error:
            self._failed(error)
            return otherwise

    def _try_writing(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Do it in one transaction, which is there whole or not at all."""
        if self._connection is None or not self._writable:
            return
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            work(connection)
            connection.execute("COMMIT")
            connection.executescript("PRAGMA incremental_vacuum")  # `execute` would free one page
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.rollback()
            if is_damage(error):
                self._failed(error)
            else:
                self._writable = False
                self._say(f"{self.path} cannot be written ({error}): new replies are not kept")

    def _failed(self, error: sqlite3.Error) -> None:
        self.close()
        fresh = is_damage(error) and not self._renewed
        if not fresh or (aside := move_aside(self.path, self._inode)) is None:
            self._say(f"{self.path} cannot be read ({error}): it is not used")
        else:
            self._renewed = True
            self._say(f"{self.path} cannot be read ({error}): moved to {aside.name}, a new one is begun")
            self._open()

    def _say(self, trouble: str) -> None:
        self.troubles.append(trouble)


def _key(fingerprint: str, question: Question) -> bytes:
    asked = json.dumps(question, default=vars, sort_keys=True)
    return hashlib.sha256(f"{fingerprint}\0{_SHAPE}\0{asked}".encode()).digest()


def _row(key: bytes, kept: Kept, now: int) -> tuple[bytes, bytes, int, int]:
    # served from here it takes no time
    answer = replace(kept.answer, seconds=0.0)
    text = json.dumps({"answer": vars(answer), "dtype": kept.dtype, "engine": kept.engine}, ensure_ascii=False)
    reply = text.encode("utf-8", "surrogatepass")  # a broken tokenizer can give lone surrogates
    return key, reply, zlib.crc32(key + reply), now


def _kept(key: bytes, reply: bytes, crc: int) -> Kept | None:
    """What a row holds; None where its bytes are not those that were written."""
    if zlib.crc32(key + reply) != crc:
        return None
    row = json.loads(reply.decode("utf-8", "surrogatepass"))
    said = row["answer"]
    said["tokens"], said["choice_logprobs"] = tuple(said["tokens"]), tuple(said["choice_logprobs"])
    return Kept(Answer(**said), row["dtype"], row["engine"])


def _touch(connection: sqlite3.Connection, keys: Sequence[bytes], now: int) -> None:
    connection.executemany("UPDATE replies SET used = ? WHERE key = ?", [(now, key) for key in keys])


def _remember(connection: sqlite3.Connection, mark: str, digest: str) -> None:
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (mark, digest))
    connection.execute(
        "DELETE FROM files WHERE rowid <= (SELECT MAX(rowid) FROM files) - ?", (_KNOWN_FILES,)
    )  # rows are numbered as they come


def _mark(about: os.stat_result) -> str:
    return ":".join(map(str, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)))


def _chunks(keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK))
