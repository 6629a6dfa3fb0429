"""Who may use the engine now: a bounded number of slots, a bounded queue, first come first served.

Counts inside this process. A slot is held by a context manager and given back however it ends.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings

from monitoring import metrics
from sovereigncore.api import ServiceError

_LOOK_UP_S = 0.25  # how often a waiting caller is checked for still being there


class QueueFull(ServiceError):
    status = 503
    code = "queue_full"
    default_detail = "Too many requests are waiting for the engine. Try again shortly."


class QueueTimeout(ServiceError):
    status = 503
    code = "queue_timeout"
    default_detail = "No engine slot came free in time. Try again shortly."


class CallerGone(Exception):
    """The caller left while waiting; there is nobody to answer."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    name: str
    capacity: int


@dataclass(frozen=True, kw_only=True)
class Slot:
    engine: str

    def renew(self) -> bool:
        return True


class Admission:
    """Counts and queue behind one lock. `snapshot()` may be read at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._busy = 0

    def snapshot(self, capacity: int = 0) -> dict[str, int]:
        with self._lock:
            return {
                "slots": settings.ENGINE_SLOTS,
                "busy": self._busy,
                "waiting": len(self._waiting),
                "limit": settings.QUEUE_LIMIT,
            }

    @contextmanager
    def slot(
        self, *, caller: str, candidates: list[Candidate], is_abandoned: Callable[[], bool]
    ) -> Iterator[Slot]:
        """Hold one engine slot.

        Raises QueueFull at once, QueueTimeout after QUEUE_TIMEOUT_S, and CallerGone when
        `is_abandoned()` says so while waiting.
        """
        turn = self._take_or_queue()
        if turn is not None:
            try:
                self._wait(turn, is_abandoned)
            except BaseException:  # whatever ended the waiting, nobody may be handed a slot now
                self._leave(turn)
                raise
        try:
            yield Slot(engine=candidates[0].name)
        finally:
            self._give_back()

    def _take_or_queue(self) -> threading.Event | None:
        """None: a slot is ours. An event: it is set when a slot has become ours."""
        with self._lock:
            if self._busy < settings.ENGINE_SLOTS and not self._waiting:
                self._busy += 1
                metrics.SLOTS_BUSY.set(self._busy)
                return None
            if len(self._waiting) >= settings.QUEUE_LIMIT:
                raise QueueFull(retry_after_s=self._retry_after_s())
            turn = threading.Event()
            self._waiting.append(turn)
            metrics.QUEUE_WAITING.set(len(self._waiting))
            return turn

    def _wait(self, turn: threading.Event, is_abandoned: Callable[[], bool]) -> None:
        until_s = time.monotonic() + settings.QUEUE_TIMEOUT_S
        while not turn.wait(min(_LOOK_UP_S, max(0.0, until_s - time.monotonic()))):
            if is_abandoned():
                raise CallerGone
            if time.monotonic() >= until_s:
                raise QueueTimeout(retry_after_s=self._retry_after_s())

    def _leave(self, turn: threading.Event) -> None:
        with self._lock:
            if not turn.is_set():
                self._waiting.remove(turn)
                metrics.QUEUE_WAITING.set(len(self._waiting))
                return
        self._give_back()  # handed over since the wait ended

    def _give_back(self) -> None:
        """Hand the slot to the first in the queue, so that nobody overtakes."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
                metrics.QUEUE_WAITING.set(len(self._waiting))
            else:
                self._busy -= 1
                metrics.SLOTS_BUSY.set(self._busy)

    def _retry_after_s(self) -> int:
        # Nobody knows how long answers will take; the queue's own patience is what is promised.
        return max(1, round(settings.QUEUE_TIMEOUT_S / 4))


admission = Admission()
