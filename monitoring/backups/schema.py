"""The state of the tables, by the names of the migrations that were applied."""

from __future__ import annotations

from collections.abc import Iterable

from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from monitoring.backups.errors import BackupFailed, NewerBackup
from monitoring.backups.manifest import Migration

APPLIED = "SELECT app, name FROM django_migrations ORDER BY id"


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
