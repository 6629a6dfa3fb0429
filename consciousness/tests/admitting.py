"""Callers that ask for slots in threads, hold them until told, and keep what happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from consciousness.admission import Admission, Candidate

TIMEOUT_S = 20.0
ENGINE = (Candidate(name="default", capacity=2),)


def stays() -> bool:
    return False


def wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.002)


def counts(admission: Admission) -> tuple[int, int]:
    """Slots busy and requests waiting."""
    snapshot = admission.snapshot(0)
    return snapshot["busy"], snapshot["waiting"]


class Asker(threading.Thread):
    """One request. `order` is told its name when it has its slot."""

    def __init__(
        self,
        admission: Admission,
        caller: str,
        *,
        name: str = "",
        candidates: tuple[Candidate, ...] = ENGINE,
        order: list[str] | None = None,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(daemon=True, name=name or caller)
        self.error: BaseException | None = None
        self.engine = ""
        self.has_slot, self.finish, self.gone = (threading.Event() for _ in range(3))
        self._admission, self._caller = admission, caller
        self.candidates, self.chosen = candidates, 0
        self._order = [] if order is None else order
        self._is_abandoned = is_abandoned or self.gone.is_set
        self.start()

    def run(self) -> None:
        try:
            with self._admission.slot(
                caller=self._caller, candidates=self._choose, is_abandoned=self._is_abandoned
            ) as slot:
                self.engine = slot.engine
                self._order.append(self.name)
                self.has_slot.set()
                until_s = time.monotonic() + TIMEOUT_S
                while not self.finish.wait(0.02):
                    assert time.monotonic() < until_s
                    assert slot.renew()
        except BaseException as error:
            self.error = error

    def _choose(self) -> tuple[Candidate, ...]:
        self.chosen += 1
        return self.candidates

    def wait_for(self, *candidates: Candidate) -> None:
        """Returns when it stands in their line."""
        self.candidates, before = candidates, self.chosen
        wait_until(lambda: self.chosen > before + 2)

    def end(self) -> None:
        """Give the slot back, or never take it."""
        self.finish.set()
        self.ended()

    def leave(self) -> None:
        """The caller hangs up while it waits."""
        self.gone.set()
        self.ended()

    def ended(self) -> None:
        self.join(TIMEOUT_S)
        assert not self.is_alive()


def holding(
    admission: Admission, *callers: str, candidates: tuple[Candidate, ...] = ENGINE
) -> list[Asker]:
    """One slot each."""
    askers = []
    for caller in callers:
        asker = Asker(admission, caller, candidates=candidates)
        askers.append(asker)
        assert asker.has_slot.wait(TIMEOUT_S), asker.error
    return askers


def queued(
    admission: Admission,
    *callers: str,
    order: list[str] | None = None,
    candidates: tuple[Candidate, ...] = ENGINE,
) -> list[Asker]:
    """Those who wait, in the order in which they came. Their names are `caller1`, `caller2`, …"""
    already = counts(admission)[1]
    askers = []
    for number, caller in enumerate(callers, 1):
        name = f"{caller}{callers[:number].count(caller)}"
        asker = Asker(admission, caller, name=name, order=order, candidates=candidates)
        askers.append(asker)
        wait_until(lambda: counts(admission)[1] == already + number or not asker.is_alive())  # noqa: B023
        assert asker.is_alive(), asker.error
    return askers


@contextmanager
def ended(*askers: list[Asker]) -> Iterator[None]:
    """However the test ends, nobody is left asking or holding."""
    try:
        yield
    finally:
        for asker in [each for group in askers for each in group]:
            asker.gone.set()
            asker.finish.set()
            with suppress(RuntimeError):
                asker.join(TIMEOUT_S)
