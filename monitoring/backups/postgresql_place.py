"""The schema that the platform lives in: who else uses it, and another one's content in its place.

The content changes places and the schema stays, with its rights and with the extensions in it; an
owner who may make no databases can do that. It is one transaction, so at every moment there is a
whole database, the old one or the new one.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Collection
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.sql import SQL, Identifier

from monitoring.backups.errors import IS_IT_THE_OWNER, BackupFailed, DatabaseInUse

SCRATCH = "sovereigncore_scratch_"
ASIDE = "before_restore_"
_SUCCESSORS = (SCRATCH, ASIDE)  # what may take the place of the database
_LEAVING_S, _POLL_S = 2.0, 0.1
_LOCK_TIMEOUT = "10s"
_LOCK_SPACE = 0x5C0B  # of advisory locks, ours
# A role that may not use the schema, as postgres_exporter's, has nothing of it open. Of sessions of
# other roles the server tells the owner neither the start nor the address.
_OTHERS = """
    SELECT pid, usename, coalesce(nullif(application_name, ''), 'no name'),
           CASE WHEN backend_start IS NULL THEN 'address not shown'
                ELSE coalesce(host(client_addr), 'this host') END
    FROM pg_stat_activity
    WHERE datname = current_database() AND usesysid IS NOT NULL
      AND pid <> pg_backend_pid() AND NOT pid = ANY(%s)
      AND has_schema_privilege(usesysid, current_schema(), 'USAGE')
    ORDER BY pid
"""
_IS_NO_EXTENSIONS = """
    NOT EXISTS (SELECT 1 FROM pg_depend d
                WHERE d.objid = o.oid AND d.classid = %s::regclass AND d.deptype = 'e')
"""
# What is moved by itself; indexes, sequences of columns, triggers and row types go with tables.
# What belongs to a role that is not ours we may not move: it stays, as extensions do.
_RELATIONS = f"""
    SELECT CASE o.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                          WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE'
                          ELSE 'TABLE' END,
           o.oid::regclass::text
    FROM pg_class o
    WHERE o.relnamespace = %s::regnamespace AND o.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
      AND {_IS_NO_EXTENSIONS} AND pg_has_role(o.relowner, 'USAGE')
      AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = o.oid AND o.relkind = 'S'
                      AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))
"""  # noqa: S608 - put together from constants
_FUNCTIONS = f"""
    SELECT 'ROUTINE', o.oid::regprocedure::text
    FROM pg_proc o
    WHERE o.pronamespace = %s::regnamespace AND {_IS_NO_EXTENSIONS}
      AND pg_has_role(o.proowner, 'USAGE')
"""  # noqa: S608


def refuse_if_used(wrapper: BaseDatabaseWrapper, *, but: Collection[int] = ()) -> None:
    """`but`: the server's process ids of our own other connections. Whoever is just leaving is
    waited for: the server takes a moment to notice."""
    until_s = time.monotonic() + _LEAVING_S
    while others := _others(wrapper, but):
        if time.monotonic() > until_s:
            raise DatabaseInUse(
                "The database is in use. Stop the web processes, the workers and whatever else is"
                f" connected, then restore: {'; '.join(others)}."
            )
        time.sleep(_POLL_S)


def _others(wrapper: BaseDatabaseWrapper, but: Collection[int]) -> list[str]:
    with wrapper.cursor() as cursor:
        cursor.execute(_OTHERS, [list(but)])
        return [
            f"{name} (user {user}, {address}, process {pid} of the server)"
            for pid, user, name, address in cursor.fetchall()
        ]


def create_schema(keeper: BaseDatabaseWrapper, name: str) -> None:
    """The lock says, for as long as `keeper` is connected, that somebody still needs it."""
    with keeper.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, %s)", [_LOCK_SPACE, _lock_id(name)])
        try:
            cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
        except Error as error:
            raise BackupFailed(
                "The database's user may not make a schema in it, which checking and restoring"
                f" need: {_first_line(error)}. {IS_IT_THE_OWNER}."
            ) from error


def drop_schema(wrapper: BaseDatabaseWrapper, name: str) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))


def drop_abandoned(wrapper: BaseDatabaseWrapper, *, prefix: str) -> None:
    """Schemas of processes that were killed."""
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", [prefix])
        for (name,) in cursor.fetchall():
            lock = [_LOCK_SPACE, _lock_id(name)]
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", lock)
            if cursor.fetchone()[0]:
                drop_schema(wrapper, name)
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", lock)


def aside(stamp: str) -> str:
    return ASIDE + stamp.lower()


def refuse_unless_kept(wrapper: BaseDatabaseWrapper, name: str) -> None:
    may_use = None  # no such schema
    if re.fullmatch(f"{ASIDE}[0-9a-z]+", name):
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT has_schema_privilege(to_regnamespace(%s), 'USAGE')", [name])
            (may_use,) = cursor.fetchone()
    if may_use is None:
        raise BackupFailed(f"There is no schema {name} that a restore has kept aside.")
    if not may_use:
        raise BackupFailed(f"The database's user may not use the schema {name}. {IS_IT_THE_OWNER}.")


def exchange(wrapper: BaseDatabaseWrapper, *, successor: str, stamp: str) -> str:
    """Let the content of the schema `successor` be the database. The name of the schema that keeps
    the present content."""
    kept = aside(stamp)
    with wrapper.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            here = _schema_in_use(cursor, successor=successor)
            cursor.execute(SQL("CREATE SCHEMA {}").format(Identifier(kept)))
            _move(cursor, source=here, target=kept)
            _move(cursor, source=successor, target=here)
            cursor.execute(SQL("DROP SCHEMA {}").format(Identifier(successor)))
            cursor.execute("COMMIT")
        except Error as error:
            raise BackupFailed(
                f"The databases could not change places: {_first_line(error)}."
            ) from error
        finally:
            cursor.execute("ROLLBACK")  # only a warning once it is committed
    return kept


def _schema_in_use(cursor: Any, *, successor: str) -> str:
    cursor.execute("SELECT current_schema(), to_regnamespace(%s) IS NOT NULL", [successor])
    here, is_there = cursor.fetchone()
    if not is_there or not successor.startswith(_SUCCESSORS):
        raise BackupFailed(f"There is no schema {successor} that a restore has kept aside.")
    return str(here)


def _move(cursor: Any, *, source: str, target: str) -> None:
    """All that is ours: what extensions and other roles have in the schema stays where it is."""
    cursor.execute(_RELATIONS, [source, "pg_class"])
    moved = cursor.fetchall()
    cursor.execute(_FUNCTIONS, [source, "pg_proc"])
    for kind, name in [*moved, *cursor.fetchall()]:
        # The server has quoted the name.
        cursor.execute(f"ALTER {kind} {name} SET SCHEMA {target}")


def _lock_id(name: str) -> int:
    return zlib.crc32(name.encode()) >> 1  # PostgreSQL's integers have a sign


def _first_line(error: Error) -> str:
    return str(error).partition("\n")[0]
