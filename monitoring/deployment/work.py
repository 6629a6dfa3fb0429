"""The worker: whether some is at its jobs, and how they ended."""

from __future__ import annotations

from monitoring import job_metrics, jobs
from monitoring.deployment.findings import Finding, failed, ok, warning
from monitoring.models import JobLease


def ask_worker() -> Finding:
    if complaint := job_metrics.complaint():
        return failed(complaint)
    names = [job.name for job in jobs.all_jobs()]
    bad = JobLease.objects.filter(name__in=names).exclude(error="").order_by("name")
    if bad:
        said = ", ".join(f"{lease.name} ({lease.error})" for lease in bad)
        return warning(f"a worker lives, and these failed last: {said}")
    return ok(f"a worker runs all {len(names)} jobs when they are due")
