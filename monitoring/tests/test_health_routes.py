"""`/live`, `/ready` and `/health`, as probes of an orchestrator meet them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as project_settings
from django.db import OperationalError
from django.utils.dateparse import parse_datetime
from pytest_django import DjangoAssertNumQueries, Settings
from rest_framework.test import APIClient

from monitoring import health
from tests.stub_engine import Behaviour, StubEngine

PROMISED_S = 2.0
ALL = {"database", "engine"} | ({"cache"} if project_settings.REDIS_URL else set())


@pytest.fixture
def no_engine(settings: Settings) -> Iterator[None]:
    """An address where nothing listens, kept from others while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        settings.ENGINE_URL = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield


def fail(error: Exception) -> Any:
    def probe() -> None:
        raise error

    return probe


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(health.registry._probes, "database", fail(OperationalError("at 10.0.0.3")))


def statuses(body: dict[str, Any]) -> dict[str, str]:
    return {name: component["status"] for name, component in body["components"].items()}


def test_live_touches_nothing(anonymous: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the database, which a test without the `db` fixture may not touch."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(health.registry, "ask", lambda *names, **_: asked.append(names))
    response = anonymous.get("/live")
    assert response.status_code == 200
    assert response.json() == {"status": "alive"}
    assert asked == []


def test_live_with_everything_away(
    anonymous: APIClient,
    no_engine: None,
    no_database: None,
    django_assert_num_queries: DjangoAssertNumQueries,
    db: None,
) -> None:
    with django_assert_num_queries(0):
        assert anonymous.get("/live").status_code == 200


def test_ready_with_database_and_engine(anonymous: APIClient, stub: StubEngine, db: None) -> None:
    response = anonymous.get("/ready")
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "ready"
    assert statuses(body) == {"database": "up", "engine": "up"}
    assert all(component["latency_ms"] >= 0 for component in body["components"].values())
    assert stub.ledger == []  # being asked is no generation


def test_not_ready_without_an_engine(anonymous: APIClient, no_engine: None, db: None) -> None:
    response = anonymous.get("/ready")
    assert response.status_code == 503
    assert response["Retry-After"] == "2"
    assert response.json()["status"] == "not ready"
    assert statuses(response.json()) == {"database": "up", "engine": "down"}


def test_not_ready_without_the_database(
    anonymous: APIClient, stub: StubEngine, no_database: None
) -> None:
    response = anonymous.get("/ready")
    assert response.status_code == 503
    assert statuses(response.json()) == {"database": "down", "engine": "up"}
    assert b"10.0.0.3" not in response.content


def test_healthy(anonymous: APIClient, stub: StubEngine, db: None) -> None:
    response = anonymous.get("/health")
    assert response.status_code == 200
    body = response.json()
    assert set(body) == {"status", "version", "timestamp", "components"}
    assert body["status"] == "healthy"
    assert body["version"] == project_settings.VERSION
    assert statuses(body) == dict.fromkeys(ALL, "up")
    timestamp = parse_datetime(body["timestamp"])
    assert timestamp is not None
    assert str(timestamp.tzinfo) == "UTC"


def test_degraded_without_an_engine(anonymous: APIClient, no_engine: None, db: None) -> None:
    response = anonymous.get("/health")
    assert response.status_code == 200
    assert response.json()["status"] == "degraded"
    assert statuses(response.json()) == dict.fromkeys(ALL, "up") | {"engine": "down"}


def test_unhealthy_without_the_database(
    anonymous: APIClient, stub: StubEngine, no_database: None
) -> None:
    response = anonymous.get("/health")
    assert response.status_code == 503
    assert response["Retry-After"] == "2"
    assert response.json()["status"] == "unhealthy"
    assert statuses(response.json()) == dict.fromkeys(ALL, "up") | {"database": "down"}


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour.LOADING_503,
        Behaviour.UNAUTHORIZED_401,
        Behaviour.HTML,
        Behaviour.HALF_JSON,
        Behaviour.HUGE_LINE,
        Behaviour.ERROR_500_WITH_SECRET,
    ],
)
def test_an_engine_that_answers_nonsense_is_down(
    anonymous: APIClient, stub: StubEngine, db: None, behaviour: Behaviour
) -> None:
    stub.behave_probes(behaviour)
    response = anonymous.get("/ready")
    assert response.status_code == 503
    assert statuses(response.json()) == {"database": "up", "engine": "down"}
    assert b"canary" not in response.content


@pytest.mark.parametrize(
    ("path", "behaviour"),
    [
        ("/ready", Behaviour.HANG_BEFORE_HEADERS),
        ("/health", Behaviour.HANG_BEFORE_FIRST_TOKEN),
    ],
)
def test_a_hung_engine_does_not_hang_the_probe(
    anonymous: APIClient, stub: StubEngine, db: None, path: str, behaviour: Behaviour
) -> None:
    stub.behave_probes(behaviour)
    started_s = time.monotonic()
    body = anonymous.get(path).json()
    assert time.monotonic() - started_s < PROMISED_S
    assert statuses(body)["database"] == "up"
    assert statuses(body)["engine"] == "down"


@pytest.mark.parametrize(("path", "expected"), [("/ready", "not ready"), ("/health", "unhealthy")])
def test_a_hung_database_does_not_hang_the_probe(
    anonymous: APIClient,
    stub: StubEngine,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    expected: str,
) -> None:
    released = threading.Event()
    monkeypatch.setitem(health.registry._probes, "database", lambda: released.wait(10) and None)
    try:
        started_s = time.monotonic()
        response = anonymous.get(path)
        assert time.monotonic() - started_s < PROMISED_S
    finally:
        released.set()
        health.registry.ask("database")  # the hung one ends; the next test gets one of its own
    assert response.status_code == 503
    assert response.json()["status"] == expected
    assert statuses(response.json())["database"] == "timeout"


def test_an_engine_that_comes_back_is_up_at_once(
    anonymous: APIClient, stub: StubEngine, db: None
) -> None:
    stub.stop()
    assert anonymous.get("/ready").status_code == 503
    stub.start()
    assert anonymous.get("/ready").status_code == 200


@pytest.mark.parametrize("path", ["/live", "/ready", "/health"])
def test_slash_and_head(anonymous: APIClient, stub: StubEngine, db: None, path: str) -> None:
    assert anonymous.get(f"{path}/").status_code == 200
    head = anonymous.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert anonymous.post(path).status_code == 405


@pytest.mark.parametrize("path", ["/ready", "/health"])
def test_answers_are_not_kept(anonymous: APIClient, stub: StubEngine, db: None, path: str) -> None:
    assert anonymous.get(path)["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/live", "/ready", "/health"])
def test_a_stale_credential_is_nobodys_business(
    anonymous: APIClient, stub: StubEngine, db: None, path: str
) -> None:
    assert anonymous.get(path, headers={"Authorization": "Bearer stale"}).status_code == 200


def test_a_scrape_asks_every_component(
    anonymous: APIClient, stub: StubEngine, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its gauge would tell what somebody saw who asked long ago."""
    up = 'sovereigncore_component_up{component="database"} %s'
    with monkeypatch.context() as patch:
        patch.setitem(health.registry._probes, "database", fail(OperationalError("away")))
        assert up % 0.0 in anonymous.get("/metrics").content.decode()
    assert up % 1.0 in anonymous.get("/metrics").content.decode()
