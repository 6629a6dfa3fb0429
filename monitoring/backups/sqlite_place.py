"""The place of the SQLite file: held for oneself, and given to another file.

At every moment there is a whole database under the name, the old one or the new one, whenever the
process is killed; but see `_keep`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sqlite3
from pathlib import Path
from types import TracebackType

from django.conf import settings

from monitoring.backups.errors import BackupFailed, DatabaseInUse
from monitoring.backups.scratch import sync_folder

_BUSY_TIMEOUT_S = 1.0
_ASIDE = ".before-restore-"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}  # as different file systems say it
_PRIMARY_CODE = 0xFF  # of an error of SQLite's, without what is said beyond
_JOURNAL_MAGIC_BYTES = 8
_JOURNALS = ("-wal", "-shm", "-journal")


class Place:
    """While it is held, `make run` does not start and no other process can open the database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._held: sqlite3.Connection | None = None

    def __enter__(self) -> Place:
        """Raises DatabaseInUse."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock = _lock_data_dir()
            self._held = self._hold()
        except BaseException:
            self._let_go()
            raise
        for litter in self.path.parent.glob(f"{self.path.name}.restoring-*"):
            litter.unlink(missing_ok=True)  # of a restore that was killed: the lock is ours now
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._let_go()

    def aside(self, stamp: str) -> Path:
        return self.path.with_name(f"{self.path.name}{_ASIDE}{stamp}")

    def replace_by(self, successor: Path, *, stamp: str) -> str:
        """Where the present file is kept, or an empty text if there was none."""
        aside = self.aside(stamp)
        _sync_file(successor)
        if self._held is not None:
            # Into the file with what is in the journal: beside another database it would be taken
            # for that one's, and applied to it.
            self._held.execute("PRAGMA journal_mode=DELETE")
            self._held.execute("BEGIN EXCLUSIVE")
            self._remove_spent_journal()
        for suffix in _JOURNALS:
            journal = self.path.with_name(self.path.name + suffix)
            if journal.exists():
                journal.rename(aside.with_name(aside.name + suffix))
        is_replaced = self.path.exists()
        if is_replaced:
            _keep(self.path, aside)
        successor.replace(self.path)
        for suffix in _JOURNALS:
            journal = successor.with_name(successor.name + suffix)
            if journal.exists():
                journal.rename(self.path.with_name(self.path.name + suffix))
        sync_folder(self.path.parent)
        return aside.name if is_replaced else ""

    def _hold(self) -> sqlite3.Connection | None:
        """A connection that has the file for itself; None when there is none or it is damaged."""
        if not self.path.exists():
            return None
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        database = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            # In WAL mode this asks for the file alone, which nobody gets while anybody has it open.
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("BEGIN EXCLUSIVE")
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            database.close()
            if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY:
                raise BackupFailed(f"{self.path} cannot be opened: {error}.") from error
            raise DatabaseInUse(
                f"Another process has {self.path} open. Stop the web process, the worker and every"
                " other command on it, then restore."
            ) from error
        except sqlite3.DatabaseError:
            database.close()
            return None
        return database

    def _remove_spent_journal(self) -> None:
        """Who holds a file for itself overwrites the beginning of its journal instead of deleting
        it; nothing is ever rolled back from such a one."""
        journal = self.path.with_name(self.path.name + "-journal")
        if journal.exists():
            with journal.open("rb") as file:
                is_spent = not any(file.read(_JOURNAL_MAGIC_BYTES))
            if is_spent:
                journal.unlink()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
        if self._lock is not None:
            os.close(self._lock)
        self._held = self._lock = None


def is_kept(path: Path, live: Path) -> bool:
    """Whether it is a database that a restore kept, and not a journal of one."""
    of_one = re.fullmatch(re.escape(live.name + _ASIDE) + "[0-9a-z]+", path.name)
    return of_one is not None and path.is_file()


def _keep(path: Path, aside: Path) -> None:
    """Give the file a second name. Where there are no hard links the first one goes, and for a
    moment there is no database under it."""
    try:
        os.link(path, aside)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        path.rename(aside)


def _lock_data_dir() -> int:
    """The lock that `make run` holds while the platform runs."""
    path = settings.DATA_DIR / "run.lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BackupFailed(f"DATA_DIR cannot be used: {error.strerror}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise DatabaseInUse(
            f"SovereignCore (process {holder or 'unknown'}) is running on {path.parent}."
            " Stop it first."
        ) from error
    with contextlib.suppress(OSError):  # the full disk may be why somebody restores
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
