"""The file of the reply store: a SQLite database, made where it is missing, and moved aside where it is damaged."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

FORMAT_VERSION = 1
_APPLICATION_ID = 0x52657069
_PATIENCE_S = 30.0
"""How long to wait for another process that is writing."""
_TABLES = """
CREATE TABLE replies (key BLOB PRIMARY KEY, reply BLOB NOT NULL, crc INTEGER NOT NULL, used INTEGER NOT NULL);
CREATE INDEX replies_used ON replies (used);
CREATE TABLE files (mark TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
"""


class NotAStore(Exception):
    """The file is a database of somebody else."""


class _OtherFormat(sqlite3.DatabaseError):
    """A newer version wrote it."""


def connect(path: Path) -> sqlite3.Connection:
    """The database at `path`.

    Raises:
        NotAStore: it belongs to somebody else.
        sqlite3.Error: it is damaged, of another format, or cannot be read.
        OSError: its folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
    try:
        # a rollback journal and not WAL: home folders of clusters are network file systems, where WAL does not work
        if number(connection, "SELECT COUNT(*) FROM sqlite_master") == 0:
            _create(connection)
        if number(connection, "PRAGMA application_id") != _APPLICATION_ID:
            raise NotAStore
        if (found := number(connection, "PRAGMA user_version")) != FORMAT_VERSION:
            raise _OtherFormat(f"it has format {found}, this version reads {FORMAT_VERSION}")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    if number(connection, "SELECT COUNT(*) FROM sqlite_master") == 0:  # nobody else was faster
        for statement in _TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    connection.execute("COMMIT")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether no later try can succeed, because of what the file holds."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return isinstance(error, _OtherFormat) or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def inode_of(path: Path) -> int | None:
    """Tells a file from one that took its name; None where there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def aside_of(path: Path) -> Path:
    """Where a damaged store is moved to."""
    return path.with_name(f"{path.name}.aside")


def move_aside(path: Path, inode: int | None) -> Path | None:
    """Rename a damaged store, over the one before; None where it is not to be touched or cannot be. One that another
    process has begun anew meanwhile is left in place."""
    aside = aside_of(path)
    try:
        about = path.stat()
        # a file of another name was given by hand, perhaps by mistake
        if path.suffix != ".sqlite3" or not stat.S_ISREG(about.st_mode):
            return None
        if inode is None or about.st_ino == inode:
            path.replace(aside)
            # a journal left behind would be played into the new file
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    except OSError:
        return None
    return aside


def used_bytes(connection: sqlite3.Connection) -> int:
    """How large the file is without what could be given back."""
    pages = number(connection, "PRAGMA page_count") - number(connection, "PRAGMA freelist_count")
    return pages * number(connection, "PRAGMA page_size")


def number(connection: sqlite3.Connection, sql: str) -> int:
    """The one whole number that a statement gives."""
    return int(connection.execute(sql).fetchone()[0])
