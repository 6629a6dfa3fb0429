"""`manage.py export_audit`: the audit trail of a time as a file that can be verified anywhere."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Min

from monitoring.audit.export import NothingToExport, export, rows_of
from monitoring.models import AuditArchive, AuditEvent
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
        if options["output"].exists():
            raise CommandError(f"{options['output']} is there already. Name another file.")
        total = rows_of(**wanted).count()
        progress = Progress(sys.stderr, total=total, what="rows")
        try:
            written = export(options["output"], **wanted, counted=progress.counted)
        except NothingToExport as error:
            older = _archives_before(options["since"])
            raise CommandError(f"The database holds no row of that time.{older}") from error
        except OSError as error:
            raise CommandError(f"{options['output']}: {error.strerror}") from error
        finally:
            progress.close()
        self.stdout.write(
            f"{written.events:,} rows under {written.seals:,} seals in {written.path}"
            f" ({written.size_bytes:,} bytes, SHA-256 {written.digest.hex()})."
            f"{_archives_before(options['since'])}"
        )


def _archives_before(since: datetime | None) -> str:
    """That rows of that time may be archived: the database's oldest one is younger."""
    archives = AuditArchive.objects.count()
    oldest = AuditEvent.objects.aggregate(oldest=Min("at"))["oldest"]
    if not archives or (since is not None and oldest is not None and since >= oldest):
        return ""
    return f" {archives} files in DATA_DIR/audit/archive hold older ones."
