"""How the periodic jobs are, as their leases tell: also when no worker lives to tell anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

from django.utils import timezone
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from monitoring.jobs import Job, all_jobs
from monitoring.models import JobLease

# The overdue seconds of a job that was never run count from here: nobody knows since when it waits.
_started_s = time.monotonic()
# A job may wait for others that have the processors or the database.
_LATE_S = 120.0


def read() -> Iterator[Metric]:
    leases = {lease.name: lease for lease in JobLease.objects.all()}
    succeeded = GaugeMetricFamily(
        "sovereigncore_job_last_success_timestamp_seconds",
        "When a periodic job last ended well; 0 when it never did.",
        labels=["job"],
    )
    failed = GaugeMetricFamily(
        "sovereigncore_job_failed", "1 when a job's last run failed.", labels=["job"]
    )
    overdue = GaugeMetricFamily(
        "sovereigncore_job_overdue_seconds",
        "For how long a job has waited for a worker since it had to be run.",
        labels=["job"],
    )
    now = timezone.now()
    for job in all_jobs():
        lease = leases.get(job.name)
        at = lease.succeeded_at if lease else None
        succeeded.add_metric([job.name], at.timestamp() if at else 0.0)
        failed.add_metric([job.name], bool(lease and lease.error))
        overdue.add_metric([job.name], overdue_s(job, lease, now))
    yield from (succeeded, failed, overdue)


def overdue_s(job: Job, lease: JobLease | None, now: datetime) -> float:
    """0 while a worker is at it: a killed one's lease runs out."""
    if lease is None:
        return max(0.0, time.monotonic() - _started_s - job.longest_pause.total_seconds())
    if lease.expires_at > now:
        return 0.0
    had_to_begin_at = lease.due_at + (job.longest_pause - job.interval)
    return max(0.0, (now - had_to_begin_at).total_seconds())


def complaint() -> str:
    """Why it looks as if no worker were at its jobs, or an empty string. Raises DatabaseError."""
    leases = {lease.name: lease for lease in JobLease.objects.all()}
    now = timezone.now()
    for job in all_jobs():
        lease = leases.get(job.name)
        if lease is None:
            return f"{job.name} was never run"
        late_s = overdue_s(job, lease, now)
        if late_s > _LATE_S:
            return f"{job.name} has waited for a worker for {late_s:.0f} s"
    return ""
