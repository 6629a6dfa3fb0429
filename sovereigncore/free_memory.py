"""Free memory goes back to the system.

glibc gives threads arenas of their own and keeps what is freed in the middle of one. A web process
asks and answers in dozens of threads, so what it keeps grows for hours: after twenty minutes of
ordinary use a process held 13 MB of memory that nothing was in, and all growth was that.
"""

from __future__ import annotations

import ctypes
import time

EVERY_S = 30.0


def give_back() -> bool:
    """Return the free pages of all arenas, in a few milliseconds; False where the C library, such
    as musl, has no `malloc_trim`."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True


class GivingBack:
    """`now_and_then()`, called often, gives back every EVERY_S seconds."""

    def __init__(self) -> None:
        self._due_s = time.monotonic() + EVERY_S

    def now_and_then(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + EVERY_S
            give_back()
