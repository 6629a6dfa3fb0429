"""Retention of the audit trail: old batches go from the tables to files, and nowhere else.

A segment is written to DATA_DIR/audit/archive, read back and verified, recorded with the file's
SHA-256 in a row under AUDIT_KEY, and only then deleted from the tables, batch by batch. Each step
may be the last one of a killed process: a file without its row is written again, a row whose
batches are still in the tables is pruned on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import structlog
from django.conf import settings
from django.db import connection
from django.utils import timezone

from monitoring.audit import append_only, chaining, files, sources
from monitoring.audit.verification import Verification
from monitoring.models import AuditArchive, AuditEvent, AuditSeal

_ROWS_A_FILE = 500_000  # some 25 MB
_ROWS_AT_ONCE = 5_000  # under one transaction, for which SQLite keeps all others waiting
_SEALS_READ = 1_000

log = structlog.get_logger(__name__)


class DamagedTrail(Exception):
    """What would be archived does not verify; it stays where it is."""


def archive_audit() -> int:
    """Archive what was sealed more than AUDIT_RETENTION_DAYS ago; how many rows left the tables.

    The newest seal stays, whatever its age. Raises DamagedTrail; OSError.
    """
    pruned = prune()
    if settings.AUDIT_RETENTION_DAYS == 0:
        return pruned
    while segment := _next_segment():
        _archive(*segment)
        pruned += prune()
    return pruned


def prune() -> int:
    """Delete from the tables what is archived, in short transactions; how many rows. The only code
    that deletes of the trail."""
    archived = AuditArchive.objects.order_by("-last_seal").first()
    if archived is None:
        return 0
    pruned = 0
    for last_seal in _steps(AuditSeal.objects.filter(id__lte=archived.last_seal).count()):
        with append_only.prunable(connection, last_seal=archived.last_seal):
            due = AuditSeal.objects.filter(id__lte=min(last_seal, archived.last_seal))
            events = AuditEvent.objects.filter(seal_id__in=due.values("id"))
            pruned += events._raw_delete("default")
            due._raw_delete("default")
    return pruned


def _steps(count: int) -> Iterator[int]:
    """The last seal of each step: as many seals as hold some `_ROWS_AT_ONCE` rows."""
    while count > 0:
        seals = AuditSeal.objects.order_by("id").values_list("id", "count")[:_SEALS_READ]
        rows = taken = 0
        last_seal = 0
        for number, of_seal in seals[:count]:
            if rows and rows + of_seal > _ROWS_AT_ONCE:
                break
            rows, taken, last_seal = rows + of_seal, taken + 1, number
        yield last_seal
        count -= taken


def _next_segment() -> tuple[int, int] | None:
    """The first and last seal of what is to be archived next."""
    newest = AuditSeal.objects.order_by("-id").values_list("id", flat=True).first()
    if newest is None:
        return None
    limit = timezone.now() - timedelta(days=settings.AUDIT_RETENTION_DAYS)
    found = AuditSeal.objects.filter(id__lt=newest).order_by("id")
    first = last = rows = 0
    for number, count, sealed_at in found.values_list("id", "count", "sealed_at").iterator():
        if sealed_at >= limit or rows >= _ROWS_A_FILE:
            break
        first, last, rows = first or number, number, rows + count
    return (first, last) if first else None


def _archive(first: int, last: int) -> None:
    before = AuditArchive.objects.order_by("-last_seal").first()
    previous = bytes(before.chain) if before else chaining.GENESIS
    written = files.write(
        Path(settings.AUDIT_DIR) / "archive" / f"audit-{first:09d}-{last:09d}.jsonl.gz",
        files.Beginning(first_seal=first, previous=previous),
        sources.batches(first=first, last=last),
    )
    final = AuditSeal.objects.get(id=last)
    try:
        _check(written, first=first, previous=previous, final=final)
    except DamagedTrail:
        written.path.unlink()
        raise
    archive = AuditArchive(
        first_seal=first,
        last_seal=last,
        last_id=final.last_id,
        count=written.events,
        chain=final.chain,
        file_name=written.path.name,
        file_digest=written.digest,
        size_bytes=written.size_bytes,
        archived_at=timezone.now(),
    )
    archive.digest = sources.archive_digest(archive)
    archive.save(force_insert=True)
    log.info("audit_archived", file=written.path.name, seals=written.seals, events=written.events)


def _check(written: files.Written, *, first: int, previous: bytes, final: AuditSeal) -> None:
    """What is in the file, as it will be read one day, is the trail and holds."""
    verification = Verification(with_key=True, checkpoints={})
    verification.go_on_from(seal=first, chain=previous)
    reader = files.Reader(written.path)
    for seal, rows in reader.batches():
        verification.verify_batch(seal, rows)
    verification.verify_unsealed(reader.unsealed())
    report = verification.finish()
    if not report.is_sound or verification.chain != bytes(final.chain):
        why = report.problems[0] if report.problems else "It ends otherwise than the table."
        raise DamagedTrail(f"Nothing was deleted. {why} Run verify_audit.")
