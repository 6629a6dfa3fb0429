"""How many tokens of a prompt were known: told of one's own earlier prompts alone.

The stub says of each prompt that it knew all but the last message, whoever had sent it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.asks import Ask
from consciousness.engine import Prompt
from consciousness.engine_stream import Usage
from consciousness.models import Query
from consciousness.own_prompts import Reading
from consciousness.services import start_query
from consciousness.tests.asking import ask
from consciousness.tests.openai_asking import chat, user
from sovereigncore.ratelimit import FailoverRedisCache
from tests.server_process import find_free_port
from tests.stub_engine import Behaviour, StubEngine

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = [SYSTEM, user("Count to 2")]
SECOND = [*FIRST, {"role": "assistant", "content": "1 2"}, user("Count to 3")]
THIRD = [*SECOND, {"role": "assistant", "content": "1 2 3"}, user("Count to 4")]
KNOWN = Usage(prompt_tokens=3, cached_tokens=2, is_estimated=False)


def cached(client: APIClient, messages: Any, **more: Any) -> int:
    response = chat(client, messages, **more)
    assert response.status_code == 200, response.content
    tokens: int = response.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return tokens


def test_it_is_no_more_than_ones_own_prompt_before(as_alice: APIClient, stub: StubEngine) -> None:
    assert [cached(as_alice, messages) for messages in (FIRST, SECOND, THIRD)] == [0, 5, 10]
    assert cached(as_alice, THIRD) == 13  # the stub knew no more of it


def test_nobody_is_told_of_anybody_elses(
    as_alice: APIClient, as_bob: APIClient, stub: StubEngine
) -> None:
    cached(as_alice, FIRST)
    cached(as_alice, SECOND)
    assert cached(as_bob, SECOND) == 0
    assert cached(as_bob, THIRD) == 10


def test_what_was_asked_in_between_may_be_what_the_engine_knew(
    as_alice: APIClient, as_bob: APIClient, stub: StubEngine
) -> None:
    """She asks, waits until he has asked the like, and asks again to see how much it was like."""
    cached(as_alice, FIRST)
    cached(as_bob, FIRST)
    assert cached(as_alice, SECOND) == 0
    assert cached(as_alice, THIRD) == 10
    cached(as_alice, [user("Count to 9")])  # nor may she have her own forgotten
    assert cached(as_alice, THIRD) == 0


@pytest.mark.parametrize(
    "changed",
    [
        [{**SYSTEM, "content": "Be long."}, *SECOND[1:]],
        [*FIRST, {"role": "assistant", "content": "1 2"}, user("Count"), user("Count to 3")],
        [SYSTEM, user("Count to 3"), *SECOND[2:]],
        SECOND[1:],
    ],
)
def test_what_begins_otherwise_is_another_prompt(
    as_alice: APIClient, stub: StubEngine, changed: Any
) -> None:
    cached(as_alice, FIRST)
    assert cached(as_alice, changed) == (5 if changed[:2] == FIRST else 0)


def test_other_tools_make_another_prompt(as_alice: APIClient, stub: StubEngine) -> None:
    cached(as_alice, FIRST)
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    assert cached(as_alice, SECOND, tools=[tool], tool_choice="none") == 0


def reading(engine: str = "one", model: str = "gemma", *, is_apart: bool = False) -> Reading:
    prompt = Prompt(messages=(user("Count to 2"),), temperature=0, max_tokens=9)
    return Reading(prompt, user_id="alice", engine=engine, model=model, is_apart=is_apart)


def told(asked: Reading) -> int | None:
    asked.note_read()
    return asked.cached_tokens(KNOWN)


def test_another_engine_or_model_has_not_read_it() -> None:
    assert told(reading()) == 0
    assert told(reading("other")) == told(reading(model="qwen")) == 0
    assert told(reading()) == 0  # that model is on the same engine
    assert told(reading()) == 2


def test_one_that_is_asked_while_it_is_read_disturbs_too() -> None:
    told(reading())
    asked = reading()
    reading()
    assert told(asked) == 0


def test_one_that_keeps_people_apart_may_tell_all() -> None:
    assert told(reading(is_apart=True)) == 2


def test_one_that_does_not_tell_or_count_is_not_guessed_at() -> None:
    asked = reading()
    asked.note_read()
    assert asked.cached_tokens(replace(KNOWN, cached_tokens=None)) is None
    assert asked.cached_tokens(replace(KNOWN, is_estimated=True)) is None


def test_without_redis_nothing_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes' questions are not known."""
    nowhere = f"redis://127.0.0.1:{find_free_port()}/0"
    backend = {
        "BACKEND": "sovereigncore.ratelimit.ForgetfulRedisCache",
        "LOCATION": nowhere,
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 0.5},
    }
    settings.CACHES = {**settings.CACHES, "prompts": backend}
    monkeypatch.setattr(FailoverRedisCache, "_paused_until", 0.0)
    assert [told(reading()) for _ in range(3)] == [0, 0, 0]


def test_a_prompt_that_was_not_read_to_its_end_was_not_read(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    stub.behave(Behaviour.HANG_BEFORE_FIRST_TOKEN)
    with start_query(user=alice, ask=Ask(prompt="Count to 2")) as running:
        assert next(iter(running)) is None
    assert Query.objects.get().cached_tokens is None
    stub.behave(Behaviour.NORMAL)
    goes_on = [user("Count to 2"), {"role": "assistant", "content": "1"}, user("On")]
    assert cached(as_alice, goes_on) == 0


def test_it_grows_with_the_turns_of_a_conversation(as_alice: APIClient, stub: StubEngine) -> None:
    told, conversation = [], "new"
    for number in range(1, 5):
        body = ask(as_alice, f"Count to {number}", conversation=conversation).json()
        conversation = body["conversation"]
        told.append(body["usage"]["cached_tokens"])
    assert told == [0, 3, 7, 12]
    assert (
        list(Query.objects.order_by("created_at").values_list("cached_tokens", flat=True)) == told
    )
