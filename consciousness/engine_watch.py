"""The one thread of a process that asks its engines how they are, while there are several.

So no request waits for an engine that is dead or hung unless it needs that very one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from consciousness.engine_member import Member

_EVERY_S = 1.0
# A round takes no longer, however many engines hang, so that one that is back is soon seen.
_ROUND_S = 3.0
_PATIENCE_S = 1.0

log = structlog.get_logger(__name__)


class Watch:
    """`start` may be called any number of times. The thread ends when it has nothing to do."""

    def __init__(self, members: Callable[[], Sequence[Member]]) -> None:
        self._members = members
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stopping = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stopping,), name="engine-watch", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it, which takes a round at most."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping.set()
        if thread is not None:
            thread.join(_ROUND_S + _EVERY_S)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set() and len(members := self._members()) > 1:
            began_s = time.monotonic()
            try:
                self._ask(members, stopping)
            except Exception:  # the next round must come, whatever one engine made us meet
                log.exception("engine_watch_failed")
            stopping.wait(max(0.1, _EVERY_S - (time.monotonic() - began_s)))

    def _ask(self, members: Sequence[Member], stopping: threading.Event) -> None:
        due = [member for member in members if member.is_due]
        for member in due:
            if stopping.is_set():
                return
            member.ask(timeout_s=min(_PATIENCE_S, _ROUND_S / len(due)))
