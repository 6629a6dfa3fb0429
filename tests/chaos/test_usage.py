"""The storm of tests/test_usage_ledger.py, ten times as long, on PostgreSQL and Redis."""

from __future__ import annotations

import os

import pytest

from tests.servers import postgres_server, redis_server
from tests.storm import weather

pytestmark = pytest.mark.chaos

REQUESTS = 100_000 * int(os.environ.get("CHAOS_ROUNDS", "1"))


def test_usage_is_exact_after_a_hundred_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as database, redis_server() as redis:
        monkeypatch.setenv("DATABASE_URL", database)
        monkeypatch.setenv("REDIS_URL", redis)
        storm = weather(requests=REQUESTS, kills=50)
    print(dict(storm.outcomes))
