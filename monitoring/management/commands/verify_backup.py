"""`manage.py verify_backup`: restores a backup on trial and compares every table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring.backups import schedule
from monitoring.backups.checking import check_backup
from monitoring.backups.errors import BackupError


class Command(BaseCommand):
    help = (
        "Restore a backup into a scratch database, which is thrown away, and compare every table "
        "with what was saved. The database in use is not touched."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("file", nargs="?", metavar="FILE")
        which.add_argument("--newest", action="store_true", help="the newest one in BACKUP_DIR")

    def handle(self, *args: Any, **options: Any) -> None:
        path = Path(options["file"]) if options["file"] else _newest()
        self.stdout.write(f"{path}: restoring into a scratch database …")
        try:
            checked = check_backup(path)
        except BackupError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"Good: all {len(checked.manifest.tables)} tables are as they were on"
            f" {checked.about.created_at}, {checked.manifest.rows} rows."
        )
        if not checked.is_on_record:
            self.stdout.write("(Not on record: the database cannot be written to.)")


def _newest() -> Path:
    if not settings.BACKUP_DIR:
        raise CommandError("BACKUP_DIR is not set: name a file.")
    found = next(iter(schedule.newest_first(settings.BACKUP_DIR)), None)
    if found is None:
        raise CommandError(f"There is no backup in {settings.BACKUP_DIR}.")
    return found
