"""Slots and queue: never too many, first come first served, nothing leaked."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import REGISTRY
from pytest_django import Settings

from consciousness import admission as admission_module
from consciousness.admission import Admission, CallerGone, QueueFull, QueueTimeout
from tests.parallel import in_parallel

TIMEOUT_S = 10.0


def stays() -> bool:
    return False


@pytest.fixture(autouse=True)
def _small(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ENGINE_SLOTS, settings.QUEUE_LIMIT, settings.QUEUE_TIMEOUT_S = 2, 3, TIMEOUT_S
    monkeypatch.setattr(admission_module, "_LOOK_UP_S", 0.01)


@pytest.fixture
def admission() -> Admission:
    return Admission()


def counts(admission: Admission) -> tuple[int, int]:
    snapshot = admission.snapshot()
    return snapshot["busy"], snapshot["waiting"]


def wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.002)


class Caller(threading.Thread):
    """Asks for a slot, holds it until told to stop, and keeps what happened."""

    def __init__(
        self,
        admission: Admission,
        order: list[int],
        number: int,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        self.finish, self.gone = threading.Event(), threading.Event()
        self._admission, self._order, self._number = admission, order, number
        self._is_abandoned = is_abandoned or self.gone.is_set
        self.start()

    def run(self) -> None:
        try:
            with self._admission.slot(is_abandoned=self._is_abandoned):
                self._order.append(self._number)
                assert self.finish.wait(TIMEOUT_S)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self.finish.set()
        self.join(TIMEOUT_S)
        assert not self.is_alive()


@contextmanager
def full(admission: Admission) -> Iterator[list[Caller]]:
    """Every slot is taken."""
    holders = [Caller(admission, [], number) for number in range(2)]
    wait_until(lambda: counts(admission)[0] == 2)
    yield holders
    for holder in holders:
        holder.end()


def queue_up(admission: Admission, count: int) -> tuple[list[Caller], list[int]]:
    """Callers who wait in the order of their numbers, and the list they enter when they get in."""
    order: list[int] = []
    callers = []
    for number in range(count):
        callers.append(Caller(admission, order, number))
        wait_until(functools.partial(is_waiting, admission, number + 1))
    return callers, order


def is_waiting(admission: Admission, count: int) -> bool:
    return counts(admission)[1] == count


def test_a_free_slot_is_taken_and_given_back(admission: Admission) -> None:
    with admission.slot(is_abandoned=stays):
        assert admission.snapshot() == {"slots": 2, "busy": 1, "waiting": 0, "limit": 3}
        assert REGISTRY.get_sample_value("sovereigncore_slots_busy") == 1
    assert counts(admission) == (0, 0)
    assert REGISTRY.get_sample_value("sovereigncore_slots_busy") == 0


@pytest.mark.parametrize("error", [ValueError, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_a_slot_is_given_back_however_it_ends(
    admission: Admission, error: type[BaseException]
) -> None:
    with pytest.raises(error), admission.slot(is_abandoned=stays):
        raise error
    assert counts(admission) == (0, 0)


def test_first_come_first_served(admission: Admission) -> None:
    with full(admission) as holders:
        callers, order = queue_up(admission, 3)
        assert counts(admission) == (2, 3)
        assert REGISTRY.get_sample_value("sovereigncore_queue_waiting") == 3
        holders[0].end()
        wait_until(lambda: order == [0])
        callers[0].end()
        wait_until(lambda: order == [0, 1])
        callers[1].end()
        wait_until(lambda: order == [0, 1, 2])
        assert counts(admission) == (2, 0)
        callers[2].end()
    assert counts(admission) == (0, 0)
    assert [caller.error for caller in callers] == [None] * 3
    assert REGISTRY.get_sample_value("sovereigncore_queue_waiting") == 0


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(
    admission: Admission, settings: Settings
) -> None:
    with full(admission):
        callers, _ = queue_up(admission, 3)
        started_s = time.monotonic()
        with pytest.raises(QueueFull) as refused, admission.slot(is_abandoned=stays):
            pass
        assert time.monotonic() - started_s < 0.5
        assert refused.value.status == 503
        assert refused.value.headers == {"Retry-After": "2"}  # a quarter of the patience of 10 s
        for caller in callers:
            caller.gone.set()
            caller.join(TIMEOUT_S)
    assert counts(admission) == (0, 0)


def test_retry_after_is_never_nothing(admission: Admission, settings: Settings) -> None:
    settings.QUEUE_LIMIT, settings.QUEUE_TIMEOUT_S = 0, 0
    with full(admission):
        with pytest.raises(QueueFull) as refused, admission.slot(is_abandoned=stays):
            pass
        assert refused.value.retry_after_s == 1


@pytest.mark.parametrize("patience_s", [0.0, 0.1])
def test_patience_ends(admission: Admission, settings: Settings, patience_s: float) -> None:
    with full(admission):
        settings.QUEUE_TIMEOUT_S = patience_s
        started_s = time.monotonic()
        with pytest.raises(QueueTimeout) as refused, admission.slot(is_abandoned=stays):
            pass
        assert patience_s <= time.monotonic() - started_s < patience_s + 1
        assert (refused.value.status, refused.value.retry_after_s) == (503, 1)
        assert counts(admission) == (2, 0)
    assert counts(admission) == (0, 0)


def test_who_leaves_gives_up_the_place_and_those_behind_move_up(admission: Admission) -> None:
    with full(admission) as holders:
        callers, order = queue_up(admission, 3)
        callers[0].gone.set()
        callers[0].join(TIMEOUT_S)
        assert isinstance(callers[0].error, CallerGone)
        assert counts(admission) == (2, 2)
        holders[0].end()
        wait_until(lambda: order == [1])
        for caller in callers[1:]:
            caller.finish.set()
    wait_until(lambda: counts(admission) == (0, 0))
    assert order == [1, 2]


def test_a_question_that_fails_leaves_no_place_behind(admission: Admission) -> None:
    """Whoever is asked whether the caller is still there may fail in its own way."""

    def broken() -> bool:
        raise RuntimeError("a bug")

    with full(admission):
        with pytest.raises(RuntimeError), admission.slot(is_abandoned=broken):
            pass
        assert counts(admission) == (2, 0)
    assert counts(admission) == (0, 0)


def test_a_slot_handed_to_one_who_is_just_leaving_goes_on_to_the_next(
    admission: Admission,
) -> None:
    """The hand-over comes between the last look at the caller and its leaving the queue."""
    leave, order = threading.Event(), list[int]()
    with full(admission) as holders:

        def is_abandoned() -> bool:
            if not leave.is_set():
                return False
            holders[0].end()
            return True

        leaver = Caller(admission, order, 0, is_abandoned)
        wait_until(lambda: is_waiting(admission, 1))
        behind = Caller(admission, order, 1)
        wait_until(lambda: is_waiting(admission, 2))
        leave.set()
        leaver.join(TIMEOUT_S)
        assert isinstance(leaver.error, CallerGone)
        wait_until(lambda: order == [1])
        behind.end()
    assert counts(admission) == (0, 0)


def is_past(moment_s: float) -> bool:
    return time.monotonic() > moment_s


def test_a_race_of_many_leaks_nothing_and_never_exceeds_the_slots(
    admission: Admission, settings: Settings
) -> None:
    settings.ENGINE_SLOTS, settings.QUEUE_LIMIT, settings.QUEUE_TIMEOUT_S = 3, 20, 0.005
    inside, most, lock = 0, 0, threading.Lock()
    outcomes: dict[str, int] = {}

    def work(number: int) -> None:
        nonlocal inside, most
        chance = random.Random(number)
        for _ in range(15):
            leaves_at_s = time.monotonic() + chance.choice([0.001, 0.003, 9])
            outcome = "served"
            try:
                with admission.slot(is_abandoned=functools.partial(is_past, leaves_at_s)):
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(chance.choice([0, 0.001, 0.004, 0.008]))
                    with lock:
                        inside -= 1
            except (CallerGone, QueueFull, QueueTimeout) as error:
                outcome = type(error).__name__
            with lock:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1

    in_parallel(40, work)
    assert most == 3
    assert sum(outcomes.values()) == 40 * 15
    assert set(outcomes) == {"served", "CallerGone", "QueueFull", "QueueTimeout"}
    assert counts(admission) == (0, 0)
