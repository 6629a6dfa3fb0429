"""Periodic jobs: a registry that apps fill in `AppConfig.ready()`, and the way one job is run.

Every job must be idempotent, resumable and bounded: it may be killed anywhere and is then run
again by whoever holds the lease next.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

import structlog

from monitoring.models import JobLease

# A job that has nothing to do is run this often all the same: so its lease shows that a worker
# lives, and costs no more than a write a minute.
IDLE = timedelta(minutes=1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """`run` returns how many things it dealt with. `lease` is longer than it ever takes.

    `is_needed` is asked first by a job that runs every few seconds, so that an idle one only reads.
    """

    name: str
    interval: timedelta
    lease: timedelta
    run: Callable[[], int]
    is_needed: Callable[[], bool] | None = None

    @property
    def longest_pause(self) -> timedelta:
        """Between one run's end and the next one's beginning, while a worker lives."""
        return self.interval if self.is_needed is None else max(self.interval, IDLE)


_jobs: dict[str, Job] = {}


def register(
    name: str,
    run: Callable[[], int],
    *,
    interval: timedelta,
    lease: timedelta = timedelta(minutes=10),
    is_needed: Callable[[], bool] | None = None,
) -> None:
    _jobs[name] = Job(name=name, interval=interval, lease=lease, run=run, is_needed=is_needed)


def all_jobs() -> list[Job]:
    return list(_jobs.values())


def named_in_log(job: Job) -> AbstractContextManager[None]:
    """What is logged meanwhile has the job's name and an id of this one run."""
    return structlog.contextvars.bound_contextvars(job=job.name, run_id=str(uuid.uuid4()))


def run_if_due(job: Job, *, even_if_not_due: bool = False) -> int | None:
    """Run `job` unless another worker has it or it is not due: what it dealt with, else None.

    A job's own failure is noted on its lease and raised.
    """
    if not even_if_not_due and not _is_wanted(job):
        return None
    holder = uuid.uuid4()
    if not JobLease.objects.acquire(
        job.name,
        holder=holder,
        lease=job.lease,
        interval=job.interval,
        even_if_not_due=even_if_not_due,
    ):
        return None
    error = ""
    try:
        dealt_with = job.run()
    except Exception as failure:
        error = type(failure).__name__
        raise
    finally:
        JobLease.objects.release(job.name, holder=holder, interval=job.interval, error=error)
    log.info("job_finished", job=job.name, dealt_with=dealt_with)
    return dealt_with


def _is_wanted(job: Job) -> bool:
    return job.is_needed is None or job.is_needed() or not JobLease.objects.ran(job.name, IDLE)
