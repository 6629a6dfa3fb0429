"""What the leases of jobs tell a scraper: also when nobody runs them."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from monitoring import job_metrics, jobs
from monitoring.jobs import IDLE, Job, run_if_due
from monitoring.models import JobLease

INTERVAL, LEASE = timedelta(minutes=5), timedelta(minutes=10)
pytestmark = pytest.mark.django_db


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Job:
    job = Job(name="sweep", interval=INTERVAL, lease=LEASE, run=lambda: 1)
    monkeypatch.setattr(jobs, "_jobs", {"sweep": job})
    return job


def told(name: str) -> float:
    families = {family.name: family for family in job_metrics.read()}
    (sample,) = families[f"sovereigncore_job_{name}"].samples
    assert sample.labels == {"job": "sweep"}
    return float(sample.value)


def test_a_job_that_ran_is_not_overdue_until_it_has_to_run_again(
    sweep: Job, frozen_time: time_machine.Traveller
) -> None:
    run_if_due(sweep)
    ran_at = timezone.now()
    assert told("last_success_timestamp_seconds") == ran_at.timestamp()
    assert (told("failed"), told("overdue_seconds")) == (0, 0)
    frozen_time.shift(INTERVAL)
    assert told("overdue_seconds") == 0
    frozen_time.shift(timedelta(seconds=90))
    assert told("overdue_seconds") == 90
    assert told("last_success_timestamp_seconds") == ran_at.timestamp()


def test_a_failed_run_is_told_and_leaves_the_last_success(
    sweep: Job, frozen_time: time_machine.Traveller
) -> None:
    run_if_due(sweep)
    succeeded_at = timezone.now()
    frozen_time.shift(INTERVAL)

    def fail() -> int:
        raise OSError

    with pytest.raises(OSError):
        run_if_due(Job(name="sweep", interval=INTERVAL, lease=LEASE, run=fail))
    assert (told("failed"), told("overdue_seconds")) == (1, 0)
    assert told("last_success_timestamp_seconds") == succeeded_at.timestamp()
    frozen_time.shift(INTERVAL)
    run_if_due(sweep)
    assert told("failed") == 0


def test_a_job_in_hand_is_not_overdue_and_one_of_a_killed_worker_is(
    sweep: Job, frozen_time: time_machine.Traveller
) -> None:
    assert JobLease.objects.acquire("sweep", holder=uuid.uuid4(), lease=LEASE, interval=INTERVAL)
    frozen_time.shift(LEASE - timedelta(seconds=1))
    assert told("overdue_seconds") == 0
    frozen_time.shift(timedelta(seconds=1))
    assert told("overdue_seconds") == LEASE.total_seconds()


def test_a_job_that_nobody_ever_ran_is_overdue_since_this_process_began(
    sweep: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_metrics, "_started_s", time.monotonic())
    assert told("overdue_seconds") == 0
    assert told("last_success_timestamp_seconds") == 0
    monkeypatch.setattr(job_metrics, "_started_s", time.monotonic() - 1000)
    assert told("overdue_seconds") == pytest.approx(1000 - INTERVAL.total_seconds(), abs=5)


def test_a_job_that_had_nothing_to_do_has_until_its_next_sign_of_life(
    frozen_time: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(
        name="sweep",
        interval=timedelta(seconds=2),
        lease=LEASE,
        run=lambda: 0,
        is_needed=lambda: False,
    )
    monkeypatch.setattr(jobs, "_jobs", {"sweep": job})
    assert run_if_due(job) == 0
    frozen_time.shift(IDLE)
    assert told("overdue_seconds") == 0
    frozen_time.shift(timedelta(seconds=30))
    assert told("overdue_seconds") == 30
