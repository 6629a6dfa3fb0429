"""The one thread of a process that has its engines asked how they are, while there are several.

So no request waits for an engine that is dead or hung unless it needs that very one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from consciousness.engine_member import Member

_EVERY_S = 1.0
_PATIENCE_S = 1.0  # with each of them, however many there are
# So many are asked at the same time: those that hang shall not hide that others died or are back.
_AT_ONCE = 16
_STOP_S = 4.0

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
        """End the thread and wait for it, and so for the engines that are just being asked."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping.set()
        if thread is not None:
            thread.join(_STOP_S)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set() and len(members := self._members()) > 1:
            began_s = time.monotonic()
            try:
                self._ask([member for member in members if member.is_due], stopping)
            except Exception:  # as where no thread can be started; the next round may do better
                log.exception("engine_watch_failed")
            stopping.wait(max(0.1, _EVERY_S - (time.monotonic() - began_s)))

    def _ask(self, due: list[Member], stopping: threading.Event) -> None:
        askers = [
            threading.Thread(
                target=self._ask_each, args=(due, stopping), name="engine-question", daemon=True
            )
            for _ in due[:_AT_ONCE]
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()

    def _ask_each(self, due: list[Member], stopping: threading.Event) -> None:
        """Ask those that nobody has taken yet, one after the other."""
        while not stopping.is_set():
            try:
                member = due.pop(0)
            except IndexError:
                return
            try:
                member.ask(timeout_s=_PATIENCE_S)
            except Exception:  # the next one must be asked, whatever this one made us meet
                log.exception("engine_watch_failed")
