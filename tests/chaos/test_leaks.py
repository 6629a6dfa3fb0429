"""A hundred people at once, each with a secret word in all they ask and keep, while callers leave
in the middle of answers and Redis is killed: nobody is ever told somebody else's word."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.chaos.grown import ROUNDS, Grown, grown
from tests.chaos.people import Person

pytestmark = pytest.mark.chaos

_USERS = 100
_ASK_FOR_S = 20.0
_CUTS = 4


def cut_redis(parts: Grown) -> None:
    """Killed and started, or stopped for a second, several times in `_ASK_FOR_S`."""
    pause_s = _ASK_FOR_S * ROUNDS / (2 * _CUTS * ROUNDS + 1)
    for number in range(_CUTS * ROUNDS):
        time.sleep(pause_s)
        if number % 2:
            parts.redis.pause()
            time.sleep(min(1.0, pause_s))
            parts.redis.resume()
        else:
            parts.redis.kill()
            time.sleep(pause_s)
            parts.redis.start()
    time.sleep(pause_s)


def test_nobody_is_told_anothers_word() -> None:
    names = [f"person{number}" for number in range(_USERS)]
    limits = {"ENGINE_SLOTS": "32", "QUEUE_LIMIT": "64", "WEB_THREADS": "140"}
    with grown(names, token_delay_s=0.002, **limits) as parts:
        people = [Person(parts, name, seed) for seed, name in enumerate(names)]
        for person in people:
            person.start()
        cut_redis(parts)
        for person in people:
            person.end()
        for person in people:
            person.join(60)
            assert not person.is_alive()
        for person in people:  # and what is kept, once nothing runs any more
            person.look()
    told = sum((person.told for person in people), Counter[str]())
    own = sum(person.own for person in people)
    print(f"{told['answers']} answers looked at, with {own} own words; {dict(told)}")
    assert [found for person in people for found in person.foreign] == []
    assert min(person.own for person in people) > 0
    assert told["200"] > 2 * _USERS * ROUNDS
