"""`manage.py export_audit`: the audit trail of a time as a file that can be verified anywhere."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from monitoring.audit.export import NothingToExport, export, rows_of
from monitoring.models import AuditArchive
from monitoring.progress import Progress


def moment(text: str) -> datetime:
    """`2026-01-31` or `2026-01-31T12:00:00+01:00`; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        message = "write a day, 2026-01-31, or a moment, 2026-01-31T12:00:00Z"
        raise argparse.ArgumentTypeError(message) from error


class Command(BaseCommand):
    help = (
        "Export the audit trail as JSON lines, with digests and seals, so that `verify_audit "
        "--file` finds elsewhere whether it is what was written; with --without-key and "
        "--public-key it needs no secret for that. Whole batches are written: some rows around the "
        "time that is asked for come along. What is archived is in files already."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", type=moment, metavar="TIME", help="rows at or after it")
        parser.add_argument("--until", type=moment, metavar="TIME", help="rows before it")
        parser.add_argument(
            "--output", type=Path, required=True, metavar="FILE", help="*.gz is compressed"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = {"since": options["since"], "until": options["until"]}
        total = rows_of(**wanted).count()
        progress = Progress(sys.stderr, total=total, what="rows")
        try:
            written = export(options["output"], **wanted, counted=progress.counted)
        except NothingToExport as error:
            archived = AuditArchive.objects.count()
            hint = f" {archived} files in DATA_DIR/audit/archive hold older ones." * bool(archived)
            raise CommandError(f"The database holds no row of that time.{hint}") from error
        except OSError as error:
            raise CommandError(f"{options['output']}: {error.strerror}") from error
        finally:
            progress.close()
        self.stdout.write(
            f"{written.events:,} rows under {written.seals:,} seals in {written.path}"
            f" ({written.size_bytes:,} bytes, SHA-256 {written.digest.hex()})."
        )
