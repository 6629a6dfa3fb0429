"""Periodic work: settle queries whose process is gone, delete what was kept long enough."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings

from consciousness.models import Conversation, IdempotentRequest, Query, UsageDay
from consciousness.settlement import settle_orphan

_BATCH = 200
_USAGE_KEPT = timedelta(days=400)  # a year to compare with; one narrow row a person and day


def settle_orphans() -> int:
    """Finish queries whose process is gone, at what they had set aside; how many."""
    settled = 0
    while orphans := list(Query.objects.orphaned()[:_BATCH]):
        for query in orphans:
            settled += settle_orphan(query)
    return settled


def delete_old_queries() -> int:
    """Queries, their texts and their conversations, RETENTION_DAYS after the last activity."""
    age = timedelta(days=settings.RETENTION_DAYS)
    deleted = Query.objects.all().delete_older_than(age)
    return deleted + Conversation.objects.all().delete_idle(age)


def delete_old_usage() -> int:
    return UsageDay.objects.all().delete_older_than(_USAGE_KEPT)


def forget_idempotent_requests() -> int:
    """Results kept long enough under an `Idempotency-Key`, and claims of dead processes."""
    return IdempotentRequest.objects.all().delete_over()
