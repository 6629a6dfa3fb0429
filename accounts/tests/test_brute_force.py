"""Guessing passwords gets slower and slower, for whoever guesses and nobody else."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts import hashing
from accounts.brute_force import delay_s, network_of
from accounts.hashing import HashingBusy, concurrent_hashes
from accounts.models import User
from conftest import PASSWORD
from sovereigncore import connections

TOKEN = "/api/v1/auth/token"
HOME, NEXT_DOOR, ELSEWHERE = "198.51.100.7", "198.51.100.8", "203.0.113.9"


@pytest.fixture(autouse=True)
def _minutes_limits_aside(settings: Settings) -> None:
    settings.RATE_LIMIT_AUTH = "1000/m"


def log_in(password: str, *, name: str = "alice", address: str = HOME) -> Any:
    body = {"username": name, "password": password}
    return APIClient().post(TOKEN, body, REMOTE_ADDR=address)


def fail(times: int, **where: str) -> None:
    for _ in range(times):
        assert log_in("wrong", **where).status_code == 401


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (4, 0), (5, 30), (6, 60), (7, 120), (10, 900), (10**6, 900)]
)
def test_the_delay_doubles_up_to_a_quarter_of_an_hour(failures: int, seconds: int) -> None:
    assert delay_s(failures) == seconds


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("0.0.0.0", "0.0.0.0/24"),  # noqa: S104 - a network's name
    ],
)
def test_a_network_is_what_one_attacker_has(address: str, network: str) -> None:
    assert network_of(address) == network


def test_after_five_failures_even_the_right_password_waits(
    alice: User, frozen_time: time_machine.Traveller, hashed: list[str]
) -> None:
    fail(5)
    hashed.clear()
    refused = log_in(PASSWORD)
    assert refused.status_code == 429
    assert refused.json()["error"] == "rate_limited"
    assert refused["Retry-After"] == "31"
    assert hashed == [], "refused before the work that an attacker wants done"
    frozen_time.shift(timedelta(seconds=int(refused["Retry-After"])))
    assert log_in(PASSWORD).status_code == 200


def test_the_delay_grows_with_each_further_failure(
    alice: User, frozen_time: time_machine.Traveller
) -> None:
    fail(5)
    waits = []
    for _ in range(4):
        waits.append(int(log_in("wrong")["Retry-After"]))
        frozen_time.shift(timedelta(seconds=waits[-1]))
        fail(1)
    assert waits == [31, 61, 121, 241]


def test_a_login_that_succeeds_begins_anew(alice: User, frozen_time: object) -> None:
    fail(4)
    assert log_in(PASSWORD).status_code == 200
    fail(4)
    assert log_in(PASSWORD).status_code == 200


def test_the_victim_still_gets_in_from_elsewhere(alice: User, frozen_time: object) -> None:
    fail(5)
    assert log_in(PASSWORD, address=NEXT_DOOR).status_code == 429, "the same network"
    assert log_in(PASSWORD, address=ELSEWHERE).status_code == 200
    assert log_in(PASSWORD).status_code == 429, "which helps the attacker nothing"


def test_one_network_is_slowed_down_for_each_account_by_itself(
    alice: User, bob: User, frozen_time: object
) -> None:
    fail(5)
    assert log_in(PASSWORD, name="bob").status_code == 200


def test_another_spelling_of_the_name_is_the_same_account(alice: User, frozen_time: object) -> None:
    fail(5)
    assert log_in(PASSWORD, name="ALICE").status_code == 429


def test_unknown_names_are_slowed_down_alike(alice: User, frozen_time: object) -> None:
    fail(5)
    fail(5, name="nobody")
    known, unknown = log_in("wrong"), log_in("wrong", name="nobody")
    assert known.status_code == unknown.status_code == 429
    assert known["Retry-After"] == unknown["Retry-After"]
    assert known.content == unknown.content


def test_the_admin_site_counts_the_same(staff: User, frozen_time: object) -> None:
    form = {"username": "grace", "password": "wrong"}
    for _ in range(5):
        assert Client(REMOTE_ADDR=HOME).post("/admin/login/", form).status_code == 200
    refused = Client(REMOTE_ADDR=HOME).post("/admin/login/", {**form, "password": PASSWORD})
    assert refused.status_code == 429
    assert log_in(PASSWORD, name="grace").status_code == 429


def test_of_one_account_five_a_minute_are_heard_from_a_network(
    alice: User, frozen_time: object, settings: Settings
) -> None:
    settings.RATE_LIMIT_AUTH = "5/m"
    answers = [
        log_in(PASSWORD, address=f"198.51.100.{number}").status_code for number in range(1, 8)
    ]
    assert answers == [200] * 5 + [429] * 2
    assert log_in(PASSWORD, address=ELSEWHERE).status_code == 200


@pytest.mark.parametrize(
    ("cpus", "processes", "count"), [(1, 1, 1), (2, 1, 1), (8, 1, 7), (8, 4, 1), (16, 4, 3)]
)
def test_hashes_leave_a_cpu_alone(cpus: int, processes: int, count: int) -> None:
    assert concurrent_hashes(cpus, processes) == count


@pytest.fixture
def one_slot(monkeypatch: pytest.MonkeyPatch) -> Iterator[hashing._Slots]:
    slots = hashing._Slots(1)
    monkeypatch.setattr(hashing, "slots", slots)
    monkeypatch.setattr(hashing, "_WAIT_S", 0.05)
    yield slots
    with slots.one():  # every slot came back
        pass


def test_a_hash_that_gets_no_turn_is_refused(
    alice: User, one_slot: hashing._Slots, frozen_time: object
) -> None:
    with one_slot.one():
        refused = log_in(PASSWORD)
    assert refused.status_code == 503
    assert refused.json()["error"] == "hashing_busy"
    assert refused["Retry-After"] == "2"
    assert log_in(PASSWORD).status_code == 200


class Waiting:
    """Threads that wait for their turn, each as somebody at an address."""

    def __init__(self, slots: hashing._Slots) -> None:
        self.done: list[str] = []
        self._slots, self._threads = slots, list[threading.Thread]()

    def come(self, address: str) -> None:
        """Returns when they wait."""
        before = self._number()
        self._threads.append(threading.Thread(target=self._wait, args=(address,)))
        self._threads[-1].start()
        until_s = time.monotonic() + 20
        while self._number() == before:
            assert time.monotonic() < until_s, "there was no room for them"

    def _number(self) -> int:
        return sum(len(turns) for turns in list(self._slots._waiting.values()))

    def _wait(self, address: str) -> None:
        hashing.caller_address.set(address)
        with self._slots.one():
            self.done.append(address)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)


@pytest.fixture
def waiting(one_slot: hashing._Slots, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    """The only slot is taken until the test is over."""
    monkeypatch.setattr(hashing, "_WAIT_S", 20.0)
    waiting = Waiting(one_slot)
    with one_slot.one():
        yield waiting
    waiting.join()


def networks(count: int) -> list[str]:
    return [f"198.51.{number}.7" for number in range(count)]


def test_networks_take_turns(one_slot: hashing._Slots, waiting: Waiting) -> None:
    flood = [f"198.51.100.{number}" for number in range(8)]
    for address in (*flood, ELSEWHERE, "192.0.2.1"):
        waiting.come(address)
    one_slot._end()
    waiting.join()
    assert waiting.done == [flood[0], ELSEWHERE, "192.0.2.1", *flood[1:]]
    one_slot._begin()


def test_one_network_gets_half_of_the_places_and_others_the_rest(waiting: Waiting) -> None:
    for number in range(hashing._MAX_WAITING // 2):
        waiting.come(f"198.51.100.{number}")
    for _ in range(2):
        assert log_in(PASSWORD, address=HOME).status_code == 503
    waiting.come(ELSEWHERE)


def test_fifteen_networks_leave_a_place_to_another_one(waiting: Waiting) -> None:
    refused = 0
    for address in networks(15) * 16:
        try:
            hashing.caller_address.set(address)
            hashing.slots.check_room()
        except HashingBusy:
            refused += 1
        else:
            waiting.come(address)
    assert refused == 15 * 15
    waiting.come(ELSEWHERE)
    assert log_in(PASSWORD, address="192.0.2.1").status_code == 503, "there is no place left"


def test_where_there_is_no_room_to_wait_nothing_is_looked_up(
    alice: User, waiting: Waiting, hashed: list[str]
) -> None:
    for address in networks(hashing._MAX_WAITING):
        waiting.come(address)
    with CaptureQueriesContext(connection) as queries:
        refused = log_in(PASSWORD)
    assert (refused.status_code, refused["Retry-After"]) == (503, "2")
    assert (len(queries), hashed) == (0, [])


def test_an_attempt_that_was_not_heard_is_none(
    alice: User, one_slot: hashing._Slots, settings: Settings, frozen_time: object
) -> None:
    settings.RATE_LIMIT_AUTH = "5/m"
    with one_slot.one():
        for place in networks(hashing._MAX_WAITING):
            one_slot._waiting[place] = deque([threading.Event()])
        assert [log_in(PASSWORD).status_code for _ in range(6)] == [503] * 6
        one_slot._waiting.clear()
    assert [log_in(PASSWORD).status_code for _ in range(6)] == [200] * 5 + [429]


def test_who_waits_holds_no_database_connection(
    one_slot: hashing._Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pool, those who wait would hold all of it: nobody else would be answered."""
    closed: list[str] = []
    pooled = SimpleNamespace(
        vendor="postgresql", in_atomic_block=False, close=lambda: closed.append("given back")
    )
    monkeypatch.setattr(connections, "connection", pooled)
    with one_slot.one():
        assert closed == [], "no need to"
        with pytest.raises(HashingBusy), one_slot.one():
            pytest.fail("there is one slot only")
        assert closed == ["given back"]
        pooled.in_atomic_block = True
        with pytest.raises(HashingBusy), one_slot.one():
            pytest.fail("there is one slot only")
        assert closed == ["given back"], "a transaction keeps its own"
