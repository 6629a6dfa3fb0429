"""The policy over one process's requests: who holds what, who waits, who is next.

Pure bookkeeping: it is told the time and locks nothing. `line.lua` is the same, for all processes;
a test holds the two to the same answers. Change both.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from consciousness.admission.policy import (
    SECOND_US,
    SMOOTHING,
    Request,
    Standing,
    Terms,
    Verdict,
    waiting_share,
)


@dataclass(frozen=True, kw_only=True)
class _Ticket:
    """A place in the line. Older ones go first among equals."""

    since_us: int
    id: str
    caller: str
    engines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Lease:
    engine: str
    caller: str
    started_us: int


@dataclass(kw_only=True)
class _Tally:
    """What is held, counted three ways."""

    by_caller: Counter[str] = field(default_factory=Counter)
    by_engine: Counter[str] = field(default_factory=Counter)
    by_both: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, caller: str, engine: str) -> None:
        self.by_caller[caller] += 1
        self.by_engine[engine] += 1
        self.by_both[caller, engine] += 1


class Ledger:
    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._tickets: dict[str, _Ticket] = {}
        self._leases: dict[str, _Lease] = {}
        self._expires_us: dict[str, int] = {}  # of tickets and leases
        self._places: dict[str, int] = {}
        self._seen_us: dict[str, int] = {}
        self._capacity: dict[str, int] = {}
        self._newest_since_us = 0
        self._hold_us: float | None = None

    # --- operations ------------------------------------------------------------------------

    def enter(self, request: Request, *, now_us: int, waited_us: int, limit: int) -> Standing:
        self._see(request.caller, now_us)
        self._purge(now_us)
        for candidate in request.candidates:
            self._capacity[candidate.name] = candidate.capacity
        if request.id not in self._leases:
            ticket = self._ticket(request, now_us, waited_us)
            self._tickets[ticket.id] = ticket
            self._serve(now_us)
            if refusal := self._refusal(ticket, limit):
                self._forget(ticket.id)
                self._order_line()
                return self._standing(refusal)
        return self.look(request, now_us=now_us)

    def look(self, request: Request, *, now_us: int) -> Standing:
        self._see(request.caller, now_us)
        if self._purge(now_us):
            self._serve(now_us)
        if lease := self._leases.get(request.id):
            self._expires_us[request.id] = now_us + self._terms.lease_us
            return self._standing(Verdict.GRANTED, engine=lease.engine)
        if request.id in self._tickets:
            self._expires_us[request.id] = now_us + self._terms.ticket_us
            return self._standing(Verdict.WAITING, place=self._places[request.id])
        return self._standing(Verdict.UNKNOWN)

    def renew(
        self, request: Request, engine: str, *, now_us: int, held_us: int, is_forced: bool
    ) -> bool:
        self._see(request.caller, now_us)
        if self._purge(now_us):
            self._serve(now_us)
        if request.id not in self._leases:
            busy = sum(lease.engine == engine for lease in self._leases.values())
            if not is_forced and busy >= self._capacity.get(engine, 0):
                return False
            self._leases[request.id] = _Lease(
                engine=engine, caller=request.caller, started_us=now_us - held_us
            )
            self._expires_us[request.id] = now_us + self._terms.lease_us
            self._serve(now_us)  # one less to leave a slot for
        self._expires_us[request.id] = now_us + self._terms.lease_us
        return True

    def leave(self, request: Request, *, now_us: int) -> None:
        self._see(request.caller, now_us)
        self._purge(now_us)
        if lease := self._leases.get(request.id):
            hold_us = now_us - lease.started_us
            before_us = hold_us if self._hold_us is None else self._hold_us
            self._hold_us = before_us + (hold_us - before_us) * SMOOTHING
        self._forget(request.id)
        self._serve(now_us)

    def count(self, *, now_us: int) -> tuple[int, int]:
        if self._purge(now_us):
            self._serve(now_us)
        return len(self._leases), len(self._tickets)

    def is_granted(self, key: str) -> bool:
        return key in self._leases

    # --- steps -----------------------------------------------------------------------------

    def _see(self, caller: str, now_us: int) -> None:
        self._seen_us[caller] = now_us

    def _purge(self, now_us: int) -> bool:
        """Drop what expired; whether anything did."""
        dead = [key for key, until_us in self._expires_us.items() if until_us <= now_us]
        for key in dead:
            self._forget(key)
        unseen_us = now_us - self._terms.seen_us
        gone = [caller for caller, seen_us in self._seen_us.items() if seen_us <= unseen_us]
        for caller in gone:
            del self._seen_us[caller]
        return bool(dead or gone)

    def _forget(self, key: str) -> None:
        for known in (self._tickets, self._leases, self._expires_us, self._places):
            known.pop(key, None)

    def _ticket(self, request: Request, now_us: int, waited_us: int) -> _Ticket:
        since_us = now_us - waited_us
        if not waited_us:  # no two newcomers are equal, and none is older than one before it
            since_us = self._newest_since_us = max(now_us, self._newest_since_us + 1)
        return _Ticket(
            since_us=since_us,
            id=request.id,
            caller=request.caller,
            engines=request.engines,
        )

    def _refusal(self, ticket: _Ticket, limit: int) -> Verdict | None:
        """Why the newcomer may not stay in the line, if it must wait in it."""
        if ticket.id not in self._tickets:
            return None
        own = sum(other.caller == ticket.caller for other in self._tickets.values()) - 1
        share = waiting_share(limit)
        if own >= share and share < limit:
            return Verdict.TOO_MANY_WAITING
        return Verdict.QUEUE_FULL if len(self._tickets) - 1 >= limit else None

    def _serve(self, now_us: int) -> None:
        """Grant whatever can be granted, one slot after the other."""
        line = sorted(self._tickets.values(), key=lambda ticket: (ticket.since_us, ticket.id))
        tally = self._tally()
        while chosen := self._next(line, tally):
            ticket, engine = chosen
            line.remove(ticket)
            del self._tickets[ticket.id]
            self._places.pop(ticket.id, None)
            self._leases[ticket.id] = _Lease(engine=engine, caller=ticket.caller, started_us=now_us)
            # Until its owner looks, so that a dead one holds it no longer than its place.
            self._expires_us.setdefault(ticket.id, now_us + self._terms.ticket_us)
            tally.add(ticket.caller, engine)
        self._order_line()

    def _tally(self) -> _Tally:
        tally = _Tally()
        for lease in self._leases.values():
            tally.add(lease.caller, lease.engine)
        return tally

    def _next(self, line: list[_Ticket], tally: _Tally) -> tuple[_Ticket, str] | None:
        """Of those that can be served, who holds fewest; among equals who has waited longest."""
        best: tuple[_Ticket, str] | None = None
        fewest = 0
        for ticket in line:
            held = tally.by_caller[ticket.caller]
            if best and held >= fewest:
                continue
            if engine := self._engine_for(ticket, tally):
                best, fewest = (ticket, engine), held
        return best

    def _engine_for(self, ticket: _Ticket, tally: _Tally) -> str:
        """The least busy of the ticket's engines that has room, by busy/capacity; or none."""
        best, total, free, mine = "", 0, 0, 0
        for engine in ticket.engines:
            capacity, busy = self._capacity.get(engine, 0), tally.by_engine[engine]
            total += capacity
            free += max(0, capacity - busy)
            mine += tally.by_both[ticket.caller, engine]
            if busy < capacity and (
                not best or busy * self._capacity[best] < tally.by_engine[best] * capacity
            ):
                best = engine
        if not mine or len(self._seen_us) == 1 or total == 1:
            return best
        # A slot is left for each who was here lately and holds none, up to half of them.
        idle = max(0, len(self._seen_us) - len(tally.by_caller))
        is_sated = mine >= total - 1 or free <= min(idle, total // 2)
        return "" if is_sated else best

    def _order_line(self) -> None:
        """Note everyone's place: the order of grants if slots came free one by one.

        The n-th request of a caller that holds h slots is served as one that holds h + n.
        """
        held = self._tally().by_caller
        order = []
        for ticket in sorted(self._tickets.values(), key=lambda each: (each.since_us, each.id)):
            order.append((held[ticket.caller], ticket.since_us, ticket.id))
            held[ticket.caller] += 1
        self._places = {key: place for place, (_held, _since, key) in enumerate(sorted(order))}

    def _standing(self, verdict: Verdict, *, engine: str = "", place: int = 0) -> Standing:
        hold_s = None if self._hold_us is None else self._hold_us / SECOND_US
        return Standing(
            verdict=verdict,
            engine=engine,
            place=place,
            waiting=len(self._tickets),
            hold_s=hold_s,
        )
