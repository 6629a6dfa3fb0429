"""Fixtures of the consciousness tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import httpx2
import pytest
from pytest_django import Settings

from consciousness import engine_generation
from consciousness.tests.running_engine import (
    STOP_TIMEOUT_S,
    RunningEngine,
    engine_environment,
    start,
)
from consciousness.tests.several import Several
from tests.servers import RedisServer
from tests.stub_engine import StubEngine


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has left and which deadline has passed is noticed soon."""
    monkeypatch.setattr(engine_generation, "_IDLE_S", 0.02)


@pytest.fixture
def impatient(settings: Settings, looks_often: None) -> None:
    """Deadlines so short that a test can wait for them to pass."""
    settings.ENGINE_CONNECT_TIMEOUT_S = 1.0
    settings.ENGINE_FIRST_TOKEN_TIMEOUT_S = 1.0
    settings.ENGINE_SILENCE_TIMEOUT_S = 1.0
    settings.ENGINE_TOTAL_TIMEOUT_S = 2.0


@pytest.fixture
def second() -> Iterator[StubEngine]:
    """Another engine, that serves the same model."""
    with StubEngine() as engine:
        yield engine


@pytest.fixture
def several(db: None) -> Several:
    """To add engines beside the default one."""
    return Several()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    folder = tmp_path_factory.mktemp("engine")
    env = engine_environment(folder)
    process = start(env, folder / "engine.log")
    port = int(env["ENGINE_PORT"])
    try:
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {env['ENGINE_API_KEY']}"},
            timeout=120,
            trust_env=False,
            # llama.cpp ends a connection that was quiet for five seconds, also under a request.
            limits=httpx2.Limits(max_keepalive_connections=0),
        ) as http:
            log_path = folder / "engine.log"
            said = log_path.read_text(errors="replace")
            yield RunningEngine(pid=process.pid, port=port, http=http, said=said, log_path=log_path)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_TIMEOUT_S)
    assert code == 0
    assert not (folder / "engine.pid").exists()


@pytest.fixture(scope="session")
def _session_valkey() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def valkey(_session_valkey: RedisServer) -> RedisServer:
    """A Redis of the tests' own, empty, in both rounds of the suite."""
    _session_valkey.empty()
    return _session_valkey


@pytest.fixture
def use_redis(settings: Settings) -> Callable[..., None]:
    """Work with the Redis at that URL, as settings would configure it but for how long it is waited
    for: the processes of a busy machine stand still now and then, and that is no failure."""

    def configure(url: str, *, timeout_s: float = 10.0) -> None:
        settings.REDIS_URL = url
        settings.CACHES = {
            **settings.CACHES,
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": url,
                "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": timeout_s, "SOCKET_TIMEOUT": timeout_s},
            },
        }

    return configure
