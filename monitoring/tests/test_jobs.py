"""Periodic jobs: one worker at a time, a lease that runs out, a failure that is known."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from monitoring import jobs
from monitoring.jobs import Job, run_if_due
from monitoring.models import JobLease
from tests.log_capture import LogCapture
from tests.parallel import in_parallel

INTERVAL, LEASE = timedelta(minutes=5), timedelta(minutes=10)
TIMEOUT_S = 20.0


def job(run: Callable[[], int], name: str = "sweep") -> Job:
    return Job(name=name, interval=INTERVAL, lease=LEASE, run=run)


@pytest.mark.django_db
def test_a_new_job_is_due_and_then_not_for_its_interval(
    frozen_time: time_machine.Traveller, logs: LogCapture
) -> None:
    sweep = job(lambda: 3)
    assert run_if_due(sweep) == 3
    assert run_if_due(sweep) is None
    frozen_time.shift(INTERVAL - timedelta(seconds=1))
    assert run_if_due(sweep) is None
    frozen_time.shift(timedelta(seconds=1))
    assert run_if_due(sweep) == 3
    lease = JobLease.objects.get(name="sweep")
    assert lease.succeeded_at == lease.finished_at == timezone.now()
    assert [event["dealt_with"] for event in logs.events("job_finished")] == [3, 3]


@pytest.mark.django_db
def test_a_job_can_be_run_before_it_is_due() -> None:
    sweep = job(lambda: 1)
    assert run_if_due(sweep) == 1
    assert run_if_due(sweep, even_if_not_due=True) == 1
    assert run_if_due(sweep) is None


@pytest.mark.django_db
def test_a_job_without_work_is_run_once_a_minute_to_show_that_a_worker_lives(
    frozen_time: time_machine.Traveller,
) -> None:
    idle = Job(
        name="idle",
        interval=timedelta(seconds=2),
        lease=LEASE,
        run=lambda: 0,
        is_needed=lambda: False,
    )
    assert run_if_due(idle) == 0
    frozen_time.shift(jobs.IDLE - timedelta(seconds=1))
    assert run_if_due(idle) is None
    frozen_time.shift(timedelta(seconds=1))
    assert run_if_due(idle) == 0


@pytest.mark.django_db
def test_jobs_do_not_wait_for_each_other() -> None:
    assert run_if_due(job(lambda: 1, name="one")) == 1
    assert run_if_due(job(lambda: 2, name="two")) == 2


@pytest.mark.django_db
def test_a_failure_is_raised_and_noted_and_the_job_comes_round_again(
    frozen_time: time_machine.Traveller, logs: LogCapture
) -> None:
    def fail() -> int:
        raise OSError("secret path /srv/x")

    assert run_if_due(job(lambda: 0)) == 0
    succeeded_at = timezone.now()
    frozen_time.shift(INTERVAL)
    with pytest.raises(OSError, match="secret path"):
        run_if_due(job(fail))
    lease = JobLease.objects.get(name="sweep")
    assert lease.error == "OSError"
    assert lease.finished_at == lease.expires_at == timezone.now()
    assert lease.due_at == timezone.now() + INTERVAL
    assert lease.succeeded_at == succeeded_at
    assert len(logs.events("job_finished")) == 1
    frozen_time.shift(INTERVAL)
    assert run_if_due(job(lambda: 0)) == 0
    assert JobLease.objects.get(name="sweep").error == ""


@pytest.mark.django_db
def test_the_lease_of_a_killed_worker_runs_out(frozen_time: time_machine.Traveller) -> None:
    killed = uuid.uuid4()
    assert JobLease.objects.acquire("sweep", holder=killed, lease=LEASE, interval=INTERVAL)
    frozen_time.shift(LEASE - timedelta(seconds=1))
    assert run_if_due(job(lambda: 1), even_if_not_due=True) is None
    frozen_time.shift(timedelta(seconds=1))
    assert run_if_due(job(lambda: 1)) == 1


@pytest.mark.django_db
def test_after_a_clock_that_was_ahead_jobs_run_again_at_once(
    frozen_time: time_machine.Traveller,
) -> None:
    idle = Job(name="idle", interval=INTERVAL, lease=LEASE, run=lambda: 0, is_needed=lambda: False)
    ahead = timedelta(hours=6)
    frozen_time.shift(ahead)
    assert (run_if_due(job(lambda: 1)), run_if_due(idle)) == (1, 0)
    assert JobLease.objects.acquire("killed", holder=uuid.uuid4(), lease=LEASE, interval=INTERVAL)
    frozen_time.shift(-ahead)
    assert (run_if_due(job(lambda: 1)), run_if_due(idle)) == (1, 0)
    assert run_if_due(job(lambda: 1, name="killed")) == 1
    assert run_if_due(job(lambda: 1)) is None


@pytest.mark.django_db
def test_a_clock_that_is_a_little_behind_takes_nothing_from_another_worker(
    frozen_time: time_machine.Traveller,
) -> None:
    holder = uuid.uuid4()
    assert JobLease.objects.acquire("sweep", holder=holder, lease=LEASE, interval=INTERVAL)
    assert run_if_due(job(lambda: 1, name="ended")) == 1
    frozen_time.shift(-timedelta(seconds=30))
    assert run_if_due(job(lambda: 1)) is None
    assert run_if_due(job(lambda: 1, name="ended")) is None


@pytest.mark.django_db
def test_a_worker_that_overran_its_lease_does_not_release_its_successors(
    frozen_time: time_machine.Traveller,
) -> None:
    slow, next_one = uuid.uuid4(), uuid.uuid4()
    assert JobLease.objects.acquire("sweep", holder=slow, lease=LEASE, interval=INTERVAL)
    frozen_time.shift(LEASE)
    assert JobLease.objects.acquire("sweep", holder=next_one, lease=LEASE, interval=INTERVAL)
    JobLease.objects.release("sweep", holder=slow, interval=INTERVAL, error="TooLate")
    lease = JobLease.objects.get(name="sweep")
    assert lease.holder == next_one
    assert lease.expires_at == timezone.now() + LEASE
    assert lease.error == ""
    assert run_if_due(job(lambda: 1), even_if_not_due=True) is None


class Contest:
    """`count` workers want one job at once; the one that gets it holds it until the others left."""

    def __init__(self, count: int) -> None:
        self.winners, self.losers = 0, 0
        self._count = count
        self._changed = threading.Condition()

    def run(self) -> int:
        with self._changed:
            self.winners += 1
            everybody = self._changed.wait_for(
                lambda: self.winners + self.losers == self._count, TIMEOUT_S
            )
        assert everybody
        return 1

    def enter(self, _number: int) -> int | None:
        result = run_if_due(job(self.run), even_if_not_due=True)
        if result is None:
            with self._changed:
                self.losers += 1
                self._changed.notify_all()
        return result


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_at_once_exactly_one_runs_a_job() -> None:
    """The very first time, when not even the row of the lease is there, and later."""
    for _ in range(3):
        contest = Contest(8)
        results = in_parallel(8, contest.enter)
        assert sorted(results, key=str) == [1] + [None] * 7
        assert (contest.winners, contest.losers) == (1, 7)


@pytest.mark.django_db(transaction=True)
def test_while_one_worker_is_at_it_another_leaves_the_job_alone() -> None:
    started, finish = threading.Event(), threading.Event()

    def run() -> int:
        started.set()
        assert finish.wait(TIMEOUT_S)
        return 5

    def work(number: int) -> int | None:
        if number == 0:
            return run_if_due(job(run))
        assert started.wait(TIMEOUT_S)
        try:
            return run_if_due(job(lambda: 99), even_if_not_due=True)
        finally:
            finish.set()

    assert in_parallel(2, work) == [5, None]


def test_orphans_are_settled_every_minute_and_retention_runs_every_hour() -> None:
    intervals = {each.name: each.interval for each in jobs.all_jobs()}
    assert intervals["settle_orphans"] == timedelta(minutes=1)
    assert intervals["delete_old_queries"] == timedelta(hours=1)
