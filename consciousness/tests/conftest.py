"""Fixtures of the consciousness tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis
from pytest_django import Settings

from consciousness import engine_generation
from tests.servers import RedisServer


@pytest.fixture
def impatient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines so short that a test can wait for them to pass."""
    settings.ENGINE_CONNECT_TIMEOUT_S = 0.3
    settings.ENGINE_FIRST_TOKEN_TIMEOUT_S = 0.3
    settings.ENGINE_SILENCE_TIMEOUT_S = 0.3
    settings.ENGINE_TOTAL_TIMEOUT_S = 1.0
    monkeypatch.setattr(engine_generation, "_IDLE_S", 0.02)


@pytest.fixture(scope="session")
def _session_valkey() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def valkey(_session_valkey: RedisServer) -> RedisServer:
    """A Redis of the tests' own, empty, in both rounds of the suite."""
    with redis.Redis.from_url(_session_valkey.url) as client:
        client.flushall()
    return _session_valkey


@pytest.fixture
def use_redis(settings: Settings) -> Callable[[str], None]:
    """Work with the Redis at that URL, as settings would configure it, or with none."""

    def configure(url: str) -> None:
        settings.REDIS_URL = url
        settings.CACHES = {
            **settings.CACHES,
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": url,
                "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 0.3, "SOCKET_TIMEOUT": 0.3},
            },
        }

    return configure
