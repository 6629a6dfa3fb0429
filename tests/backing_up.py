"""What the tests of backups do over and over."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path

from django.conf import settings
from django.db import connection

from accounts.models import User
from monitoring.backups import restoring
from monitoring.backups.making import make_backup
from monitoring.backups.manifest import Manifest, Table
from monitoring.backups.restoring import Restored


def ignore(_text: str) -> None:
    pass


def back_up(*, with_keys: bool = False) -> Path:
    return made(with_keys=with_keys)[0]


def folder() -> Path:
    """As the fixture `own_database` sets BACKUP_DIR."""
    path: Path = settings.DATA_DIR / "backups"
    return path


def made(*, with_keys: bool = False) -> tuple[Path, Manifest]:
    return make_backup(folder=folder(), with_keys=with_keys, tell=ignore)


def restore(path: Path, *, keep_sessions: bool = False) -> Restored:
    # SQLite keeps a closed file open for a statement that hangs in a cycle of what a thread left.
    gc.collect()
    return restoring.restore(
        path, keep_sessions=keep_sessions, accept_other_keys=False, tell=ignore
    )


def add_user(name: str) -> User:
    user = User(username=name, email=f"{name}@example.org", password="!")
    user.save()
    return user


def names() -> list[str]:
    return list(User.objects.order_by("username").values_list("username", flat=True))


def content() -> dict[str, Table]:
    """Every table of the database in use."""
    if connection.vendor == "sqlite":
        from monitoring.backups.sqlite import _tables

        connection.close()
        return {table.name: table for table in _tables(Path(connection.settings_dict["NAME"]))}
    from monitoring.backups.postgresql import _counted
    from monitoring.backups.postgresql_tables import read_layout

    with connection.cursor() as cursor:
        return {table.name: _counted(cursor, table) for table in read_layout(cursor)}


def leftovers() -> list[str]:
    """What a restore or a check left behind, aside what it keeps."""
    found = [path.name for path in settings.DATA_DIR.glob("scratch-*")]
    found += [path.name for path in settings.DATA_DIR.glob("*.restoring-*")]
    found += [path.name for path in settings.DATA_DIR.glob("backups/.*")]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'sovereigncore%'")
            found += [name for (name,) in cursor.fetchall()]
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wipe(database: str) -> None:
    """What a dead disk, or a mistake, leaves of it."""
    if connection.vendor == "sqlite":
        connection.close()
        for suffix in ("", "-wal", "-shm"):
            Path(database + suffix).unlink(missing_ok=True)
        return
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
