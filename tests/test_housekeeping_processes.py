"""Periodic jobs as processes: two at once do nothing twice, a killed one is made good by the next.

The leases that keep workers apart are left out here: a job must be right without them, for a lease
runs out under a worker that hangs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import environment
from tests.migrated import ROOT, own_database

ROWS = 40
_TIMEOUT_S = 120.0

PRELUDE = """
import json, os, signal, sys, time, uuid
from datetime import timedelta
import django
django.setup()
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session as BrowserSession
from django.db.models.sql.subqueries import DeleteQuery, UpdateQuery
from django.utils import timezone
from accounts.models import APIKey, Kind, Link, Mail, Purpose, Registration, Session, User
from consciousness import cache, maintenance
from consciousness.models import Conversation, IdempotentRequest, Query, QueryContent, UsageDay
from consciousness.models import conversation, query
from monitoring import batches, jobs
batches.SIZE = conversation._BATCH = query._BATCH = cache._BATCH = maintenance._BATCH = 7
TABLES = (APIKey, BrowserSession, Conversation, IdempotentRequest, Link, LogEntry, Mail, Query,
          QueryContent, Registration, Session, UsageDay)
"""
FILL = """
ROWS, long_ago, now = int(sys.argv[1]), timezone.now() - timedelta(days=1000), timezone.now()
alice = User.objects.create_user("alice", "alice@example.org", "Correct-Horse-7-Battery")
for number in range(ROWS):
    key = uuid.uuid4().hex
    talk = Conversation.objects.create(user=alice, title="t", updated_at=long_ago)
    old = dict(user=alice, temperature=0, max_tokens=10, created_at=long_ago,
               lease_expires_at=long_ago)
    done = Query.objects.create(status="completed", finished_at=long_ago, conversation=talk, **old)
    QueryContent.objects.create(query=done, prompt="text")
    Query.objects.create(status="completed", finished_at=now, user=alice, temperature=0,
                         max_tokens=10, lease_expires_at=now, request_digest=bytes(32),
                         created_at=now - timedelta(days=2))
    UsageDay.objects.create(user=alice, day=(long_ago - timedelta(days=number)).date())
    IdempotentRequest.objects.create(user=alice, key=key, digest=b"d", status=200, query=done,
                                     created_at=long_ago, lease_expires_at=long_ago)
    Session.objects.create(user=alice, refresh_digest=b"d", scope="read", epoch=0,
                           expires_at=long_ago)
    APIKey.objects.create(user=alice, name=key, digest=key.encode(), hint="sk-", scope="read",
                          expires_at=long_ago)
    wish = Registration.objects.create(username=key, email=key, email_canonical=key,
                                       password="p", created_at=long_ago)
    link = Link(purpose=Purpose.VERIFY_ADDRESS, registration=wish, digest=key.encode(),
                created_at=long_ago, expires_at=long_ago)
    link.save()
    Mail.objects.create(kind=Kind.VERIFY_ADDRESS, address=key, link=link, sent_at=long_ago)
    BrowserSession.objects.create(session_key=key, expire_date=long_ago)
    LogEntry.objects.create(user=alice, action_flag=2, object_repr=key)
LogEntry.objects.update(action_time=long_ago)
today = UsageDay.objects.create(user=alice, day=now.date(), reserved_tokens=20 * ROWS)
for number in range(ROWS):
    Query.objects.create(status="running", user=alice, temperature=0, max_tokens=10,
                         reserved_tokens=20, created_at=now,
                         lease_expires_at=now - timedelta(hours=1))
"""
RUN = """
names = sys.argv[1].split(",")
Path = __import__("pathlib").Path
Path(sys.argv[2]).touch()
while not Path(sys.argv[3]).exists():
    time.sleep(0.01)
told = {job.name: job.run() for job in jobs.all_jobs() if job.name in names}
print(json.dumps(told))
"""
# The process ends itself inside a transaction: after some of a batch's statements, not all.
KILLED = """
left = [int(sys.argv[4])]
def counted(original):
    def call(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    return call
DeleteQuery.delete_batch = counted(DeleteQuery.delete_batch)
UpdateQuery.update_batch = counted(UpdateQuery.update_batch)
from django.db.models.query import QuerySet
QuerySet.update = counted(QuerySet.update)
QuerySet._raw_delete = counted(QuerySet._raw_delete)
"""
LEFT = """
print(json.dumps({
    "rows": {model._meta.db_table: model._default_manager.count() for model in TABLES},
    "orphaned": Query.objects.filter(error_code="orphaned", is_estimated=True).count(),
    "digests": Query.objects.filter(request_digest__isnull=False).count(),
    "today": list(UsageDay.objects.filter(day=timezone.now().date()).values_list(
        "prompt_tokens", "completion_tokens", "reserved_tokens", "requests")),
}))
"""
JOBS = (
    *("delete_old_queries", "delete_old_usage", "flush_admin_log", "flush_credentials"),
    *("flush_mails", "forget_idempotent_requests", "forget_old_answers", "settle_orphans"),
)
# The queries that remain are those of two days ago and the orphans.
END = {
    "rows": {
        **dict.fromkeys((f"accounts_{name}" for name in ("apikey", "link", "mail")), 0),
        **dict.fromkeys((f"accounts_{name}" for name in ("registration", "session")), 0),
        **dict.fromkeys(("django_admin_log", "django_session"), 0),
        "consciousness_conversation": 0,
        "consciousness_idempotentrequest": 0,
        "consciousness_query": 2 * ROWS,
        "consciousness_querycontent": 0,
        "consciousness_usageday": 1,
    },
    "orphaned": ROWS,
    "digests": 0,
    "today": [[10 * ROWS, 10 * ROWS, 0, ROWS]],
}
# What the jobs of one process would say if it were alone; some count what cascades.
DEALT_WITH = {
    "delete_old_queries": 2 * ROWS,
    "delete_old_usage": ROWS,
    "flush_admin_log": ROWS,
    "flush_credentials": 3 * ROWS,
    "flush_mails": 3 * ROWS,
    "forget_idempotent_requests": 0,
    "forget_old_answers": ROWS,
    "settle_orphans": ROWS,
}


class Scene:
    """A filled database of its own, and processes on it."""

    def __init__(self, folder: Path, database: dict[str, str]) -> None:
        self._folder = folder
        self._waiting: list[Path] = []
        self._variables = {
            **os.environ,
            **environment.test_environment(str(folder)),
            **database,
            "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
        }
        self.finish(self.begin(FILL, str(ROWS)))

    def begin(self, *program: str) -> subprocess.Popen[str]:
        code, *arguments = program
        return subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, *arguments],
            cwd=ROOT,
            env=self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> str:
        out, err = process.communicate(timeout=_TIMEOUT_S)
        assert process.returncode == 0, err
        return out

    def run(self, code: str = RUN, *more: str) -> subprocess.Popen[str]:
        """The jobs in a process, which waits for `go`."""
        here = self._folder / f"here-{len(self._waiting)}"
        self._waiting.append(here)
        return self.begin(code, ",".join(JOBS), str(here), str(self._folder / "go"), *more)

    def go(self) -> None:
        """Once all are there that were begun."""
        until_s = time.monotonic() + _TIMEOUT_S
        while not all(here.exists() for here in self._waiting):
            assert time.monotonic() < until_s
            time.sleep(0.01)
        (self._folder / "go").touch()

    def left(self) -> object:
        return json.loads(self.finish(self.begin(LEFT)))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with own_database(str(tmp_path)) as database:
        yield Scene(tmp_path, database)


def test_two_at_once_do_nothing_twice_and_leave_nothing(scene: Scene) -> None:
    both = [scene.run(), scene.run()]
    scene.go()
    told = [json.loads(scene.finish(process)) for process in both]
    assert {name: sum(each[name] for each in told) for name in JOBS} == DEALT_WITH
    assert scene.left() == END


def test_one_killed_in_the_middle_is_made_good_by_the_next(scene: Scene) -> None:
    scene.go()
    for statements in (5, 12, 23):
        process = scene.run(KILLED + RUN, str(statements))
        process.communicate(timeout=_TIMEOUT_S)
        assert process.returncode == -signal.SIGKILL
    scene.finish(scene.run())
    assert scene.left() == END
    told = json.loads(scene.finish(scene.run()))
    assert told == dict.fromkeys(JOBS, 0)
