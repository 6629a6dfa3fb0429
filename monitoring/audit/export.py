"""The audit trail of a time as a file that can be verified anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from django.db.models import Max, Min, QuerySet

from monitoring.audit import chaining, files, sources, tables
from monitoring.audit.tables import Row
from monitoring.models import AuditArchive, AuditEvent, AuditSeal


class NothingToExport(Exception):
    """The tables hold no row of that time."""


def rows_of(*, since: datetime | None, until: datetime | None) -> QuerySet[AuditEvent]:
    """At or after `since`, before `until`."""
    wanted = AuditEvent.objects.all()
    if since is not None:
        wanted = wanted.filter(at__gte=since)
    return wanted if until is None else wanted.filter(at__lt=until)


def export(
    path: Path,
    *,
    since: datetime | None,
    until: datetime | None,
    counted: Callable[[Iterable[Row]], Iterable[Row]] = iter,
) -> files.Written:
    """Write the batches that hold rows of that time, whole, because part of one proves nothing; and
    those of its rows that have no seal yet. Raises NothingToExport; OSError."""
    wanted = rows_of(since=since, until=until)
    bounds = wanted.aggregate(first=Min("seal_id"), last=Max("seal_id"))
    unsealed = set(wanted.filter(seal=None).values_list("id", flat=True))
    if bounds["last"] is None and not unsealed:
        raise NothingToExport
    newest = AuditSeal.objects.aggregate(newest=Max("id"))["newest"] or 0
    first, last = bounds["first"] or newest + 1, bounds["last"] or 0
    return files.write(
        path,
        files.Beginning(first_seal=first, previous=_chain_before(first)),
        ((seal, iter(counted(rows))) for seal, rows in sources.batches(first=first, last=last)),
        # Those that were sealed a moment ago belong to no batch of this file.
        (row for row in tables.unsealed() if row.id in unsealed),
    )


def _chain_before(seal: int) -> bytes:
    for found in (
        AuditSeal.objects.filter(id=seal - 1).values_list("chain", flat=True).first(),
        AuditArchive.objects.filter(last_seal=seal - 1).values_list("chain", flat=True).first(),
    ):
        if found is not None:
            return bytes(found)
    return chaining.GENESIS
