"""The way to a slot: which line to stand in, for how long, and what is told of it.

With `REDIS_URL` it is the line of all processes. While Redis does not answer each process has one
of its own: slots multiply by the processes then, but nobody stands still.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from django.conf import settings

from consciousness.admission.local import LocalLine
from consciousness.admission.policy import (
    Candidate,
    Line,
    Request,
    Standing,
    Terms,
    Verdict,
    retry_after_s,
)
from consciousness.admission.refusals import CallerGone, QueueFull, QueueTimeout, TooManyWaiting
from consciousness.admission.shared import LineAway, SharedLine
from monitoring import metrics

_LOOK_UP_S = 0.25  # how often a waiting caller is checked for still being there
_CHOOSE_AGAIN_S = 1.0  # how often the engines that it waits for are
_NO_LIMIT = 1_000_000_000  # more than anybody can wait
_REFUSALS = {
    Verdict.QUEUE_FULL: QueueFull,
    Verdict.TOO_MANY_WAITING: TooManyWaiting,
}


class _Waiter:
    """One caller's way through the lines, and its slot when it has one."""

    def __init__(
        self,
        local: LocalLine,
        shared: SharedLine,
        *,
        caller: str,
        candidates: Callable[[], Sequence[Candidate]],
    ) -> None:
        self._local, self._shared = local, shared
        self._candidates = candidates
        self._request = Request(id="", caller=caller, candidates=tuple(candidates()))
        self._line: Line | None = None  # where it stands or holds
        self._began_s = self._chosen_s = self.asked_s = time.monotonic()

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self._began_s

    def ask(self) -> Standing:
        """Where it stands, in the line of all processes whenever that answers."""
        self.asked_s = time.monotonic()
        standing = None
        if self._line is self._local:
            standing = self._stand_in(self._local)
            if standing.verdict is Verdict.GRANTED or not self._shared.is_answering:
                return standing
        if settings.REDIS_URL:
            try:
                return self._stand_in(self._shared)
            except LineAway:
                if self._line is self._shared:
                    self._line = None  # what is left of it there is given back or expires
        return standing or self._stand_in(self._local)

    def _stand_in(self, line: Line) -> Standing:
        if line is self._line:
            standing = line.look(self._request)
            if standing.verdict is not Verdict.UNKNOWN:
                return standing
            self._line = None
        is_newcomer = self._request.id == ""
        # A new name each time: what is left of an older one may still be given back.
        request = replace(self._request, id=uuid.uuid4().hex)
        # Who had a place and stands nowhere is not refused, whoever has taken it meanwhile.
        was_let_in = self._line is None and not is_newcomer
        standing = line.enter(
            request,
            waited_s=0 if is_newcomer else self.waited_s,
            limit=_NO_LIMIT if was_let_in else settings.QUEUE_LIMIT,
        )
        if standing.verdict not in _REFUSALS:
            self.leave()
            self._line, self._request = line, request
        elif self._line is not None:  # no room there: it stays where it is
            return self._stand_in(self._line)
        return standing

    def choose_again(self) -> None:
        """Where other engines could take the request now, wait for those. It keeps its seniority,
        and goes without its place for a moment, or it would stand in the way of itself."""
        now = time.monotonic()
        if now - self._chosen_s < _CHOOSE_AGAIN_S:
            return
        self._chosen_s = now
        newest = replace(self._request, candidates=tuple(self._candidates()))
        if newest.engines != self._request.engines:
            self.leave()
            self._line, self._request = None, newest

    def retry_after_s(self, standing: Standing) -> int:
        others = standing.waiting - (standing.verdict is Verdict.WAITING)
        return retry_after_s(
            hold_s=standing.hold_s, waiting=others, capacity=self._request.capacity
        )

    def wait(self, standing: Standing, *, at_most_s: float) -> None:
        assert self._line is not None
        self._line.wait(self._request, standing, at_most_s=at_most_s)

    def hold(self, engine: str, *, held_s: float, is_forced: bool) -> bool:
        """Keep the slot; whether it is still ours."""
        assert self._line is not None
        self.note_locally(engine, held_s=held_s)
        try:
            return self._line.renew(self._request, engine, held_s=held_s, is_forced=is_forced)
        except LineAway:
            return True

    def note_locally(self, engine: str, *, held_s: float) -> None:
        """Its own process knows of a shared slot too, and gives no more than is left of the engine
        should Redis go away."""
        if self._line is self._shared:
            self._local.renew(self._request, engine, held_s=held_s, is_forced=True)

    def leave(self) -> None:
        """Give back the place or the slot where it was taken."""
        if self._line is not None:
            self._line.leave(self._request)
            if self._line is self._shared:
                self._local.leave(self._request)


class Slot:
    """What a holder has. `engine` is the candidate's name."""

    def __init__(self, waiter: _Waiter, engine: str, *, lease_s: float) -> None:
        self.engine = engine
        self._waiter, self._lease_s = waiter, lease_s
        # The lease began after that, so it ends no sooner than we believe. Counted from the answer
        # it would seem to go on, and a slot that has gone to another be taken back by force.
        self._taken_s = self._renewed_s = waiter.asked_s
        self._is_held = True
        waiter.note_locally(engine, held_s=0)

    def renew(self) -> bool:
        """Keep the slot while the work goes on; call it often, it asks every third of the lease.

        False, and so from then on, when the lease ran out for want of renewing and its slot has
        gone to another. A Redis that was away or lost its memory costs nobody a slot.
        """
        now = time.monotonic()
        idle_s = now - self._renewed_s
        if self._is_held and idle_s >= self._lease_s / 3:
            self._renewed_s = now
            self._is_held = self._waiter.hold(
                self.engine, held_s=now - self._taken_s, is_forced=idle_s < self._lease_s
            )
        return self._is_held


class Admission:
    """One serves a process."""

    def __init__(self, terms: Terms | None = None) -> None:
        self._terms = terms or Terms()
        self._local = LocalLine(self._terms)
        self._shared = SharedLine(self._terms)

    def snapshot(self, capacity: int) -> dict[str, int]:
        """The queue as `/state` shows it, over all processes; `capacity` is what there is of slots.

        While Redis is away, of this process.
        """
        try:
            busy, waiting = self._shared.count() if settings.REDIS_URL else self._local.count()
        except LineAway:
            busy, waiting = self._local.count()
        return {
            "slots": capacity,
            "busy": busy,
            "waiting": waiting,
            "limit": settings.QUEUE_LIMIT,
        }

    @contextmanager
    def slot(
        self,
        *,
        caller: str,
        candidates: Callable[[], Sequence[Candidate]],
        is_abandoned: Callable[[], bool],
    ) -> Iterator[Slot]:
        """Hold a slot of one of the engines; `caller` is whose share of them it takes.

        `candidates` is asked at once, and every second while waiting.

        Raises QueueFull and TooManyWaiting at once, QueueTimeout after QUEUE_TIMEOUT_S, CallerGone
        when `is_abandoned()` says so while waiting, and ValueError for no engine at all.
        """
        waiter = _Waiter(self._local, self._shared, caller=caller, candidates=candidates)
        try:
            engine = _wait(waiter, is_abandoned)
            metrics.QUEUE_WAIT.observe(waiter.waited_s)
            with metrics.SLOTS_BUSY.track_inprogress():
                yield Slot(waiter, engine, lease_s=self._terms.lease_s)
        finally:  # however it ends: nobody may be handed a slot now, or keep one
            waiter.leave()


def _wait(waiter: _Waiter, is_abandoned: Callable[[], bool]) -> str:
    """The engine that was granted."""
    standing = waiter.ask()
    if standing.verdict is Verdict.GRANTED:
        return standing.engine
    with metrics.QUEUE_WAITING.track_inprogress():
        while True:
            if refusal := _REFUSALS.get(standing.verdict):
                raise refusal(retry_after_s=waiter.retry_after_s(standing))
            if is_abandoned():
                raise CallerGone
            left_s = settings.QUEUE_TIMEOUT_S - waiter.waited_s
            if left_s <= 0:
                raise QueueTimeout(retry_after_s=waiter.retry_after_s(standing))
            waiter.wait(standing, at_most_s=min(_LOOK_UP_S, left_s))
            waiter.choose_again()
            standing = waiter.ask()
            if standing.verdict is Verdict.GRANTED:
                return standing.engine


admission = Admission()
