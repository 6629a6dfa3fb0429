"""`manage.py backup`: everything in one encrypted file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring.backups.errors import BackupError
from monitoring.backups.making import make_backup

_STEP = 1024
_UNITS = ("B", "KiB", "MiB", "GiB")


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
        size = as_text(path.stat().st_size)
        self.stdout.write(
            f"{path}: {size}; {manifest.rows} rows in {len(manifest.tables)} tables,"
            f" files beside them: {len(manifest.files)}."
        )


def as_text(size_bytes: int) -> str:
    """In the largest unit of which there is one; in GiB if there are thousands."""
    power = 0
    while power < len(_UNITS) - 1 and size_bytes >= _STEP ** (power + 1):
        power += 1
    digits = 1 if power else 0
    return f"{size_bytes / _STEP**power:.{digits}f} {_UNITS[power]}"
