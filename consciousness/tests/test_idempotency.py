"""`Idempotency-Key`: a request sent again has one effect and gets its first result again."""

from __future__ import annotations

import json
import socket
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error as DatabaseFailure
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import PASSWORD
from consciousness import sse
from consciousness.maintenance import delete_old_queries, forget_idempotent_requests
from consciousness.models import IdempotentRequest, Memory, Query, QueryContent, Status, UsageDay
from consciousness.models import idempotency as idempotency_models
from consciousness.tests.asking import (
    LOGOUT,
    PROCESS,
    QUERIES,
    QUERY,
    a_query,
    assert_nothing_runs,
    chunks,
    event_of,
    hang_up,
)
from consciousness.tests.remembering import MEMORIES
from monitoring import jobs
from tests.log_capture import LogCapture
from tests.parallel import in_parallel
from tests.stub_engine import Behaviour, StubEngine
from tests.stub_engine.behaviours import PLAYS, Script, play_normal
from tests.stub_engine.exchange import Exchange

KEY = "a-key-of-a-caller-0001"
CONVERSATIONS = "/api/v1/consciousness/conversations"
COUNT = {"prompt": "Count to 3"}
STREAM = {**COUNT, "stream": True}


def send(client: APIClient, body: Any = COUNT, key: str = KEY, path: str = PROCESS) -> Any:
    return client.post(path, body, headers={"Idempotency-Key": key})


def is_replay(response: Any) -> bool:
    told = response.get("Idempotent-Replayed")
    assert told in (None, "true")
    return told is not None


def code_of(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def the_key_is_free() -> bool:
    return not IdempotentRequest.objects.exists()


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
    send(as_alice, {"prompt": "canary of alice"})
    other = send(as_bob, {"prompt": "another thing"})
    same = send(as_bob, {"prompt": "canary of alice"}, key=KEY + "2")
    assert (other.status_code, is_replay(other)) == (200, False)
    assert (same.status_code, is_replay(same)) == (200, False)
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


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("body", [COUNT, STREAM])
def test_a_caller_who_leaves_frees_the_key(
    as_alice: APIClient, stub: StubEngine, body: dict[str, Any]
) -> None:
    ours, client = socket.socketpair()
    client.close()
    stub.enqueue(Behaviour.HANG_BEFORE_HEADERS)
    environ: dict[str, Any] = {"gunicorn.socket": ours}
    with ours:
        response = as_alice.post(PROCESS, body, headers={"Idempotency-Key": KEY}, **environ)
    assert response.status_code == 499
    assert_free_and_good_for_a_retry(as_alice)


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


# --- what goes, goes from here too -------------------------------------------------------------


def conversation_of(response: Any) -> str:
    return f"{CONVERSATIONS}/{response.json()['conversation']}"


@pytest.mark.parametrize(
    "forget",
    [
        lambda client, made: client.delete(f"{QUERIES}/{made.json()['query_id']}"),
        lambda client, _made: client.delete(QUERIES),
        lambda client, made: client.delete(conversation_of(made)),
        lambda client, _made: client.delete("/api/v1/users/me", {"current_password": PASSWORD}),
    ],
    ids=["query", "history", "conversation", "account"],
)
@pytest.mark.parametrize("more", [{}, {"temperature": 0}], ids=["", "cached"])
def test_what_is_deleted_is_not_replayed(
    as_alice: APIClient,
    stub: StubEngine,
    forget: Callable[[APIClient, Any], Any],
    more: dict[str, Any],
) -> None:
    body = {**COUNT, **more, "conversation": "new"}
    as_alice.post(PROCESS, body)
    made = send(as_alice, body)
    assert IdempotentRequest.objects.get().body
    assert forget(as_alice, made).status_code == 204
    assert the_key_is_free()


def test_what_was_kept_long_enough_is_not_replayed(
    as_alice: APIClient, stub: StubEngine, settings: Settings
) -> None:
    settings.RETENTION_DAYS = 1
    send(as_alice)
    Query.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert delete_old_queries() == 1
    assert the_key_is_free()


def test_what_is_deleted_while_it_is_answered_is_not_kept(
    as_alice: APIClient, stub: StubEngine
) -> None:
    begun = as_alice.post(PROCESS, {**COUNT, "conversation": "new"})
    body = {**STREAM, "conversation": begun.json()["conversation"]}
    response = send(as_alice, body)
    assert as_alice.delete(conversation_of(begun)).status_code == 204
    assert event_of(list(chunks(response))[-1])[0] == "done"
    hang_up(response)
    assert not QueryContent.objects.exists()
    assert the_key_is_free()


@pytest.mark.parametrize(
    "forget",
    [
        lambda client, path: client.delete(path),
        lambda client, path: client.patch(path, {"text": "My dog is called Bella"}),
    ],
    ids=["forgotten", "corrected"],
)
def test_what_quotes_a_fact_goes_with_the_fact(
    as_alice: APIClient, as_bob: APIClient, stub: StubEngine, forget: Callable[..., Any]
) -> None:
    noted = send(as_alice, {"text": "My dog is called Rex"}, key="noted-0001", path=MEMORIES)
    answered = send(as_alice, {"prompt": "What is my dog called?"}, key="answered-0001")
    assert [fact["text"] for fact in answered.json()["memories_used"]] == ["My dog is called Rex"]
    send(as_alice, key="another-0001")
    send(as_bob, {"text": "My dog is called Rex"}, key="bobs-0001", path=MEMORIES)
    assert forget(as_alice, f"{MEMORIES}/{noted.json()['id']}").status_code in (200, 204)
    left = IdempotentRequest.objects.order_by("key").values_list("key", flat=True)
    assert list(left) == ["another-0001", "bobs-0001"]


# --- time --------------------------------------------------------------------------------------


def age(**by: Any) -> None:
    IdempotentRequest.objects.update(created_at=timezone.now() - timedelta(**by))


def test_a_result_is_kept_for_a_day(as_alice: APIClient, stub: StubEngine) -> None:
    send(as_alice)
    age(hours=23, minutes=59)
    assert is_replay(send(as_alice))
    age(hours=24, seconds=1)
    after = send(as_alice, {"prompt": "Count to 4"})
    assert (after.status_code, is_replay(after)) == (200, False)
    assert is_replay(send(as_alice, {"prompt": "Count to 4"}))


def test_old_results_are_deleted_in_batches_and_only_those(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency_models, "_BATCH", 2)
    for number in range(5):
        send(as_alice, key=f"an-old-one-{number}")
    age(hours=24, seconds=1)
    send(as_alice)
    assert forget_idempotent_requests() == 5
    assert forget_idempotent_requests() == 0
    assert IdempotentRequest.objects.get().key == KEY


def test_it_is_a_job_of_every_hour() -> None:
    intervals = {job.name: job.interval for job in jobs.all_jobs()}
    assert intervals["forget_idempotent_requests"] == timedelta(hours=1)


# --- processes that die ------------------------------------------------------------------------


def left_behind(user: User, *, claim_s: float, query_s: float | None = None) -> IdempotentRequest:
    """What the first request leaves whose process is killed while it runs; seconds until its
    leases end."""
    now = timezone.now()
    query = None
    if query_s is not None:
        lease = now + timedelta(seconds=query_s)
        query = a_query(user, status=Status.RUNNING, lease_expires_at=lease)
    return IdempotentRequest.objects.create(
        user=user,
        key=KEY,
        digest=b"of another body",
        query=query,
        lease_expires_at=now + timedelta(seconds=claim_s),
    )


@pytest.mark.parametrize(
    ("claim_s", "query_s", "status"),
    [
        (-1, None, 200),
        (-1, -1, 200),
        (5, None, 422),
        (5, -1, 422),
        (-1, 5, 422),
    ],
)
def test_a_key_is_free_when_the_leases_of_its_request_are_over(
    as_alice: APIClient,
    alice: User,
    stub: StubEngine,
    claim_s: float,
    query_s: float | None,
    status: int,
) -> None:
    left_behind(alice, claim_s=claim_s, query_s=query_s)
    assert send(as_alice).status_code == status


@pytest.mark.parametrize(("query_s", "deleted"), [(-1, 1), (5, 0)])
def test_what_dead_processes_left_is_cleaned_up(alice: User, query_s: float, deleted: int) -> None:
    left_behind(alice, claim_s=-1, query_s=query_s)
    assert forget_idempotent_requests() == deleted


def test_leases_end_within_minutes(as_alice: APIClient, stub: StubEngine) -> None:
    stub.enqueue(Behaviour.HANG_MID_STREAM, after_tokens=1)
    response = send(as_alice, STREAM)
    next(chunks(response))
    request = IdempotentRequest.objects.select_related("query").get()
    assert request.query is not None
    for lease in (request.lease_expires_at, request.query.lease_expires_at):
        assert timedelta(seconds=60) < lease - timezone.now() < timedelta(minutes=2)
    hang_up(response)


def expire_leases() -> None:
    long_ago = timezone.now() - timedelta(seconds=1)
    IdempotentRequest.objects.update(lease_expires_at=long_ago)
    Query.objects.update(lease_expires_at=long_ago)


@pytest.mark.parametrize("is_read_to_its_end", [True, False])
def test_one_that_was_taken_for_dead_has_no_say_when_it_comes_back(
    as_alice: APIClient, stub: StubEngine, is_read_to_its_end: bool
) -> None:
    slow = send(as_alice, STREAM)
    stream = chunks(slow)
    next(stream)
    expire_leases()
    second = send(as_alice, COUNT)
    assert (second.status_code, is_replay(second)) == (200, False)
    if is_read_to_its_end:
        list(stream)
    hang_up(slow)
    again = send(as_alice, COUNT)
    assert (again.content, is_replay(again)) == (second.content, True)


def test_a_result_that_cannot_be_kept_still_reaches_its_caller(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    def away(*_args: object, **_more: object) -> None:
        raise DatabaseFailure("at 10.0.0.3")

    with monkeypatch.context() as patch:
        patch.setattr(idempotency_models.IdempotentRequestQuerySet, "keep", away)
        patch.setattr(idempotency_models.IdempotentRequestQuerySet, "release", away)
        assert send(as_alice).json()["response"] == "1 2 3"
    assert len(logs.events("idempotent_result_not_kept")) == 1
    assert len(logs.events("idempotency_key_not_released")) == 1
    assert code_of(send(as_alice)) == (409, "idempotency_in_progress")
    expire_leases()
    assert send(as_alice).status_code == 200


# --- races -------------------------------------------------------------------------------------


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, stub: StubEngine) -> threading.Event:
    """The engine answers once it is set, so that all others meet a request that still runs."""
    opened = threading.Event()

    def play_gated(exchange: Exchange, script: Script) -> None:
        assert opened.wait(60)
        play_normal(exchange, script)

    monkeypatch.setitem(PLAYS, Behaviour.SLOW, play_gated)
    stub.behave(Behaviour.SLOW)
    return opened


def one_of_many(client: APIClient, gate: threading.Event, *, count: int) -> Any:
    """The answer of the one that ran; each of the others was told that it runs."""
    token = client._credentials["HTTP_AUTHORIZATION"]  # type: ignore[attr-defined]
    told = threading.Semaphore(0)

    def work(number: int) -> Any:
        own = APIClient(HTTP_AUTHORIZATION=token)
        response = send(own)
        if response.status_code == 409:
            told.release()
        return response

    def open_the_gate() -> None:
        for _ in range(count - 1):
            if not told.acquire(timeout=60):
                break
        gate.set()

    opener = threading.Thread(target=open_the_gate)
    opener.start()
    responses = in_parallel(count, work)
    opener.join()
    (answer,) = [response for response in responses if response.status_code == 200]
    others = [code_of(response) for response in responses if response is not answer]
    assert others == [(409, "idempotency_in_progress")] * (count - 1)
    assert not is_replay(answer)
    return answer


@pytest.mark.django_db(transaction=True)
def test_of_fifty_at_once_one_has_an_effect(
    as_alice: APIClient, alice: User, stub: StubEngine, gate: threading.Event, settings: Settings
) -> None:
    settings.RATE_LIMIT_DEFAULT = "1000/m"
    answer = one_of_many(as_alice, gate, count=50)
    replays = in_parallel(50, lambda _number: send(_same(as_alice)))
    assert [is_replay(response) for response in replays] == [True] * 50
    assert {response.content for response in replays} == {answer.content}
    assert len(stub.ledger) == Query.objects.count() == 1
    assert UsageDay.objects.get(user=alice).requests == 1
    assert_nothing_runs(stub)


def _same(client: APIClient) -> APIClient:
    return APIClient(HTTP_AUTHORIZATION=client._credentials["HTTP_AUTHORIZATION"])  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
def test_of_many_one_takes_over_from_the_dead(
    as_alice: APIClient, alice: User, stub: StubEngine, gate: threading.Event, settings: Settings
) -> None:
    settings.RATE_LIMIT_DEFAULT = "1000/m"
    left_behind(alice, claim_s=-1)
    one_of_many(as_alice, gate, count=20)
    assert len(stub.ledger) == Query.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_deleted_while_it_is_kept_is_nobodys_error(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    settings.RATE_LIMIT_DEFAULT = "1000/m"

    def work(number: int) -> int:
        client = _same(as_alice)
        if number % 2:
            return int(client.delete(QUERIES).status_code)
        return int(send(client, key=f"one-of-many-{number}").status_code)

    assert in_parallel(12, work) == [200, 204] * 6
    as_alice.delete(QUERIES)
    assert the_key_is_free()


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
    # The claim in its savepoint, the query that holds it, the result.
    assert len(first) == len(without) + 5
    assert len([sql for sql in first if "idempotent" in sql]) == 3
    again = statements(as_alice, **{"Idempotency-Key": KEY})
    # The credential; a claim in vain, in a savepoint that is rolled back; what is kept.
    assert len(again) == 6


def test_the_kept_text_is_what_was_sent_whatever_it_is(
    as_alice: APIClient, stub: StubEngine
) -> None:
    text = '</script>"\u2028\x1b 👍 \\u0000'
    first = send(as_alice, {"prompt": text})
    second = send(as_alice, {"prompt": text})
    assert is_replay(second)
    assert json.loads(second.content) == first.json()
    assert second.content == first.content
