"""A circuit breaker: when an engine is left alone, and how it comes back. Knows no engine, no
network and no request: outcomes in, a decision out.

Closed, requests pass. Failures open it, and nothing passes. Meanwhile the engine is asked how it
is; the first answer half-opens the circuit, and one request at a time may try. Its first token
closes it, and only a whole answer makes up for the failures before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum

FAILURES_TO_OPEN = 3  # in a row
# How long a trial may go without a word before the next one: its caller may have left.
TRIAL_S = 10.0
# An engine that nobody tries, because others are asked before it, comes back by its answers alone.
QUIET_S = 2.0
# Until a request has succeeded, the first one that fails opens the circuit again.
_UNPROVED = FAILURES_TO_OPEN - 1
_NEVER_S = float("-inf")


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Safe to share between threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._circuit = Circuit.CLOSED
        self._failed_requests = self._unanswered_questions = 0  # each in a row
        self._half_open_since_s = self._trial_until_s = _NEVER_S

    @property
    def circuit(self) -> Circuit:
        return self._circuit

    @property
    def has_room(self) -> bool:
        """Whether a request that went now would be admitted."""
        return self._circuit is Circuit.CLOSED or (
            self._circuit is Circuit.HALF_OPEN and self._clock() >= self._trial_until_s
        )

    def admits(self) -> bool:
        """Whether a request may go now. Half-open, a yes is the one trial: report how it went."""
        with self._lock:
            if self._circuit is not Circuit.HALF_OPEN:
                return self._circuit is Circuit.CLOSED
            if self._clock() < self._trial_until_s:
                return False
            self._trial_until_s = self._clock() + TRIAL_S
            return True

    def record_first_token(self) -> None:
        with self._lock:
            self._unanswered_questions = 0
            if self._circuit is not Circuit.CLOSED:
                self._close(failed_requests=_UNPROVED)

    def record_success(self) -> None:
        """Of a request, to its end. While it is open that began before, most likely, and proves no
        more than a first token."""
        with self._lock:
            is_old = self._circuit is Circuit.OPEN
            self._close(failed_requests=_UNPROVED if is_old else 0)

    def record_failure(self, *, at_once: bool = False) -> None:
        """Of a request. `at_once`: one such failure is enough."""
        with self._lock:
            self._failed_requests += 1
            self._open_if(at_once or self._failed_requests >= FAILURES_TO_OPEN)

    def record_no_verdict(self) -> None:
        """A request told nothing about the engine: it was busy, or the caller was wrong."""
        with self._lock:
            self._trial_until_s = _NEVER_S

    def record_silence(self, *, at_once: bool = False) -> None:
        """A question how it is was not answered."""
        with self._lock:
            self._unanswered_questions += 1
            self._open_if(at_once or self._unanswered_questions >= FAILURES_TO_OPEN)

    def record_answer(self) -> None:
        """It was answered, which is less than a request that succeeded."""
        with self._lock:
            now_s = self._clock()
            self._unanswered_questions = 0
            if self._circuit is Circuit.OPEN:
                self._circuit = Circuit.HALF_OPEN
                self._half_open_since_s, self._trial_until_s = now_s, _NEVER_S
            elif self._circuit is Circuit.HALF_OPEN and now_s >= max(
                self._half_open_since_s + QUIET_S, self._trial_until_s
            ):
                self._close(failed_requests=_UNPROVED)

    def _open_if(self, is_enough: bool) -> None:
        # Half-open, the trial was all the patience there is.
        if is_enough or self._circuit is Circuit.HALF_OPEN:
            self._circuit = Circuit.OPEN
            self._failed_requests = self._unanswered_questions = 0

    def _close(self, *, failed_requests: int) -> None:
        self._circuit = Circuit.CLOSED
        self._failed_requests, self._unanswered_questions = failed_requests, 0
        self._trial_until_s = _NEVER_S
