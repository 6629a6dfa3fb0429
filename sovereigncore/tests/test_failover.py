"""Redis goes away and comes back: limits hold in the process meanwhile, and nobody sees a 500."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django_redis.cache import RedisCache
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from sovereigncore.ratelimit import FailoverRedisCache
from tests.log_capture import LogCapture
from tests.server_process import find_free_port
from tests.servers import RedisServer

ME = "/api/v1/auth/me"
TOKEN = "/api/v1/auth/token"

pytestmark = pytest.mark.usefixtures("frozen_time")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _not_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailoverRedisCache, "_paused_until", 0.0)


@pytest.fixture
def use_redis(settings: Settings) -> Callable[[str], None]:
    """Counts in the Redis at that URL, as settings would configure it."""

    def configure(url: str) -> None:
        settings.CACHES = {
            **settings.CACHES,
            "ratelimit": {
                "BACKEND": "sovereigncore.ratelimit.FailoverRedisCache",
                "LOCATION": url,
                "KEY_PREFIX": "sovereigncore:ratelimit",
                "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1.0, "SOCKET_TIMEOUT": 1.0},
            },
        }

    return configure


def end_of_pause() -> None:
    FailoverRedisCache._paused_until = 0.0


def keys_in(server: RedisServer) -> int:
    with redis.Redis.from_url(server.admin_url) as client:
        return len(list(client.scan_iter("sovereigncore:ratelimit:*")))


def refused_logins(count: int) -> list[int]:
    client = APIClient()
    form = {"username": "alice", "password": "wrong"}
    return [client.post(TOKEN, form).status_code for _ in range(count)]


def test_counts_live_in_redis(
    server: RedisServer, use_redis: Callable[[str], None], alice: User
) -> None:
    use_redis(server.url)
    server.empty()
    assert refused_logins(6) == [401] * 5 + [429]
    # The default limit, logins, refused credentials, the account's own, its failures and delay.
    assert keys_in(server) == 6
    caches["ratelimit_local"].clear()
    assert refused_logins(1) == [429]


def test_limits_hold_without_redis(
    use_redis: Callable[[str], None], alice: User, logs: LogCapture
) -> None:
    use_redis(f"redis://127.0.0.1:{find_free_port()}/0")
    assert refused_logins(6) == [401] * 5 + [429]
    assert logs.events("unhandled_error") == []
    (warning,) = logs.events("redis_unavailable")
    assert warning["cache"] == "ratelimit"


def test_redis_goes_away_and_comes_back_by_itself(
    use_redis: Callable[[str], None], as_alice: APIClient
) -> None:
    with RedisServer() as server:
        use_redis(server.url)
        assert as_alice.get(ME)["x-ratelimit-remaining-requests"] == "99"
        server.kill()
        assert as_alice.get(ME)["x-ratelimit-remaining-requests"] == "99"  # a count of its own
        assert as_alice.get(ME)["x-ratelimit-remaining-requests"] == "98"
        server.start()
        assert as_alice.get(ME)["x-ratelimit-remaining-requests"] == "97"  # still left alone
        end_of_pause()
        assert as_alice.get(ME)["x-ratelimit-remaining-requests"] == "99"
        assert as_alice.get(ME)["x-ratelimit-remaining-requests"] == "98"
        assert keys_in(server) == 1


def test_a_hung_redis_costs_one_timeout_and_not_one_a_request(
    server: RedisServer,
    use_redis: Callable[[str], None],
    as_alice: APIClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    add = RedisCache.add

    def counting_add(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(args[0])
        return add(self, *args, **kwargs)

    monkeypatch.setattr(RedisCache, "add", counting_add)
    use_redis(server.url)
    server.pause()
    try:
        assert [as_alice.get(ME).status_code for _ in range(5)] == [200] * 5
    finally:
        server.resume()
    assert len(asked) == 1


def test_redis_comes_back_between_the_two_steps_of_a_count(
    server: RedisServer, use_redis: Callable[[str], None]
) -> None:
    use_redis(server.url)
    cache = caches["ratelimit"]
    FailoverRedisCache._paused_until = float("inf")
    assert cache.add("key", 1, 60) is True
    end_of_pause()
    assert cache.incr("key") == 1
    assert cache.incr("key") == 2
    assert cache.get("key") == 2


def test_redis_goes_between_the_two_steps_of_a_count(use_redis: Callable[[str], None]) -> None:
    with RedisServer() as server:
        use_redis(server.url)
        cache = caches["ratelimit"]
        assert cache.add("key", 1, 60) is True
        server.kill()
        assert cache.incr("key") == 1
        assert cache.incr("key") == 2


def test_a_redis_that_refuses_us_is_as_good_as_none(
    server: RedisServer, use_redis: Callable[[str], None], alice: User
) -> None:
    """A full or read-only Redis answers with errors."""
    use_redis(server.url)
    with redis.Redis.from_url(server.admin_url) as client:
        client.config_set("maxmemory", "1")
        try:
            assert refused_logins(6) == [401] * 5 + [429]
        finally:
            client.config_set("maxmemory", "0")
