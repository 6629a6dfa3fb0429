"""Checking a backup by restoring it into a scratch database and comparing every table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from monitoring.backups.database import kind
from monitoring.backups.errors import BackupFailed, BackupRefused, DamagedBackup
from monitoring.backups.failures import EXPECTED, explain
from monitoring.backups.files import Unpacked
from monitoring.backups.manifest import About, Manifest
from monitoring.backups.reading import opened
from monitoring.backups.records import note_damaged, note_verified
from monitoring.backups.scratch import scratch_folder

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checked:
    about: About
    manifest: Manifest
    is_on_record: bool


def check_backup(path: Path) -> Checked:
    """Raises BackupRefused if it is no good, BackupFailed if that could not be found out."""
    try:
        with (
            opened(path) as backup,
            scratch_folder() as folder,
            kind().scratch(folder, backup.about) as scratch,
        ):
            manifest = backup.unpack(scratch, Unpacked(folder))
    except EXPECTED as error:
        told = explain(error)
        if isinstance(error, DamagedBackup):
            note_damaged(path, error=told)
        log.warning("backup_not_verified", file=path.name, error=type(error).__name__)
        if isinstance(error, BackupRefused):
            raise
        raise BackupFailed(told) from error
    made_at = datetime.fromisoformat(backup.about.created_at)
    is_on_record = note_verified(path, made_at=made_at)
    log.info("backup_verified", file=path.name, rows=manifest.rows)
    return Checked(about=backup.about, manifest=manifest, is_on_record=is_on_record)
