"""Redis goes, hangs, forgets and comes back: each process has its own line meanwhile, nobody waits
for Redis, and nothing is lost or leaked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from pytest_django import Settings

from consciousness.admission import Admission, QueueTimeout, Terms, gate, shared
from consciousness.admission.shared import SharedLine
from consciousness.tests.admitting import (
    ENGINE,
    TIMEOUT_S,
    counts,
    ended,
    holding,
    queued,
    stays,
    wait_until,
)
from tests.log_capture import LogCapture
from tests.metrics import value_of
from tests.server_process import find_free_port
from tests.servers import RedisServer

pytestmark = pytest.mark.once

LINE = "sovereigncore:admission:{line}:"
HOUR_US = 3_600_000_000


@pytest.fixture(autouse=True)
def _small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.QUEUE_LIMIT, settings.QUEUE_TIMEOUT_S = 8, TIMEOUT_S
    monkeypatch.setattr(gate, "_LOOK_UP_S", 0.01)


@pytest.fixture
def server(use_redis: Callable[..., None]) -> Iterator[RedisServer]:
    """One that the test may kill or stop for a while."""
    with RedisServer() as running:
        use_redis(running.url, timeout_s=1.0)
        yield running


@pytest.fixture
def admission() -> Admission:
    return Admission()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that went to Redis."""
    operations: list[str] = []
    call = SharedLine._call

    def noting(self: SharedLine, operation: str, *args: Any) -> Any:
        operations.append(operation)
        return call(self, operation, *args)

    monkeypatch.setattr(SharedLine, "_call", noting)
    return operations


def pause_is_over(admission: Admission) -> None:
    admission._shared._breaker._until_s = 0.0


def in_redis(server: RedisServer, name: str) -> int:
    """How many `tickets` or `leases` there are."""
    with redis.Redis.from_url(server.admin_url) as client:
        count: int = client.hlen(LINE + name)
        return count


def take(admission: Admission, caller: str = "a") -> None:
    with admission.slot(caller=caller, candidates=lambda: ENGINE, is_abandoned=stays):
        pass


def test_without_redis_each_process_has_its_own_slots(
    admission: Admission, use_redis: Callable[[str], None], asked: list[str], logs: LogCapture
) -> None:
    use_redis(f"redis://127.0.0.1:{find_free_port()}/0")
    holders = holding(admission, "x", "y")
    waiting = queued(admission, "a")
    with ended(holders, waiting):
        assert counts(admission) == (2, 1)
        holders[0].end()
        assert waiting[0].has_slot.wait(TIMEOUT_S)
    assert counts(admission) == (0, 0)
    assert asked == ["enter"]  # the others did not wait for it to fail again
    (warning,) = logs.events("redis_unavailable")
    assert (warning["used_for"], warning["error"]) == ("admission", "ConnectionError")


def test_one_log_line_tells_of_the_end_and_one_of_the_return(
    admission: Admission, server: RedisServer, asked: list[str], logs: LogCapture
) -> None:
    server.kill()
    for _ in range(3):
        take(admission)
        pause_is_over(admission)
    assert len(asked) == 3
    assert len(logs.events("redis_unavailable")) == 1
    server.start()
    take(admission)
    take(admission)
    assert asked.count("enter") == 3
    assert len(logs.events("redis_unavailable")) == 1
    assert len(logs.events("redis_available_again")) == 1


def test_a_hung_redis_costs_one_timeout_and_then_nothing(
    admission: Admission, server: RedisServer, asked: list[str]
) -> None:
    take(admission)
    asked.clear()
    server.pause()
    try:
        for _ in range(5):
            take(admission)
        assert counts(admission) == (0, 0)
    finally:
        server.resume()
    assert asked == ["enter"]


def test_after_the_pause_one_tries_and_the_others_do_not_wait_for_it(
    admission: Admission, server: RedisServer
) -> None:
    server.kill()
    take(admission)
    breaker = admission._shared._breaker
    assert not breaker.permits()
    pause_is_over(admission)
    assert breaker.permits()
    assert not breaker.permits()


def test_those_who_wait_go_on_waiting_here_in_their_order_and_know_what_is_held(
    admission: Admission, server: RedisServer
) -> None:
    order: list[str] = []
    holders = holding(admission, "x", "y")
    waiting = queued(admission, "a", "b", "c", order=order)
    with ended(holders, waiting):
        server.kill()
        local = admission._local
        wait_until(lambda: local.count() == (2, 3))  # the slots taken in Redis count here too
        assert order == []
        for served, leaver in enumerate([*holders, waiting[0]], 1):
            leaver.end()
            assert waiting[served - 1].has_slot.wait(TIMEOUT_S)
        assert order == ["a1", "b1", "c1"]
        assert value_of("sovereigncore_slots_busy") == 2
    assert counts(admission) == (0, 0)
    assert value_of("sovereigncore_slots_busy") == 0
    assert value_of("sovereigncore_queue_waiting") == 0


def test_when_redis_is_back_those_who_wait_go_there_and_local_slots_end_here(
    admission: Admission, server: RedisServer
) -> None:
    server.kill()
    local_holders = holding(admission, "x", "y")
    waiting = queued(admission, "a", "b")
    with ended(local_holders, waiting):
        server.start()
        pause_is_over(admission)
        shared_holders = holding(admission, "z")  # whoever comes next finds that it is back
        with ended(shared_holders):
            # They find that too; one gets the second slot there, the other waits for the next.
            wait_until(lambda: admission._local.count()[1] == 0)
            wait_until(lambda: sum(asker.has_slot.is_set() for asker in waiting) == 1)
            assert (in_redis(server, "leases"), in_redis(server, "tickets")) == (2, 1)
            for holder in local_holders:
                holder.end()
            assert (in_redis(server, "leases"), in_redis(server, "tickets")) == (2, 1)
            shared_holders[0].end()
            wait_until(lambda: all(asker.has_slot.is_set() for asker in waiting))
    assert counts(admission) == (0, 0)
    assert admission._local.count() == (0, 0)


def test_a_slot_given_back_while_redis_hangs_is_free_as_soon_as_redis_is_back(
    admission: Admission, server: RedisServer
) -> None:
    holders = holding(admission, "x", "y")
    with ended(holders):
        server.pause()
        try:
            for holder in holders:
                holder.end()
        finally:
            server.resume()
        assert in_redis(server, "leases") >= 1
        pause_is_over(admission)
        take(admission)
        assert in_redis(server, "leases") == 0


def test_what_redis_was_asked_for_when_it_hung_is_given_back(
    admission: Admission, server: RedisServer
) -> None:
    """It reads what it was sent when it goes on, and grants a slot that nobody waits for."""
    take(admission)  # the connection is made
    server.pause()
    try:
        take(admission)
    finally:
        server.resume()
    wait_until(lambda: in_redis(server, "leases") == 1)
    pause_is_over(admission)
    take(admission)
    assert counts(admission) == (0, 0)


def test_what_is_owed_is_kept_until_redis_takes_it(
    admission: Admission, server: RedisServer
) -> None:
    holders = holding(admission, "x")
    with ended(holders):
        server.pause()
        try:
            holders[0].end()
            pause_is_over(admission)
            take(admission)  # tries to give it back, in vain, and asks for nothing
            assert len(admission._shared._owed) == 1
        finally:
            server.resume()
        pause_is_over(admission)
        take(admission)
        assert admission._shared._owed == {}
        assert counts(admission) == (0, 0)


def test_what_is_owed_is_given_back_however_long_redis_hung(
    server: RedisServer, asked: list[str]
) -> None:
    """Its lease begins when Redis goes on."""
    lease_s = 0.1
    admission = Admission(Terms(lease_us=int(lease_s * 1e6)))
    take(admission)
    server.pause()
    try:
        take(admission)
        time.sleep(2 * lease_s)
    finally:
        server.resume()
    pause_is_over(admission)
    asked.clear()
    take(admission)
    assert asked == ["leave", "enter", "leave"]
    assert admission._shared._owed == {}


def test_no_more_is_owed_than_can_be_remembered(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_MOST_OWED", 3)
    for number in range(5):
        admission._shared._owe(str(number))
    assert list(admission._shared._owed) == ["2", "3", "4"]


def test_what_was_never_sent_is_not_owed(
    admission: Admission, use_redis: Callable[[str], None]
) -> None:
    use_redis(f"redis://127.0.0.1:{find_free_port()}/0")
    for _ in range(50):
        take(admission)
    assert len(admission._shared._owed) == 1


def test_much_is_given_back_in_parts(
    admission: Admission, server: RedisServer, asked: list[str]
) -> None:
    """More than Lua takes at once."""
    for number in range(9_000):
        admission._shared._owe(f"{number:032x}")
    take(admission)
    assert asked == ["leave"] * 18 + ["enter", "leave"]
    assert admission._shared.is_answering
    assert admission._shared._owed == {}


@pytest.fixture
def hasty() -> Admission:
    """Leases of 0.3 s, which nobody but the test renews."""
    return Admission(Terms(lease_us=300_000))


def test_a_redis_that_lost_its_memory_takes_nobody_s_slot(server: RedisServer) -> None:
    admission = Admission(Terms(lease_us=3_000_000))
    holders = holding(admission, "x", "y")  # renew as they go
    with ended(holders):
        server.kill()
        server.start()
        pause_is_over(admission)
        wait_until(lambda: in_redis(server, "leases") == 2)
        assert all(holder.is_alive() for holder in holders)
        assert counts(admission) == (2, 0)
    assert counts(admission) == (0, 0)


def test_a_redis_whose_clock_was_set_back_holds_nothing_for_the_dead(server: RedisServer) -> None:
    short = 300_000
    admission = Admission(Terms(lease_us=short, ticket_us=short, seen_us=short))
    dead = admission.slot(caller="a", candidates=lambda: ENGINE, is_abandoned=stays)
    dead.__enter__()
    with redis.Redis.from_url(server.admin_url) as client:
        for name in ("alive", "seen"):
            ((entry, at_us),) = client.zrange(LINE + name, 0, -1, withscores=True)
            client.zadd(LINE + name, {entry: at_us + HOUR_US})
        wait_until(lambda: counts(admission) == (0, 0) and not client.zcard(f"{LINE}seen"))
    dead.__exit__(None, None, None)


def test_no_slot_was_held_for_less_than_no_time(admission: Admission, server: RedisServer) -> None:
    with redis.Redis.from_url(server.admin_url) as client:
        with admission.slot(caller="a", candidates=lambda: ENGINE, is_abandoned=stays):
            ((key, lease),) = client.hgetall(f"{LINE}leases").items()
            started_us, told = lease.split(b" ", 1)
            client.hset(f"{LINE}leases", key, b"%d %b" % (int(started_us) + HOUR_US, told))
        assert float(client.hget(f"{LINE}book", "hold")) == 0


def test_those_who_wait_keep_their_places_when_redis_forgets_them(
    admission: Admission, server: RedisServer
) -> None:
    order: list[str] = []
    holders = holding(admission, "x", "y")
    waiting = queued(admission, "a", "b", order=order)
    with ended(holders, waiting):
        with redis.Redis.from_url(server.admin_url) as client:
            client.delete(
                *(f"sovereigncore:admission:{{line}}:{name}" for name in ("tickets", "places"))
            )
        wait_until(lambda: counts(admission) == (2, 2))
        holders[0].end()
        wait_until(lambda: order == ["a1"])


def test_renewing_while_redis_is_away_keeps_the_slot(hasty: Admission, server: RedisServer) -> None:
    with hasty.slot(caller="x", candidates=lambda: ENGINE, is_abandoned=stays) as slot:
        server.kill()
        for _ in range(3):
            renewed_s = slot._renewed_s
            wait_until(lambda: slot.renew() and slot._renewed_s > renewed_s)  # noqa: B023
        assert counts(hasty) == (1, 0)
    assert counts(hasty) == (0, 0)


def test_a_redis_that_refuses_us_is_as_good_as_none(
    admission: Admission, server: RedisServer, logs: LogCapture
) -> None:
    """A full or read-only Redis answers with errors."""
    with redis.Redis.from_url(server.admin_url) as client:
        client.config_set("maxmemory", "1")
        holders = holding(admission, "x", "y")
        with ended(holders):
            assert counts(admission) == (2, 0)
        client.config_set("maxmemory", "0")
    (warning,) = logs.events("redis_unavailable")
    assert warning["error"] == "OutOfMemoryError"


def test_everything_in_redis_ends(admission: Admission, server: RedisServer) -> None:
    """Also where nobody asks any more: there are ids of people in it."""
    holders = holding(admission, "x", "y")
    waiting = queued(admission, "a")
    with ended(holders, waiting), redis.Redis.from_url(server.admin_url) as client:
        left_s = {key: client.ttl(key) for key in client.keys("*")}
        assert len(left_s) == 6
        assert all(0 < seconds <= 86_400 for seconds in left_s.values())


def test_a_script_that_redis_forgot_is_loaded_again(
    admission: Admission, server: RedisServer, logs: LogCapture
) -> None:
    take(admission)
    with redis.Redis.from_url(server.admin_url) as client:
        client.script_flush()
    take(admission)
    assert logs.events("redis_unavailable") == []


def test_patience_counts_from_the_first_line(
    admission: Admission, server: RedisServer, settings: Settings
) -> None:
    settings.QUEUE_TIMEOUT_S = 1.0
    holders = holding(admission, "x", "y")
    with ended(holders):
        started_s = time.monotonic()
        waiting = queued(admission, "a")
        with ended(waiting):
            server.kill()
            waiting[0].join(TIMEOUT_S)
            assert isinstance(waiting[0].error, QueueTimeout)
            assert 1.0 <= time.monotonic() - started_s < 2.5
