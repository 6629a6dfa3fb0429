"""Triggers that make the audit trail append-only, on SQLite and on PostgreSQL.

An event may be sealed, once, and nothing else of it ever changes. `prunable` is the only way to
delete: sealed events and seals up to one that is archived, in one transaction. Migrations put the
triggers there; the only other caller is the test suite, which empties its tables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

EVENTS, SEALS, ARCHIVES = "monitoring_auditevent", "monitoring_auditseal", "monitoring_auditarchive"
_TABLES = (EVENTS, SEALS, ARCHIVES)
_SEAL_OF = {EVENTS: "seal_id", SEALS: "id"}
_COLUMNS = ("id", "at", "action", "actor_id", "subject_id", "detail", "request_id", "digest")
_REFUSAL = "the audit trail is append-only"
_SETTING = "sovereigncore.audit_archived"  # PostgreSQL: the last seal that may be deleted

_POSTGRESQL_FUNCTIONS = f"""
    CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$;

    CREATE OR REPLACE FUNCTION audit_is_sealed_once() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.seal_id IS NULL AND NEW.seal_id IS NOT NULL
            AND to_jsonb(OLD) - 'seal_id' = to_jsonb(NEW) - 'seal_id' THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION '{_REFUSAL}';
    END $$;

    CREATE OR REPLACE FUNCTION audit_is_archived() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (to_jsonb(OLD) ->> TG_ARGV[0])::bigint
            <= nullif(current_setting('{_SETTING}', true), '')::bigint THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION '{_REFUSAL}';
    END $$
"""


def forbid_changes(connection: BaseDatabaseWrapper) -> None:
    permit_changes(connection)
    triggers = _postgresql() if connection.vendor == "postgresql" else _sqlite()
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_POSTGRESQL_FUNCTIONS)
        for (table, name), what in triggers.items():
            cursor.execute(f"CREATE TRIGGER {name} BEFORE {what.format(table=table)}")


def permit_changes(connection: BaseDatabaseWrapper) -> None:
    is_postgresql = connection.vendor == "postgresql"
    present = set(connection.introspection.table_names())
    with connection.cursor() as cursor:
        for table, name in _postgresql() if is_postgresql else _sqlite():
            if table in present:
                on_table = f" ON {table}" if is_postgresql else ""
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}{on_table}")


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """The names of those triggers that are not there, or switched off."""
    is_postgresql = connection.vendor == "postgresql"
    query = (
        "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgenabled <> 'D'"
        if is_postgresql
        else "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'"
    )
    with connection.cursor() as cursor:
        cursor.execute(query)
        present = {(table, name) for table, name in cursor.fetchall()}
    return sorted(
        name
        for table, name in (_postgresql() if is_postgresql else _sqlite())
        if (table, name) not in present
    )


@contextlib.contextmanager
def prunable(connection: BaseDatabaseWrapper, *, last_seal: int) -> Iterator[None]:
    """A transaction that may delete events and seals up to the seal `last_seal`, and may do nothing
    else that the triggers forbid. For everybody else they never cease to hold: PostgreSQL's ask a
    setting of this transaction; SQLite's are replaced for a transaction that keeps all others from
    writing, and a crash brings them back."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT set_config(%s, %s, true)", [_SETTING, str(last_seal)])
            yield
            cursor.execute("SELECT set_config(%s, '', true)", [_SETTING])
            return
        names = {table: name for table, name in _sqlite() if name.endswith("_no_delete")}
        for table, seal in _SEAL_OF.items():
            cursor.execute(f"DROP TRIGGER {names[table]}")
            cursor.execute(
                f"CREATE TRIGGER {names[table]} BEFORE DELETE ON {table}"
                f" WHEN OLD.{seal} IS NULL OR OLD.{seal} > {last_seal:d}{_ABORT}"
            )
        yield
        for table in _SEAL_OF:
            cursor.execute(f"DROP TRIGGER {names[table]}")
            what = _sqlite()[table, names[table]].format(table=table)
            cursor.execute(f"CREATE TRIGGER {names[table]} BEFORE {what}")


_ABORT = f" BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"


def _sqlite() -> dict[tuple[str, str], str]:
    """What follows `CREATE TRIGGER name BEFORE`, by table and name."""
    triggers = {}
    for table in _TABLES:
        prefix = table.removeprefix("monitoring_").replace("auditevent", "audit")
        is_sealed_once = ""
        if table == EVENTS:
            same = " AND ".join(f"OLD.{column} IS NEW.{column}" for column in _COLUMNS)
            is_sealed_once = (
                f" WHEN NOT (OLD.seal_id IS NULL AND NEW.seal_id IS NOT NULL AND {same})"
            )
        triggers[table, f"{prefix}_no_update"] = f"UPDATE ON {{table}}{is_sealed_once}{_ABORT}"
        triggers[table, f"{prefix}_no_delete"] = f"DELETE ON {{table}}{_ABORT}"
        # REPLACE deletes without firing triggers for it.
        is_there = "EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)"
        triggers[table, f"{prefix}_no_replace"] = f"INSERT ON {{table}} WHEN {is_there}{_ABORT}"
    return triggers


def _postgresql() -> dict[tuple[str, str], str]:
    triggers = {}
    for table in _TABLES:
        prefix = table.removeprefix("monitoring_").replace("auditevent", "audit")
        update = "audit_is_sealed_once()" if table == EVENTS else "audit_is_append_only()"
        seal = _SEAL_OF.get(table)
        delete = f"audit_is_archived('{seal}')" if seal else "audit_is_append_only()"
        row, statement = "FOR EACH ROW EXECUTE FUNCTION", "FOR EACH STATEMENT EXECUTE FUNCTION"
        triggers[table, f"{prefix}_no_update"] = f"UPDATE ON {{table}} {row} {update}"
        triggers[table, f"{prefix}_no_delete"] = f"DELETE ON {{table}} {row} {delete}"
        triggers[table, f"{prefix}_no_change"] = (
            f"TRUNCATE ON {{table}} {statement} audit_is_append_only()"
        )
    return triggers
