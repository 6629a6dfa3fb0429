"""PostgreSQL, Redis and the engine killed and stopped in turn: only what needs them fails, at once,
and all is back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import psycopg
import pytest

from tests.chaos.callers import Asking, Told
from tests.chaos.grown import BACK_WITHIN_S, PROCESS, QUERIES, STATUS, Grown, grown, within
from tests.server_process import ServerProcess

pytestmark = pytest.mark.chaos

_AT_ONCE = 6
_FAILS_WITHIN_S = 2.0
_MACHINE_S = 3.0  # what a busy machine adds; without these timeouts it would be half a minute
_QUESTION = {"prompt": "Count to 5", "use_memory": False}
_ENGINE_S = 2.0  # an engine may be slow; that it hangs is known when its timeout is over
_LEFT_ALONE_S = 30.0  # each process needs three failures of its own, each of which is a timeout
_POOL = 16  # connections of one web process


@pytest.fixture(scope="module")
def parts() -> Iterator[Grown]:
    limits = {
        "ENGINE_FIRST_TOKEN_TIMEOUT_S": str(_ENGINE_S),
        "ENGINE_SILENCE_TIMEOUT_S": str(_ENGINE_S),
    }
    with grown(["alice"], token_delay_s=0.01, ENGINE_SLOTS="8", WEB_THREADS="120", **limits) as up:
        assert {told.status for told in ask(up, PROCESS, "/v1/models")} == {200}
        yield up


def ask(parts: Grown, *paths: str) -> list[Told]:
    """Each path several times at once, each on a connection of its own."""

    def one(path: str) -> Told:
        asking = Asking(parts.platform.port, parts.keys["alice"], path)
        try:
            return asking.ask(path, _QUESTION if path == PROCESS else None)
        finally:
            asking.close()

    with ThreadPoolExecutor(_AT_ONCE * len(paths)) as pool:
        return list(pool.map(one, paths * _AT_ONCE))


@contextmanager
def gone(server: ServerProcess, how: str) -> Iterator[None]:
    """Killed or stopped meanwhile; there again afterwards."""
    server.kill() if how == "kill" else server.pause()
    try:
        yield
    finally:
        server.start() if how == "kill" else server.resume()


def check_back(parts: Grown) -> None:
    """All of it answers again, and nothing is held that nobody uses."""
    paths = (PROCESS, QUERIES, "/ready", "/v1/models")

    def is_back() -> bool:
        return {told.status for told in ask(parts, *paths)} == {200}

    took_s = within(BACK_WITHIN_S, is_back, "everything back")
    print(f"  back after {took_s:.1f} s")

    def is_idle() -> bool:
        with parts.client("alice") as http:
            queue = http.get(STATUS).json()["queue"]
        return (queue["busy"], queue["waiting"]) == (0, 0)

    within(BACK_WITHIN_S, is_idle, "no slot held")


def check(told: list[Told], status: int, *codes: str, within_s: float) -> None:
    for each in told:
        assert (each.status, each.code) in [(status, code) for code in codes], each
    slowest_s = max(each.took_s for each in told)
    print(f"  {told[0].caller}: {status}, slowest {slowest_s:.2f} s")
    assert slowest_s < within_s + _MACHINE_S


def of(told: list[Told], *paths: str) -> list[Told]:
    return [each for each in told if each.caller in paths]


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_without_its_database_it_says_so(parts: Grown, how: str) -> None:
    print(f"\nPostgreSQL, {how}")
    with gone(parts.database, how):
        for _ in range(2):  # while connections break, and when there are none
            told = ask(parts, "/live", "/ready", QUERIES, PROCESS, "/v1/models")
            check(of(told, "/live"), 200, "", within_s=0)
            check(of(told, "/ready"), 503, "", within_s=_FAILS_WITHIN_S)
            for path in (QUERIES, PROCESS):
                check(of(told, path), 503, "database_unavailable", within_s=_FAILS_WITHIN_S)
            check(of(told, "/v1/models"), 503, "", within_s=_FAILS_WITHIN_S)
    check_back(parts)


def test_a_long_outage_of_the_database_is_over_as_soon_as_a_short_one(parts: Grown) -> None:
    print("\nPostgreSQL, away for 20 s")
    parts.database.kill()
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        check(ask(parts, QUERIES), 503, "database_unavailable", within_s=_FAILS_WITHIN_S)
    parts.database.start()
    check_back(parts)


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_without_redis_all_goes_on(parts: Grown, how: str) -> None:
    print(f"\nRedis, {how}")
    with gone(parts.redis, how):
        for _ in range(2):
            told = ask(parts, "/live", "/ready", QUERIES, PROCESS, "/v1/models")
            for path in ("/live", "/ready", QUERIES, PROCESS, "/v1/models"):
                check(of(told, path), 200, "", within_s=_FAILS_WITHIN_S)
    check_back(parts)


def test_without_an_engine_only_answers_are_missing(parts: Grown) -> None:
    print("\nengine, kill")
    with gone(parts.engine, "kill"):
        told = ask(parts, "/live", "/ready", QUERIES, STATUS, PROCESS)
        for path in ("/live", QUERIES, STATUS):
            check(of(told, path), 200, "", within_s=_FAILS_WITHIN_S)
        check(of(told, "/ready"), 503, "", within_s=_FAILS_WITHIN_S)
        check(of(told, PROCESS), 503, "engine_unavailable", within_s=_FAILS_WITHIN_S)
    check_back(parts)


def test_an_engine_that_hangs_is_late_and_then_left_alone(parts: Grown) -> None:
    print("\nengine, pause")
    with gone(parts.engine, "pause"):
        told = ask(parts, "/live", QUERIES, PROCESS)
        for path in ("/live", QUERIES):
            check(of(told, path), 200, "", within_s=_FAILS_WITHIN_S)
        check(of(told, PROCESS), 504, "engine_timeout", within_s=_ENGINE_S + _FAILS_WITHIN_S)
        check(ask(parts, "/ready"), 503, "", within_s=_FAILS_WITHIN_S)

        def is_left_alone() -> bool:
            return {each.code for each in ask(parts, PROCESS)} == {"engine_unavailable"}

        took_s = within(_LEFT_ALONE_S, is_left_alone, "the engine left alone")
        print(f"  left alone after {took_s:.1f} s more")
        told = ask(parts, PROCESS)
        check(told, 503, "engine_unavailable", within_s=_FAILS_WITHIN_S)
    check_back(parts)


def test_nothing_is_left_behind(parts: Grown) -> None:
    """After all of the above, in this order of the file."""
    with psycopg.connect(parts.database.superuser_url) as connection:
        row = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE state <> 'idle')"
            " FROM pg_stat_activity WHERE application_name LIKE 'sovereigncore%'"
        ).fetchone()
    assert row is not None
    with parts.platform.client() as http:
        metrics = http.get("/metrics").text.splitlines()
    name = "sovereigncore_http_requests_in_progress "
    in_progress = [float(line.removeprefix(name)) for line in metrics if line.startswith(name)]
    workers = psutil.Process(parts.platform.pid).children()
    print(f"\n{row[0]} connections, {row[1]} of them busy; {in_progress} requests in progress")
    assert in_progress == [1]  # this very one: no thread is stuck
    assert len(workers) == 2
    assert row[0] <= _POOL * len(workers)
    assert row[1] == 0
