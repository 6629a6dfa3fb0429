"""A PostgreSQL that is stopped: whoever asks it is told, and the connection is not used again. One
that is restarted: connections that it ended are replaced, and no answer under way notices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2
import psycopg
import psycopg_pool
import pytest

from sovereigncore import database
from sovereigncore.database import BoundedConnection, ServerSilent
from tests.launcher import wait_until
from tests.platform import Platform, running_platform
from tests.servers import PostgresServer
from tests.stub_engine import Behaviour, StubEngine

pytestmark = pytest.mark.xdist_group(__name__)

_TIMEOUT_S = 1.0
_AT_ONCE = 8
_ROOM = {"ENGINE_SLOTS": str(_AT_ONCE), "QUEUE_LIMIT": str(_AT_ONCE)}
_SOON_S = 10.0  # against 30 s, which is when the client of these tests gives up


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def pool(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg_pool.ConnectionPool[BoundedConnection]]:
    monkeypatch.setattr(database, "_timeout_s", database.COMMAND_TIMEOUT_S)
    with psycopg_pool.ConnectionPool(
        server.url,
        connection_class=BoundedConnection,
        kwargs={"connect_timeout": 2},
        min_size=1,
        timeout=5,
    ) as opened:
        opened.wait()
        database.limit_waits(_TIMEOUT_S)
        yield opened


def test_a_stopped_server_is_given_up_and_its_connection_replaced(
    server: PostgresServer, pool: psycopg_pool.ConnectionPool[BoundedConnection]
) -> None:
    connection = pool.getconn()
    server.pause()
    try:
        with pytest.raises(ServerSilent, match="timeout"):
            connection.execute("SELECT 1")
    finally:
        server.resume()
    assert connection.closed
    pool.putconn(connection)
    with pool.connection() as other:
        assert other is not connection
        assert other.execute("SELECT 2").fetchone() == (2,)


def test_a_statement_that_takes_too_long_is_given_up_and_an_error_keeps_the_connection(
    pool: psycopg_pool.ConnectionPool[BoundedConnection],
) -> None:
    with pool.connection() as connection:
        connection.execute("SET statement_timeout = 1")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(0.2)")
        assert not connection.closed
        connection.rollback()
        connection.execute("SET statement_timeout = 0")
        with pytest.raises(ServerSilent, match="timeout"):
            connection.execute("SELECT pg_sleep(60)")
        assert connection.closed


def test_the_web_process_answers_while_its_database_hangs(server: PostgresServer) -> None:
    with StubEngine() as stub, running_platform(stub, DATABASE_URL=server.url) as platform:
        token = platform.register_and_log_in("alice")
        with platform.client(token) as http:
            server.pause()
            try:
                began_s = time.monotonic()
                for path in ("/api/v1/auth/me", "/api/v1/consciousness/queries"):
                    reply = http.get(path)
                    assert reply.status_code == httpx2.codes.SERVICE_UNAVAILABLE
                    assert reply.json()["code"] == "database_unavailable"
                assert time.monotonic() - began_s < _SOON_S
                assert http.get("/live").status_code == httpx2.codes.OK
            finally:
                server.resume()
            while http.get("/api/v1/auth/me").status_code != httpx2.codes.OK:
                assert time.monotonic() - began_s < 2 * _SOON_S


def test_an_answer_waits_once_for_a_database_that_hangs_at_its_end(server: PostgresServer) -> None:
    with (
        StubEngine() as stub,
        running_platform(stub, DATABASE_URL=server.url) as platform,
        ThreadPoolExecutor(1) as caller,
    ):
        token = platform.register_and_log_in("bob")
        stub.behave(Behaviour.SLOW, token_delay_s=0.1)
        asked = {"prompt": "Count to 5", "use_memory": False}
        with platform.client(token) as http:
            asking = caller.submit(http.post, "/api/v1/consciousness/process", json=asked)
            wait_until(
                lambda: bool(stub.ledger and stub.ledger[-1].completion_tokens), _SOON_S, "a token"
            )
            server.pause()
            began_s = time.monotonic()
            try:
                reply = asking.result()
                waited_s = time.monotonic() - began_s
            finally:
                server.resume()
    assert reply.status_code == httpx2.codes.SERVICE_UNAVAILABLE, reply.text
    assert reply.json()["code"] == "database_unavailable"
    assert waited_s < 2 * database.WEB_TIMEOUT_S


def _ask(platform: Platform, token: str, *, prompt: str, stream: bool) -> None:
    asked = {"prompt": prompt, "stream": stream, "use_memory": False}
    with platform.client(token) as http:
        reply = http.post("/api/v1/consciousness/process", json=asked)
    assert reply.status_code == httpx2.codes.OK, reply.text
    assert "event: error" not in reply.text


def test_nobody_notices_a_restart_of_the_database(server: PostgresServer) -> None:
    with (
        StubEngine() as stub,
        running_platform(stub, DATABASE_URL=server.url, **_ROOM) as platform,
        ThreadPoolExecutor(_AT_ONCE) as callers,
    ):
        token = platform.register_and_log_in("alice")

        def ask_all(prompt: str) -> list[Future[None]]:
            return [
                callers.submit(_ask, platform, token, prompt=prompt, stream=bool(number % 2))
                for number in range(_AT_ONCE)
            ]

        for answered in ask_all("Count to 2"):  # and so the pool is full
            answered.result()
        stub.behave(Behaviour.SLOW, token_delay_s=0.2)
        under_way = ask_all("Count to 15")
        wait_until(lambda: len(stub.ledger) == 2 * _AT_ONCE, 2 * _SOON_S, "all asked")
        server.stop()
        server.start()
        with platform.client(token) as http:
            for _ in range(2 * _AT_ONCE):
                assert http.get("/api/v1/auth/me").status_code == httpx2.codes.OK
        for answered in under_way:
            answered.result()
