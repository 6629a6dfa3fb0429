"""Password hashing that leaves the machine room for everything else.

A hash is a third of a second of CPU on purpose. Without a bound, a flood of logins would take all
of it; with one, the flood waits or is refused and other requests are answered.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextvars import ContextVar

from django.conf import settings
from django.contrib.auth import hashers
from django.http import HttpRequest

from accounts.brute_force import network_of
from sovereigncore import ratelimit
from sovereigncore.api import ServiceError
from sovereigncore.connections import release_connection

_WAIT_S = 8.0
_MAX_WAITING = 16  # each holds a thread meanwhile; the last one's turn comes within the wait

# Who makes us hash, set for every request; blank at a terminal.
caller_address: ContextVar[str] = ContextVar("caller_address", default="")


class HashingBusy(ServiceError):
    status = 503
    code = "hashing_busy"
    default_detail = "Too many passwords to check at once. Try again shortly."


class _Slots:
    """At most `count` hashes at once, and a bounded number of callers that wait for their turn.

    Networks take turns, however many callers of one wait. One may have as many waiting as there are
    places left: alone it gets half of them, and even fifteen that flood us leave one to whoever
    comes from another one.
    """

    def __init__(self, count: int) -> None:
        self._free = count  # 0 while anybody waits
        self._waiting: OrderedDict[str, deque[threading.Event]] = OrderedDict()
        self._lock = threading.Lock()

    def check_room(self) -> None:
        """Raises HashingBusy when this caller could not even wait, before anything else is done
        for who would be refused anyway."""
        with self._lock:
            if not self._free:
                self._check_room_for(_caller_network())

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Raises HashingBusy when none comes free in time, or too many wait already."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    def _begin(self) -> None:
        if not self._free:
            release_connection()  # it may fail, and as yet nobody waits for this caller
        network, turn = _caller_network(), threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                return
            self._check_room_for(network)
            self._waiting.setdefault(network, deque()).append(turn)
        if not turn.wait(_WAIT_S):
            self._give_up(network, turn)

    def _give_up(self, network: str, turn: threading.Event) -> None:
        with self._lock:
            if turn.is_set():  # it came at the last moment
                return
            self._waiting[network].remove(turn)
            if not self._waiting[network]:
                del self._waiting[network]
        raise HashingBusy(retry_after_s=2)

    def _end(self) -> None:
        """Hand the slot on. It is never free in between, so that nobody overtakes who waits."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            network, turns = self._waiting.popitem(last=False)
            turns.popleft().set()
            if turns:
                self._waiting[network] = turns  # behind all others

    def _check_room_for(self, network: str) -> None:
        left = _MAX_WAITING - sum(map(len, self._waiting.values()))
        if len(self._waiting.get(network, ())) >= left:
            raise HashingBusy(retry_after_s=2)


def _caller_network() -> str:
    address = caller_address.get()
    return network_of(address) if address else ""


def enforce_limit(request: HttpRequest, *, group: str, rate: str, caller: str = "") -> None:
    """The rate limit of what makes us hash. Raises HashingBusy or RateLimited, in this order: an
    attempt that was not heard is none."""
    slots.check_room()
    ratelimit.enforce(request, group=group, rate=rate, caller=caller)


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
