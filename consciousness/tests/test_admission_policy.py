"""The policy under whatever happens in whatever order, and its two writings held to one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from consciousness.admission.ledger import Ledger
from consciousness.admission.policy import Request, Standing, Terms, Verdict, waiting_share
from consciousness.tests.clocked_lines import Clock, a_request, local_line, shared_line
from tests.servers import RedisServer

pytestmark = pytest.mark.once

LIMIT = 8
ENGINES = {"one": 1, "two": 2, "three": 3}


class LineMachine(RuleBasedStateMachine):
    """Every step is done in both lines; then the ledger is judged by rules of its own."""

    server: RedisServer  # to use
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.server.empty()
        self.clock, terms = Clock(self.server.url), Terms()
        self.local, self.shared = local_line(self.clock, terms), shared_line(terms)
        self.terms = terms
        self.capacity: dict[str, int] = {}
        self.until_us: dict[str, int] = {}  # until when each must be known
        self.forced: set[str] = set()
        self.before = Picture(self.ledger, self.capacity)

    @property
    def ledger(self) -> Ledger:
        return self.local._ledger

    def teardown(self) -> None:
        self.clock.close()

    def _judge(self, request: Request, standing: Standing, other: Standing) -> None:
        assert standing == other
        now = self.clock()
        if standing.verdict is Verdict.GRANTED:
            self.until_us[request.id] = now + self.terms.lease_us
        elif standing.verdict is Verdict.WAITING:
            self.until_us[request.id] = now + self.terms.ticket_us
        else:
            assert self.until_us.pop(request.id, 0) <= now

    @initialize()
    def begin(self) -> None:
        self._look_back()

    def _look_back(self) -> None:
        self.before = Picture(self.ledger, dict(self.capacity))

    # --- what may happen --------------------------------------------------------------------

    @rule(
        target=requests,
        caller=st.sampled_from("abcd"),
        engines=st.lists(st.sampled_from(sorted(ENGINES)), min_size=1, unique=True),
        halved=st.booleans(),
        waited_s=st.sampled_from([0, 0, 0, 2.5]),
    )
    def enter(self, caller: str, engines: list[str], halved: bool, waited_s: float) -> object:
        capacities = {name: ENGINES[name] // (2 if halved else 1) for name in engines}
        request = a_request(caller, **capacities)
        self._look_back()
        self.capacity |= capacities
        standing, other = (
            line.enter(request, waited_s=waited_s, limit=LIMIT)
            for line in (self.local, self.shared)
        )
        self._judge(request, standing, other)
        if standing.verdict is Verdict.QUEUE_FULL:
            assert len(self.ledger._tickets) == LIMIT
        elif standing.verdict is Verdict.TOO_MANY_WAITING:
            own = [ticket for ticket in self.ledger._tickets.values() if ticket.caller == caller]
            assert len(own) == waiting_share(LIMIT)
        else:
            return request
        return multiple()

    @rule(request=requests)
    def look(self, request: Request) -> None:
        self._look_back()
        self._judge(request, self.local.look(request), self.shared.look(request))

    @rule(request=requests, is_forced=st.booleans())
    def renew(self, request: Request, is_forced: bool) -> None:
        self._look_back()
        if request.id in self.ledger._tickets:
            return  # has no slot to renew
        engine = request.candidates[0].name
        lease = self.ledger._leases.get(request.id)
        engine = lease.engine if lease else engine
        is_held, other = (
            line.renew(request, engine, held_s=1.5, is_forced=is_forced)
            for line in (self.local, self.shared)
        )
        assert is_held is other
        assert is_held or not is_forced
        if is_held:
            self.until_us[request.id] = self.clock() + self.terms.lease_us
            self.forced.add(request.id)

    @rule(request=consumes(requests))
    def leave(self, request: Request) -> None:
        self._look_back()
        self.local.leave(request)
        self.shared.leave(request)
        self.until_us.pop(request.id, None)

    @precondition(lambda self: self.until_us)
    @rule(seconds=st.sampled_from([0.000001, 0.7, 2.9, 3, 9, 29, 31]))
    def wait(self, seconds: float) -> None:
        self._look_back()
        self.clock.advance(seconds)
        self.local.count()

    # --- what must be so --------------------------------------------------------------------

    @invariant()
    def both_lines_count_the_same(self) -> None:
        assert self.local.count() == self.shared.count()

    @invariant()
    def nobody_is_lost(self) -> None:
        alive = {key for key, until_us in self.until_us.items() if until_us > self.clock()}
        assert alive <= self.ledger._tickets.keys() | self.ledger._leases.keys()
        assert not self.ledger._tickets.keys() & self.ledger._leases.keys()

    @invariant()
    def nothing_is_granted_beyond_the_capacity(self) -> None:
        now = Picture(self.ledger, self.capacity)
        for key in now.granted_since(self.before) - self.forced:
            engine = self.ledger._leases[key].engine
            assert now.busy[engine] <= self.capacity[engine]

    @invariant()
    def one_slot_is_left_for_others(self) -> None:
        """Of the engines that a request names, as far as it is up to this request."""
        now = Picture(self.ledger, self.capacity)
        for key in self._only_grant(now):
            ticket = self.before.tickets[key]
            total = sum(self.capacity[engine] for engine in ticket.engines)
            held = now.held_of(ticket.caller, ticket.engines)
            assert held < total or total == 1 or not now.is_shared

    @invariant()
    def a_slot_is_left_for_each_who_holds_none(self) -> None:
        """Up to half of the slots, and never by one who has none itself."""
        now = Picture(self.ledger, self.capacity)
        for key in self._only_grant(now):
            ticket = self.before.tickets[key]
            total = sum(self.capacity[engine] for engine in ticket.engines)
            free = sum(max(0, self.capacity[name] - now.busy[name]) for name in ticket.engines)
            is_first = now.held_of(ticket.caller, ticket.engines) == 1
            without = now.seen - set(now.held)
            assert is_first or total == 1 or free >= min(len(without), total // 2)

    @invariant()
    def no_slot_is_idle_while_somebody_may_have_it(self) -> None:
        now = Picture(self.ledger, self.capacity)
        assert [key for key in self.ledger._tickets if now.engines_open_to(key)] == []

    @invariant()
    def nobody_is_overtaken_by_one_of_no_better_standing(self) -> None:
        """Of those who waited before the step and still do."""
        now = Picture(self.ledger, self.capacity)
        for key in self._only_grant(now):
            winner, engine = self.before.tickets[key], self.ledger._leases[key].engine
            for other in self.ledger._tickets.values():
                could = engine in other.engines and not now.is_sated(other.caller, other.engines)
                if could and other.id in self.before.tickets:
                    assert (now.held[winner.caller] - 1, winner.since_us, winner.id) < (
                        now.held[other.caller] - (other.caller == winner.caller),
                        other.since_us,
                        other.id,
                    )

    def _only_grant(self, now: Picture) -> set[str]:
        """The one that waited and was served in this step: each grant changes what the next one
        is judged by."""
        granted = now.granted_since(self.before)
        is_known = granted <= self.before.tickets.keys() - self.forced
        return granted if len(granted) == 1 and is_known else set()


class Picture:
    """The ledger's contents at one moment, counted in a plain way."""

    def __init__(self, ledger: Ledger, capacity: dict[str, int]) -> None:
        self.tickets, self.leases = dict(ledger._tickets), dict(ledger._leases)
        self.capacity = capacity
        self.busy = Counter(lease.engine for lease in self.leases.values())
        self.held = Counter(lease.caller for lease in self.leases.values())
        self.seen = set(ledger._seen_us)

    @property
    def is_shared(self) -> bool:
        return len(self.seen) > 1

    def granted_since(self, before: Picture) -> set[str]:
        return self.leases.keys() - before.leases.keys()

    def is_sated(self, caller: str, engines: tuple[str, ...]) -> bool:
        """Whether what is free is for others: nobody is kept from a first slot, nor from any when
        alone."""
        total = sum(self.capacity[engine] for engine in engines)
        held = self.held_of(caller, engines)
        if not self.is_shared or total == 1 or not held:
            return False
        free = sum(max(0, self.capacity[name] - self.busy[name]) for name in engines)
        without = self.seen - set(self.held)
        return held >= total - 1 or free <= min(len(without), total // 2)

    def held_of(self, caller: str, engines: tuple[str, ...]) -> int:
        leases = [lease for lease in self.leases.values() if lease.caller == caller]
        return sum(lease.engine in engines for lease in leases)

    def engines_open_to(self, key: str) -> list[str]:
        ticket = self.tickets[key]
        if self.is_sated(ticket.caller, ticket.engines):
            return []
        return [name for name in ticket.engines if self.busy[name] < self.capacity[name]]


def test_the_policy_holds_and_both_lines_follow_it(
    valkey: RedisServer, use_redis: Callable[[str], None]
) -> None:
    use_redis(valkey.url)
    machine = type("Machine", (LineMachine,), {"server": valkey})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
