"""`manage.py backup`: everything in one encrypted file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring.backups.errors import BackupError
from monitoring.backups.making import make_backup

_MIB = 1024 * 1024


class Command(BaseCommand):
    help = (
        "Make a backup while everything runs: the database as it is at one moment and the audit "
        "trail's checkpoints, compressed and encrypted with BACKUP_KEY. `verify_backup` checks it."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--output", metavar="DIR", help="where to; BACKUP_DIR if left out")
        parser.add_argument(
            "--with-keys",
            action="store_true",
            help="also `.env` and the secrets that the server uses",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        output = options["output"] or settings.BACKUP_DIR
        if not output:
            raise CommandError("Where to? BACKUP_DIR is not set: add --output DIR.")
        try:
            path, manifest = make_backup(
                folder=Path(output), with_keys=options["with_keys"], tell=self.stdout.write
            )
        except BackupError as error:
            raise CommandError(str(error)) from error
        size = path.stat().st_size
        self.stdout.write(
            f"{path}: {len(manifest.tables)} tables, {manifest.rows} rows,"
            f" {len(manifest.files)} files, {size / _MIB:.1f} MiB."
        )
