"""How far the audit trail is, and how far sealed, as the database has it at the scrape."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from monitoring.models import AuditArchive, AuditEvent, AuditSeal

_LATE = 100  # seals among which the greatest id is: the newest may be of a row that came late


def read() -> Iterator[Metric]:
    """Each by an index; only the unsealed rows are counted, which are few unless sealing stands."""
    newest = AuditEvent.objects.order_by("-id").values_list("id", flat=True).first()
    seals = list(AuditSeal.objects.order_by("-id").values_list("last_id", "sealed_at")[:_LATE])
    archived = AuditArchive.objects.order_by("-last_seal").values_list("last_id", flat=True).first()
    sealed = max([archived or 0, *(last_id for last_id, _ in seals)])
    unsealed = AuditEvent.objects.all().unsealed()
    oldest = unsealed.order_by("id").values_list("at", flat=True).first()
    age_s = (timezone.now() - oldest).total_seconds() if oldest else 0.0
    yield _gauge("events", "Id of the newest event in the audit trail.", max(newest or 0, sealed))
    yield _gauge("sealed_head", "Id of the newest event under a seal.", sealed)
    yield _gauge("unsealed_events", "Events without a seal yet.", unsealed.count())
    yield _gauge(
        "unsealed_age_seconds", "Age of the oldest event without a seal; 0 without one.", age_s
    )
    last_seal = GaugeMetricFamily(
        "sovereigncore_audit_last_seal_timestamp_seconds", "When the newest seal was made."
    )
    if seals:
        last_seal.add_metric([], seals[0][1].timestamp())
    yield last_seal


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"sovereigncore_audit_{name}", documentation, value=value)
