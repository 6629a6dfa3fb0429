"""Tells the terminal, in few words, what becomes of the programs. It changes nothing."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from scripts.supervision import Programs

_FAILED_STARTS = 3


def say(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        # The terminal is gone, which must not keep us from stopping what we started.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


@dataclass
class Watch:
    """Reports ends and restarts, and counts the failures of a program that cannot start."""

    programs: Programs
    _failures: dict[str, int] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    def look(self) -> None:
        for event in self.programs.events():
            now = time.strftime("%H:%M:%S")
            if event.kind == "ended":
                self._failures[event.program] = self._failures.get(event.program, 0) + 1
                self._ended.add(event.program)
                say(f"{now}  {event.program} ended ({event.how}) and is started again.")
            elif event.kind == "running":
                self._failures.pop(event.program, None)
                if event.program in self._ended:
                    self._ended.discard(event.program)
                    say(f"{now}  {event.program} runs again.")

    def failing(self) -> str | None:
        """A program that ended again and again without having been up for a while."""
        return next((name for name, n in self._failures.items() if n >= _FAILED_STARTS), None)
