"""A hundred people with ten thousand questions: nobody is ever told what another one noted."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from accounts.models import User
from consciousness import memory
from consciousness.models import Memory
from consciousness.models.memory import digest

USERS = 100
QUESTIONS = 100  # of each
COMMON = ["dog", "cat", "garden", "kayak", "harp", "Monday", "passport", "doctor", "train", "piano"]


def canary(number: int) -> str:
    return f"canary{number:03d}x"


@pytest.fixture
def people(db: None) -> list[User]:
    """Everybody's facts have the same words but for one of their own."""
    users = [
        User(
            username=f"user{n}",
            username_canonical=f"user{n}",
            email=f"user{n}@example.org",
            email_canonical=f"user{n}@example.org",
        )
        for n in range(USERS)
    ]
    User.objects.bulk_create(users)
    Memory.objects.bulk_create(
        Memory(user=user, text=text, text_digest=digest(text))
        for number, user in enumerate(users)
        for text in (
            *(f"my {word} is like {canary(number)}" for word in COMMON),
            f"my secret word is {canary(number)}",
        )
    )
    return users


def questions(chance: random.Random, number: int, ids: list[str]) -> Iterator[str]:
    """Of the person with this number: plain ones, and ones that reach for the others'."""
    for turn in range(QUESTIONS):
        other = (number + 1 + turn) % USERS
        yield chance.choice(
            [
                "What is my secret word?",
                f"What do you know of {canary(other)}?",
                f"my {chance.choice(COMMON)} is like {canary(other)}",
                " ".join(canary(n) for n in chance.sample(range(USERS), 40)),
                f'" OR owner : "{ids[other]}" OR "{canary(other)}',
                f"{{owner}} : {ids[other]} secret",
                f"') || plainto_tsquery('english', '{canary(other)}",
                "canary* | canary:* secret",
                " ".join(COMMON),
                f"{ids[other]} {chance.choice(COMMON)} secret word {canary(other)}" + "'\"(*)" * 9,
            ]
        )


def test_nobody_recalls_anybody_elses_facts(people: list[User]) -> None:
    chance = random.Random(20)
    ids = [user.pk.hex for user in people]
    asked = answered = 0
    foreign: list[tuple[str, str]] = []
    for number, user in enumerate(people):
        for question in questions(chance, number, ids):
            facts = memory.recall(user=user, text=question)
            asked += 1
            answered += bool(facts)
            foreign += [
                (question, fact.text)
                for fact in facts
                if fact.user_id != user.pk or canary(number) not in fact.text
            ]
    assert foreign == []
    assert asked == USERS * QUESTIONS == 10_000
    assert answered > asked / 3, "the questions reach something"


def test_nor_finds_or_is_shown_them(people: list[User]) -> None:
    everything = " ".join([*COMMON, "secret", "word"])
    for number, user in enumerate(people):
        found = memory.search(user=user, text=everything)
        assert len(found) == len(COMMON) + 1
        assert {fact.user_id for fact in found} == {user.pk}
        shown = memory.rendered(found)
        assert shown.count("canary") == shown.count(canary(number)) == len(found)
