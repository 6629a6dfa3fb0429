"""Real threads that start at one moment, for tests of races."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

T = TypeVar("T")

_START_TIMEOUT_S = 30.0


def in_parallel(count: int, work: Callable[[int], T]) -> list[T]:
    """What `work(0)` … `work(count - 1)` return, each from a thread with its own connection.

    Raises what the first failing one raised.
    """
    start = threading.Barrier(count)

    def run(number: int) -> T:
        try:
            start.wait(_START_TIMEOUT_S)
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
