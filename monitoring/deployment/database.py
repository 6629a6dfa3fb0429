"""The database: its migrations, who may do what in it, and the triggers of the audit trail."""

from __future__ import annotations

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from monitoring.audit import append_only
from monitoring.audit.append_only import ARCHIVES, EVENTS, SEALS
from monitoring.deployment.findings import Finding, failed, not_checked, ok, warning

_WHO_WE_ARE = f"""
    SELECT current_user, rolsuper, pg_has_role(current_user, relowner, 'USAGE')
    FROM pg_roles, pg_class
    WHERE rolname = current_user AND pg_class.oid = '{EVENTS}'::regclass
"""  # noqa: S608 - put together from constants
# Who may write events and is not their owner: with what else they may do to the trail, and how many
# are connected.
_WHO_WRITES = f"""
    SELECT rolname,
           has_table_privilege(r.oid, '{EVENTS}', 'UPDATE, DELETE, TRUNCATE')
           OR has_table_privilege(r.oid, '{SEALS}', 'INSERT, UPDATE, DELETE, TRUNCATE')
           OR has_table_privilege(r.oid, '{ARCHIVES}', 'INSERT, UPDATE, DELETE, TRUNCATE'),
           (SELECT count(*) FROM pg_stat_activity
            WHERE usesysid = r.oid AND datname = current_database() AND pid <> pg_backend_pid())
    FROM pg_roles r, pg_class
    WHERE pg_class.oid = '{EVENTS}'::regclass AND rolcanlogin AND NOT rolsuper
      AND has_table_privilege(r.oid, '{EVENTS}', 'INSERT')
      AND NOT pg_has_role(r.oid, relowner, 'USAGE')
    ORDER BY rolname
"""  # noqa: S608

# Whose role web processes have that owns the trail, or may do anything.
_WHO_SERVES = f"""
    SELECT DISTINCT rolname
    FROM pg_stat_activity, pg_roles r, pg_class
    WHERE usesysid = r.oid AND datname = current_database() AND application_name = %s
      AND pg_class.oid = '{EVENTS}'::regclass
      AND (rolsuper OR pg_has_role(r.oid, relowner, 'USAGE'))
    ORDER BY rolname
"""  # noqa: S608


def ask_migrations() -> Finding:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        first, _ = plan[0]
        return failed(f"{len(plan)} are not applied, the first is {first}: run `migrate`")
    return ok(f"all {len(executor.loader.applied_migrations)} are applied")


def ask_roles() -> Finding:
    """Whether web processes can have a role that changes nothing of the audit trail, and do."""
    if connection.vendor != "postgresql":
        return not_checked("SQLite has no roles: whoever can write the file can change the trail")
    with connection.cursor() as cursor:
        cursor.execute(_WHO_WE_ARE)
        name, is_superuser, is_owner = cursor.fetchone()
        cursor.execute(_WHO_WRITES)
        writers = cursor.fetchall()
        cursor.execute(_WHO_SERVES, [settings.WEB_APPLICATION_NAME])
        serving = [role for (role,) in cursor.fetchall()]
    if is_superuser:
        return failed(f"the platform connects as {name}, a superuser")
    mighty = [writer for writer, may_change, _ in writers if may_change]
    if mighty:
        return failed(f"{', '.join(mighty)} can change the audit trail: run roles.sql again")
    if serving and (writers or not is_owner or serving != [name]):
        return failed(
            f"a web process is connected as {', '.join(serving)}, which can change the audit trail:"
            " look at its DATABASE_URL, and run roles.sql again"
        )
    if not is_owner:
        return ok(f"{name} can add to the audit trail and not change it")
    if not writers:
        return warning(
            f"web processes have no role but the owner's, {name}: whoever takes one over can"
            " rewrite the audit trail. See docs/how-to/postgresql.md"
        )
    names = ", ".join(writer for writer, _, _ in writers)
    if not any(count for _, _, count in writers):
        return warning(f"nobody is connected as {names}: do web processes use the owner's role?")
    return ok(f"web processes connect as {names}, which cannot change the audit trail")


def ask_triggers() -> Finding:
    missing = append_only.missing(connection)
    if missing:
        return failed(
            f"the audit trail can be changed, for these are missing: {', '.join(missing)}"
        )
    return ok("the audit trail is append-only")
