"""PostgreSQL: every table by COPY, all of one snapshot, and a schema of its own to restore into.

No `pg_dump`: it must be as new as the server, cannot be hashed table by table against its own
snapshot, and restores into a database of its own only, which the owner of one may seldom make. The
tables' definitions are our migrations, so a backup holds rows and the names of those that were
applied. What COPY writes as text is the same in every version of PostgreSQL.
"""

from __future__ import annotations

import contextlib
import copy
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import Error, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.sql import SQL, Identifier, Literal

from monitoring.backups import postgresql_place as place
from monitoring.backups.archive import ArchiveWriter, Digesting
from monitoring.backups.database import as_default
from monitoring.backups.errors import BackupFailed, DamagedBackup
from monitoring.backups.manifest import About, Table
from monitoring.backups.postgresql_tables import Sequence, TableLayout, read_layout, read_sequences
from monitoring.backups.schema import APPLIED, migrate_to, tables_after

_TABLES = "tables/"
_BLOCK_BYTES = 256 * 1024
_STATEMENT_TIMEOUT = "1h"
# The same bytes for the same values, whatever the server's configuration says.
_SPELLING = {
    "datestyle": "ISO, YMD",
    "timezone": "UTC",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
}


@contextlib.contextmanager
def snapshot(folder: Path) -> Iterator[CopySnapshot]:
    with _connected() as wrapper, wrapper.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            _spell(cursor)
            yield CopySnapshot(cursor)
        finally:
            cursor.execute("ROLLBACK")


class CopySnapshot:
    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        ours = tables_after((app, name) for app, name in self.fetch(APPLIED))
        found = read_layout(cursor)
        self._tables = [table for table in found if table.name in ours]
        self.left_out = [table.name for table in found if table.name not in ours]
        # Read after the snapshot was taken, so no row of it has a number that is still to come.
        sequences = read_sequences(cursor)
        self.layout: dict[str, Any] = {
            "tables": [table.told() for table in self._tables],
            "sequences": [sequence.told() for sequence in sequences],
        }

    def fetch(self, statement: str) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement)
        found: list[tuple[Any, ...]] = self._cursor.fetchall()
        return found

    def holds(self, table: str) -> bool:
        return any(table == each.name for each in self._tables)

    def write(self, archive: ArchiveWriter) -> list[Table]:
        written = []
        for table in self._tables:
            with archive.entry(_TABLES + table.name) as entry:
                rows = 0
                for block in _rows_of(self._cursor, table):
                    entry.write(block)
                    rows += block.count(b"\n")  # one ends each row, and none is within
            written.append(Table(name=table.name, rows=rows, sha256=entry.sha256))
        return written


@contextlib.contextmanager
def scratch(folder: Path, about: About) -> Iterator[SchemaScratch]:
    with _connected() as wrapper:
        place.drop_abandoned(wrapper, prefix=place.SCRATCH)
    with _new_schema(about) as made:
        yield made


@contextlib.contextmanager
def successor(about: About) -> Iterator[SchemaScratch]:
    with _connected() as wrapper:
        place.refuse_if_used(wrapper)
        place.drop_abandoned(wrapper, prefix=place.SCRATCH)
    with _new_schema(about) as made:
        yield made


@contextlib.contextmanager
def kept(aside: str) -> Iterator[SchemaSuccessor]:
    with _connected() as wrapper:
        place.refuse_if_used(wrapper)
        place.refuse_unless_kept(wrapper, aside)
    with _connected(schema=aside) as wrapper:
        yield SchemaSuccessor(wrapper, aside)


class SchemaSuccessor:
    def __init__(self, wrapper: BaseDatabaseWrapper, name: str) -> None:
        self._wrapper, self._name = wrapper, name

    def wrapper(self) -> BaseDatabaseWrapper:
        return self._wrapper

    def aside(self, *, stamp: str) -> str:
        return place.aside(stamp)

    def take_over(self, *, stamp: str) -> str:
        with _connected() as wrapper:
            place.refuse_if_used(wrapper, but=self._backends())
            return place.exchange(wrapper, successor=self._name, stamp=stamp)

    def _backends(self) -> set[int]:
        return {_backend(self._wrapper)}


@contextlib.contextmanager
def _new_schema(about: About) -> Iterator[SchemaScratch]:
    """A schema with empty tables as they were when the backup was made. Dropped at the end, unless
    it has become the database; a killed process's one is dropped by the next."""
    name = place.SCRATCH + secrets.token_hex(6)
    with _connected() as keeper:
        place.create_schema(keeper, name)
        try:
            with _connected(schema=name) as wrapper:
                with as_default(wrapper):
                    migrate_to(about.migrations)
                yield SchemaScratch(wrapper, name, about, keeper=keeper)
        finally:
            place.drop_schema(keeper, name)


class SchemaScratch(SchemaSuccessor):
    def __init__(
        self,
        wrapper: BaseDatabaseWrapper,
        name: str,
        about: About,
        *,
        keeper: BaseDatabaseWrapper,
    ) -> None:
        super().__init__(wrapper, name)
        self._keeper = keeper
        layout = about.layout
        self._tables = {table.name: table for table in map(TableLayout.parse, layout["tables"])}
        self._sequences = [Sequence.parse(each) for each in layout["sequences"]]
        with wrapper.cursor() as cursor:
            made = {table.name: table for table in read_layout(cursor)}
            missing = sorted(
                f"{table.name}.{column}"
                for table in self._tables.values()
                for column in table.columns
                if table.name not in made or column not in made[table.name].columns
            )
            if missing:
                raise BackupFailed(
                    "The backup holds what our migrations do not make, and cannot be restored by"
                    f" them: {', '.join(missing)}."
                )
            self._empty(cursor, list(made))

    def takes(self, name: str) -> bool:
        return name.startswith(_TABLES)

    def load(self, name: str, blocks: Iterator[bytes]) -> None:
        table = self._tables.get(name.removeprefix(_TABLES))
        if table is None:
            raise DamagedBackup(f"The backup holds {name}, which it does not announce.")
        with self._wrapper.cursor() as cursor, cursor.copy(table.copy_in()) as target:
            for block in blocks:
                target.write(block)

    def tables(self) -> list[Table]:
        self._finish_loading()
        with self._wrapper.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            try:
                _spell(cursor)
                return [_counted(cursor, table) for table in self._tables.values()]
            finally:
                cursor.execute("ROLLBACK")

    def _backends(self) -> set[int]:
        return super()._backends() | {_backend(self._keeper)}

    def _empty(self, cursor: Any, names: list[str]) -> None:
        """Migrations put rows into tables; the backup has its own. From here on all is one
        transaction, at whose end the constraints between tables are asked. Triggers of ours have
        had their say when the rows were written first."""
        self._names = names
        for name in names:
            cursor.execute(SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(Identifier(name)))
        cursor.execute("BEGIN")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        for name in names:
            cursor.execute(SQL("DELETE FROM {}").format(Identifier(name)))

    def _finish_loading(self) -> None:
        with self._wrapper.cursor() as cursor:
            try:
                cursor.execute("COMMIT")
            except Error as error:
                raise DamagedBackup(
                    f"Rows of the backup do not fit together: {error}".strip()
                ) from error
            for name in self._names:
                table = Identifier(name)
                cursor.execute(SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(table))
                cursor.execute(SQL("ANALYZE {}").format(table))
            for sequence in self._sequences:
                sequence.set(cursor)


def _rows_of(cursor: Any, table: TableLayout) -> Iterator[bytes]:
    """Its rows as COPY writes them, in blocks of whole rows."""
    pending = bytearray()
    with cursor.copy(table.copy_out()) as source:
        for row in source:
            pending += row
            if len(pending) >= _BLOCK_BYTES:
                yield bytes(pending)
                pending.clear()
    yield bytes(pending)


def _counted(cursor: Any, table: TableLayout) -> Table:
    found, rows = Digesting(), 0
    for block in _rows_of(cursor, table):
        found.add(block)
        rows += block.count(b"\n")
    return Table(name=table.name, rows=rows, sha256=found.sha256)


def _spell(cursor: Any) -> None:
    for name, value in _SPELLING.items():
        cursor.execute(SQL("SET LOCAL {} = {}").format(Identifier(name), Literal(value)))


def _backend(wrapper: BaseDatabaseWrapper) -> int:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid: int = cursor.fetchone()[0]
    return pid


@contextlib.contextmanager
def _connected(*, schema: str = "") -> Iterator[BaseDatabaseWrapper]:
    """A connection of its own. With `schema`, every name means what is in there, also after the
    connection was lost and made again."""
    its: dict[str, Any] = copy.deepcopy(
        {key: value for key, value in connection.settings_dict.items() if key != "OPTIONS"}
    )
    options = dict(connection.settings_dict["OPTIONS"])
    told = f"-c statement_timeout={_STATEMENT_TIMEOUT}"
    if schema:
        told += f" -c search_path={schema}"
    options["options"] = f"{options.get('options', '')} {told}".strip()
    options["application_name"] = "sovereigncore backup"
    if isinstance(options.get("pool"), dict):
        options["pool"] = {**options["pool"], "min_size": 1, "max_size": 1}
    its |= {"OPTIONS": options, "CONN_MAX_AGE": None if "pool" not in options else 0}
    wrapper: Any = type(connections["default"])(its, "default")
    wrapper._connection_pools = {}  # else it would share the pool of the class, by its alias
    try:
        yield wrapper
    finally:
        wrapper.close()
        if getattr(wrapper, "pool", None) is not None:
            wrapper.close_pool()
