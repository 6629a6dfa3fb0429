"""Putting a backup in the place of the database. Until it is there, whole and checked, the present
database is not touched; after that it is kept aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from django.db import Error, connections
from django.db.models import Count
from django.utils import timezone

from monitoring import audit
from monitoring.backups import afterwards, files, schema
from monitoring.backups.database import as_default, is_there, kind
from monitoring.backups.errors import BackupError, BackupFailed
from monitoring.backups.failures import EXPECTED, explain
from monitoring.backups.manifest import About, Manifest
from monitoring.backups.reading import Backup, opened
from monitoring.backups.scratch import scratch_folder
from monitoring.models import AuditEvent

Tell = Callable[[str], None]

_MINDED = 50  # of each kind of deed; more would not be read

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Undone:
    """What the trail of the present database has that the backup's has not."""

    deeds: dict[str, int] = field(default_factory=dict)
    subjects: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Restored:
    """`aside` is what keeps the former database, or an empty text if there was none."""

    about: About
    manifest: Manifest
    aside: str
    undone: Undone
    changed_keys: list[str]
    keys_in: list[Path]


def restore(path: Path, *, keep_sessions: bool, tell: Tell) -> Restored:
    """Raises BackupRefused or DatabaseInUse with nothing changed, or BackupFailed."""
    try:
        with opened(path) as backup:
            return _restore(backup, path.name, keep_sessions=keep_sessions, tell=tell)
    except BackupError:
        raise
    except EXPECTED as error:
        raise BackupFailed(explain(error)) from error


def describe(path: Path) -> About:
    """What a backup says of itself. Raises BackupRefused."""
    with opened(path) as backup:
        return backup.about


def go_back(aside: str) -> str:
    """Put the database that a restore kept aside back in place; where the present one is kept."""
    stamp, former = _stamp(), aside.rpartition("-")[2].rpartition("_")[2]
    _let_go()
    try:
        kept = kind().go_back(aside, stamp=stamp)
        for name in files.FOLDERS:
            files.change_folder(name, files.aside(name, former), stamp=stamp)
    except BackupError:
        raise
    except EXPECTED as error:
        raise BackupFailed(explain(error)) from error
    return kept


def _restore(backup: Backup, name: str, *, keep_sessions: bool, tell: Tell) -> Restored:
    about, stamp = backup.about, _stamp()
    undone = _undone(after=about.audit_head.id if about.audit_head else 0)
    _let_go()
    with scratch_folder() as folder, kind().successor(about) as scratch:
        tell("Reading the backup into an empty database and comparing every table …")
        unpacked = files.Unpacked(folder)
        manifest = backup.unpack(scratch, unpacked)
        tell(f"All {len(manifest.tables)} tables are as they were: {manifest.rows} rows.")
        with as_default(scratch.wrapper()):
            _prepare(name, about, keep_sessions=keep_sessions, tell=tell)
        tell("Putting it in place of the present database, which is kept aside …")
        aside = scratch.take_over(stamp=stamp)
        keys_in = unpacked.put_in_place(stamp=stamp)
    log.info("backup_restored", file=name, aside=aside)
    return Restored(
        about=about,
        manifest=manifest,
        aside=aside,
        undone=undone,
        changed_keys=files.changed_keys(about.key_prints),
        keys_in=keys_in,
    )


def _prepare(name: str, about: About, *, keep_sessions: bool, tell: Tell) -> None:
    if schema.is_behind():
        tell(
            f"The backup is of an older version ({about.version}): bringing its tables up to date …"
        )
        schema.catch_up()
    if not keep_sessions:
        for what, run in afterwards.steps().items():
            tell(f"{run()} {what}.")
    detail: audit.Detail = {
        "file": name,
        "made_at": about.created_at,
        "sessions_kept": keep_sessions,
    }
    audit.record("backup.restored", actor_id=None, detail=detail)


def _undone(*, after: int) -> Undone:
    """Nothing where there is no database, or none that can be read."""
    if not is_there():
        return Undone()
    later = AuditEvent.objects.filter(id__gt=after)
    try:
        counted: Any = later.order_by().values_list("action").annotate(Count("id"))
        return Undone(
            deeds=dict(sorted(counted)),
            subjects={
                action: list(
                    later.filter(action=action).values_list("subject_id", flat=True)[:_MINDED]
                )
                for action in afterwards.to_mind()
            },
        )
    except Error:
        return Undone()


def _let_go() -> None:
    """Our own connections would be others' to the database."""
    default: Any = connections["default"]
    default.close()
    if getattr(default, "pool", None) is not None:
        default.close_pool()


def _stamp() -> str:
    """Of a moment, as a part of names: also two restores in one second keep two databases."""
    return f"{timezone.now():%Y%m%dt%H%M%S%f}"
