"""Triggers that make the audit trail append-only, on SQLite and on PostgreSQL.

Migrations put them there. The only other caller is the test suite, which empties its tables.
"""

from __future__ import annotations

from django.db.backends.base.base import BaseDatabaseWrapper

_TABLE = "monitoring_auditevent"
_SQLITE = {
    f"audit_no_{event.lower()}": (
        f"CREATE TRIGGER audit_no_{event.lower()} BEFORE {event} ON {_TABLE}"
        " BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
    )
    for event in ("UPDATE", "DELETE")
}
# REPLACE deletes without firing triggers for it.
_SQLITE["audit_no_replace"] = f"""
    CREATE TRIGGER audit_no_replace BEFORE INSERT ON {_TABLE}
    WHEN EXISTS (SELECT 1 FROM {_TABLE} WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END
"""  # noqa: S608 - no caller's text
_POSTGRESQL_FUNCTION = """
    CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$
"""
_POSTGRESQL = (
    f"CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {_TABLE}"
    " FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
)


def forbid_changes(connection: BaseDatabaseWrapper) -> None:
    permit_changes(connection)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_POSTGRESQL_FUNCTION)
            cursor.execute(_POSTGRESQL)
        else:
            for statement in _SQLITE.values():
                cursor.execute(statement)


def permit_changes(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"DROP TRIGGER IF EXISTS audit_no_change ON {_TABLE}")
        else:
            for name in _SQLITE:
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}")
