"""Deleting one's own history: one query, or all of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import conversations
from consciousness.models import (
    ACTIVE,
    Conversation,
    IdempotentRequest,
    Query,
    QueryContent,
    Status,
    UsageDay,
)
from consciousness.tests.asking import (
    PROCESS,
    QUERIES,
    a_query,
    ask,
    ask_streamed,
    assert_nothing_runs,
    chunks,
    event_of,
    hang_up,
)
from consciousness.tests.keyed import CONVERSATIONS, KEY
from tests.stub_engine import Behaviour, StubEngine


def ids(client: APIClient) -> list[str]:
    return [row["id"] for row in client.get(QUERIES).json()["results"]]


def test_one_is_deleted_with_its_text_and_what_it_used_stays_counted(
    as_alice: APIClient, stub: StubEngine
) -> None:
    kept, deleted = (ask(as_alice, f"Count to {n}").json()["query_id"] for n in (2, 3))
    used = UsageDay.objects.values().get()
    response = as_alice.delete(f"{QUERIES}/{deleted}")
    assert (response.status_code, response.content) == (204, b"")
    assert ids(as_alice) == [kept]
    assert as_alice.get(f"{QUERIES}/{deleted}").status_code == 404
    assert as_alice.delete(f"{QUERIES}/{deleted}").status_code == 404
    assert QueryContent.objects.get().prompt == "Count to 2"
    assert UsageDay.objects.values().get() == used


def title_of(client: APIClient, conversation: str) -> str | None:
    response = client.get(f"{CONVERSATIONS}/{conversation}")
    title: str | None = response.json().get("title")
    return title if response.status_code == 200 else None


def test_a_deleted_question_is_no_title(as_alice: APIClient, stub: StubEngine) -> None:
    first = ask(as_alice, "Count to 2", conversation="new").json()
    conversation = first["conversation"]
    second = ask(as_alice, "Count to 3", conversation=conversation).json()
    assert title_of(as_alice, conversation) == "Count to 2"
    as_alice.delete(f"{QUERIES}/{first['query_id']}")
    assert title_of(as_alice, conversation) == "Count to 3"
    as_alice.delete(f"{QUERIES}/{second['query_id']}")
    assert title_of(as_alice, conversation) is None


def test_a_title_of_ones_own_stays(as_alice: APIClient, stub: StubEngine) -> None:
    asked = ask(as_alice, "Count to 2", conversation="new").json()
    conversation = asked["conversation"]
    as_alice.patch(f"{CONVERSATIONS}/{conversation}", {"title": "Numbers"})
    as_alice.delete(f"{QUERIES}/{asked['query_id']}")
    assert title_of(as_alice, conversation) == "Numbers"


def test_one_that_is_still_answered_gives_no_title_yet(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    asked = ask(as_alice, "Count to 2", conversation="new").json()
    conversation = asked["conversation"]
    a_query(alice, conversation_id=conversation, status=Status.RUNNING)
    as_alice.delete(f"{QUERIES}/{asked['query_id']}")
    assert title_of(as_alice, conversation) == "…"


def beside_a_deleted_one(client: APIClient, stub: StubEngine, **more: Any) -> tuple[str, Any]:
    """A conversation whose only turn was deleted while another is being answered, and that one."""
    first = ask(client, "Count to 2", conversation="new").json()
    stub.behave(Behaviour.SLOW, token_delay_s=0.01)
    body = {"prompt": "Count to 5", "conversation": first["conversation"], "stream": True}
    response: Any = client.post(PROCESS, body, **more)
    next(chunks(response))
    assert client.delete(f"{QUERIES}/{first['query_id']}").status_code == 204
    assert title_of(client, first["conversation"]) == "…"
    return first["conversation"], response


def test_its_question_is_the_title_once_it_is_answered(
    as_alice: APIClient, stub: StubEngine
) -> None:
    conversation, response = beside_a_deleted_one(as_alice, stub)
    list(chunks(response))
    assert title_of(as_alice, conversation) == "Count to 5"


def test_nothing_is_left_of_a_conversation_whose_last_question_no_process_finished(
    as_alice: APIClient, alice: User, stub: StubEngine
) -> None:
    asked = ask(as_alice, "Count to 2", conversation="new").json()
    conversation = asked["conversation"]
    orphan = a_query(alice, conversation_id=conversation, status=Status.FAILED)
    for query_id in (asked["query_id"], orphan.id):
        assert as_alice.delete(f"{QUERIES}/{query_id}").status_code == 204
    assert title_of(as_alice, conversation) is None


def test_nothing_is_left_of_a_conversation_whose_last_question_may_be_asked_again(
    as_alice: APIClient, stub: StubEngine
) -> None:
    key = {"Idempotency-Key": KEY}
    conversation, response = beside_a_deleted_one(as_alice, stub, headers=key)
    hang_up(response)
    assert Query.objects.get().status == Status.CANCELLED
    assert title_of(as_alice, conversation) is None


@pytest.mark.parametrize("turns", [1, 2])
def test_a_title_that_is_given_at_that_moment_stays(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    asked = ask(as_alice, "Count to 2", conversation="new").json()
    conversation = asked["conversation"]
    if turns == 2:
        ask(as_alice, "Count to 3", conversation=conversation)
    forget_title = conversations._forget_title

    def rename_first(*args: Any) -> None:
        as_alice.patch(f"{CONVERSATIONS}/{conversation}", {"title": "Numbers"})
        forget_title(*args)

    monkeypatch.setattr(conversations, "_forget_title", rename_first)
    assert as_alice.delete(f"{QUERIES}/{asked['query_id']}").status_code == 204
    assert title_of(as_alice, conversation) == "Numbers"


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.CANCELLED, Status.FAILED])
def test_every_finished_one_can_be_deleted(
    as_alice: APIClient, alice: User, status: Status
) -> None:
    query = a_query(alice, status=status)
    assert as_alice.delete(f"{QUERIES}/{query.id}/").status_code == 204
    assert not Query.objects.exists()


@pytest.mark.parametrize("status", ACTIVE)
def test_one_that_is_not_finished_cannot(as_alice: APIClient, alice: User, status: Status) -> None:
    query = a_query(alice, status=status)
    response = as_alice.delete(f"{QUERIES}/{query.id}")
    assert (response.status_code, response.json()["code"]) == (409, "query_active")
    assert Query.objects.get() == query


def test_one_that_runs_can_be_deleted_once_it_has_ended(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stream = chunks(ask_streamed(as_alice, "Count to 3"))
    next(stream)
    (running,) = ids(as_alice)
    assert as_alice.delete(f"{QUERIES}/{running}").status_code == 409
    assert event_of(list(stream)[-1])[0] == "done"
    assert as_alice.delete(f"{QUERIES}/{running}").status_code == 204


def test_somebody_elses_is_as_good_as_none(as_alice: APIClient, bob: User) -> None:
    for status in (Status.COMPLETED, Status.RUNNING):
        query = a_query(bob, status=status)
        foreign = as_alice.delete(f"{QUERIES}/{query.id}")
        unknown = as_alice.delete(f"{QUERIES}/{uuid.uuid4()}")
        bodies = [response.json() for response in (foreign, unknown)]
        for body in bodies:
            del body["request_id"]
        assert (foreign.status_code, unknown.status_code) == (404, 404)
        assert bodies[0] == bodies[1]
    assert Query.objects.count() == 2


def test_to_delete_is_to_write(
    anonymous: APIClient, alice: User, client_of: Callable[..., APIClient]
) -> None:
    query = a_query(alice)
    for path in (QUERIES, f"{QUERIES}/{query.id}"):
        assert anonymous.delete(path).status_code == 401
        assert client_of(alice, "read").delete(path).status_code == 403
    assert Query.objects.get() == query
    assert client_of(alice, "write").delete(QUERIES).status_code == 204


def test_all_are_deleted_with_conversations_and_texts_and_nobody_elses(
    as_alice: APIClient, as_bob: APIClient, alice: User, stub: StubEngine
) -> None:
    for client in (as_alice, as_bob):
        assert ask(client, "Count to 2").status_code == 200
        assert ask(client, "Count to 3", conversation="new").status_code == 200
    used = UsageDay.objects.values().get(user=alice)
    bobs = ids(as_bob)
    response = as_alice.delete(QUERIES)
    assert (response.status_code, response.content) == (204, b"")
    assert ids(as_alice) == []
    assert as_alice.get(CONVERSATIONS).json()["results"] == []
    assert ids(as_bob) == bobs
    assert QueryContent.objects.count() == 2
    assert Conversation.objects.count() == 1
    assert UsageDay.objects.values().get(user=alice) == used
    assert as_alice.delete(QUERIES).status_code == 204, "nothing left is fine"


@pytest.mark.parametrize("more", [{}, {"conversation": "new"}])
def test_one_that_runs_meanwhile_ends_as_it_would_have(
    as_alice: APIClient, stub: StubEngine, more: dict[str, Any]
) -> None:
    ask(as_alice, "Count to 2")
    stream = chunks(ask_streamed(as_alice, "Count to 3", **more))
    next(stream)
    running, _earlier = ids(as_alice)
    assert as_alice.delete(QUERIES).status_code == 204
    assert ids(as_alice) == [running]
    name, done = event_of(list(stream)[-1])
    assert (name, done["query_id"], done["usage"]["completion_tokens"]) == ("done", running, 3)
    query = Query.objects.get()
    assert (query.status, query.content.response) == (Status.COMPLETED, "1 2 3")
    assert_nothing_runs(stub)


def test_a_filter_does_not_choose_what_is_deleted(as_alice: APIClient, alice: User) -> None:
    for status in (Status.COMPLETED, Status.FAILED):
        a_query(alice, status=status)
    response = as_alice.delete(f"{QUERIES}?status=failed")
    assert (response.status_code, list(response.json()["errors"])) == (422, ["status"])
    assert Query.objects.count() == 2


def test_all_go_in_batches(
    as_alice: APIClient, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "_BATCH", 10)

    def statements(rows: int) -> int:
        for number in range(rows):
            talk = Conversation.objects.create(user=alice, title="A talk")
            QueryContent.objects.create(query=a_query(alice, conversation=talk), prompt=str(number))
        with CaptureQueriesContext(connection) as captured:
            assert as_alice.delete(QUERIES).status_code == 204
        assert not Query.objects.exists()
        assert not Conversation.objects.exists()
        return len(captured)

    a_batch = statements(2) - statements(0)
    assert statements(10) - statements(0) == a_batch
    assert statements(30) - statements(0) == 3 * a_batch
    assert not IdempotentRequest.objects.exists()
