"""A web process keeps little memory that nothing is in.

glibc gives threads arenas of their own, and keeps what is freed in the middle of one. A web process
asks and answers in dozens of threads, so what it keeps this way grows for hours.
"""

from __future__ import annotations

import ctypes
import time

_EVERY_S = 30.0
_M_ARENA_MAX = -8  # <malloc.h>


def share_one_arena() -> bool:
    """All threads use the same memory, which Python's lock lets one of them do at a time anyway.
    To be called before there are any. False where the C library, such as musl, knows no arenas."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, 1) == 1


def give_back() -> bool:
    """Return free pages to the system, in a few milliseconds; False where the C library cannot."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is None:
        return False
    malloc_trim(0)
    return True


class GivingBack:
    """`now_and_then()`, called often, gives back every half minute."""

    def __init__(self) -> None:
        self._due_s = time.monotonic() + _EVERY_S

    def now_and_then(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + _EVERY_S
            give_back()
