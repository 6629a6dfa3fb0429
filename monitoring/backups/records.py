"""What became of backups, in the database that they are of: for the admin site and metrics.

That database may be missing, broken, or older than these records, which must keep nobody from
making or checking a backup.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path

from django.db import DatabaseError, transaction
from django.utils import timezone

from monitoring import audit
from monitoring.backups.database import is_there
from monitoring.models import BackupRecord, Instance

UNKNOWN = ""


def instance_id() -> str:
    """Which platform this is; UNKNOWN before its tables are up to date."""
    try:
        with transaction.atomic():
            return Instance.objects.its_id() if is_there() else UNKNOWN
    except DatabaseError:
        return UNKNOWN


def note_made(name: str, *, started_at: datetime, size_bytes: int, with_keys: bool) -> bool:
    """Whether it could be noted."""
    try:
        with transaction.atomic():
            BackupRecord.objects.create(
                file_name=name,
                started_at=started_at,
                finished_at=timezone.now(),
                size_bytes=size_bytes,
                outcome=BackupRecord.Outcome.MADE,
            )
            detail: audit.Detail = {"file": name, "with_keys": with_keys}
            audit.record("backup.made", actor_id=None, detail=detail)
    except DatabaseError:
        return False
    return True


def note_failure(name: str, *, started_at: datetime, error: str) -> bool:
    if not is_there():
        return False
    try:
        with transaction.atomic():
            BackupRecord.objects.create(
                file_name=name,
                started_at=started_at,
                finished_at=timezone.now(),
                outcome=BackupRecord.Outcome.FAILED,
                error=error[: BackupRecord.ERROR_CHARACTERS],
            )
    except DatabaseError:
        return False
    return True


def note_verified(path: Path, *, made_at: datetime) -> bool:
    """Also of one that is not on record: a restored database knows only what it knew then."""
    if not is_there():
        return False
    try:
        with transaction.atomic():
            record, _ = BackupRecord.objects.get_or_create(
                file_name=path.name,
                defaults={
                    "started_at": made_at,
                    "finished_at": made_at,
                    "size_bytes": path.stat().st_size,
                },
            )
            record.outcome, record.error = BackupRecord.Outcome.MADE, ""
            record.verified_at = timezone.now()
            record.save(update_fields=["outcome", "verified_at", "error"])
    except DatabaseError:
        return False
    return True


def note_damaged(path: Path, *, error: str) -> None:
    """Only of one that is on record: any file may be asked about."""
    if is_there():
        with contextlib.suppress(DatabaseError), transaction.atomic():
            BackupRecord.objects.filter(file_name=path.name).update(
                outcome=BackupRecord.Outcome.DAMAGED,
                verified_at=None,
                error=error[: BackupRecord.ERROR_CHARACTERS],
            )
