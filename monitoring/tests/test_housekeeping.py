"""`manage.py housekeeping`: every job once, whatever another one does."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from monitoring import jobs
from monitoring.models import JobLease

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_jobs", {})


def register(name: str, run: Callable[[], int]) -> None:
    jobs.register(name, run, interval=timedelta(minutes=1))


def fail() -> int:
    raise OSError("secret path /srv/x")


def housekeeping(*arguments: str) -> str:
    out = StringIO()
    call_command("housekeeping", *arguments, stdout=out)
    return out.getvalue()


def test_it_says_what_each_job_dealt_with() -> None:
    register("sweep", lambda: 3)
    register("dust", lambda: 0)
    assert housekeeping() == "sweep: 3\ndust: 0\n"


def test_jobs_that_are_not_due_run_only_now() -> None:
    register("sweep", lambda: 3)
    housekeeping()
    assert housekeeping() == "sweep: not due, or in a worker's hands\n"
    assert housekeeping("--now") == "sweep: 3\n"


def test_a_job_in_a_workers_hands_is_left_to_it() -> None:
    register("sweep", lambda: 3)
    assert JobLease.objects.acquire(
        "sweep", holder=uuid.uuid4(), lease=timedelta(minutes=1), interval=timedelta(minutes=1)
    )
    assert housekeeping("--now") == "sweep: not due, or in a worker's hands\n"


def test_a_failing_job_does_not_stop_the_others_and_fails_the_command() -> None:
    register("broken", fail)
    register("sweep", lambda: 3)
    out = StringIO()
    with pytest.raises(CommandError) as error:
        call_command("housekeeping", "--now", stdout=out)
    assert str(error.value) == "failed: broken (OSError)"
    assert error.value.returncode == 1
    assert out.getvalue() == "sweep: 3\n"
