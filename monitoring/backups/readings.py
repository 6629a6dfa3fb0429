"""Backups as metrics: the records of those that are in BACKUP_DIR now, and failures."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.db.models import Max
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from monitoring.backups.schedule import ours
from monitoring.models import BackupRecord


def read() -> Iterator[Metric]:
    """A time that never came is 0, so that its age is as large as can be."""
    here = BackupRecord.objects.of(ours(settings.BACKUP_DIR) if settings.BACKUP_DIR else ())
    made = here.made()
    last = made.order_by("-started_at").first()
    tried = here | BackupRecord.objects.failed()  # of which there is no file
    newest = tried.order_by("-started_at").first()
    verified_at = made.aggregate(at=Max("verified_at"))["at"]
    yield _gauge("enabled", "1 while a backup schedule is set.", bool(settings.BACKUP_DIR))
    yield _gauge(
        "last_success_timestamp_seconds",
        "When the newest backup was finished; 0 if there is none.",
        last.finished_at.timestamp() if last else 0,
    )
    yield _gauge(
        "last_verified_timestamp_seconds",
        "When a backup was last restored on trial and found right; 0 if none was.",
        verified_at.timestamp() if verified_at else 0,
    )
    yield _gauge("last_size_bytes", "Size of the newest backup.", last.size_bytes if last else 0)
    yield _gauge(
        "last_attempt_failed",
        "1 when the newest backup could not be made, or was found damaged.",
        newest is not None and newest.outcome != BackupRecord.Outcome.MADE,
    )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"sovereigncore_backup_{name}", text, value=value)
