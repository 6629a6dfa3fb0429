"""Deleting much without holding much: what periodic jobs and erasure delete with."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

SIZE = 500


def delete_in_batches(rows: QuerySet[Any]) -> int:
    """Delete `rows`, a batch a transaction; how many rows went, those that cascaded included.

    No statement or lock lasts long, so nobody waits. Cut off anywhere, what is deleted is deleted
    and the next call goes on. Of two at once each row is counted by the one that deleted it. The
    conditions of `rows` are asked again of each batch.
    """
    deleted = 0
    # In no order: sorting what is left for each batch would take longer than deleting it.
    while ids := list(rows.order_by().values_list("pk", flat=True)[:SIZE]):
        deleted += rows.filter(pk__in=ids).delete()[0]
    return deleted
