"""Both kinds of line on a clock that stands still until a test moves it."""

from __future__ import annotations

import itertools

import redis

from consciousness.admission.local import LocalLine
from consciousness.admission.policy import SECOND_US, Candidate, Line, Request, Terms
from consciousness.admission.shared import SCRIPT, SharedLine

_CLOCK_KEY = "sovereigncore:test:clock_us"
_ITS_CLOCK = """local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""
_START_US = 1_800_000_000 * SECOND_US + 123_457  # as large as real ones


class Clock:
    """For the local line, and with the URL of a Redis for the shared one."""

    def __init__(self, url: str = "") -> None:
        self._redis = redis.Redis.from_url(url) if url else None
        self._now_us = _START_US
        self.advance_us(0)

    def __call__(self) -> int:
        return self._now_us

    def advance(self, seconds: float) -> None:
        self.advance_us(round(seconds * SECOND_US))

    def advance_us(self, duration_us: int) -> None:
        self._now_us += duration_us
        if self._redis is not None:
            self._redis.set(_CLOCK_KEY, self._now_us)

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()


def local_line(clock: Clock, terms: Terms) -> LocalLine:
    return LocalLine(terms, clock_us=clock)


def shared_line(terms: Terms) -> SharedLine:
    assert SCRIPT.count(_ITS_CLOCK) == 1
    script = SCRIPT.replace(
        _ITS_CLOCK, f"local now = tonumber(redis.call('GET', '{_CLOCK_KEY}'))\n"
    )
    return SharedLine(terms, script=script)


_numbers = itertools.count()


def a_request(caller: str, **capacities: int) -> Request:
    """Of a caller, for the engines named, by default one with two slots."""
    return Request(
        id=f"{next(_numbers):08d}",
        caller=caller,
        candidates=tuple(
            Candidate(name=name, capacity=capacity)
            for name, capacity in (capacities or {"default": 2}).items()
        ),
    )


def enter(line: Line, caller: str, *, limit: int = 8, waited_s: float = 0) -> Request:
    request = a_request(caller)
    line.enter(request, waited_s=waited_s, limit=limit)
    return request
