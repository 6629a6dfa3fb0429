"""Periodic work: sessions that ended are forgotten after a while, live ones never."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.sessions.models import Session as BrowserSession
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings

from accounts.maintenance import flush_admin_log, flush_credentials, flush_mails
from accounts.models import Session, User
from accounts.tests.sessions import log_in, me
from monitoring import jobs

pytestmark = pytest.mark.django_db


def start_session(user: User, *, expires_in_days: float, revoked_days_ago: float | None) -> Session:
    now = timezone.now()
    return Session.objects.create(
        user=user,
        refresh_digest=b"x" * 32,
        scope="read",
        epoch=0,
        expires_at=now + timedelta(days=expires_in_days),
        revoked_at=None if revoked_days_ago is None else now - timedelta(days=revoked_days_ago),
    )


def test_ended_sessions_are_kept_a_week_and_then_deleted(alice: User, frozen_time: object) -> None:
    kept = {
        start_session(alice, expires_in_days=1, revoked_days_ago=None).pk,
        start_session(alice, expires_in_days=-7, revoked_days_ago=None).pk,
        start_session(alice, expires_in_days=1, revoked_days_ago=7).pk,
    }
    start_session(alice, expires_in_days=-7.01, revoked_days_ago=None)
    start_session(alice, expires_in_days=1, revoked_days_ago=7.01)
    start_session(alice, expires_in_days=-30, revoked_days_ago=30)
    assert flush_credentials() == 3
    assert set(Session.objects.values_list("pk", flat=True)) == kept
    assert flush_credentials() == 0


def test_browser_sessions_are_deleted_when_they_are_over(db: None) -> None:
    now = timezone.now()
    BrowserSession.objects.create(session_key="over", expire_date=now - timedelta(seconds=1))
    BrowserSession.objects.create(session_key="live", expire_date=now + timedelta(hours=1))
    assert flush_credentials() == 1
    assert list(BrowserSession.objects.values_list("session_key", flat=True)) == ["live"]


def test_what_the_admin_site_noted_is_kept_for_over_a_year(
    staff: User, frozen_time: time_machine.Traveller
) -> None:
    def note() -> LogEntry:
        entry: LogEntry = LogEntry.objects.create(
            user=staff, action_flag=CHANGE, object_repr="alice", action_time=timezone.now()
        )
        return entry

    note()
    frozen_time.shift(timedelta(days=1))
    young = note()
    frozen_time.shift(timedelta(days=400))
    assert flush_admin_log() == 1
    assert list(LogEntry.objects.all()) == [young]


def test_what_a_killed_worker_left_in_the_outbox_is_deleted_too(settings: Settings) -> None:
    outbox = Path(settings.OUTBOX)
    outbox.mkdir(parents=True, exist_ok=True)
    paths = [outbox / name for name in (".mail-left", "old.eml", ".mail-now", "new.eml")]
    for path in paths:
        path.write_text("text")
    week_ago_s = (timezone.now() - timedelta(days=7, seconds=5)).timestamp()
    for path in paths[:2]:
        os.utime(path, (week_ago_s, week_ago_s))
    flush_mails()
    assert [path.exists() for path in paths] == [False, False, True, True]
    for path in paths[2:]:
        path.unlink()


def test_the_worker_knows_the_job(alice: User) -> None:
    (job,) = (job for job in jobs.all_jobs() if job.name == "flush_credentials")
    assert job.run is flush_credentials
    assert job.interval == timedelta(hours=1)


def test_housekeeping_logs_nobody_out(alice: User) -> None:
    token = log_in()["access_token"]
    start_session(alice, expires_in_days=-30, revoked_days_ago=None)
    call_command("housekeeping", "--now")
    assert me(token) == 200
    assert Session.objects.count() == 1
