"""Small results in SQLite: committed when they are known, checked when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from topsideas.errors import WorkspaceError
from topsideas.workspace.files import remove_file
from topsideas.workspace.keys import canonical_json

_log = logging.getLogger("topsideas.workspace")

_TABLE = (
    "results (kind TEXT NOT NULL, key TEXT NOT NULL, "
    "value BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID"
)
_CREATE = f"CREATE TABLE IF NOT EXISTS {_TABLE}"
_SCHEMA = [("table", f"CREATE TABLE {_TABLE}")]
_GET = "SELECT value, checksum FROM results WHERE kind = ? AND key = ?"
_PUT = "INSERT OR REPLACE INTO results (kind, key, value, checksum) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM results WHERE kind = ? AND key = ?"

# What SQLite says when the system around the file fails; all else means the file is damaged.
# By text, because Python 3.10 does not pass the error code on.
_SYSTEM_FAILURES = (
    "database or disk is full",
    "disk I/O error",
    "attempt to write a readonly database",
    "unable to open database file",
    "database is locked",
    "locking protocol",
    "out of memory",
)
# UnicodeDecodeError: SQLite quotes the damaged bytes in its message.
_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)
_REMEDY = (
    "expected a disk with free space that this user may write to, and no other program in the "
    "database"
)


class Journal:
    """JSON values by kind and key. Safe to use from several threads.

    Args:
        path: The database file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database = self._open()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def get(self, kind: str, key: str) -> object | None:
        """The value, or None if there is none or its row is damaged."""
        with self._lock:
            row = self._run(_GET, kind, key)
            if row is None:
                return None
            value, checksum = row
            if isinstance(value, bytes) and checksum == _checksum(kind, key, value):
                return json.loads(value)  # type: ignore[no-any-return]
            _log.warning("%s: the row %s %s is damaged and dropped", self._path, kind, key)
            self._run(_DELETE, kind, key)
            return None

    def put(self, kind: str, key: str, value: object) -> None:
        """Record a value, or replace it. It is on record when this returns.

        Raises:
            TypeError: The value is not JSON.
            ValueError: The value is None, which a miss is told by, or holds NaN or infinity.
        """
        if value is None:
            raise ValueError(f"{kind} {key}: None cannot be recorded, it means that none is known")
        content = canonical_json(value).encode()
        with self._lock:
            self._run(_PUT, kind, key, content, _checksum(kind, key, content))

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._run("DELETE FROM results")

    def _run(self, statement: str, *arguments: str | bytes) -> tuple[object, ...] | None:
        """The first row of one statement, on a new database if the file proves damaged."""
        try:
            return self._first_row(statement, arguments)
        except _ERRORS as error:
            self._raise_unless_damaged(error)
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = self._replaced(error)
        return self._first_row(statement, arguments)

    def _first_row(
        self, statement: str, arguments: tuple[str | bytes, ...]
    ) -> tuple[object, ...] | None:
        row: tuple[object, ...] | None = self._database.execute(statement, arguments).fetchone()
        return row

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except _ERRORS as error:
            self._raise_unless_damaged(error)
            return self._replaced(error)

    def _replaced(self, error: Exception) -> sqlite3.Connection:
        """An empty database where the damaged one was."""
        self._move_aside(error)
        try:
            return self._connect()
        except _ERRORS as failure:
            raise WorkspaceError(
                f"{self._path}: cannot be used: {failure}; {_REMEDY}"
            ) from failure

    def _connect(self) -> sqlite3.Connection:
        # No isolation level: each statement is its own transaction, committed as it ends.
        database = sqlite3.connect(
            self._path, timeout=1, isolation_level=None, check_same_thread=False
        )
        try:
            # With exclusive locking the write-ahead log needs no memory common to processes, which
            # network file systems lack; the workspace's lock keeps other runs away anyway.
            database.execute("PRAGMA locking_mode = EXCLUSIVE").close()
            database.execute("PRAGMA journal_mode = WAL").close()
            database.execute("PRAGMA synchronous = NORMAL").close()
            database.execute(_CREATE).close()
            _check_structure(database)
            database.execute(_GET, ("", "")).fetchone()
        except BaseException:
            database.close()
            raise
        return database

    def _raise_unless_damaged(self, error: Exception) -> None:
        """Let only errors pass that a damaged file explains."""
        # A damaged header can make SQLite call a writable file read-only.
        misread = "readonly" in str(error) and os.access(self._path, os.W_OK)
        if not misread and any(text in str(error) for text in _SYSTEM_FAILURES):
            raise WorkspaceError(f"{self._path}: cannot be used: {error}; {_REMEDY}") from error
        if type(error) not in (*_ERRORS, sqlite3.OperationalError):
            raise error  # the statement is wrong, or the database was closed

    def _move_aside(self, error: Exception) -> None:
        aside = self._path.with_name(self._path.name + ".damaged")
        _log.warning(
            "%s: the database is damaged (%s); it is kept as %s, and results are computed again",
            self._path,
            error,
            aside.name,
        )
        try:
            self._path.replace(aside)
            # The log of the old database must never be replayed into the new one.
            for extra in self._extras():
                remove_file(extra)
        except OSError as failure:
            raise WorkspaceError(
                f"{self._path}: is damaged and cannot be moved aside: {failure.strerror}; remove "
                "it or use another --workspace"
            ) from failure

    def _extras(self) -> Iterator[Path]:
        return (
            self._path.with_name(self._path.name + end) for end in ("-wal", "-shm", "-journal")
        )


def _check_structure(database: sqlite3.Connection) -> None:
    """Raise where the tables are damaged: rows out of order are there and yet not found.

    What else a database holds, such as a trigger, would run: it came with somebody's workspace.
    """
    if database.execute("SELECT type, sql FROM sqlite_master").fetchall() != _SCHEMA:
        raise sqlite3.DatabaseError("it holds other things than the table of results")
    (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(" ".join(str(found).split()))


def _checksum(kind: str, key: str, content: bytes) -> bytes:
    # JSON keeps the parts apart: ("ab", "c") and ("a", "bc") must differ.
    head = json.dumps([kind, key]).encode()
    return hashlib.sha256(head + b"\n" + content).digest()
