"""Conversations, facts and accounts that are deleted while their questions are being answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error as DatabaseFailure
from django.db import connection, connections, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import User
from conftest import PASSWORD
from consciousness import conversations, owners, settlement
from consciousness.models import (
    Conversation,
    IdempotentRequest,
    Query,
    QueryContent,
    UsageDay,
)
from consciousness.models.idempotency import IdempotentRequestQuerySet
from consciousness.tests.asking import CAPITAL, QUERIES, ask, assert_nothing_runs
from consciousness.tests.keyed import is_replay, send, the_key_is_free
from consciousness.tests.remembering import DOG, MEMORIES
from tests.stub_engine import StubEngine

CONVERSATIONS = "/api/v1/consciousness/conversations"
ME = "/api/v1/users/me"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def begun(as_alice: APIClient, stub: StubEngine) -> str:
    """A conversation of Alice's, of one turn."""
    conversation: str = ask(as_alice, "Count to 2", conversation="new").json()["conversation"]
    return conversation


def erase(client: APIClient) -> Any:
    return client.delete(ME, {"current_password": PASSWORD})


def _instead(first: Callable[[], Any], then: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        first()
        return then(*args, **kwargs)

    return both


def _deleted(conversation: Conversation) -> tuple[list[conversations.Turn], int]:
    """By another request, once this one has found it."""
    conversations.delete_conversation(conversation)
    return [], 0


@pytest.mark.parametrize("is_known", [False, True], ids=["fresh", "cached"])
def test_a_conversation_that_goes_before_its_question_is_accepted_is_not_found(
    as_alice: APIClient,
    begun: str,
    stub: StubEngine,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_known: bool,
) -> None:
    if is_known:
        assert ask(as_alice, CAPITAL, temperature=0).json()["cached"] is False
    rows = Query.objects.count()
    monkeypatch.setattr(conversations, "turns_of", _deleted)

    refused = ask(as_alice, CAPITAL, temperature=0, conversation=begun)
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert Query.objects.count() == rows - 1, "only the turn that went with its conversation"
    assert_nothing_runs(stub)
    assert UsageDay.objects.get().reserved_tokens == 0


@pytest.mark.parametrize("model", ["", "no-such-model"])
def test_an_account_that_goes_before_its_question_is_accepted_is_refused(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, *, model: str
) -> None:
    named = {"model": model} if model else {}
    erased = _instead(lambda: erase(as_alice), owners.take_turn)
    monkeypatch.setattr(owners, "take_turn", erased)

    refused = ask(as_alice, CAPITAL, **named)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_credentials")
    assert not Query.objects.exists()
    assert not UsageDay.objects.exists()
    assert_nothing_runs(stub)


def test_a_conversation_that_goes_while_a_refusal_is_recorded_takes_its_text_along(
    as_alice: APIClient, begun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_conversation = conversations.own_conversation

    def found_and_gone(user: User, given: str) -> Conversation | None:
        found = own_conversation(user, given)
        Query.objects.all().delete()
        Conversation.objects.all().delete_idle(timedelta())
        return found

    monkeypatch.setattr(conversations, "own_conversation", found_and_gone)
    refused = ask(as_alice, CAPITAL, conversation=begun, model="no-such-model")
    assert (refused.status_code, refused.json()["code"]) == (422, "model_not_found")
    assert Query.objects.get().conversation_id is None
    assert not QueryContent.objects.exists()


def test_a_conversation_that_goes_while_it_is_renamed_is_not_found(
    as_alice: APIClient, begun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = _instead(Conversation.objects.all().delete, conversations.rename_conversation)
    monkeypatch.setattr(conversations, "rename_conversation", gone)
    assert as_alice.patch(f"{CONVERSATIONS}/{begun}", {"title": "x"}).status_code == 404


@pytest.mark.parametrize("is_conversation", [False, True], ids=["question", "conversation"])
def test_a_question_that_goes_while_it_is_deleted_is_gone(
    as_alice: APIClient, begun: str, monkeypatch: pytest.MonkeyPatch, *, is_conversation: bool
) -> None:
    query, delete_query = Query.objects.get(), conversations.delete_query

    def delete_first() -> None:
        if is_conversation:
            conversations.delete_conversation(Conversation.objects.get(id=begun))
        else:
            delete_query(Query.objects.get(id=query.id))

    monkeypatch.setattr(conversations, "delete_query", _instead(delete_first, delete_query))
    assert as_alice.delete(f"{QUERIES}/{query.id}").status_code == 204
    assert not Query.objects.exists()
    assert not Conversation.objects.exists()


class Meanwhile:
    """Something that another request does in the middle of this one's transaction, and has to wait
    for its end."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act, self._pool = act, ThreadPoolExecutor(1)
        self._asked = threading.Event()
        self._done: Future[Any]

    def begin(self) -> None:
        self._done = self._pool.submit(self._run)
        assert self._asked.wait(10)
        if connection.vendor == "postgresql":
            until_s = time.monotonic() + 10
            while not _waits_for_a_lock():
                assert time.monotonic() < until_s
                time.sleep(0.01)

    def _run(self) -> Any:
        try:
            self._asked.set()
            return self._act()
        finally:
            connections.close_all()

    def response(self) -> Any:
        with self._pool:
            return self._done.result(30)


def _waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return cursor.fetchone() is not None


def test_no_text_outlives_the_conversation_that_goes_while_it_is_kept(
    as_alice: APIClient, begun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleting = Meanwhile(lambda: as_alice.delete(f"{CONVERSATIONS}/{begun}"))
    kept = _instead(deleting.begin, conversations.note_activity)
    monkeypatch.setattr(conversations, "note_activity", kept)

    assert ask(as_alice, "Count to 3", conversation=begun).status_code == 200
    assert deleting.response().status_code == 204
    assert not QueryContent.objects.exists()
    assert not Conversation.objects.exists()
    assert UsageDay.objects.get().requests == 2


def test_no_question_is_lost_to_a_conversation_that_goes_while_it_is_accepted(
    as_alice: APIClient, begun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleting = Meanwhile(lambda: as_alice.delete(f"{CONVERSATIONS}/{begun}"))
    accepted = _instead(deleting.begin, settlement._hold_claim)
    monkeypatch.setattr(settlement, "_hold_claim", accepted)

    assert ask(as_alice, "Count to 3", conversation=begun).status_code == 200
    assert deleting.response().status_code == 204
    assert not QueryContent.objects.exists()
    assert UsageDay.objects.get().requests == 2


def test_no_fact_is_replayed_that_goes_while_its_result_is_kept(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = IdempotentRequestQuerySet.keep
    fact = as_alice.post(MEMORIES, {"text": DOG}).json()
    forgetting = Meanwhile(lambda: as_alice.delete(f"{MEMORIES}/{fact['id']}"))

    def kept(*args: Any, **values: Any) -> bool:
        with transaction.atomic():
            is_kept = keep(*args, **values)
            forgetting.begin()
        return is_kept

    monkeypatch.setattr(IdempotentRequestQuerySet, "keep", kept)
    answer = send(as_alice, {"prompt": "What is my dog called?"}).json()
    assert [used["id"] for used in answer["memories_used"]] == [fact["id"]]
    assert forgetting.response().status_code == 204
    assert the_key_is_free()


def test_no_result_is_kept_under_a_key_that_is_being_freed(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that slept before it kept it. Else it would be told as kept, and be gone."""

    def sleep(*_args: object, **_values: object) -> None:
        raise DatabaseFailure

    body = {"prompt": "Count to 3", "conversation": "new"}
    with monkeypatch.context() as patch:
        patch.setattr(IdempotentRequestQuerySet, "keep", sleep)
        assert send(as_alice, body).status_code == 200
    over = timezone.now() - timedelta(seconds=1)
    Query.objects.update(lease_expires_at=over)
    IdempotentRequest.objects.update(lease_expires_at=over)
    claim_id, rows = IdempotentRequest.objects.get().id, IdempotentRequest.objects.all()
    keeping = Meanwhile(lambda: rows.keep(claim_id, status=200, body="{}"))
    taken_out = _instead(keeping.begin, conversations.take_out)
    monkeypatch.setattr(conversations, "take_out", taken_out)

    assert not is_replay(send(as_alice, body))
    assert keeping.response() is False
    assert Query.objects.filter(conversation__isnull=False).count() == 1


def test_an_account_is_erased_while_its_question_is_settled(
    alice: User, as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    erasing = Meanwhile(lambda: erase(as_alice))
    settled = _instead(erasing.begin, settlement._count)
    monkeypatch.setattr(settlement, "_count", settled)

    assert ask(as_alice, "Count to 3", conversation="new").status_code == 200
    assert erasing.response().status_code == 204
    assert not User.objects.filter(pk=alice.pk).exists()
    assert not Query.objects.exists()
    assert_nothing_runs(stub)
