"""Backups: that there is a new one, that it was restored on trial, and where they lie."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from monitoring.backups import schedule
from monitoring.deployment.findings import Finding, failed, not_checked, ok, warning
from monitoring.models import BackupRecord

# What a large one may take, and the half hours that the worker looks at.
_LATE = timedelta(hours=2)


def ask_backup() -> Finding:
    folder = settings.BACKUP_DIR
    if folder is None:
        return warning("BACKUP_DIR is not set: nothing is backed up by itself")
    here = BackupRecord.objects.of(schedule.ours(folder))
    newest = (here | BackupRecord.objects.failed()).order_by("-started_at").first()
    if newest is None:
        return failed(f"there is none in {folder}: the worker makes the first one when it starts")
    if newest.outcome != BackupRecord.Outcome.MADE:
        return failed(f"the newest one is noted as {newest.outcome}: see the admin site")
    age = timezone.now() - newest.started_at
    if age > timedelta(hours=settings.BACKUP_INTERVAL_HOURS) + _LATE:
        return failed(f"the newest one is {_hours(age)} old")
    if newest.verified_at is None:
        return failed(f"{newest.file_name} was never restored on trial: run verify_backup")
    return ok(f"the newest one is {_hours(age)} old and was restored on trial")


def ask_backup_place() -> Finding:
    folder = settings.BACKUP_DIR
    if folder is None:
        return not_checked("BACKUP_DIR is not set")
    if not folder.is_dir():
        return failed(f"there is no directory {folder}")
    if folder.stat().st_dev == settings.DATA_DIR.stat().st_dev:
        return warning("BACKUP_DIR is on DATA_DIR's file system: copy backups elsewhere")
    return ok("BACKUP_DIR is on another file system than DATA_DIR")


def _hours(age: timedelta) -> str:
    return f"{age.total_seconds() / 3600:.1f} hours"
