"""Periodic work on queries: settle those whose process is gone, delete those kept long enough."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import F

from consciousness.models import Query, Status
from monitoring import metrics

_BATCH = 200


def settle_orphans() -> int:
    """Finish queries that nobody can finish any more, at what they had reserved, and say so.

    A query that never ran used nothing. One that ran used `max_tokens` at most; how many of them
    died with its process.
    """
    settled = 0
    while ids := list(Query.objects.orphaned().values_list("id", flat=True)[:_BATCH]):
        for query_id in ids:
            row = Query.objects.filter(id=query_id)
            ran = row.filter(status=Status.RUNNING).exists()
            if Query.objects.all().settle(
                query_id,
                status=Status.FAILED,
                error_code="orphaned",
                is_estimated=True,
                completion_tokens=F("max_tokens") if ran else 0,
            ):
                settled += 1
                metrics.QUERIES.labels(Status.FAILED).inc()
    return settled


def delete_old_queries() -> int:
    return Query.objects.all().delete_older_than(timedelta(days=settings.RETENTION_DAYS))
