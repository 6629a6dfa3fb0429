"""The line of one process: a ledger behind one lock, and an event for each who waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from consciousness.admission.ledger import Ledger
from consciousness.admission.policy import SECOND_US, Request, Standing, Terms, Verdict


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class LocalLine:
    def __init__(self, terms: Terms, *, clock_us: Callable[[], int] = monotonic_us) -> None:
        self._lock = threading.Lock()
        self._ledger = Ledger(terms)
        self._clock_us = clock_us
        self._turns: dict[str, threading.Event] = {}  # of those who wait

    def enter(self, request: Request, *, waited_s: float, limit: int) -> Standing:
        with self._lock:
            standing = self._ledger.enter(
                request,
                now_us=self._clock_us(),
                waited_us=int(waited_s * SECOND_US),
                limit=limit,
            )
            if standing.verdict is Verdict.WAITING:
                self._turns[request.id] = threading.Event()
            self._wake()
            return standing

    def look(self, request: Request) -> Standing:
        with self._lock:
            standing = self._ledger.look(request, now_us=self._clock_us())
            if standing.verdict is not Verdict.WAITING:
                self._turns.pop(request.id, None)
            self._wake()
            return standing

    def wait(self, request: Request, standing: Standing, *, at_most_s: float) -> None:
        turn = self._turns.get(request.id)
        if turn is not None:  # else its turn has come
            turn.wait(at_most_s)

    def renew(self, request: Request, engine: str, *, held_s: float, is_forced: bool) -> bool:
        with self._lock:
            is_held = self._ledger.renew(
                request,
                engine,
                now_us=self._clock_us(),
                held_us=int(held_s * SECOND_US),
                is_forced=is_forced,
            )
            self._wake()
            return is_held

    def leave(self, request: Request) -> None:
        with self._lock:
            self._ledger.leave(request, now_us=self._clock_us())
            self._turns.pop(request.id, None)
            self._wake()

    def count(self) -> tuple[int, int]:
        with self._lock:
            counts = self._ledger.count(now_us=self._clock_us())
            self._wake()
            return counts

    def _wake(self) -> None:
        for key, turn in self._turns.items():
            if self._ledger.is_granted(key):
                turn.set()
