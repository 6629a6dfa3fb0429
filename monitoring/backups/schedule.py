"""Backups by themselves: made when due, the newest one checked, old ones deleted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import structlog
from django.conf import settings
from django.utils import timezone

from monitoring.backups import records
from monitoring.backups.checking import check_backup
from monitoring.backups.cipher import read_header
from monitoring.backups.errors import BackupError
from monitoring.backups.making import PATTERN, make_backup
from monitoring.models import BackupRecord

LOOK_EVERY = timedelta(minutes=30)  # so a failed backup is tried again before the next one is due
LEASE = timedelta(hours=3)
_EARLY = timedelta(minutes=15)  # or each would be half an hour later in the day than the last
_RECORDS_KEPT = timedelta(days=400)

log = structlog.get_logger(__name__)


def run_due() -> int:
    """How many backups were made, checked or deleted. Raises BackupError.

    A killed run loses nothing: what it did not do is due at the next one.
    """
    assert settings.BACKUP_DIR is not None
    folder: Path = settings.BACKUP_DIR
    done = 0
    if _is_due(folder):
        make_backup(folder=folder, with_keys=False, tell=lambda _text: None)
        done += 1
    newest = next(iter(ours(folder)), None)
    if newest is not None and not _is_checked(newest):
        check_backup(newest)
        done += 1
    BackupRecord.objects.delete_older_than(_RECORDS_KEPT)
    return done + prune(folder, keep=settings.BACKUP_KEEP)


def ours(folder: Path) -> list[Path]:
    """This platform's backups in the folder, the newest first. Several may share one."""
    mine = records.instance_id()
    return [path for path in newest_first(folder) if _instance_of(path) == mine]


def newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(PATTERN), key=lambda path: path.name, reverse=True)


def prune(folder: Path, *, keep: int) -> int:
    """Delete all but the newest `keep`, unless none of these has been checked: then the older ones
    may be the only good ones."""
    found = ours(folder)
    kept, old = found[:keep], found[keep:]
    if not any(_is_checked(path) for path in kept):
        return 0
    for path in old:
        path.unlink(missing_ok=True)
        log.info("backup_deleted", file=path.name)
    return len(old)


def _is_due(folder: Path) -> bool:
    """What is on record may lie elsewhere, on a stick or on the machine before this one."""
    since = timezone.now() - timedelta(hours=settings.BACKUP_INTERVAL_HOURS) + _EARLY
    made = BackupRecord.objects.made().of(ours(folder))
    return not made.filter(started_at__gte=since).exists()


def _is_checked(path: Path) -> bool:
    return BackupRecord.objects.filter(file_name=path.name, verified_at__isnull=False).exists()


def _instance_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return str(read_header(file).get("instance_id"))
    except (OSError, BackupError):
        return ""
