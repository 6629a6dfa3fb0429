"""`/api/v1/consciousness/queries`, filtered."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.models import Conversation, Kind, Query, QueryContent, Status
from consciousness.tests.asking import QUERIES, a_query

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def results(client: APIClient, **parameters: Any) -> list[dict[str, Any]]:
    response = client.get(QUERIES, parameters)
    assert response.status_code == 200, response.content
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def prompts(client: APIClient, **parameters: Any) -> list[str]:
    return [row["prompt"] for row in results(client, **parameters)]


def told(user: User, prompt: str, **values: Any) -> Query:
    query = a_query(user, **values)
    QueryContent.objects.create(query=query, prompt=prompt)
    return query


@pytest.fixture
def talk(alice: User) -> Conversation:
    return Conversation.objects.create(user=alice, title="A talk")


@pytest.fixture
def past(alice: User, bob: User, talk: Conversation) -> None:
    """Alice's four, an hour apart, each with something that the others have not; and Bob's, which
    have it all."""
    told(alice, "failed", created_at=NOON, status=Status.FAILED)
    told(alice, "chat", created_at=NOON + timedelta(hours=1), kind=Kind.CHAT)
    told(alice, "big", created_at=NOON + timedelta(hours=2), model="big-model")
    told(alice, "talk", created_at=NOON + timedelta(hours=3), conversation=talk)
    for hours in range(4):
        told(
            bob,
            "canary of bob",
            created_at=NOON + timedelta(hours=hours),
            status=Status.FAILED,
            kind=Kind.CHAT,
            model="big-model",
        )


@pytest.mark.usefixtures("past")
@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({}, ["talk", "big", "chat", "failed"]),
        ({"status": "failed"}, ["failed"]),
        ({"status": "completed"}, ["talk", "big", "chat"]),
        ({"status": "running"}, []),
        ({"kind": "chat"}, ["chat"]),
        ({"kind": "embedding"}, []),
        ({"model": "big-model"}, ["big"]),
        ({"model": "BIG-model"}, []),
        ({"model": "big"}, []),
        ({"model": "'; --"}, []),
        ({"after": "2026-01-31T13:00:00Z"}, ["talk", "big", "chat"]),
        ({"after": "2026-01-31T13:00:00.000001Z"}, ["talk", "big"]),
        ({"before": "2026-01-31T13:00:00Z"}, ["failed"]),
        ({"before": "2026-01-31T13:00:00.000001Z"}, ["chat", "failed"]),
        ({"before": "2026-01-31T14:00:00+01:00"}, ["failed"]),
        ({"after": "2026-01-31T13:00:00Z", "before": "2026-01-31T15:00:00Z"}, ["big", "chat"]),
        ({"after": "2026-01-31T15:00:00Z", "before": "2026-01-31T13:00:00Z"}, []),
        (
            {"after": "0001-01-01T00:00:00Z", "before": "9999-12-31T23:59:59Z", "limit": "1"},
            ["talk"],
        ),
        ({"status": "completed", "kind": "process", "model": "big-model"}, ["big"]),
        ({"status": "failed", "kind": "chat"}, []),
    ],
)
def test_what_is_found(as_alice: APIClient, parameters: dict[str, str], found: list[str]) -> None:
    assert prompts(as_alice, **parameters) == found


@pytest.mark.usefixtures("past")
def test_all_filters_together(as_alice: APIClient, alice: User, talk: Conversation) -> None:
    the_one: dict[str, Any] = {
        "status": Status.CANCELLED,
        "kind": Kind.CHAT,
        "model": "big-model",
        "conversation": talk,
        "created_at": NOON + timedelta(hours=1, minutes=30),
    }
    others: list[dict[str, Any]] = [
        {"status": Status.COMPLETED},
        {"kind": Kind.PROCESS},
        {"model": "other-model"},
        {"conversation": None},
        {"created_at": NOON},
        {"created_at": NOON + timedelta(hours=2)},
    ]
    told(alice, "the one", **the_one)
    for other in others:
        told(alice, "not this one", **{**the_one, **other})
    wanted = {
        "status": "cancelled",
        "kind": "chat",
        "model": "big-model",
        "conversation": str(talk.id),
        "after": "2026-01-31T13:00:00Z",
        "before": "2026-01-31T14:00:00Z",
    }
    assert prompts(as_alice, **wanted) == ["the one"]


def test_by_conversation(
    as_alice: APIClient, as_bob: APIClient, past: None, talk: Conversation
) -> None:
    assert prompts(as_alice, conversation=talk.id) == ["talk"]
    assert prompts(as_alice, conversation=str(talk.id).upper()) == ["talk"]
    assert prompts(as_alice, conversation=uuid.uuid4()) == []
    assert prompts(as_bob, conversation=talk.id) == [], "as if there were none"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("status", value) for value in ("", "done", "COMPLETED", "completed,failed", "\x00")),
        *(("kind", value) for value in ("", "Process", "tea", "1")),
        *(("model", value) for value in ("", " ", "x" * 129, "a\x00b")),
        *(("conversation", value) for value in ("", "new", "1", "null", "0" * 33, "\x00")),
        *(
            (name, value)
            for name in ("after", "before")
            for value in (
                *("", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "2026-02-30T12:00:00Z"),
                *("1769860800", "2026-01-31T12:00:00 00:00", "0001-01-01T00:00:00+23:59"),
                *("9999-12-31T23:59:59-23:59", "2026-01-31T25:00:00Z", "\x00"),
            )
        ),
        *(("user", "x"), ("prompt", "a"), ("offset", "0"), ("Status", "failed"), ("id", "1")),
        *(("status__in", "failed"), ("user__username", "bob"), ("ordering", "id")),
    ],
)
def test_what_makes_no_sense_is_refused(as_alice: APIClient, name: str, value: str) -> None:
    response = as_alice.get(QUERIES, {name: value})
    assert response.status_code == 422
    assert response["Content-Type"] == "application/problem+json"
    assert list(response.json()["errors"]) == [name]


@pytest.mark.parametrize("name", ["status", "kind", "limit", "cursor"])
def test_what_is_said_twice_is_refused(as_alice: APIClient, name: str) -> None:
    response = as_alice.get(f"{QUERIES}?{name}=failed&{name}=completed")
    assert response.status_code == 422
    assert response.json()["errors"] == {name: ["Given more than once."]}


def test_one_alone_is_not_filtered(as_alice: APIClient, alice: User) -> None:
    query = a_query(alice)
    assert as_alice.get(f"{QUERIES}/{query.id}", {"status": "failed"}).status_code == 200


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_are_complete_across_filters(as_alice: APIClient, alice: User, limit: int) -> None:
    """Some of one moment, wanted ones and others in turn."""
    for number in range(30):
        status = Status.COMPLETED if number % 3 else Status.FAILED
        at = NOON - timedelta(seconds=number // 4)
        told(alice, str(number), status=status, kind=Kind.CHAT, created_at=at)
    parameters = f"status=completed&kind=chat&before=2026-01-31T12:00:00Z&limit={limit}"
    url, pages = f"{QUERIES}?{parameters}", []
    while url:
        body = as_alice.get(url).json()
        pages.append([row["prompt"] for row in body["results"]])
        url = body["next"]
        assert len(pages) < 50
    wanted = {str(number) for number in range(4, 30) if number % 3}
    seen = [prompt for page in pages for prompt in page]
    assert len(seen) == len(wanted)
    assert set(seen) == wanted
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


def test_the_number_of_statements_does_not_grow(
    as_alice: APIClient,
    alice: User,
    talk: Conversation,
    django_assert_num_queries: Callable[..., Any],
) -> None:
    parameters = {
        "status": "completed",
        "kind": "process",
        "model": "stub-model",
        "conversation": str(talk.id),
        "after": "2026-01-31T12:00:00Z",
        "before": "2026-01-31T13:00:00Z",
        "limit": "100",
    }
    for rows in (1, 50):
        for _ in range(rows):
            told(alice, "again", conversation=talk, created_at=NOON)
        with django_assert_num_queries(2):  # the credential and the page
            found = results(as_alice, **parameters)
        assert len(found) == Query.objects.count()
