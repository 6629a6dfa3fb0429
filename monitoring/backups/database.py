"""What making and restoring ask of either kind of database, and which module answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from monitoring.backups.archive import ArchiveWriter
from monitoring.backups.errors import BackupFailed
from monitoring.backups.manifest import About, Table


class Snapshot(Protocol):
    """The database as it was at one moment, whatever is written to it meanwhile."""

    layout: dict[str, Any]
    left_out: list[str]  # tables that are none of ours

    def fetch(self, statement: str) -> list[tuple[Any, ...]]: ...

    def holds(self, table: str) -> bool: ...

    def write(self, archive: ArchiveWriter) -> list[Table]:
        """Add its entries. What each table held, of the same moment."""


class Successor(Protocol):
    """A database that nobody uses yet, and that may become the one in use."""

    def wrapper(self) -> BaseDatabaseWrapper:
        """A connection of Django's to it."""

    def aside(self, *, stamp: str) -> str:
        """Where `take_over` is going to keep the present one, or an empty text if there is none."""

    def take_over(self, *, stamp: str) -> str:
        """Become the database, the present one being kept aside. Where that is, or an empty text
        if there was none. Raises DatabaseInUse."""


class Scratch(Successor, Protocol):
    """One that is to be filled from a backup."""

    def takes(self, name: str) -> bool:
        """Whether an entry of this name is its own."""

    def load(self, name: str, blocks: Iterator[bytes]) -> None: ...

    def tables(self) -> list[Table]:
        """What it holds now, counted and hashed by reading it again."""


class Kind(Protocol):
    """The module `sqlite` or `postgresql`."""

    def snapshot(self, folder: Path) -> AbstractContextManager[Snapshot]: ...

    def scratch(self, folder: Path, about: About) -> AbstractContextManager[Scratch]:
        """For a check: thrown away at the end."""

    def successor(self, about: About) -> AbstractContextManager[Scratch]:
        """For a restore: thrown away unless it took over. Raises DatabaseInUse."""

    def kept(self, aside: str) -> AbstractContextManager[Successor]:
        """What a restore kept aside. Raises BackupFailed if there is none, or DatabaseInUse."""


def kind() -> Kind:
    if connection.vendor == "sqlite":
        from monitoring.backups import sqlite

        return sqlite
    if connection.vendor == "postgresql":
        from monitoring.backups import postgresql

        return postgresql
    raise BackupFailed(f"There are no backups of {connection.vendor}.")


def is_there() -> bool:
    """False before there is an SQLite file: asking for anything in it would make an empty one."""
    return connection.vendor != "sqlite" or Path(connection.settings_dict["NAME"]).exists()


@contextlib.contextmanager
def as_default(wrapper: BaseDatabaseWrapper) -> Iterator[None]:
    """In this thread everything that asks the database asks that one: migrations, models, all."""
    former = connections["default"]
    former.close()
    connections["default"] = wrapper
    try:
        yield
    finally:
        connections["default"] = former
        wrapper.close()
