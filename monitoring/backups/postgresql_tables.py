"""PostgreSQL's tables as COPY sees them: columns, the order of rows, and the numbers to come."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composed, Identifier

from monitoring.backups.errors import DamagedBackup

# Tables of the schema in use, extensions' own left out.
_COLUMNS = """
    SELECT c.relname, a.attname, t.typcollation <> 0
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
      AND a.attgenerated = ''
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid
                      AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
    ORDER BY c.relname, a.attnum
"""
_KEYS = """
    SELECT c.relname, a.attname
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid
    CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, position)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
    WHERE i.indisprimary AND c.relnamespace = current_schema()::regnamespace
    ORDER BY c.relname, k.position
"""
# Sequences that belong to a column.
_SEQUENCES = """
    SELECT t.relname, a.attname, s.relname
    FROM pg_depend d
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    JOIN pg_class t ON t.oid = d.refobjid
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.deptype IN ('a', 'i') AND t.relnamespace = current_schema()::regnamespace
    ORDER BY t.relname, a.attname
"""


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """`key` gives rows their order; `collated` are the columns of it that hold text."""

    name: str
    columns: list[str]
    key: list[str]
    collated: list[str]

    def told(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def parse(cls, told: Any) -> TableLayout:
        try:
            return cls(**told)
        except TypeError as error:
            raise DamagedBackup("The backup does not describe its tables.") from error

    def copy_out(self) -> Composed:
        # By bytes, for servers differ in how they order text.
        order = [
            SQL('{} COLLATE "C"').format(Identifier(column))
            if column in self.collated
            else Identifier(column)
            for column in self.key
        ]
        return SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT").format(
            self._columns(), Identifier(self.name), SQL(", ").join(order)
        )

    def copy_in(self) -> Composed:
        return SQL("COPY {} ({}) FROM STDIN").format(Identifier(self.name), self._columns())

    def _columns(self) -> Composed:
        return SQL(", ").join(Identifier(column) for column in self.columns)


@dataclass(frozen=True, kw_only=True)
class Sequence:
    table: str
    column: str
    last_value: int
    is_called: bool

    def told(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def parse(cls, told: Any) -> Sequence:
        try:
            return cls(**told)
        except TypeError as error:
            raise DamagedBackup("The backup does not describe its sequences.") from error

    def set(self, cursor: Any) -> None:
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)",
            [f'"{self.table}"', self.column, self.last_value, self.is_called],
        )


def read_layout(cursor: Any) -> list[TableLayout]:
    cursor.execute(_COLUMNS)
    columns: dict[str, list[str]] = {}
    collated: dict[str, list[str]] = {}
    for table, column, is_collated in cursor.fetchall():
        columns.setdefault(table, []).append(column)
        if is_collated:
            collated.setdefault(table, []).append(column)
    cursor.execute(_KEYS)
    keys: dict[str, list[str]] = {}
    for table, column in cursor.fetchall():
        keys.setdefault(table, []).append(column)
    return [
        TableLayout(
            name=table,
            columns=names,
            key=keys.get(table, names),
            collated=collated.get(table, []),
        )
        for table, names in columns.items()
    ]


def read_sequences(cursor: Any) -> list[Sequence]:
    cursor.execute(_SEQUENCES)
    found = []
    for table, column, sequence in cursor.fetchall():
        cursor.execute(SQL("SELECT last_value, is_called FROM {}").format(Identifier(sequence)))
        last_value, is_called = cursor.fetchone()
        found.append(
            Sequence(table=table, column=column, last_value=last_value, is_called=is_called)
        )
    return found
