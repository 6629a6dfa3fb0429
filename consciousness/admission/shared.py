"""The line of all processes: a Lua script in Redis, and what to do while Redis does not answer.

Everything raises LineAway then, at the cost of one timeout every `PAUSE_S` for all callers
together; what could not be given back is given back when Redis answers again.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import structlog
from django_redis import get_redis_connection
from django_redis.exceptions import ConnectionInterrupted
from redis.commands.core import Script
from redis.exceptions import RedisError

from consciousness.admission.policy import (
    SECOND_US,
    Request,
    Standing,
    Terms,
    Verdict,
    waiting_share,
)

PAUSE_S = 2.0
_KEYS = [
    # The braces keep them in one slot of a cluster.
    f"sovereigncore:admission:{{line}}:{name}"
    for name in ("tickets", "leases", "alive", "places", "seen", "book")
]
SCRIPT = (Path(__file__).parent / "line.lua").read_text(encoding="utf-8")
# The first in line take over a free slot at once; those behind them need not ask as often, and
# 64 waiting ones cost Redis a few hundred short scripts a second.
_FIRST_FEW = 4
_POLL_S, _SLOWEST_POLL_S = 0.02, 0.25
_PAID_AT_ONCE = 500  # ids; Lua takes some thousands of arguments
# Ids: many times the requests at once of a process. Owed is what they held or asked for when Redis
# went away; who comes later asks for nothing before that is paid.
_MOST_OWED = 10_000

log = structlog.get_logger(__name__)


class LineAway(Exception):
    """Redis does not answer, or was left alone for it did not a moment ago."""


class LineBroke(LineAway):
    """It did not answer what it was sent, and may still come to read it."""


class Breaker:
    """Leaves Redis alone for `PAUSE_S` after a failure; then one caller tries, the others do not
    wait for what becomes of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until_s: float | None = None  # None: Redis answered last

    @property
    def is_closed(self) -> bool:
        return self._until_s is None

    def permits(self) -> bool:
        if self._until_s is None:
            return True
        with self._lock:
            now = time.monotonic()
            if self._until_s is not None and now < self._until_s:
                return False
            self._until_s = now + PAUSE_S
            return True

    def note_failure(self, error: Exception) -> None:
        with self._lock:
            was_closed = self._until_s is None
            self._until_s = time.monotonic() + PAUSE_S
        if was_closed:
            log.warning("redis_unavailable", used_for="admission", error=type(error).__name__)

    def note_success(self) -> None:
        if self._until_s is None:
            return
        with self._lock:
            was_open = self._until_s is not None
            self._until_s = None
        if was_open:
            log.info("redis_available_again", used_for="admission")


class SharedLine:
    def __init__(self, terms: Terms, *, script: str = SCRIPT) -> None:
        self._terms, self._text = terms, script
        self._breaker = Breaker()
        self._script: Script | None = None
        # Ids to give back, however old they are: a Redis that was stopped reads what it was asked
        # only when it goes on, and gives a slot for a whole lease to who has left long ago.
        self._owed: dict[str, None] = {}
        self._owed_lock = threading.Lock()

    @property
    def is_answering(self) -> bool:
        return self._breaker.is_closed

    def enter(self, request: Request, *, waited_s: float, limit: int) -> Standing:
        candidates = [
            part
            for candidate in request.candidates
            for part in (candidate.name, candidate.capacity)
        ]
        waited_us = int(waited_s * SECOND_US)
        try:
            reply = self._run("enter", request, waited_us, limit, waiting_share(limit), *candidates)
        except LineBroke:  # of what was never sent nothing is owed
            self._owe(request.id)
            raise
        return _standing(reply)

    def look(self, request: Request) -> Standing:
        try:
            return _standing(self._run("look", request))
        except LineAway:
            self._owe(request.id)
            raise

    def wait(self, request: Request, standing: Standing, *, at_most_s: float) -> None:
        behind = max(0, standing.place + 1 - _FIRST_FEW)
        time.sleep(min(at_most_s, _SLOWEST_POLL_S, _POLL_S * (1 + behind)))

    def renew(self, request: Request, engine: str, *, held_s: float, is_forced: bool) -> bool:
        held_us = int(held_s * SECOND_US)
        return bool(self._run("renew", request, engine, held_us, int(is_forced)))

    def leave(self, request: Request) -> None:
        try:
            self._run("leave", request)
        except LineAway:
            self._owe(request.id)

    def count(self) -> tuple[int, int]:
        busy, waiting = self._run("count", None)
        return busy, waiting

    def _owe(self, key: str) -> None:
        with self._owed_lock:
            self._owed[key] = None
            if len(self._owed) > _MOST_OWED:
                del self._owed[next(iter(self._owed))]

    def _pay(self, request: Request) -> None:
        while owed := self._take_owed():
            first, *others = owed
            try:
                self._call("leave", first, request.caller, *others)
            except LineBroke as error:
                for key in owed:
                    self._owe(key)
                raise LineAway from error

    def _take_owed(self) -> list[str]:
        with self._owed_lock:
            owed = list(self._owed)[:_PAID_AT_ONCE]
            for key in owed:
                del self._owed[key]
        return owed

    def _run(self, operation: str, request: Request | None, *more: Any) -> Any:
        """One step of the script, after the giving back of what is owed. Raises LineAway, and
        LineBroke where this step was sent."""
        if not self._breaker.permits():
            raise LineAway
        key, caller = (request.id, request.caller) if request else ("", "")
        if self._owed and request:
            self._pay(request)
        return self._call(operation, key, caller, *more)

    def _call(self, operation: str, key: str, caller: str, *more: Any) -> Any:
        terms = self._terms
        arguments = [operation, terms.lease_us, terms.ticket_us, terms.seen_us, key, caller, *more]
        try:
            client = get_redis_connection("default")
            if self._script is None:
                self._script = client.register_script(self._text)
            reply = self._script(keys=_KEYS, args=arguments, client=client)
        except (RedisError, ConnectionInterrupted, OSError) as error:
            self._breaker.note_failure(error)
            raise LineBroke from error
        self._breaker.note_success()
        return reply


def _standing(reply: list[Any]) -> Standing:
    verdict, engine, place, waiting, hold_us = reply
    return Standing(
        verdict=Verdict(verdict.decode()),
        engine=engine.decode(),
        place=place,
        waiting=waiting,
        hold_s=float(hold_us) / SECOND_US if hold_us else None,
    )
