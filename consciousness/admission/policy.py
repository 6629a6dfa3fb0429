"""The words that both lines share, and what can be computed from them. Nothing here keeps state.

Times are whole microseconds of the line's own clock, which both Python and Redis's Lua count
exactly; durations that people see are seconds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

SECOND_US = 1_000_000
SMOOTHING = 0.2  # weight of the newest holding time in their moving average
_NAME = re.compile(r"[a-z0-9_-]{1,50}")
_ASSUMED_HOLD_S = 5.0  # until the first slot has been given back
_RETRY_AFTER_S = (1, 60)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An engine that could take the request, and its slots allowed right now (0 = none).

    The newest capacity told counts for everybody. Raises ValueError for a name that no engine has.
    """

    name: str
    capacity: int

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.capacity < 0:
            raise ValueError(f"no engine with slots: {self.name!r}, {self.capacity}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One asking for one slot. `id` is its own in all processes.

    Raises ValueError when no engine could take it, or one is named twice.
    """

    id: str
    caller: str
    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        if not self.engines or len(set(self.engines)) < len(self.engines):
            raise ValueError(f"no distinct engines: {self.engines}")

    @property
    def engines(self) -> tuple[str, ...]:
        return tuple(candidate.name for candidate in self.candidates)

    @property
    def capacity(self) -> int:
        return sum(candidate.capacity for candidate in self.candidates)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How long things last that nobody renews."""

    lease_us: int = 30 * SECOND_US  # a slot whose holder was killed
    ticket_us: int = 3 * SECOND_US  # a place in the line, and a slot its owner has not noticed yet
    seen_us: int = 30 * SECOND_US  # a caller counts as present so long after its last sign of life

    @property
    def lease_s(self) -> float:
        return self.lease_us / SECOND_US


class Verdict(StrEnum):
    GRANTED = "granted"
    WAITING = "waiting"
    QUEUE_FULL = "queue_full"
    TOO_MANY_WAITING = "too_many_waiting"
    UNKNOWN = "unknown"  # nothing with this id: its ticket expired, or the line lost its memory


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the line answers to a request. `place` is how many are ahead, `waiting` how many wait
    (over all processes), `hold_s` how long slots were held lately, None when none was yet."""

    verdict: Verdict
    engine: str = ""
    place: int = 0
    waiting: int = 0
    hold_s: float | None = None


class Line(Protocol):
    """A line of requests in front of the engines' slots.

    What is granted must be noticed by `look` within `ticket_us`, and renewed within `lease_us`.
    """

    def enter(self, request: Request, *, waited_s: float, limit: int) -> Standing:
        """A slot, a place, or a refusal. Who has waited elsewhere keeps that seniority."""

    def look(self, request: Request) -> Standing:
        """Where the request stands now; keeps its place, or confirms its slot."""

    def wait(self, request: Request, standing: Standing, *, at_most_s: float) -> None:
        """Return when it is worth looking again."""

    def renew(self, request: Request, engine: str, *, held_s: float, is_forced: bool) -> bool:
        """Keep the slot for another `lease_us`.

        A slot that expired is taken again if the engine has room, or is_forced; else False.
        """

    def leave(self, request: Request) -> None:
        """Give back the slot or the place, whichever there is."""

    def count(self) -> tuple[int, int]:
        """Slots busy and requests waiting."""


def waiting_share(limit: int) -> int:
    """How many places of a queue of `limit` one caller may fill: a quarter, at least one, and all
    of a queue too short to be shared."""
    return limit // 4 if limit >= 4 else limit


def retry_after_s(*, hold_s: float | None, waiting: int, capacity: int) -> int:
    """When a refused caller may hope for a slot, in whole seconds from 1 to 60:

        hold_s * (waiting + 1) / capacity

    With `capacity` slots that are held `hold_s` each (an exponentially weighted moving average of
    the times after which slots were given back, a fifth by the newest), one comes free every
    hold_s / capacity; the line ahead takes one each, and so does the caller.
    """
    estimate = (_ASSUMED_HOLD_S if hold_s is None else hold_s) * (waiting + 1) / max(1, capacity)
    least, most = _RETRY_AFTER_S
    return max(least, min(most, math.ceil(estimate)))
