"""A progress bar on a terminal, for commands that take long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")

_WIDTH = 30
_EVERY_S = 0.2
_STEP = 1024  # things between two looks at the clock


class Progress:
    """`counted` passes things on and shows how many of `total` there were, on a terminal only."""

    def __init__(
        self,
        out: TextIO,
        *,
        total: int,
        what: str,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out, self._total, self._what = out, total, what
        self._is_shown = out.isatty()
        self._done = 0
        self._clock_s = clock_s
        self._began_s = self._shown_s = clock_s()

    def counted(self, things: Iterable[T]) -> Iterator[T]:
        for thing in things:
            self._done += 1
            if self._is_shown and self._done % _STEP == 0:
                self._show_if_due()
            yield thing

    def close(self) -> None:
        """Take the bar away, so that what follows begins a line."""
        if self._is_shown:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def _show_if_due(self) -> None:
        now_s = self._clock_s()
        if now_s - self._shown_s < _EVERY_S:
            return
        self._shown_s = now_s
        part = min(1.0, self._done / self._total) if self._total else 1.0
        left_s = (now_s - self._began_s) * (1 - part) / part if part else 0.0
        bar = ("#" * round(part * _WIDTH)).ljust(_WIDTH)
        self._out.write(
            f"\r\x1b[K[{bar}] {part:4.0%}  {self._done:,} {self._what}, {left_s:.0f} s left"
        )
        self._out.flush()
