"""Earlier answers that serve again: exact, one's own, fresh, and free."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import cache
from consciousness.cache import find_answer, forget_old_answers
from consciousness.models import Query, QueryContent, UsageDay
from consciousness.tests.asking import CAPITAL, QUERIES, ask, ask_streamed, chunks, event_of
from tests.metrics import value_of
from tests.stub_engine import Behaviour, StubEngine


def asked_twice(client: APIClient, first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether the second answer came from the first."""
    assert ask(client, **first).status_code == 200
    response = ask(client, **second)
    assert response.status_code == 200, response.content
    return bool(response.json()["cached"])


def lookups(result: str) -> float:
    name = "sovereigncore_answer_cache_lookups_total"
    return value_of(name, result=result) or 0.0


def test_the_same_again_costs_no_engine_no_slot_and_no_token(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    hits, misses = lookups("hit"), lookups("miss")
    first = ask(as_alice, temperature=0).json()
    settings.ENGINE_SLOTS, settings.QUEUE_LIMIT, settings.DAILY_TOKEN_QUOTA = 1, 0, 1
    second = ask(as_alice, temperature=0).json()
    assert (first["cached"], second["cached"]) == (False, True)
    assert len(stub.ledger) == 1
    assert second["response"] == first["response"]
    assert (second["model"], second["finish_reason"]) == (first["model"], first["finish_reason"])
    assert second["query_id"] != first["query_id"]
    assert second["usage"]["total_tokens"] == 0
    day = UsageDay.objects.get(user=alice)
    assert (day.requests, day.cache_hits) == (2, 1)
    assert day.total_tokens == first["usage"]["total_tokens"]
    assert (lookups("hit"), lookups("miss")) == (hits + 1, misses + 1)
    listed = as_alice.get(QUERIES).json()["results"]
    assert [row["is_cached"] for row in listed] == [True, False]
    assert listed[0]["response"] == first["response"]


def test_one_that_is_deleted_after_it_was_found_does_not_serve(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(as_alice, temperature=0)

    def find_then_delete(*args: Any) -> Query | None:
        found = find_answer(*args)
        assert found
        assert as_alice.delete(QUERIES).status_code == 204
        return found

    monkeypatch.setattr(cache, "find_answer", find_then_delete)
    again = ask(as_alice, temperature=0).json()
    assert (again["response"], again["cached"]) == ("Paris.", False)
    assert len(stub.ledger) == 2


def test_as_a_stream_it_is_one_token_event_and_done(as_alice: APIClient, stub: StubEngine) -> None:
    whole = ask(as_alice, "Count to 3", temperature=0).json()["response"]
    streamed = ask_streamed(as_alice, "Count to 3", temperature=0)
    (name, token), (last, done) = (event_of(chunk) for chunk in chunks(streamed))
    assert (name, token) == ("token", {"text": whole})
    assert (last, done["cached"]) == ("done", True)
    assert len(stub.ledger) == 1


def test_a_streamed_answer_serves_a_whole_one(as_alice: APIClient, stub: StubEngine) -> None:
    list(chunks(ask_streamed(as_alice, temperature=0)))
    assert ask(as_alice, temperature=0).json()["cached"] is True


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": CAPITAL + " "[:0] + "!"},
        {"max_tokens": 499},
        {"cache": False},
        {"store": False},
        {"temperature": 0.7},
        {"conversation": "new", "prompt": "Another"},
    ],
)
def test_what_differs_in_anything_is_another_request(
    as_alice: APIClient, stub: StubEngine, other: dict[str, Any]
) -> None:
    assert not asked_twice(as_alice, {"temperature": 0}, {"temperature": 0, **other})


def test_warm_answers_serve_again_only_where_that_is_wished(
    as_alice: APIClient, stub: StubEngine
) -> None:
    assert not asked_twice(as_alice, {"temperature": 0.7}, {"temperature": 0.7})
    wished = {"temperature": 0.7, "cache": True, "prompt": "Count to 4"}
    assert asked_twice(as_alice, wished, wished)


def test_nobody_is_served_anothers(
    as_alice: APIClient, as_bob: APIClient, stub: StubEngine
) -> None:
    ask(as_alice, temperature=0)
    assert ask(as_bob, temperature=0).json()["cached"] is False
    assert len(stub.ledger) == 2


def test_it_is_fresh(as_alice: APIClient, stub: StubEngine, settings: Settings) -> None:
    settings.CACHE_TTL_S = 100
    ask(as_alice, temperature=0)
    Query.objects.update(created_at=timezone.now() - timedelta(seconds=101))
    assert ask(as_alice, temperature=0).json()["cached"] is False


def test_zero_seconds_is_never(as_alice: APIClient, stub: StubEngine, settings: Settings) -> None:
    settings.CACHE_TTL_S = 0
    assert not asked_twice(as_alice, {"temperature": 0}, {"temperature": 0})


def test_what_was_not_kept_serves_nobody(as_alice: APIClient, stub: StubEngine) -> None:
    assert not asked_twice(as_alice, {"temperature": 0, "store": False}, {"temperature": 0})


def test_what_failed_serves_nobody(as_alice: APIClient, stub: StubEngine) -> None:
    stub.behave(Behaviour.DIE_MID_STREAM, after_tokens=1)
    assert ask(as_alice, temperature=0).status_code == 502
    stub.behave(Behaviour.NORMAL)
    assert ask(as_alice, temperature=0).json()["cached"] is False


def test_what_is_deleted_serves_nobody(as_alice: APIClient, stub: StubEngine) -> None:
    query_id = ask(as_alice, temperature=0).json()["query_id"]
    assert as_alice.delete(f"{QUERIES}/{query_id}").status_code == 204
    assert ask(as_alice, temperature=0).json()["cached"] is False


def test_another_turn_of_a_conversation_is_another_request(
    as_alice: APIClient, stub: StubEngine
) -> None:
    first = ask(as_alice, temperature=0, conversation="new").json()
    second = ask(as_alice, temperature=0, conversation=first["conversation"]).json()
    assert second["cached"] is False
    # A new conversation that begins with the same words may begin with the same answer.
    third = ask(as_alice, temperature=0, conversation="new").json()
    assert third["cached"] is True
    assert third["conversation"] not in (None, first["conversation"])


def test_an_answer_to_less_than_was_asked_serves_nobody(
    as_alice: APIClient, stub: StubEngine
) -> None:
    first, second = (
        ask(as_alice, temperature=0, conversation="new").json()["conversation"] for _ in range(2)
    )
    stub.enqueue(Behaviour.OVERLONG_400)
    shortened = ask(as_alice, "Count to 4", temperature=0, conversation=first).json()
    whole = ask(as_alice, "Count to 4", temperature=0, conversation=second).json()
    assert (shortened["turns_dropped"], shortened["cached"]) == (1, False)
    assert (whole["turns_dropped"], whole["cached"]) == (0, False)


def test_the_index_is_bounded_by_age_and_number(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    for number in range(5):
        ask(as_alice, f"Count to {number}", temperature=0)
    oldest = Query.objects.earliest("created_at")
    Query.objects.filter(id=oldest.id).update(
        created_at=timezone.now() - timedelta(seconds=settings.CACHE_TTL_S + 1)
    )
    assert forget_old_answers() == 1
    settings.CACHE_MAX_ENTRIES = 2
    assert forget_old_answers() == 2
    assert forget_old_answers() == 0
    assert Query.objects.filter(request_digest__isnull=False).count() == 2
    assert QueryContent.objects.count() == 5
    assert ask(as_alice, "Count to 4", temperature=0).json()["cached"] is True
    assert ask(as_alice, "Count to 1", temperature=0).json()["cached"] is False
