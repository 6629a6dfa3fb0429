"""SQLite: the file as it was at one moment, and another file in its place.

A backup holds the whole file, as SQLite's online backup API copies it while others write. Nothing
here goes through Django's connection: its file may be damaged or missing when this is needed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from monitoring.backups.archive import ArchiveWriter, Digesting
from monitoring.backups.errors import BackupFailed, DamagedBackup
from monitoring.backups.manifest import About, Table
from monitoring.backups.sqlite_place import Place, is_kept

_ENTRY = "database.sqlite3"
_ROWS_AT_ONCE = 64  # a row may hold a megabyte


@contextlib.contextmanager
def snapshot(folder: Path) -> Iterator[FileSnapshot]:
    live = _live()
    if not live.exists():
        raise BackupFailed(f"There is no database at {live}.")
    copy = folder / _ENTRY
    with _opened(live, mode="rw") as source, _opened(copy, mode="rwc") as target:
        target.execute("PRAGMA synchronous=OFF")
        # All in one step: copied page by page, it would begin anew with each write of another
        # connection. In WAL mode a reader keeps no writer waiting.
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # one file, without a journal beside it
    yield FileSnapshot(copy)


class FileSnapshot:
    def __init__(self, path: Path) -> None:
        self.left_out: list[str] = []
        self.layout: dict[str, Any] = {"size_bytes": path.stat().st_size}
        self._path = path

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        with _opened(self._path, mode="ro") as database:
            return database.execute(statement).fetchall()

    def holds(self, table: str) -> bool:
        return (table,) in self.fetch("SELECT name FROM sqlite_master WHERE type = 'table'")

    def write(self, archive: ArchiveWriter) -> list[Table]:
        with self._path.open("rb") as file:
            archive.add_file(_ENTRY, file)
        return _tables(self._path)


@contextlib.contextmanager
def scratch(folder: Path, about: About) -> Iterator[FileScratch]:
    yield FileScratch(folder / _ENTRY, place=None)


@contextlib.contextmanager
def successor(about: About) -> Iterator[FileScratch]:
    with Place(_live()) as place:
        path = place.path.with_name(f"{place.path.name}.restoring-{secrets.token_hex(4)}")
        try:
            yield FileScratch(path, place=place)
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextlib.contextmanager
def kept(aside: str) -> Iterator[FileScratch]:
    with Place(_live()) as place:
        path = place.path.with_name(Path(aside).name)
        if not is_kept(path, place.path):
            raise BackupFailed(f"There is no database {path.name} that a restore has kept aside.")
        yield FileScratch(path, place=place)


class FileScratch:
    def __init__(self, path: Path, *, place: Place | None) -> None:
        self._path, self._place = path, place

    def takes(self, name: str) -> bool:
        return name == _ENTRY

    def load(self, name: str, blocks: Iterator[bytes]) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for block in blocks:
                file.write(block)

    def tables(self) -> list[Table]:
        try:
            with _opened(self._path, mode="ro") as database:
                (said,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if said != "ok":
                raise DamagedBackup(f"The database in the backup is damaged: {said}.")
            return _tables(self._path)
        except sqlite3.DatabaseError as error:
            raise DamagedBackup(f"The database in the backup cannot be read: {error}.") from error

    def wrapper(self) -> BaseDatabaseWrapper:
        its = {**connection.settings_dict, "NAME": str(self._path), "CONN_MAX_AGE": 0}
        return type(connections["default"])(its, "default")

    def aside(self, *, stamp: str) -> str:
        assert self._place is not None
        return self._place.aside(stamp).name if self._place.path.exists() else ""

    def take_over(self, *, stamp: str) -> str:
        assert self._place is not None
        with _opened(self._path, mode="rw") as database:
            database.execute("PRAGMA journal_mode=DELETE")
        return self._place.replace_by(self._path, stamp=stamp)


def _live() -> Path:
    return Path(connection.settings_dict["NAME"])


@contextlib.contextmanager
def _opened(path: Path, *, mode: str) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)
    try:
        yield database
    finally:
        database.close()


def _tables(path: Path) -> list[Table]:
    with _opened(path, mode="ro") as database:
        database.text_factory = bytes  # what is stored, be it valid text or not
        names = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
            " AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
        ).fetchall()
        return [_table(database, name.decode()) for (name,) in names]


def _table(database: sqlite3.Connection, name: str) -> Table:
    """`ascii` writes every value of SQLite's in a way of its own, the same in every Python."""
    found, count = Digesting(), 0
    quoted = name.replace('"', '""')
    # In the order of its own tree, which is that of the rowid or of the primary key.
    rows = database.execute(f'SELECT * FROM "{quoted}" NOT INDEXED')  # noqa: S608 - a table's name
    while some := rows.fetchmany(_ROWS_AT_ONCE):
        found.add("".join(f"{row!a}\n" for row in some).encode())
        count += len(some)
    return Table(name=name, rows=count, sha256=found.sha256)
