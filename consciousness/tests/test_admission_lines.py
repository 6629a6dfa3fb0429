"""What time does to the lines, and what they estimate; both by a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from consciousness.admission.policy import Line, Terms, Verdict, retry_after_s, waiting_share
from consciousness.tests.clocked_lines import Clock, a_request, enter, local_line, shared_line
from tests.servers import RedisServer

pytestmark = pytest.mark.once

GRANTED, WAITING, UNKNOWN = Verdict.GRANTED, Verdict.WAITING, Verdict.UNKNOWN


@pytest.fixture(params=["local", "shared"])
def _clocked(
    request: pytest.FixtureRequest, use_redis: Callable[[str], None]
) -> Iterator[tuple[Clock, Line]]:
    terms = Terms()
    if request.param == "shared":
        server: RedisServer = request.getfixturevalue("valkey")
        use_redis(server.url)
        clock = Clock(server.url)
        yield clock, shared_line(terms)
    else:
        clock = Clock()
        yield clock, local_line(clock, terms)
    clock.close()


@pytest.fixture
def clock(_clocked: tuple[Clock, Line]) -> Clock:
    return _clocked[0]


@pytest.fixture
def line(_clocked: tuple[Clock, Line]) -> Line:
    return _clocked[1]


def test_a_lease_ends_after_thirty_seconds_without_renewal(clock: Clock, line: Line) -> None:
    enter(line, "killed")
    renewed = enter(line, "alive")
    clock.advance(29)
    assert line.renew(renewed, "default", held_s=29, is_forced=False)
    clock.advance(0.999999)
    assert line.count() == (2, 0)
    clock.advance(0.000001)
    assert line.count() == (1, 0)
    clock.advance(28)
    assert line.count() == (1, 0)
    clock.advance(2)
    assert line.count() == (0, 0)


def test_the_slot_of_a_killed_holder_goes_to_the_first_who_looks(clock: Clock, line: Line) -> None:
    enter(line, "killed")
    enter(line, "killed too")
    clock.advance(28)
    waiting = enter(line, "a")
    clock.advance(2)
    assert line.look(waiting).verdict is GRANTED


def test_a_place_ends_three_seconds_after_its_owner_looked_last(clock: Clock, line: Line) -> None:
    holders = [enter(line, "x"), enter(line, "y")]
    killed, patient = enter(line, "a"), enter(line, "b")
    for _ in range(3):
        assert line.look(patient).verdict is WAITING
        clock.advance(1)
    assert line.count() == (2, 1)
    assert line.look(killed).verdict is UNKNOWN
    assert line.look(patient).place == 0
    line.leave(holders[0])
    assert line.look(patient).verdict is GRANTED


def test_a_slot_that_its_owner_never_notices_goes_on_when_its_place_would_have_ended(
    clock: Clock, line: Line
) -> None:
    holder = enter(line, "x")
    enter(line, "y")
    killed = enter(line, "a")
    clock.advance(2)
    behind = enter(line, "b")
    line.leave(holder)
    assert line.count() == (2, 1)  # granted to one who was killed meanwhile
    clock.advance(1)
    assert line.look(behind).verdict is GRANTED
    assert line.look(killed).verdict is UNKNOWN


def test_one_slot_is_left_for_whoever_was_seen_in_the_last_thirty_seconds(
    clock: Clock, line: Line
) -> None:
    seen = enter(line, "b")
    clock.advance(10)
    line.leave(seen)  # a sign of life
    held, waiting = enter(line, "a"), enter(line, "a")
    for _ in range(29):
        clock.advance(1)
        assert line.renew(held, "default", held_s=1, is_forced=False)
        assert line.look(waiting).verdict is WAITING
    assert line.count() == (1, 1)
    again = enter(line, "b")
    assert line.look(again).verdict is GRANTED
    line.leave(again)
    for _ in range(29):
        clock.advance(1)
        assert line.look(waiting).verdict is WAITING
    clock.advance(1)
    assert line.look(waiting).verdict is GRANTED


def test_one_slot_is_left_of_all_the_engines_together(line: Line) -> None:
    enter(line, "b")
    engines = {"one": 2, "other": 2}
    verdicts = [line.enter(a_request("a", **engines), waited_s=0, limit=8) for _ in range(4)]
    assert [standing.verdict for standing in verdicts] == [GRANTED] * 3 + [WAITING]
    other = line.enter(a_request("b", **engines), waited_s=0, limit=8)
    assert other.verdict is GRANTED


def test_who_has_waited_elsewhere_goes_before_those_who_came_later(
    clock: Clock, line: Line
) -> None:
    """As after an outage of Redis, or when the place was lost."""
    holders = [enter(line, "x"), enter(line, "y")]
    later = enter(line, "a")
    clock.advance(1)
    earlier = enter(line, "b", waited_s=5)
    assert line.look(earlier).place == 0
    assert line.look(later).place == 1
    line.leave(holders[0])
    assert line.look(earlier).verdict is GRANTED


def test_places_are_the_order_in_which_slots_will_be_granted(line: Line) -> None:
    four = {"default": 4}
    held = [a_request(caller, **four) for caller in ("heavy", "heavy", "heavy", "light")]
    waiting = [a_request(caller, **four) for caller in ("heavy", "light", "new", "new", "heavy")]
    for request in [*held, *waiting]:
        line.enter(request, waited_s=0, limit=64)
    # They hold 3, 1 and 0: the second of `new` is served as the first of one that holds 1.
    assert [line.look(request).place for request in waiting] == [3, 1, 0, 2, 4]
    assert [line.look(request).waiting for request in waiting] == [5] * 5


def test_an_earlier_clock_makes_nobody_older(clock: Clock, line: Line) -> None:
    enter(line, "x")
    enter(line, "y")
    first = enter(line, "a")
    clock.advance(-2)
    second = enter(line, "b")
    assert [line.look(request).place for request in (first, second)] == [0, 1]


def test_an_expired_slot_is_had_again_if_there_is_room_or_it_must_be(
    clock: Clock, line: Line
) -> None:
    late = enter(line, "x")
    clock.advance(31)
    assert line.renew(late, "default", held_s=31, is_forced=False)
    clock.advance(31)
    enter(line, "a")
    enter(line, "b")
    assert not line.renew(late, "default", held_s=62, is_forced=False)
    assert line.count() == (2, 0)
    assert line.renew(late, "default", held_s=62, is_forced=True)
    assert line.count() == (3, 0)  # the truth: three work
    waiting = enter(line, "c")
    line.leave(late)
    assert line.look(waiting).verdict is WAITING


def test_leaving_twice_gives_back_once(line: Line) -> None:
    holders = [enter(line, "x"), enter(line, "y")]
    line.leave(holders[0])
    line.leave(holders[0])
    assert line.count() == (1, 0)


def test_holding_times_are_averaged_with_the_newest_counting_a_fifth(
    clock: Clock, line: Line
) -> None:
    first, second = enter(line, "x"), enter(line, "y")
    assert line.look(first).hold_s is None
    clock.advance(10)
    line.leave(first)
    assert line.look(second).hold_s == 10
    clock.advance(10)
    line.leave(second)
    probe = enter(line, "z")
    assert line.look(probe).hold_s == pytest.approx(10 + (20 - 10) / 5)


def test_a_slot_taken_again_counts_its_whole_time(clock: Clock, line: Line) -> None:
    late = enter(line, "x")
    clock.advance(40)
    assert line.renew(late, "default", held_s=40, is_forced=False)
    line.leave(late)
    assert line.look(enter(line, "y")).hold_s == 40


def test_a_redis_that_threw_out_the_ends_gives_new_ones(
    valkey: RedisServer, use_redis: Callable[[str], None]
) -> None:
    """It may: it is the cache as well."""
    use_redis(valkey.url)
    clock, line = Clock(valkey.url), shared_line(Terms())
    for caller in ("killed", "killed too", "waits no more"):
        enter(line, caller)
    with redis.Redis.from_url(valkey.admin_url) as client:
        assert client.delete("sovereigncore:admission:{line}:alive") == 1
    assert line.count() == (2, 1)
    clock.advance(3)
    assert line.count() == (2, 0)
    clock.advance(27)
    assert line.count() == (0, 0)
    clock.close()


def test_rights_that_are_older_than_the_line_cost_nobody_a_slot(
    valkey: RedisServer, use_redis: Callable[[str], None]
) -> None:
    use_redis(valkey.url)
    clock, line = Clock(valkey.url), shared_line(Terms())
    with redis.Redis.from_url(valkey.admin_url) as client:
        client.execute_command("ACL SETUSER", "sovereigncore", "-pexpire")
        try:
            line.leave(enter(line, "x"))
            assert line.count() == (0, 0)
        finally:
            client.execute_command("ACL SETUSER", "sovereigncore", "+pexpire")
    clock.close()


@pytest.mark.parametrize(
    ("hold_s", "waiting", "capacity", "expected"),
    [
        (8, 3, 4, 8),  # the line ahead and oneself, four at a time
        (8, 0, 4, 2),  # nobody ahead: one slot must come free
        (0.5, 5, 2, 2),  # seconds are rounded up
        (0.01, 0, 4, 1),
        (600, 64, 1, 60),
        (None, 3, 2, 10),  # nobody knows: five seconds
        (7, 0, 0, 7),
    ],
)
def test_retry_after(hold_s: float | None, waiting: int, capacity: int, expected: int) -> None:
    assert retry_after_s(hold_s=hold_s, waiting=waiting, capacity=capacity) == expected


@pytest.mark.parametrize(
    ("limit", "share"), [(0, 0), (1, 1), (3, 3), (4, 1), (7, 1), (8, 2), (64, 16)]
)
def test_the_share_of_the_line_that_one_caller_may_fill(limit: int, share: int) -> None:
    assert waiting_share(limit) == share
