"""Periodic work on queries: settle those whose process is gone, delete those kept long enough."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings

from consciousness.models import Query, Status
from consciousness.settlement import settle_orphan
from monitoring import metrics

_BATCH = 200


def settle_orphans() -> int:
    """Finish queries whose process is gone, at what they had set aside; how many."""
    settled = 0
    while orphans := list(Query.objects.orphaned()[:_BATCH]):
        for query in orphans:
            if settle_orphan(query):
                settled += 1
                metrics.QUERIES.labels(Status.FAILED).inc()
    return settled


def delete_old_queries() -> int:
    """Queries and conversations RETENTION_DAYS after their last activity."""
    return Query.objects.all().delete_older_than(timedelta(days=settings.RETENTION_DAYS))
