"""What the database knows of accounts and mails, as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, Min, Q
from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from accounts.models import Mail, User


def read_mails() -> Iterator[Metric]:
    """Both parts by their partial indexes: however many mails were sent is no matter."""
    waiting = Mail.objects.pending().aggregate(count=Count("pk"), oldest=Min("created_at"))
    queue = GaugeMetricFamily(
        "sovereigncore_mail_queue",
        "Mails that wait to be sent, and those given up in the last seven days.",
        labels=["state"],
    )
    queue.add_metric(["waiting"], waiting["count"])
    queue.add_metric(["failed"], Mail.objects.filter(given_up_at__isnull=False).count())
    oldest = waiting["oldest"]
    age_s = (timezone.now() - oldest).total_seconds() if oldest else 0.0
    yield queue
    yield GaugeMetricFamily(
        "sovereigncore_mail_oldest_waiting_seconds",
        "How long the oldest mail in the queue has waited; 0 when none does.",
        value=max(0.0, age_s),
    )


def read_users() -> Iterator[Metric]:
    counted = User.objects.aggregate(
        active=Count("pk", filter=Q(is_active=True)),
        disabled=Count("pk", filter=Q(is_active=False)),
    )
    users = GaugeMetricFamily("sovereigncore_users", "Accounts, by state.", labels=["state"])
    for state, count in counted.items():
        users.add_metric([state], count)
    yield users
