"""`manage.py worker --check`: whether a worker lives, by what it leaves in the database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection

from monitoring import jobs
from monitoring.jobs import IDLE, Job, run_if_due
from monitoring.models import JobLease

pytestmark = pytest.mark.django_db

_JOB = Job(name="sweep", interval=timedelta(minutes=5), lease=timedelta(minutes=10), run=lambda: 1)


@pytest.fixture(autouse=True)
def _one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_jobs", {"sweep": _JOB})


def check() -> None:
    call_command("worker", "--check")


def test_a_job_that_was_never_run_has_no_worker() -> None:
    with pytest.raises(CommandError, match="sweep was never run"):
        check()
    assert not JobLease.objects.exists()  # it runs nothing


def test_a_job_may_be_late_for_a_while(frozen_time: time_machine.Traveller) -> None:
    run_if_due(_JOB)
    check()
    frozen_time.shift(_JOB.interval + timedelta(seconds=120))
    check()
    frozen_time.shift(timedelta(seconds=1))
    with pytest.raises(CommandError, match="sweep has waited for a worker for 121 s"):
        check()


def test_a_job_that_is_seldom_needed_shows_its_worker_all_the_same(
    frozen_time: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Job(
        name="mails",
        interval=timedelta(seconds=2),
        lease=timedelta(minutes=10),
        run=lambda: 0,
        is_needed=lambda: False,
    )
    monkeypatch.setattr(jobs, "_jobs", {"mails": idle})
    run_if_due(idle)
    frozen_time.shift(IDLE + timedelta(seconds=120))
    check()
    frozen_time.shift(timedelta(seconds=1))
    with pytest.raises(CommandError, match="mails has waited"):
        check()


def test_without_a_database_it_is_one_clear_line() -> None:
    def fail(*_: Any) -> None:
        raise DatabaseError

    with (
        connection.execute_wrapper(fail),
        pytest.raises(CommandError, match="the database does not answer"),
    ):
        check()
