"""The storm of tests/test_usage_ledger.py, longer, on PostgreSQL and Redis.

`make chaos-short`, and so CI, has the one of ten thousand; `make chaos` the other one too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers import postgres_server, redis_server
from tests.storm import weather

pytestmark = pytest.mark.chaos

HUNDRED_THOUSANDS = int(os.environ.get("CHAOS_ROUNDS", "1"))


@pytest.fixture
def _servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with postgres_server() as database, redis_server() as redis:
        monkeypatch.setenv("DATABASE_URL", database)
        monkeypatch.setenv("REDIS_URL", redis)
        yield


@pytest.mark.usefixtures("_servers")
def test_usage_is_exact_after_ten_thousand() -> None:
    storm = weather(requests=10_000, kills=20)
    print(dict(storm.outcomes))


@pytest.mark.usefixtures("_servers")
def test_usage_is_exact_after_a_hundred_thousand() -> None:
    storm = weather(requests=100_000 * HUNDRED_THOUSANDS, kills=50)
    print(dict(storm.outcomes))
