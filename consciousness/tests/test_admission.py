"""Slots and line, in this process and in Redis: never too many, fair, nothing leaked."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from consciousness.admission import (
    Admission,
    CallerGone,
    Candidate,
    QueueFull,
    QueueTimeout,
    Terms,
    TooManyWaiting,
    gate,
)
from consciousness.tests.admitting import (
    ENGINE,
    TIMEOUT_S,
    Asker,
    counts,
    ended,
    holding,
    queued,
    stays,
    wait_until,
)
from tests.metrics import value_of
from tests.parallel import in_parallel
from tests.servers import RedisServer

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.QUEUE_LIMIT, settings.QUEUE_TIMEOUT_S = 3, TIMEOUT_S
    monkeypatch.setattr(gate, "_LOOK_UP_S", 0.01)


@pytest.fixture(params=["local", "shared"])
def _line(
    request: pytest.FixtureRequest, use_redis: Callable[[str], None], settings: Settings
) -> None:
    """Every scenario is played in the line of this process and in the one of all processes."""
    if request.param == "shared":
        server: RedisServer = request.getfixturevalue("valkey")
        use_redis(server.url)
    else:
        settings.REDIS_URL = ""


@pytest.fixture
def admission(_line: None) -> Admission:
    return Admission()


@pytest.fixture
def hasty_admission(_line: None) -> Admission:
    """Short leases, and long beside what a busy machine may hold a thread up for."""
    return Admission(Terms(lease_us=3_000_000))


def metric(name: str) -> float:
    return value_of(f"sovereigncore_{name}") or 0.0


def ask(
    admission: Admission, caller: str = "late", candidates: tuple[Candidate, ...] = ENGINE
) -> None:
    """Ask for a slot, and give it back at once."""
    with admission.slot(caller=caller, candidates=lambda: candidates, is_abandoned=stays):
        pass


# --- slots and line ---------------------------------------------------------------------------


def test_a_free_slot_is_taken_and_given_back(admission: Admission) -> None:
    before = metric("queue_wait_seconds_count")
    with admission.slot(caller="a", candidates=lambda: ENGINE, is_abandoned=stays) as slot:
        assert slot.engine == "default"
        assert admission.snapshot(2) == {"slots": 2, "busy": 1, "waiting": 0, "limit": 3}
        assert metric("slots_busy") == 1
    assert counts(admission) == (0, 0)
    assert metric("slots_busy") == 0
    assert metric("queue_wait_seconds_count") == before + 1


@pytest.mark.parametrize("error", [ValueError, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_a_slot_is_given_back_however_it_ends(
    admission: Admission, error: type[BaseException]
) -> None:
    with (
        pytest.raises(error),
        admission.slot(caller="a", candidates=lambda: ENGINE, is_abandoned=stays),
    ):
        raise error
    assert counts(admission) == (0, 0)
    assert metric("slots_busy") == 0


def test_first_come_first_served(admission: Admission) -> None:
    order: list[str] = []
    waited_s = metric("queue_wait_seconds_sum")
    holders = holding(admission, "x", "y")
    askers = queued(admission, "a", "b", "c", order=order)
    with ended(holders, askers):
        assert counts(admission) == (2, 3)
        wait_until(lambda: metric("queue_waiting") == 3)  # counted just after they stand there
        for served, leaver in enumerate([holders[0], askers[0], askers[1]], 1):
            leaver.end()
            wait_until(functools.partial(has, order, served))
        assert order == ["a1", "b1", "c1"]
        assert counts(admission) == (2, 0)
        assert metric("queue_waiting") == 0
        assert metric("slots_busy") == 2
        assert metric("queue_wait_seconds_sum") > waited_s
    assert counts(admission) == (0, 0)
    assert [asker.error for asker in askers] == [None] * 3


def has(order: list[str], count: int) -> bool:
    return len(order) == count


def test_a_full_line_refuses_at_once_and_says_when_to_come_back(admission: Admission) -> None:
    holders = holding(admission, "x", "y")
    askers = queued(admission, "a", "b", "c")
    with ended(holders, askers):
        with pytest.raises(QueueFull) as refused:
            ask(admission)
        assert refused.value.status == 503
        # Three ahead and two slots, held for five seconds each as nobody knows better.
        assert refused.value.headers == {"Retry-After": "10"}
        assert counts(admission) == (2, 3)
    assert counts(admission) == (0, 0)


def test_without_a_line_a_busy_engine_refuses(admission: Admission, settings: Settings) -> None:
    settings.QUEUE_LIMIT = 0
    ask(admission)  # hardly held
    holders = holding(admission, "x", "y")
    with ended(holders):
        with pytest.raises(QueueFull) as refused:
            ask(admission)
        assert refused.value.headers == {"Retry-After": "1"}
        assert counts(admission) == (2, 0)


@pytest.mark.parametrize("patience_s", [0.0, 0.1])
def test_patience_ends(admission: Admission, settings: Settings, patience_s: float) -> None:
    holders = holding(admission, "x", "y")
    with ended(holders):
        settings.QUEUE_TIMEOUT_S = patience_s
        started_s = time.monotonic()
        with pytest.raises(QueueTimeout) as refused:
            ask(admission)
        assert patience_s <= time.monotonic() - started_s < patience_s + 5
        assert (refused.value.status, refused.value.retry_after_s) == (503, 3)
        assert counts(admission) == (2, 0)
        assert metric("queue_waiting") == 0


def test_who_leaves_gives_up_the_place_and_those_behind_move_up(admission: Admission) -> None:
    order: list[str] = []
    holders = holding(admission, "x", "y")
    askers = queued(admission, "a", "b", "c", order=order)
    with ended(holders, askers):
        askers[0].leave()
        assert isinstance(askers[0].error, CallerGone)
        assert counts(admission) == (2, 2)
        holders[0].end()
        wait_until(lambda: order == ["b1"])
    assert order[0] == "b1"
    assert "a1" not in order


def test_a_question_that_fails_leaves_no_place_behind(admission: Admission) -> None:
    """Whoever is asked whether the caller is still there may fail in its own way."""

    def broken() -> bool:
        raise RuntimeError("a bug")

    holders = holding(admission, "x", "y")
    with ended(holders):
        with (
            pytest.raises(RuntimeError),
            admission.slot(caller="a", candidates=lambda: ENGINE, is_abandoned=broken),
        ):
            pass
        assert counts(admission) == (2, 0)
        assert metric("queue_waiting") == 0


def test_a_slot_handed_to_one_who_is_just_leaving_goes_on_to_the_next(
    admission: Admission,
) -> None:
    """The hand-over comes between the last look at the caller and its leaving the line."""
    leave, order = threading.Event(), list[str]()
    holders = holding(admission, "x", "y")

    def is_abandoned() -> bool:
        if not leave.is_set():
            return False
        holders[0].end()
        return True

    leaver = Asker(admission, "a", order=order, is_abandoned=is_abandoned)
    wait_until(lambda: counts(admission)[1] == 1)
    behind = queued(admission, "b", order=order)
    with ended(holders, [leaver], behind):
        leave.set()
        leaver.ended()
        assert isinstance(leaver.error, CallerGone)
        wait_until(lambda: order == ["b1"])
    assert counts(admission) == (0, 0)


# --- fairness ---------------------------------------------------------------------------------


def test_who_holds_fewest_is_served_first_and_then_who_has_waited_longest(
    admission: Admission, settings: Settings
) -> None:
    settings.QUEUE_LIMIT = 16
    order: list[str] = []
    four = (Candidate(name="default", capacity=4),)
    holders = holding(admission, "heavy", "heavy", "heavy", "light", candidates=four)
    askers = queued(admission, "heavy", "light", "new", "newer", order=order, candidates=four)
    with ended(holders, askers):
        for served, leaver in enumerate([holders[0], holders[1], holders[3]], 1):
            leaver.end()
            wait_until(functools.partial(has, order, served))
        # At last `heavy` holds one and `light` none any more.
        assert order == ["new1", "newer1", "light1"]


def test_one_caller_s_requests_are_served_in_their_order(
    admission: Admission, settings: Settings
) -> None:
    settings.QUEUE_LIMIT = 16
    order: list[str] = []
    holders = holding(admission, "x", "y")
    askers = queued(admission, "a", "a", "a", "a", order=order)
    with ended(holders, askers):
        for served, leaver in enumerate([holders[0], *askers[:3]], 1):
            leaver.end()
            wait_until(functools.partial(has, order, served))
        assert order == ["a1", "a2", "a3", "a4"]


def test_fifty_requests_of_one_caller_keep_nobody_waiting(
    admission: Admission, settings: Settings
) -> None:
    settings.QUEUE_LIMIT = 64
    four = (Candidate(name="default", capacity=4),)
    order: list[str] = []
    flood = [
        Asker(admission, "heavy", name=f"heavy{number}", candidates=four, order=order)
        for number in range(50)
    ]
    with ended(flood):
        wait_until(lambda: sum(not asker.is_alive() for asker in flood) == 50 - 4 - 16)
        assert counts(admission) == (4, 16)  # alone, it has all slots and a quarter of the line
        refused = [asker.error for asker in flood if asker.error is not None]
        assert {type(error) for error in refused} == {TooManyWaiting}
        light = queued(admission, "light", order=order, candidates=four)
        with ended(light):
            # The next slot is the light caller's, past sixteen that waited longer.
            in_slots = [asker for asker in flood if asker.has_slot.is_set()]
            in_slots[0].end()
            assert light[0].has_slot.wait(TIMEOUT_S)
            assert len(order) == 5
            # And while it is about, one slot is kept from the flood for its next request.
            light[0].end()
            assert counts(admission) == (3, 16)
            again = holding(admission, "light", candidates=four)
            with ended(again):
                assert counts(admission) == (4, 16)
    assert counts(admission) == (0, 0)


@pytest.mark.parametrize(("limit", "share"), [(64, 16), (7, 1), (4, 1)])
def test_one_caller_fills_a_quarter_of_the_line(
    admission: Admission, settings: Settings, limit: int, share: int
) -> None:
    settings.QUEUE_LIMIT = limit
    holders = holding(admission, "x", "y")
    askers = queued(admission, *["a"] * share)
    with ended(holders, askers):
        with pytest.raises(TooManyWaiting) as refused:
            ask(admission, "a")
        assert (refused.value.status, refused.value.code) == (429, "too_many_waiting")
        assert refused.value.retry_after_s == min(60, -(-5 * (share + 1) // 2))
        assert counts(admission) == (2, share)
        others = queued(admission, "b")
        with ended(others):
            assert counts(admission) == (2, share + 1)


@pytest.mark.parametrize("limit", [1, 3])
def test_a_line_too_short_to_be_shared_is_anybody_s(
    admission: Admission, settings: Settings, limit: int
) -> None:
    settings.QUEUE_LIMIT = limit
    holders = holding(admission, "x", "y")
    askers = queued(admission, *["a"] * limit)
    with ended(holders, askers), pytest.raises(QueueFull):
        ask(admission, "a")


def test_a_caller_that_is_alone_may_use_every_slot(admission: Admission) -> None:
    holders = holding(admission, "a", "a")
    with ended(holders):
        assert counts(admission) == (2, 0)


def test_an_only_slot_is_anybody_s(admission: Admission) -> None:
    one = (Candidate(name="default", capacity=1),)
    for caller in ("b", "a"):
        with admission.slot(caller=caller, candidates=lambda: one, is_abandoned=stays):
            assert counts(admission) == (1, 0)


# --- several engines --------------------------------------------------------------------------


def test_the_engine_with_the_lowest_share_of_busy_slots_is_taken(admission: Admission) -> None:
    both = (Candidate(name="small", capacity=2), Candidate(name="big", capacity=4))
    holders = holding(admission, *"abcdef", candidates=both)
    with ended(holders):
        # 0/2 and 0/4: as named; 1/2, 0/4: big; 1/2, 1/4: big; 1/2, 2/4: as named; then big.
        engines = [asker.engine for asker in holders]
        assert engines == ["small", "big", "big", "small", "big", "big"]


def test_who_waits_for_a_full_engine_stands_in_nobody_s_way(admission: Admission) -> None:
    full, idle = Candidate(name="full", capacity=1), Candidate(name="idle", capacity=1)
    holders = holding(admission, "x", candidates=(full,))
    order: list[str] = []
    first = queued(admission, "a", order=order, candidates=(full,))
    with ended(holders, first):
        other = holding(admission, "b", candidates=(full, idle))
        with ended(other):
            assert other[0].engine == "idle"
            behind = queued(admission, "c", order=order, candidates=(full, idle))
            with ended(behind):
                other[0].end()
                assert behind[0].has_slot.wait(TIMEOUT_S)
                assert (behind[0].engine, order) == ("idle", ["c1"])
                holders[0].end()
                wait_until(lambda: order == ["c1", "a1"])


def test_who_waited_for_an_engine_that_is_gone_goes_first_at_the_next(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_CHOOSE_AGAIN_S", 0.01)
    gone, other = Candidate(name="gone", capacity=1), Candidate(name="other", capacity=1)
    holders = holding(admission, "x", candidates=(gone,))
    holders += holding(admission, "y", candidates=(other,))
    order: list[str] = []
    early = queued(admission, "a", order=order, candidates=(gone,))
    late = queued(admission, "b", order=order, candidates=(other,))
    with ended(holders, early, late):
        early[0].wait_for(other)
        assert counts(admission) == (2, 2)
        holders[1].end()
        assert early[0].has_slot.wait(TIMEOUT_S)
        assert (early[0].engine, order) == ("other", ["a1"])
        holders[0].end()
        early[0].end()
        wait_until(lambda: order == ["a1", "b1"])


def test_a_caller_whose_share_of_the_line_is_full_changes_lines_too(
    admission: Admission, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_CHOOSE_AGAIN_S", 0.01)
    settings.QUEUE_LIMIT = 1
    gone, idle = Candidate(name="gone", capacity=1), Candidate(name="idle", capacity=1)
    holders = holding(admission, "x", candidates=(gone,))
    waiting = queued(admission, "a", candidates=(gone,))
    with ended(holders, waiting):
        waiting[0].candidates = (idle,)
        assert waiting[0].has_slot.wait(TIMEOUT_S)
        assert waiting[0].engine == "idle"


def test_who_changes_lines_is_let_in_whoever_has_taken_the_place(
    admission: Admission, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_CHOOSE_AGAIN_S", 0.01)
    settings.QUEUE_LIMIT = 1
    gone, other = Candidate(name="gone", capacity=1), Candidate(name="other", capacity=1)
    order: list[str] = []
    holders = holding(admission, "x", candidates=(gone,))
    holders += holding(admission, "y", candidates=(other,))
    early = queued(admission, "a", order=order, candidates=(gone,))
    late: list[Asker] = []
    leave = gate._Waiter.leave

    def leave_and_somebody_comes(waiter: gate._Waiter) -> None:
        has_place = waiter._line is not None
        leave(waiter)
        if waiter._request.caller == "a" and has_place and not late:
            late.extend(queued(admission, "b", order=order, candidates=(other,)))

    monkeypatch.setattr(gate._Waiter, "leave", leave_and_somebody_comes)
    with ended(holders, early, late):
        early[0].candidates = (other,)
        wait_until(lambda: counts(admission) == (2, 2) or not early[0].is_alive())
        with pytest.raises(QueueFull):
            ask(admission, candidates=(other,))
        holders[1].end()
        assert early[0].has_slot.wait(TIMEOUT_S), early[0].error
        assert order == ["a1"]


def test_halved_capacity_lets_no_new_one_in_before_enough_have_gone(
    admission: Admission, settings: Settings
) -> None:
    settings.QUEUE_LIMIT = 8
    four, two = ((Candidate(name="default", capacity=capacity),) for capacity in (4, 2))
    order: list[str] = []
    holders = holding(admission, *"abcd", candidates=four)
    # What the newest request says of the engine holds for those who wait already.
    waiting = queued(admission, "e", order=order, candidates=four)
    waiting += queued(admission, "f", order=order, candidates=two)
    with ended(holders, waiting):
        holders[0].end()
        holders[1].end()
        assert counts(admission) == (2, 2)
        holders[2].end()
        wait_until(lambda: order == ["e1"])
        more = Asker(admission, "g", name="g1", order=order, candidates=four)
        with ended([more]):
            wait_until(lambda: set(order) == {"e1", "f1", "g1"})
            assert counts(admission) == (4, 0)


def test_an_engine_without_slots_serves_nobody(admission: Admission, settings: Settings) -> None:
    settings.QUEUE_TIMEOUT_S = 0
    none = (Candidate(name="default", capacity=0),)
    with (
        pytest.raises(QueueTimeout),
        admission.slot(caller="a", candidates=lambda: none, is_abandoned=stays),
    ):
        pass
    assert counts(admission) == (0, 0)


@pytest.mark.parametrize(
    ("name", "capacity"),
    [("", 1), ("Upper", 1), ("a b", 1), ("a,b", 1), ("a" * 51, 1), ("a\n", 1), ("a", -1)],
)
def test_no_such_engine(name: str, capacity: int) -> None:
    with pytest.raises(ValueError, match="no engine"):
        Candidate(name=name, capacity=capacity)


@pytest.mark.parametrize("candidates", [(), ENGINE * 2])
def test_a_request_names_engines_and_each_once(
    admission: Admission, candidates: tuple[Candidate, ...]
) -> None:
    with (
        pytest.raises(ValueError, match="no distinct engines"),
        admission.slot(caller="a", candidates=lambda: candidates, is_abandoned=stays),
    ):
        pass


# --- leases -----------------------------------------------------------------------------------

ONE = (Candidate(name="default", capacity=1),)


def test_a_slot_that_is_renewed_stays_and_one_that_is_not_comes_back(
    hasty_admission: Admission,
) -> None:
    admission = hasty_admission
    holders = holding(admission, "x", candidates=ONE)  # renews
    started_s = time.monotonic()
    waiting = queued(admission, "a", candidates=ONE)
    with ended(holders, waiting):
        wait_until(lambda: time.monotonic() - started_s > 4)  # longer than a lease
        assert counts(admission) == (1, 1)
        holders[0].end()
        assert waiting[0].has_slot.wait(TIMEOUT_S)

    forgotten = admission.slot(caller="x", candidates=lambda: ONE, is_abandoned=stays)
    slot = forgotten.__enter__()
    ask(admission, candidates=ONE)  # waits until the lease has run out
    assert counts(admission) == (0, 0)
    # Nobody else has it, so the late one may go on.
    assert slot.renew()
    assert counts(admission) == (1, 0)
    forgotten.__exit__(None, None, None)
    assert counts(admission) == (0, 0)


def test_a_slot_that_went_to_another_is_lost_for_good(hasty_admission: Admission) -> None:
    admission = hasty_admission
    forgotten = admission.slot(caller="x", candidates=lambda: ONE, is_abandoned=stays)
    slot = forgotten.__enter__()
    assert slot.renew()
    holders = holding(admission, "a", candidates=ONE)
    with ended(holders):
        assert not slot.renew()
        holders[0].end()
        assert not slot.renew()
        again = holding(admission, "b", candidates=ONE)
        with ended(again):
            # To give back what is lost takes nothing from whoever has it now.
            forgotten.__exit__(None, None, None)
            assert counts(admission) == (1, 0)


def test_an_answer_that_comes_late_makes_no_lease_longer(
    hasty_admission: Admission, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    admission = hasty_admission
    line = admission._shared if settings.REDIS_URL else admission._local
    enter = line.enter

    def late(*args: Any, **named: Any) -> Any:
        standing = enter(*args, **named)
        time.sleep(1)
        return standing

    forgotten = admission.slot(caller="x", candidates=lambda: ONE, is_abandoned=stays)
    with monkeypatch.context() as patch:
        patch.setattr(line, "enter", late)
        slot = forgotten.__enter__()
    holders = holding(admission, "a", candidates=ONE)
    with ended(holders):
        assert not slot.renew()
    forgotten.__exit__(None, None, None)


def test_renewing_often_asks_nobody(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    with admission.slot(caller="a", candidates=lambda: ENGINE, is_abandoned=stays) as slot:
        for line in (admission._local, admission._shared):
            monkeypatch.setattr(line, "renew", None)
        assert all(slot.renew() for _ in range(1000))


# --- all at once ------------------------------------------------------------------------------


def is_past(moment_s: float) -> bool:
    return time.monotonic() > moment_s


def test_a_race_of_many_leaks_nothing_and_never_exceeds_the_slots(
    admission: Admission, settings: Settings
) -> None:
    settings.QUEUE_LIMIT, settings.QUEUE_TIMEOUT_S = 20, 0.005
    three = (Candidate(name="default", capacity=3),)
    inside, most, lock = 0, 0, threading.Lock()
    outcomes: dict[str, int] = {}

    def work(number: int) -> None:
        nonlocal inside, most
        chance = random.Random(number)
        for _ in range(15):
            leaves_at_s = time.monotonic() + chance.choice([0.001, 0.003, 9])
            outcome = "served"
            try:
                with admission.slot(
                    caller=str(number % 10),
                    candidates=lambda: three,
                    is_abandoned=functools.partial(is_past, leaves_at_s),
                ):
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(chance.choice([0, 0.001, 0.004, 0.008]))
                    with lock:
                        inside -= 1
            except (CallerGone, QueueFull, QueueTimeout, TooManyWaiting) as error:
                outcome = type(error).__name__
            with lock:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1

    in_parallel(40, work)
    assert most <= 3
    assert sum(outcomes.values()) == 40 * 15
    assert outcomes["served"] > 0
    assert counts(admission) == (0, 0)
    assert metric("slots_busy") == metric("queue_waiting") == 0
