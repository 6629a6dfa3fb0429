"""Engines that die, hang and return while requests go on, and what a process learns of changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from consciousness import engine_errors as errors
from consciousness import engine_roster, engine_watch, engines
from consciousness.engine import Engine, Model
from consciousness.engine_configuration import Configuration, read_configuration
from consciousness.engine_member import Member
from consciousness.engine_roster import Roster
from consciousness.engine_watch import Watch
from consciousness.models import ModelAlias, Upstream
from consciousness.tests.generating import takes_at_most
from consciousness.tests.several import (
    PATIENT,
    Several,
    ask_any,
    eventually,
    known,
    names,
    statuses,
)
from tests.log_capture import LogCapture
from tests.stub_engine import MODEL, Behaviour, StubEngine

AT_ONCE_S = 5.0  # what it is not waited for hangs for ten seconds and more
OUT_WITHIN_S, BACK_WITHIN_S = 2.0, 5.0


class Load:
    """Requests, one after the other in each of three threads, until told to stop."""

    def __init__(self) -> None:
        self.answered_by: list[str] = []
        self.failed: list[errors.EngineError] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.answered_by.append(ask_any(MODEL, timeouts=PATIENT))
            except errors.EngineError as error:
                self.failed.append(error)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.parametrize("dying", ["default", "spare"])
def test_an_engine_that_dies_under_load_is_left_out_and_returns_by_itself(
    stub: StubEngine, second: StubEngine, several: Several, dying: str
) -> None:
    dead, priority = (stub, 1) if dying == "default" else (second, 0)
    several.add("spare", second, priority=priority)
    with Load() as load:
        eventually(lambda: dying in load.answered_by, within_s=10)
        dead.stop()
        eventually(lambda: statuses()[dying] == "open", within_s=OUT_WITHIN_S)
        before = len(load.answered_by)
        eventually(lambda: len(load.answered_by) > before + 50, within_s=10)
        assert dying not in load.answered_by[before + 3 :]
        dead.start()
        eventually(lambda: statuses()[dying] == "up", within_s=BACK_WITHIN_S)
        before = len(load.answered_by)
        eventually(lambda: dying in load.answered_by[before:], within_s=10)
    assert load.failed == []  # each had one retry elsewhere


def test_an_engine_that_nobody_asks_is_found_dead_and_alive_again(
    stub: StubEngine, second: StubEngine, several: Several, logs: LogCapture
) -> None:
    several.add("spare", second, priority=1)
    assert names(MODEL) == ["default", "spare"]
    second.stop()
    eventually(lambda: statuses()["spare"] == "open", within_s=OUT_WITHIN_S + 1.5)
    assert names(MODEL) == ["default"]
    second.start()
    eventually(lambda: statuses()["spare"] == "up", within_s=BACK_WITHIN_S)
    assert names(MODEL) == ["default", "spare"]

    def told() -> list[tuple[str, str]]:
        changes = logs.events("engine_circuit_changed")
        return [(event["engine"], event["now"]) for event in changes]

    # The watch changes a status and tells of it afterwards.
    expected = [("spare", "open"), ("spare", "half_open"), ("spare", "closed")]
    eventually(lambda: told() == expected, within_s=5)


def test_an_engine_that_fails_each_generation_is_left_out_though_it_tells_its_models(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    stub.behave(Behaviour.ERROR_500_WITH_SECRET)
    assert [ask_any(MODEL) for _ in range(3)] == ["spare"] * 3
    assert statuses()["default"] != "up"
    assert len(stub.ledger) == 3
    stub.behave(Behaviour.NORMAL)
    eventually(lambda: ask_any(MODEL) == "default", within_s=BACK_WITHIN_S)
    assert statuses() == {"default": "up", "spare": "up"}


def test_a_busy_engine_stays(stub: StubEngine, second: StubEngine, several: Several) -> None:
    several.add("spare", second, priority=1)
    stub.behave(Behaviour.BUSY_429)
    assert [ask_any(MODEL) for _ in range(6)] == ["spare"] * 6
    assert len(stub.ledger) == 6
    assert statuses()["default"] == "up"


def how_often(asked: Callable[[], bool], *, within_s: float) -> int:
    """How often one caller is told so in that time; being told otherwise is a failure."""
    count, until_s = 0, time.monotonic() + within_s
    while time.monotonic() < until_s:
        assert asked()
        count += 1
        time.sleep(0.05)
    return count


def test_a_hung_engine_delays_nobody_whom_another_one_serves(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    names()
    several.add("spare", second, priority=1)
    assert names(MODEL) == ["default", "spare"]
    with StubEngine() as hung:
        hung.behave_probes(Behaviour.HANG_BEFORE_HEADERS)
        several.add("hung", hung, is_heard=False)
        assert how_often(lambda: names(MODEL) == ["default", "spare"], within_s=2.5) > 10
        assert statuses()["hung"] == "down"
        second.behave_probes(Behaviour.HANG_BEFORE_HEADERS)
        assert how_often(lambda: "hung" not in names(MODEL), within_s=2.5) > 10


def test_a_hung_engine_is_no_longer_tried_first_and_then_not_at_all(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    several.add("spare", second, priority=1)
    assert names(MODEL) == ["default", "spare"]
    stub.behave_probes(Behaviour.HANG_BEFORE_HEADERS)
    eventually(lambda: names(MODEL) == ["spare", "default"], within_s=15)
    eventually(lambda: names(MODEL) == ["spare"], within_s=15)
    stub.behave_probes(Behaviour.NORMAL)
    eventually(lambda: names(MODEL)[0] == "default", within_s=BACK_WITHIN_S)


def test_three_hung_engines_do_not_keep_a_fourth_from_returning(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    hanging = [StubEngine() for _ in range(3)]
    for number, hung in enumerate(hanging):
        hung.start()
        hung.behave_probes(Behaviour.HANG_BEFORE_HEADERS)
        several.add(f"hung-{number}", hung, is_heard=False)
    several.add("spare", second, is_heard=False)
    eventually(lambda: statuses()["spare"] == "up", within_s=BACK_WITHIN_S)
    second.stop()
    eventually(lambda: statuses()["spare"] == "open", within_s=BACK_WITHIN_S + 3)
    second.start()
    eventually(lambda: statuses()["spare"] in ("half_open", "up"), within_s=BACK_WITHIN_S)
    for hung in hanging:
        hung.stop()


class Scripted(Engine):
    """Says what models it has when the test lets it. `asked` are the patience it was asked with."""

    def __init__(self, answer: Callable[[], object]) -> None:
        super().__init__(url="http://127.0.0.1:9", api_key="")
        self.asked: list[float | None] = []
        self._answer = answer

    def models(self, *, fresh: bool = False, timeout_s: float | None = None) -> tuple[Model, ...]:
        self.asked.append(timeout_s)
        self._answer()
        return (Model(id=MODEL, owned_by="", context_tokens=None),)


def watched(members: list[Member]) -> None:
    """Until all but the first are well."""
    watch = Watch(lambda: members)
    watch.start()
    try:
        eventually(lambda: all(member.is_ready for member in members[1:]), within_s=10)
    finally:
        watch.stop()


def test_many_engines_are_asked_together_each_with_the_same_patience() -> None:
    together = threading.Barrier(12)
    upstreams = [Scripted(lambda: together.wait(10)) for _ in range(12)]
    watched([Member(name=f"gpu-{n}", engine=each) for n, each in enumerate(upstreams)])
    assert [each.asked for each in upstreams] == [[1.0]] * 12


def test_engines_beyond_those_asked_at_once_follow_and_none_stops_the_others(
    monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    monkeypatch.setattr(engine_watch, "_AT_ONCE", 2)

    def fail() -> None:
        raise RuntimeError

    upstreams = [Scripted(fail), *(Scripted(lambda: None) for _ in range(6))]
    watched([Member(name=f"gpu-{n}", engine=each) for n, each in enumerate(upstreams)])
    assert len(logs.events("engine_watch_failed")) == len(upstreams[0].asked) > 0


def test_a_round_that_cannot_begin_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    monkeypatch.setattr(engine_watch, "_EVERY_S", 0)
    ask, failures = Watch._ask, [RuntimeError("can't start new thread")]

    def ask_later(watch: Watch, *terms: Any) -> None:
        if failures:
            raise failures.pop()
        ask(watch, *terms)

    monkeypatch.setattr(Watch, "_ask", ask_later)
    upstreams = [Scripted(lambda: None) for _ in range(2)]
    watched([Member(name=f"gpu-{n}", engine=each) for n, each in enumerate(upstreams)])
    assert len(logs.events("engine_watch_failed")) == 1


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "engine-watch"]


def test_one_thread_watches_several_engines_and_none_a_single_one(
    stub: StubEngine, second: StubEngine, several: Several
) -> None:
    names()
    assert watchers() == []
    several.add("spare", second)
    with StubEngine() as third:
        several.add("third", third)
        together = threading.Barrier(8)

        def choose() -> None:
            together.wait()
            engines.roster.known_members()
            engines.roster._watch.start()

        threads = [threading.Thread(target=choose) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(watchers()) == 1
        several.remove("third")
        assert len(watchers()) == 1
        several.remove("spare")
        eventually(lambda: watchers() == [], within_s=5)
        several.add("third", third)
        assert len(watchers()) == 1  # again


# --- what the database says ----------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.seen_by: set[int | None] = set()  # threads

    def __call__(self) -> float:
        self.seen_by.add(threading.get_ident())
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def elsewhere(stub: StubEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Roster:
    """The roster of another process."""
    roster = Roster(clock=clock)
    monkeypatch.setattr(roster._watch, "start", lambda: None)
    return roster


def names_of(roster: Roster) -> list[str]:
    return [member.name for member in roster.members()]


def test_changes_are_seen_everywhere_within_a_second(
    elsewhere: Roster, clock: Clock, db: None
) -> None:
    assert names_of(elsewhere) == ["default"]
    row = Upstream.objects.create(name="gpu", url="http://10.0.0.3", slots=2)
    ModelAlias.objects.create(alias="gpt-4o", model=MODEL)
    clock.now_s += 1
    assert names_of(elsewhere) == ["default", "gpu"]
    assert elsewhere.aliases == {"gpt-4o": MODEL}
    member = known("gpu", elsewhere)
    assert (member.slots, member.weight, member.priority) == (2, 1, 0)

    Upstream.objects.filter(id=row.id).update(slots=5, weight=7, priority=3)
    clock.now_s += 1
    elsewhere.members()
    assert known("gpu", elsewhere) is member  # its circuit and its models stay
    assert (member.slots, member.weight, member.priority) == (5, 7, 3)

    Upstream.objects.filter(id=row.id).update(url="http://10.0.0.4")
    clock.now_s += 1
    elsewhere.members()
    assert known("gpu", elsewhere) is not member  # another server: all is new

    Upstream.objects.filter(id=row.id).update(is_enabled=False)
    ModelAlias.objects.all().delete()
    clock.now_s += 1
    assert names_of(elsewhere) == ["default"]
    assert elsewhere.aliases == {}
    Upstream.objects.filter(id=row.id).update(is_enabled=True)
    clock.now_s += 1
    assert names_of(elsewhere) == ["default", "gpu"]


def test_it_costs_one_query_a_second_and_none_between(
    elsewhere: Roster,
    clock: Clock,
    db: None,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(5):
        Upstream.objects.create(name=f"gpu-{number}", url="http://10.0.0.3")
        ModelAlias.objects.create(alias=f"alias-{number}", model=MODEL)
    with django_assert_num_queries(1):
        assert len(elsewhere.members()) == 6
    for _ in range(3):
        clock.now_s += 0.9
        with django_assert_num_queries(0):
            elsewhere.members()
        clock.now_s += 0.1
        with django_assert_num_queries(1):
            elsewhere.members()


def test_what_this_process_changes_it_sees_at_once(
    elsewhere: Roster, clock: Clock, db: None
) -> None:
    assert names_of(elsewhere) == ["default"]
    Upstream.objects.create(name="gpu", url="http://10.0.0.3")
    assert names_of(elsewhere) == ["default"]
    elsewhere.expire()
    assert names_of(elsewhere) == ["default", "gpu"]


def test_while_the_database_is_away_what_is_known_goes_on(
    elsewhere: Roster,
    clock: Clock,
    db: None,
    monkeypatch: pytest.MonkeyPatch,
    logs: LogCapture,
) -> None:
    Upstream.objects.create(name="gpu", url="http://10.0.0.3")
    assert names_of(elsewhere) == ["default", "gpu"]
    asked: list[float] = []

    def away() -> None:
        asked.append(clock.now_s)
        raise OperationalError("password of 10.0.0.9")

    with monkeypatch.context() as patch:
        patch.setattr(engine_roster, "read_configuration", away)
        for _ in range(10):
            clock.now_s += 0.5
            assert names_of(elsewhere) == ["default", "gpu"]
    assert len(asked) == 5
    assert len(logs.events("engines_not_read")) == 1  # one line an outage
    assert "password" not in logs.text
    Upstream.objects.all().delete()
    clock.now_s += 1
    assert names_of(elsewhere) == ["default"]


def test_a_process_that_starts_without_a_database_has_its_default_engine(
    elsewhere: Roster, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError

    monkeypatch.setattr(engine_roster, "read_configuration", away)
    assert names_of(elsewhere) == ["default"]


def test_while_one_thread_reads_the_others_go_on(
    elsewhere: Roster, clock: Clock, monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    elsewhere.members()
    clock.now_s += 1
    reads, may_end = threading.Event(), threading.Event()

    def slowly() -> Configuration:
        reads.set()
        assert may_end.wait(10)
        return Configuration()

    monkeypatch.setattr(engine_roster, "read_configuration", slowly)
    reader = threading.Thread(target=elsewhere.members)
    reader.start()
    assert reads.wait(10)
    with takes_at_most(AT_ONCE_S):
        assert names_of(elsewhere) == ["default"]
    may_end.set()
    reader.join(10)
    assert not reader.is_alive()


class SlowReading:
    """The table is read as ever, but each reading ends when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.may_end = threading.Semaphore(0), threading.Event()
        self.count = 0
        self._read = read_configuration
        monkeypatch.setattr(engine_roster, "read_configuration", self)

    def __call__(self) -> Configuration:
        self.count += 1
        self.began.release()
        assert self.may_end.wait(10)
        return self._read()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowReading:
    return SlowReading(monkeypatch)


class Burst:
    """Callers at once, each in a thread of its own."""

    def __init__(self, roster: Roster, clock: Clock) -> None:
        self.found: list[list[str]] = []
        self._roster, self._clock = roster, clock
        self._threads: list[threading.Thread] = []

    def add(self, count: int) -> None:
        """Returns when each of them has looked at the clock."""
        threads = [threading.Thread(target=self._ask) for _ in range(count)]
        self._threads += threads
        for thread in threads:
            thread.start()
        eventually(lambda: {t.ident for t in threads} <= self._clock.seen_by, within_s=10)

    def _ask(self) -> None:
        try:
            self.found.append(names_of(self._roster))
        finally:
            connection.close()

    def end(self) -> list[list[str]]:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        return self.found


@pytest.fixture
def burst(elsewhere: Roster, clock: Clock) -> Burst:
    return Burst(elsewhere, clock)


def remove(roster: Roster, slow: SlowReading) -> None:
    """The roster knows an engine that somebody has removed."""
    Upstream.objects.create(name="gpu", url="http://10.0.0.3")
    slow.may_end.set()
    assert names_of(roster) == ["default", "gpu"]
    Upstream.objects.all().delete()
    slow.may_end.clear()
    slow.began, slow.count = threading.Semaphore(0), 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("idle_s", [2.0, 15.0])
def test_nobody_uses_what_is_older_than_two_seconds(
    elsewhere: Roster, clock: Clock, slow: SlowReading, burst: Burst, idle_s: float
) -> None:
    remove(elsewhere, slow)
    clock.now_s += idle_s
    burst.add(6)
    assert slow.began.acquire(timeout=10)
    slow.may_end.set()
    assert burst.end() == [["default"]] * 6
    assert slow.count == 1


@pytest.mark.django_db(transaction=True)
def test_what_this_process_changes_during_a_reading_is_read_again(
    elsewhere: Roster, clock: Clock, slow: SlowReading, burst: Burst
) -> None:
    remove(elsewhere, slow)
    clock.now_s += 15
    burst.add(1)
    assert slow.began.acquire(timeout=10)
    elsewhere.expire()
    burst.add(1)
    slow.may_end.set()
    assert burst.end() == [["default"]] * 2
    assert slow.count == 2


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_a_database_that_hangs_gives_up_and_nobody_waits_after(
    elsewhere: Roster,
    clock: Clock,
    slow: SlowReading,
    burst: Burst,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remove(elsewhere, slow)
    monkeypatch.setattr(engine_roster, "_PATIENCE_S", 0.2)
    clock.now_s += 15
    burst.add(5)
    assert slow.began.acquire(timeout=10)
    eventually(lambda: len(burst.found) == 4, within_s=5)  # all but the one that reads
    monkeypatch.setattr(engine_roster, "_PATIENCE_S", 30.0)
    clock.now_s += 30
    for _ in range(3):
        with takes_at_most(AT_ONCE_S):
            assert names_of(elsewhere) == ["default", "gpu"]
    slow.may_end.set()
    assert sorted(burst.end()) == [["default"], *[["default", "gpu"]] * 4]
    assert slow.count == 1


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_known_to_be_away_nobody_waits(
    elsewhere: Roster,
    clock: Clock,
    slow: SlowReading,
    burst: Burst,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remove(elsewhere, slow)
    monkeypatch.setattr(engine_roster, "_PATIENCE_S", 30.0)
    clock.now_s += 15
    fail_after(slow, lambda: advance(clock, 4))
    assert names_of(elsewhere) == ["default", "gpu"]
    assert names_of(elsewhere) == ["default", "gpu"]
    assert slow.count == 1  # a second from the end of a reading that failed, however long it was
    clock.now_s += 1
    slow.may_end.clear()
    burst.add(1)
    eventually(lambda: slow.count == 2, within_s=10)
    for _ in range(3):
        with takes_at_most(AT_ONCE_S):
            assert names_of(elsewhere) == ["default", "gpu"]
    slow.may_end.set()
    assert burst.end() == [["default", "gpu"]]


@pytest.mark.django_db(transaction=True)
def test_a_failure_long_ago_does_not_keep_anybody_from_waiting(
    elsewhere: Roster, clock: Clock, slow: SlowReading, burst: Burst
) -> None:
    remove(elsewhere, slow)
    clock.now_s += 15
    read = slow._read
    fail_after(slow, lambda: None)
    assert names_of(elsewhere) == ["default", "gpu"]
    slow._read = read
    slow.may_end.clear()
    clock.now_s += 15
    burst.add(6)
    eventually(lambda: slow.count == 2, within_s=10)
    slow.may_end.set()
    assert burst.end() == [["default"]] * 6


def advance(clock: Clock, seconds: float) -> None:
    clock.now_s += seconds


def fail_after(slow: SlowReading, happens: Callable[[], None]) -> None:
    def fail() -> Configuration:
        happens()
        raise OperationalError

    slow._read = fail
    slow.may_end.set()


@pytest.mark.django_db(transaction=True)
def test_a_process_that_is_only_asked_for_its_health_learns_of_engines_too(
    elsewhere: Roster, second: StubEngine
) -> None:
    assert names_of(elsewhere) == ["default"]
    Upstream.objects.create(name="gpu", url=second.url)
    elsewhere.expire()
    elsewhere.members_without_waiting()
    eventually(lambda: len(elsewhere.known_members()) == 2, within_s=5)


def test_a_database_that_hangs_does_not_make_engines_look_hung(
    anonymous: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, db: None
) -> None:
    reads, may_end = threading.Event(), threading.Event()

    def hang() -> Configuration:
        reads.set()
        assert may_end.wait(10)
        return Configuration()

    monkeypatch.setattr(engine_roster, "read_configuration", hang)
    engines.roster.expire()
    for _ in range(3):
        with takes_at_most(5.0):
            assert anonymous.get("/ready").status_code == 200
    assert reads.is_set()
    readers = [thread for thread in threading.enumerate() if thread.name == "engine-roster"]
    assert len(readers) == 1
    may_end.set()
    readers[0].join(10)


@pytest.mark.django_db(transaction=True)
def test_a_closed_connection_is_closed_again_and_an_open_one_stays(
    elsewhere: Roster, clock: Clock
) -> None:
    """With a pool, who is about to wait for an engine must not hold a connection."""
    connection.close()
    elsewhere.members()
    assert connection.connection is None
    Upstream.objects.exists()
    assert connection.connection is not None
    clock.now_s += 1
    elsewhere.members()
    assert connection.connection is not None
