"""What the database and this process know of queries and engines, as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.conf import settings
from django.db.models import Count, Max, Q
from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from consciousness import engines
from consciousness.models import Conversation, Memory, Query, UsageDay

_WINDOWS_DAYS = (1, 7, 30)


def read_engines() -> Iterator[Metric]:
    """Of the process that is asked. Engines that were removed are absent at once."""
    slots = GaugeMetricFamily(
        "sovereigncore_engine_slots",
        "Slots of an engine that requests may take now; 0 while it is out of rotation.",
        labels=["engine"],
    )
    for name, count in engines.slots_now().items():
        slots.add_metric([name], count)
    yield slots
    yield GaugeMetricFamily(
        "sovereigncore_queue_limit",
        "How many requests may wait for a slot (QUEUE_LIMIT).",
        value=settings.QUEUE_LIMIT,
    )


def read_activity() -> Iterator[Metric]:
    active = GaugeMetricFamily(
        "sovereigncore_active_users",
        "Accounts that asked something today, and in the 7 and 30 days (UTC) that end with it.",
        labels=["window"],
    )
    today = timezone.now().date()
    first_days = {days: today - timedelta(days=days - 1) for days in _WINDOWS_DAYS}
    newest = (
        UsageDay.objects.filter(day__gte=min(first_days.values()))
        .order_by()
        .values("user")
        .annotate(newest=Max("day"))
    )
    counted = newest.aggregate(
        **{
            f"{days}d": Count("user", filter=Q(newest__gte=first))
            for days, first in first_days.items()
        }
    )
    for window, count in counted.items():
        active.add_metric([window], count)
    yield active


def read_holdings() -> Iterator[Metric]:
    """By the index-only scans of narrow indexes."""
    for name, meaning, rows in (
        ("queries_stored", "Queries in the history, of all accounts.", Query.objects),
        ("conversations", "Conversations kept, of all accounts.", Conversation.objects),
        ("memories", "Facts kept in memory, of all accounts.", Memory.objects),
    ):
        yield GaugeMetricFamily(f"sovereigncore_{name}", meaning, value=rows.count())
