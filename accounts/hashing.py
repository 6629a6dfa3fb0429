"""Password hashing that leaves the machine room for everything else.

A hash is a third of a second of CPU on purpose. Without a bound, a flood of logins would take all
of it; with one, the flood waits or is refused and other requests are answered.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from django.conf import settings
from django.contrib.auth import hashers

from sovereigncore.api import ServiceError

_WAIT_S = 8.0
_MAX_WAITING = 16  # each holds a thread meanwhile; the last one's turn comes within the wait


class HashingBusy(ServiceError):
    status = 503
    code = "hashing_busy"
    default_detail = "Too many passwords to check at once. Try again shortly."


class _Slots:
    """At most `count` hashes at once, and a bounded number of callers that wait for their turn."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)

    def check_room(self) -> None:
        """Raises HashingBusy when there is not even room to wait, before anything else is done
        for who would be refused anyway."""
        if not self._waiting.acquire(blocking=False):
            raise HashingBusy(retry_after_s=2)
        self._waiting.release()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Raises HashingBusy when none comes free in time, or too many wait already."""
        if not self._free.acquire(blocking=False):
            self._wait()
        try:
            yield
        finally:
            self._free.release()

    def _wait(self) -> None:
        if not self._waiting.acquire(blocking=False):
            raise HashingBusy(retry_after_s=2)
        try:
            if not self._free.acquire(timeout=_WAIT_S):
                raise HashingBusy(retry_after_s=2)
        finally:
            self._waiting.release()


def concurrent_hashes(cpus: int, processes: int) -> int:
    """How many hashes one web process may run at once: together they leave one CPU alone."""
    return max(1, (cpus - 1) // processes)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


slots = _Slots(concurrent_hashes(_cpus(), settings.WEB_CONCURRENCY))


class CappedBCryptSHA256PasswordHasher(hashers.BCryptSHA256PasswordHasher):
    def encode(self, password: str, salt: str) -> str:
        with slots.one():
            return super().encode(password, salt)


class CappedPBKDF2PasswordHasher(hashers.PBKDF2PasswordHasher):
    """For hashes that came from elsewhere; a login replaces them."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        with slots.one():
            return super().encode(password, salt, iterations)
