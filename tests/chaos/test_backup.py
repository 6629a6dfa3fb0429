"""A gigabyte, backed up while people write over HTTP, wiped and restored: by the clock."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.launcher import ROOT
from tests.platform import Platform, running_platform
from tests.servers import postgres_server
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.chaos

BYTES = int(1024**3 * float(os.environ.get("CHAOS_BACKUP_GIB", "1")))
WITHIN_S = 300.0
TIMEOUT_S = 1200
MEMORIES = "/api/v1/consciousness/memories"
KEY = "k7Qm2VxZp9LrTf4WcYb8NdHs3GjEa6Ru"
WRITERS = 4

# Texts of words, as long as answers are, that compress about as well.
_FILL = """
import random, sys
import django
django.setup()
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.utils import timezone
from consciousness.models import Query, QueryContent
draw = random.Random(7)
words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
texts = [" ".join(draw.choices(words, k=160)) for _ in range(4000)]
user, now, written = get_user_model().objects.first(), timezone.now(), 0
while written < int(sys.argv[1]):
    queries = [Query(user=user, status="completed", temperature=0.7, max_tokens=256,
                     created_at=now, finished_at=now, lease_expires_at=now) for _ in range(2000)]
    contents = [QueryContent(query=query, prompt=draw.choice(texts),
                             response=draw.choice(texts) + draw.choice(texts))
                for query in queries]
    Query.objects.bulk_create(queries)
    QueryContent.objects.bulk_create(contents)
    written += sum(len(each.prompt) + len(each.response) for each in contents)
print(Query.objects.count())
"""
_COUNT = """
import django
django.setup()
from consciousness.models import Memory, Query
print(Memory.objects.count(), Query.objects.count())
"""


def run(platform: Platform, *arguments: str) -> tuple[str, float]:
    """What the program printed, and how long it took."""
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=platform.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, time.monotonic() - began_s


class Writers:
    """People who note facts; `acknowledged` are those that they were told are kept."""

    def __init__(self, platform: Platform) -> None:
        self.acknowledged = 0
        self._platform, self._stop, self._lock = platform, threading.Event(), threading.Lock()
        self._tokens = [
            platform.register_and_log_in(f"writer{number}") for number in range(WRITERS)
        ]
        self._failures: list[str] = []

    def __enter__(self) -> Writers:
        self._threads = [
            threading.Thread(target=self._write, args=(token,)) for token in self._tokens
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert self._failures == []

    def _write(self, token: str) -> None:
        with self._platform.client(token) as http:
            while not self._stop.is_set():
                reply = http.post(MEMORIES, json={"text": f"a fact of {time.monotonic_ns()}"})
                if reply.status_code != httpx2.codes.CREATED:
                    self._failures.append(reply.text)
                    return
                with self._lock:
                    self.acknowledged += 1
                self._stop.wait(0.05)


@contextlib.contextmanager
def database(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if kind == "sqlite":
        monkeypatch.delenv("DATABASE_URL", raising=False)
        yield
        return
    with postgres_server() as url:
        monkeypatch.setenv("DATABASE_URL", url)
        yield


def wipe(platform: Platform) -> None:
    url = platform.environment["DATABASE_URL"]
    if url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return
    for path in Path(platform.environment["DATA_DIR"]).glob("db.sqlite3*"):
        path.unlink()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_gigabyte_in_five_minutes_while_people_write(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "BACKUP_DIR": "backups",
        "BACKUP_KEY": KEY,
        "RATE_LIMIT_DEFAULT": "100000/m",
        "MEMORY_LIMIT": "100000",
    }
    with (
        database(kind, monkeypatch),
        StubEngine() as engine,
        running_platform(engine, **settings) as platform,
    ):
        platform.register("first")
        run(platform, "-c", _FILL, str(BYTES))
        with Writers(platform) as writers:
            while writers.acknowledged < WRITERS:
                time.sleep(0.01)
            before = writers.acknowledged
            _, backup_s = run(platform, "manage.py", "backup")
            after = writers.acknowledged
        _, verify_s = run(platform, "manage.py", "verify_backup", "--newest")
        platform.stop()
        (path,) = (Path(platform.environment["DATA_DIR"]) / "backups").iterdir()
        _, queries = run(platform, "-c", _COUNT)[0].split()
        wipe(platform)
        _, restore_s = run(platform, "manage.py", "restore", str(path), "--yes")
        memories, restored_queries = run(platform, "-c", _COUNT)[0].split()
        size_mib = path.stat().st_size / 1024**2
        print(
            f"\n{kind}: {BYTES / 1024**3:.1f} GiB of text, {queries} queries;"
            f" backup {backup_s:.0f} s ({size_mib:.0f} MiB), verify {verify_s:.0f} s,"
            f" restore {restore_s:.0f} s;"
            f" {after - before} facts noted meanwhile"
        )
        assert restored_queries == queries
        assert before <= int(memories) <= after
        assert after > before
        assert backup_s < WITHIN_S
        assert restore_s < WITHIN_S
