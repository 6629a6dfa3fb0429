"""The state of the tables, by the names of the migrations that were applied."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from monitoring.backups.errors import BackupFailed, NewerBackup
from monitoring.backups.manifest import Migration

_MIGRATIONS = "django_migrations"
APPLIED = f"SELECT app, name FROM {_MIGRATIONS} ORDER BY id"  # noqa: S608 - a constant


def refuse_unknown(migrations: Iterable[Migration]) -> None:
    """Raises NewerBackup if this version has not got one of them."""
    known = MigrationLoader(None).disk_migrations.keys()
    unknown = sorted(set(migrations) - known)
    if unknown:
        names = ", ".join(f"{app}.{name}" for app, name in unknown)
        raise NewerBackup(
            "This backup was made by a newer version, whose tables this one does not know"
            f" ({names}). Install that version, or a later one, and restore with it."
        )


def tables_after(migrations: Iterable[Migration]) -> set[str]:
    """The tables that exist when these were applied, as far as this version knows them."""
    loader = MigrationLoader(None)
    nodes = sorted(set(migrations) & loader.graph.nodes.keys())
    models = loader.project_state(nodes).apps.get_models(include_auto_created=True)
    return {model._meta.db_table for model in models} | {_MIGRATIONS}


def migrate_to(migrations: Iterable[Migration]) -> None:
    """Make empty tables as they are after exactly these, in an empty database."""
    wanted = set(migrations)
    executor = MigrationExecutor(connection)
    graph = executor.loader.graph
    nodes = wanted & graph.nodes.keys()
    # Those that no other wanted one of the same app builds on.
    ends = [
        node
        for node in sorted(nodes)
        if not any(
            child.key in nodes for child in graph.node_map[node].children if child.key[0] == node[0]
        )
    ]
    executor.migrate(ends)
    made = set(executor.recorder.applied_migrations())
    if made != wanted:
        names = ", ".join(sorted(f"{app}.{name}" for app, name in made ^ wanted))
        raise BackupFailed(f"The tables of the backup cannot be made by our migrations: {names}.")


def is_behind() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def catch_up() -> None:
    call_command("migrate", interactive=False, verbosity=0)
