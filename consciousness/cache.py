"""Answers that may serve again: one's own earlier ones to exactly the same request.

The cache is the history: an answer is found by the digest of all that shaped it. So it is shared by
all processes, nobody meets another one's, and what is deleted or erased is gone from here too.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import orjson
from django.conf import settings
from django.utils import timezone

from consciousness.engine import Model
from consciousness.models import Query, Status
from consciousness.prompting import Plan
from monitoring import metrics

_BATCH = 500


def digest(plan: Plan, model: Model) -> bytes | None:
    """Of the model and the whole request as it would be sent; None where none may be used.

    Remembered facts and earlier turns are in the messages, so a changed memory is another request.
    """
    if not plan.ask.is_cacheable or not settings.CACHE_TTL_S:
        return None
    request = {"model": model.id, "kind": plan.ask.kind, **plan.prompt.described()}
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).digest()


def find_answer(user: Any, request_digest: bytes) -> Query | None:
    """The newest earlier query with its content, no older than CACHE_TTL_S."""
    since = timezone.now() - timedelta(seconds=settings.CACHE_TTL_S)
    earlier = (
        Query.objects.all()
        .for_user(user)
        .filter(
            request_digest=request_digest,
            created_at__gt=since,
            status=Status.COMPLETED,
            content__isnull=False,
        )
    )
    found = earlier.select_related("content").order_by("-created_at").first()
    metrics.CACHE_LOOKUPS.labels("hit" if found else "miss").inc()
    return found


def forget_old_answers() -> int:
    """Periodic: digests older than CACHE_TTL_S or beyond the newest CACHE_MAX_ENTRIES go, so that
    the index over them stays small. The history itself is retention's business."""
    cached = Query.objects.filter(request_digest__isnull=False)
    beyond = cached.order_by("-created_at").values_list("created_at", flat=True)
    limit = timezone.now() - timedelta(seconds=settings.CACHE_TTL_S)
    oldest_kept = beyond[settings.CACHE_MAX_ENTRIES : settings.CACHE_MAX_ENTRIES + 1].first()
    if oldest_kept is not None:
        limit = max(limit, oldest_kept)
    forgotten = 0
    old = cached.filter(created_at__lte=limit)
    while ids := list(old.values_list("id", flat=True)[:_BATCH]):
        forgotten += old.filter(id__in=ids).update(request_digest=None)
    return forgotten
