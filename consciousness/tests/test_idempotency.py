"""`Idempotency-Key`: a request sent again has one effect and gets its first result again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import sse
from consciousness.models import IdempotentRequest, Memory, Query, Status, UsageDay
from consciousness.tests.asking import (
    LOGOUT,
    PROCESS,
    QUERY,
    assert_nothing_runs,
    chunks,
    event_of,
    hang_up,
    leaving_once_heard,
)
from consciousness.tests.keyed import (
    CONVERSATIONS,
    COUNT,
    KEY,
    STREAM,
    code_of,
    is_replay,
    send,
    the_key_is_free,
)
from consciousness.tests.remembering import MEMORIES
from tests.stub_engine import Behaviour, StubEngine

# --- the same again ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"), [(PROCESS, COUNT), (QUERY, {"query": "Count to 3", "context": {"a": 1}})]
)
def test_the_same_again_is_the_first_result_and_nothing_else_happens(
    as_alice: APIClient, stub: StubEngine, path: str, body: Any
) -> None:
    first = send(as_alice, body, path=path)
    assert (first.status_code, is_replay(first)) == (200, False)
    used = UsageDay.objects.values().get()
    stub.stop()
    second = send(as_alice, body, path=path)
    assert (second.status_code, is_replay(second)) == (200, True)
    assert second.content == first.content
    assert second["Content-Type"] == first["Content-Type"] == "application/json"
    assert second["Cache-Control"] == "no-store"
    assert len(stub.ledger) == 1
    assert [str(query.id) for query in Query.objects.all()] == [first.json()["query_id"]]
    assert UsageDay.objects.values().get() == used


def test_a_fact_is_noted_once_with_its_status(as_alice: APIClient) -> None:
    first = send(as_alice, {"text": "My dog is called Rex"}, path=MEMORIES)
    noted = Memory.objects.get().updated_at
    second = send(as_alice, {"text": "My dog is called Rex"}, path=MEMORIES)
    assert (first.status_code, second.status_code) == (201, 201)
    assert (is_replay(first), is_replay(second)) == (False, True)
    assert second.content == first.content
    assert Memory.objects.get().updated_at == noted


def test_a_slash_and_the_order_of_fields_make_no_other_request(
    as_alice: APIClient, stub: StubEngine
) -> None:
    send(as_alice, {"prompt": "Count to 3", "max_tokens": 9})
    assert is_replay(send(as_alice, {"max_tokens": 9, "prompt": "Count to 3"}, path=f"{PROCESS}/"))
    assert len(stub.ledger) == 1


def test_each_credential_of_a_person_is_that_person(
    as_alice: APIClient, alice: User, client_of: Callable[..., APIClient], stub: StubEngine
) -> None:
    send(as_alice)
    assert is_replay(send(client_of(alice)))


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "Count to 4"},
        {**COUNT, "max_tokens": 500},
        {**COUNT, "stream": True},
        {**COUNT, "temperature": 0},
        {"text": "Count to 3"},
        {},
        [],
    ],
)
def test_another_body_under_the_same_key_is_refused(
    as_alice: APIClient, stub: StubEngine, other: Any
) -> None:
    send(as_alice)
    response = send(as_alice, other)
    assert code_of(response) == (422, "idempotency_key_reused")
    assert response["Content-Type"] == "application/problem+json"
    assert len(stub.ledger) == 1
    assert is_replay(send(as_alice)), "the refusal left the first result alone"


def test_another_path_under_the_same_key_is_refused(as_alice: APIClient, stub: StubEngine) -> None:
    fact = {"text": "My dog is called Rex"}
    send(as_alice, fact, path=MEMORIES)
    assert code_of(send(as_alice, fact, path=PROCESS)) == (422, "idempotency_key_reused")


def test_keys_of_different_people_never_meet(
    as_alice: APIClient, as_bob: APIClient, stub: StubEngine
) -> None:
    bodies = [{"prompt": "canary of alice"}, {"prompt": "canary of bob"}]
    firsts = [send(as_alice, bodies[0]), send(as_bob, bodies[1])]
    assert [(first.status_code, is_replay(first)) for first in firsts] == [(200, False)] * 2
    seconds = [send(as_alice, bodies[0]), send(as_bob, bodies[1])]
    assert [second.content for second in seconds] == [first.content for first in firsts]
    assert code_of(send(as_bob, bodies[0])) == (422, "idempotency_key_reused")
    assert is_replay(send(as_bob, bodies[0], key=KEY + "2")) is False
    assert len(stub.ledger) == 3


def test_another_key_is_another_request(as_alice: APIClient, stub: StubEngine) -> None:
    for key in (KEY, KEY.upper(), f"{KEY}."):
        assert not is_replay(send(as_alice, key=key))
    assert len(stub.ledger) == 3


# --- what keys may be --------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["x" * 8, "x" * 128, "with space", "~!@#$%^&*()_+{}|:<>?,./;'[]\\"])
def test_keys_that_are_taken(as_alice: APIClient, stub: StubEngine, key: str) -> None:
    assert not is_replay(send(as_alice, key=key))
    assert is_replay(send(as_alice, key=key))


@pytest.mark.parametrize("path", [PROCESS, QUERY, MEMORIES])
@pytest.mark.parametrize(
    "key", ["", "x" * 7, "x" * 129, "schlüssel-0001", "tab\there-001", "\x7f" * 9]
)
def test_keys_that_are_not(as_alice: APIClient, stub: StubEngine, path: str, key: str) -> None:
    response = send(as_alice, {"prompt": "a", "query": "a", "text": "a"}, key=key, path=path)
    assert code_of(response) == (422, "validation_error")
    assert response.json()["errors"] == {
        "Idempotency-Key": ["8 to 128 printable ASCII characters."]
    }
    assert stub.ledger == []
    assert the_key_is_free()


def test_what_may_not_be_kept_cannot_be_replayed(as_alice: APIClient, stub: StubEngine) -> None:
    response = send(as_alice, {**COUNT, "store": False})
    assert code_of(response) == (422, "validation_error")
    assert list(response.json()["errors"]) == ["Idempotency-Key"]
    assert stub.ledger == []
    assert the_key_is_free()


def test_to_ask_is_to_write_with_a_key_too(
    alice: User, client_of: Callable[..., APIClient], anonymous: APIClient
) -> None:
    assert send(anonymous).status_code == 401
    assert send(client_of(alice, "read")).status_code == 403
    assert the_key_is_free()


# --- what is not a success ---------------------------------------------------------------------


def assert_free_and_good_for_a_retry(client: APIClient) -> None:
    assert the_key_is_free()
    retried = send(client)
    assert (retried.status_code, is_replay(retried)) == (200, False)
    assert IdempotentRequest.objects.get().status == 200


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (Behaviour.LOADING_503, 503),
        (Behaviour.HTML, 502),
        (Behaviour.DIE_MID_STREAM, 502),
        (Behaviour.OVERLONG_400, 422),
    ],
)
@pytest.mark.parametrize("body", [COUNT, {**COUNT, "conversation": "new"}])
def test_after_a_failure_of_the_engine_the_key_is_free(
    as_alice: APIClient, stub: StubEngine, behaviour: Behaviour, status: int, body: Any
) -> None:
    stub.enqueue(behaviour, after_tokens=1)
    assert send(as_alice, body).status_code == status
    assert_free_and_good_for_a_retry(as_alice)


def test_after_a_late_failure_of_a_stream_the_key_is_free(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.enqueue(Behaviour.DIE_MID_STREAM, after_tokens=1)
    events = [event_of(chunk)[0] for chunk in chunks(send(as_alice, STREAM))]
    assert events == ["token", "error"]
    assert_free_and_good_for_a_retry(as_alice)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": ""}, 422),
        ({"prompt": "a", "model": "gpt-5"}, 422),
        ({"prompt": "a", "conversation": str(uuid.uuid4())}, 404),
        ([], 422),
    ],
)
def test_after_a_refusal_the_key_is_free_for_any_request(
    as_alice: APIClient, stub: StubEngine, body: Any, status: int
) -> None:
    assert send(as_alice, body).status_code == status
    assert_free_and_good_for_a_retry(as_alice)


def test_after_a_refusal_by_the_quota_the_key_is_free(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 1
    assert code_of(send(as_alice)) == (429, "insufficient_quota")
    settings.DAILY_TOKEN_QUOTA = 0
    assert_free_and_good_for_a_retry(as_alice)


def test_after_a_fault_of_our_own_the_key_is_free(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("consciousness.views.asking.AnswerResponse", broken)
        as_alice.raise_request_exception = False
        assert send(as_alice).status_code == 500
        events = [event_of(chunk)[0] for chunk in chunks(send(as_alice, STREAM))]
        assert events == ["token"] * 3 + ["error"]
    assert_free_and_good_for_a_retry(as_alice)


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize("body", [COUNT, STREAM])
def test_a_caller_who_leaves_frees_the_key(
    as_alice: APIClient, stub: StubEngine, body: dict[str, Any]
) -> None:
    stub.enqueue(Behaviour.HANG_BEFORE_HEADERS)
    with leaving_once_heard(stub) as environ:
        response = as_alice.post(PROCESS, body, headers={"Idempotency-Key": KEY}, **environ)
    assert response.status_code == 499
    assert_free_and_good_for_a_retry(as_alice)


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_what_was_left_is_no_turn_beside_its_retry(
    as_alice: APIClient, stub: StubEngine, *, begun: bool, stream: bool
) -> None:
    conversation = "new"
    if begun:
        first = as_alice.post(PROCESS, {"prompt": "Hello", "conversation": "new"})
        conversation = first.json()["conversation"]
    body = {**COUNT, "conversation": conversation, "stream": stream}
    stub.enqueue(Behaviour.HANG_MID_STREAM, after_tokens=2)
    if stream:
        response = send(as_alice, body)
        next(chunks(response))
        hang_up(response)
    else:
        with leaving_once_heard(stub) as environ:
            as_alice.post(PROCESS, body, headers={"Idempotency-Key": KEY}, **environ)
    left = Query.objects.exclude(status=Status.COMPLETED).get()
    assert (left.status, left.conversation_id) == (Status.CANCELLED, None)
    retried = send(as_alice, {**body, "stream": stream})
    assert not is_replay(retried)
    b"".join(chunks(retried)) if stream else retried.content
    (kept,) = as_alice.get(CONVERSATIONS).json()["results"]
    messages = as_alice.get(f"{CONVERSATIONS}/{kept['id']}/messages").json()["results"]
    asked = [message["content"] for message in messages if message["role"] == "user"]
    assert asked == ["Hello"] * begun + ["Count to 3"]
    assert UsageDay.objects.get().requests == 2 + begun, "each was worked on, and counts"


# --- while it runs -----------------------------------------------------------------------------


def test_while_the_first_one_runs_the_others_are_told_to_wait(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.enqueue(Behaviour.HANG_MID_STREAM, after_tokens=1)
    response = send(as_alice, STREAM)
    next(chunks(response))
    second = send(as_alice, STREAM)
    assert code_of(second) == (409, "idempotency_in_progress")
    assert int(second["Retry-After"]) == 2
    assert code_of(send(as_alice, COUNT)) == (422, "idempotency_key_reused")
    assert len(stub.ledger) == 1
    hang_up(response)
    assert_free_and_good_for_a_retry(as_alice)
    assert_nothing_runs(stub)


@pytest.mark.django_db(transaction=True)
def test_nothing_of_the_database_is_held_while_the_model_thinks(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.enqueue(Behaviour.HANG_MID_STREAM, after_tokens=1)
    response = send(as_alice, STREAM)
    next(chunks(response))
    assert not connection.in_atomic_block
    assert (connection.connection is None) == (connection.vendor == "postgresql")
    response.close()
    assert the_key_is_free()


# --- headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [COUNT, STREAM])
def test_a_replay_tells_what_is_left_of_the_quota(
    as_alice: APIClient, stub: StubEngine, settings: Settings, body: dict[str, Any]
) -> None:
    settings.DAILY_TOKEN_QUOTA = 10_000
    response = send(as_alice, body)
    if body is STREAM:
        list(chunks(response))
    left = str(10_000 - Query.objects.get().total_tokens)
    again = send(as_alice, body)
    assert is_replay(again)
    assert again["x-ratelimit-limit-tokens"] == "10000"
    assert again["x-ratelimit-remaining-tokens"] == left
    assert again["x-ratelimit-reset-tokens"]


def test_a_replay_that_used_no_tokens_tells_nothing_of_them(
    as_alice: APIClient, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 10_000
    for _ in range(2):
        noted = send(as_alice, {"text": "The dog is called Rex."}, path=MEMORIES)
        assert noted.status_code == 201
        assert "x-ratelimit-remaining-tokens" not in noted
    assert is_replay(noted)


# --- streams -----------------------------------------------------------------------------------


def test_a_stream_is_replayed_as_one_token_and_done(as_alice: APIClient, stub: StubEngine) -> None:
    *tokens, (_, done) = [event_of(chunk) for chunk in chunks(send(as_alice, STREAM))]
    assert [data["text"] for _, data in tokens] == ["1", " 2", " 3"]
    again = send(as_alice, STREAM)
    assert (again.status_code, is_replay(again)) == (200, True)
    assert again["Content-Type"] == "text/event-stream"
    events = [event_of(block + b"\n\n") for block in again.content.split(b"\n\n")[:-1]]
    assert events == [("token", {"text": "1 2 3"}), ("done", done)]
    assert len(stub.ledger) == Query.objects.count() == 1


def test_a_stream_without_text_is_replayed_as_done(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.stub_engine.protocol.compose_answer", lambda _body: [])
    (done,) = list(chunks(send(as_alice, STREAM)))
    again = send(as_alice, STREAM)
    assert (again.content, is_replay(again)) == (done, True)


def test_whoever_was_told_that_it_is_done_can_have_it_again(
    as_alice: APIClient, stub: StubEngine
) -> None:
    response = send(as_alice, STREAM)
    names = []
    while "done" not in names:
        names.append(event_of(next(chunks(response)))[0])
    assert is_replay(send(as_alice, STREAM))
    hang_up(response)
    assert is_replay(send(as_alice, STREAM))


@pytest.mark.django_db(transaction=True)
def test_a_stream_that_nobody_began_to_read_frees_the_key(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.enqueue(Behaviour.HANG_MID_STREAM, after_tokens=1)
    send(as_alice, STREAM).close()
    assert the_key_is_free()


def test_a_stream_that_a_revoked_credential_ends_frees_the_key(
    as_alice: APIClient,
    alice: User,
    client_of: Callable[..., APIClient],
    stub: StubEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "RECHECK_S", 0.0)
    stub.enqueue(Behaviour.SLOW, token_delay_s=0.02)
    response = send(as_alice, {"prompt": "Count to 500", "stream": True})
    stream = chunks(response)
    next(stream)
    assert as_alice.post(LOGOUT).status_code == 204
    assert event_of(list(stream)[-1])[0] == "error"
    hang_up(response)
    assert_free_and_good_for_a_retry(client_of(alice))


def test_an_answer_that_serves_again_is_kept_under_its_key_too(
    as_alice: APIClient, stub: StubEngine
) -> None:
    cold = {**COUNT, "temperature": 0}
    as_alice.post(PROCESS, cold)
    first, second = send(as_alice, cold), send(as_alice, cold)
    assert first.json()["cached"] is True
    assert (second.content, is_replay(second)) == (first.content, True)
    assert Query.objects.count() == 2


# --- without a key -----------------------------------------------------------------------------


def statements(client: APIClient, **headers: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.post(PROCESS, COUNT, headers=headers).status_code == 200
    return [entry["sql"] for entry in captured.captured_queries]


def test_without_a_key_it_costs_nothing_and_with_one_little(
    as_alice: APIClient, stub: StubEngine
) -> None:
    statements(as_alice)
    without = statements(as_alice)
    assert not [sql for sql in without if "idempotent" in sql]
    first = statements(as_alice, **{"Idempotency-Key": KEY})
    # The claim and the result in their savepoints, and the query that holds the claim, and asks at
    # its end whether it does. What was forgotten meanwhile is read before the result is written.
    assert len(first) == len(without) + 9
    assert len([sql for sql in first if "idempotent" in sql]) == 5
    again = statements(as_alice, **{"Idempotency-Key": KEY})
    # The credential; a claim in vain, in a savepoint that is rolled back; what is kept; the quota.
    assert len(again) == 7


def test_the_kept_text_is_what_was_sent_whatever_it_is(
    as_alice: APIClient, stub: StubEngine
) -> None:
    text = '</script>"\u2028\x1b 👍 \\u0000'
    first = send(as_alice, {"prompt": text})
    second = send(as_alice, {"prompt": text})
    assert is_replay(second)
    assert json.loads(second.content) == first.json()
    assert second.content == first.content
