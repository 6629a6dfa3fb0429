"""How long a key is held: deletion, time, processes that die, and races for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error as DatabaseFailure
from django.db import OperationalError
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import PASSWORD
from consciousness import idempotency, services, settlement
from consciousness.maintenance import (
    delete_old_queries,
    forget_idempotent_requests,
    settle_orphans,
)
from consciousness.models import IdempotentRequest, Query, QueryContent, Status, UsageDay
from consciousness.models import idempotency as idempotency_models
from consciousness.tests.asking import (
    PROCESS,
    QUERIES,
    a_query,
    assert_nothing_runs,
    chunks,
    event_of,
    hang_up,
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
from consciousness.tests.remembering import DOG, MEMORIES
from monitoring import batches, jobs
from tests.log_capture import LogCapture
from tests.parallel import in_parallel
from tests.stub_engine import Behaviour, StubEngine
from tests.stub_engine.behaviours import PLAYS, Script, play_normal
from tests.stub_engine.exchange import Exchange

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


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("more", [{}, {"temperature": 0}], ids=["", "cached"])
def test_what_is_deleted_just_before_it_is_kept_is_not_kept(
    as_alice: APIClient,
    stub: StubEngine,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
) -> None:
    keep = idempotency_models.IdempotentRequestQuerySet.keep

    def deleted_first(*args: Any, **values: Any) -> bool:
        assert as_alice.delete(QUERIES).status_code == 204
        return keep(*args, **values)

    as_alice.post(PROCESS, {**COUNT, **more})
    monkeypatch.setattr(idempotency_models.IdempotentRequestQuerySet, "keep", deleted_first)
    assert send(as_alice, {**COUNT, **more}).json()["response"] == "1 2 3"
    assert not Query.objects.exists()
    assert the_key_is_free()


DOG_PROMPT = {"prompt": "What is my dog called?"}
gone = pytest.mark.parametrize(
    ("forget", "status"),
    [
        (lambda client, path: client.delete(path), 204),
        (lambda client, path: client.patch(path, {"text": "My dog is called Bella"}), 200),
    ],
    ids=["forgotten", "corrected"],
)


@gone
def test_what_quotes_a_fact_goes_with_the_fact(
    as_alice: APIClient,
    as_bob: APIClient,
    stub: StubEngine,
    forget: Callable[..., Any],
    status: int,
) -> None:
    noted = send(as_alice, {"text": DOG}, key="noted-0001", path=MEMORIES)
    answered = send(as_alice, DOG_PROMPT, key="answered-0001")
    assert [fact["text"] for fact in answered.json()["memories_used"]] == [DOG]
    send(as_alice, key="another-0001")
    send(as_bob, {"text": DOG}, key="bobs-0001", path=MEMORIES)
    assert forget(as_alice, f"{MEMORIES}/{noted.json()['id']}").status_code == status
    left = IdempotentRequest.objects.order_by("key").values_list("key", flat=True)
    assert list(left) == ["another-0001", "bobs-0001"]


@gone
@pytest.mark.parametrize(
    "prompt", [DOG_PROMPT, {"prompt": f"Remember that {DOG}"}], ids=["used", "noted"]
)
def test_what_quotes_a_fact_that_goes_while_it_is_answered_is_not_kept(
    as_alice: APIClient,
    stub: StubEngine,
    prompt: dict[str, str],
    forget: Callable[..., Any],
    status: int,
) -> None:
    fact = as_alice.post(MEMORIES, {"text": DOG}).json()
    body = {**prompt, "stream": True}
    response = send(as_alice, body)
    stream = chunks(response)
    next(stream)
    for _ in range(2 if status == 200 else 1):
        assert forget(as_alice, f"{MEMORIES}/{fact['id']}").status_code == status
    assert code_of(send(as_alice, body)) == (409, "idempotency_in_progress")
    (name, told) = event_of(list(stream)[-1])
    assert (name, fact["id"] in str(told)) == ("done", True)
    hang_up(response)
    assert the_key_is_free()


def test_what_quotes_another_fact_is_kept(as_alice: APIClient, stub: StubEngine) -> None:
    facts = [as_alice.post(MEMORIES, {"text": text}).json() for text in (DOG, "I live in Bern")]
    response = send(as_alice, {**DOG_PROMPT, "stream": True})
    stream = chunks(response)
    next(stream)
    assert as_alice.delete(f"{MEMORIES}/{facts[1]['id']}").status_code == 204
    list(stream)
    hang_up(response)
    assert facts[0]["id"] in IdempotentRequest.objects.get().body


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
    monkeypatch.setattr(batches, "SIZE", 2)
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


@pytest.mark.parametrize(("query_s", "hours", "deleted"), [(-1, 24, 1), (5, 24, 0), (-1, 23, 0)])
def test_what_dead_processes_left_is_cleaned_up(
    alice: User, query_s: float, hours: int, deleted: int
) -> None:
    left_behind(alice, claim_s=-1, query_s=query_s)
    age(hours=hours, seconds=1)
    assert forget_idempotent_requests() == deleted


def test_one_that_slept_finds_its_claim_when_it_wakes(
    as_alice: APIClient, stub: StubEngine
) -> None:
    """The worker has slept, too, and everything is due when both wake."""
    body = {**STREAM, "conversation": "new"}
    response = send(as_alice, body)
    stream = chunks(response)
    next(stream)
    expire_leases()
    forget_idempotent_requests()
    settle_orphans()
    list(stream)
    hang_up(response)
    assert turns(as_alice) == [["Count to 3"]]
    assert is_replay(send(as_alice, body))


def test_leases_end_within_minutes(as_alice: APIClient, stub: StubEngine) -> None:
    stub.enqueue(Behaviour.HANG_MID_STREAM, after_tokens=1)
    response = send(as_alice, STREAM)
    next(chunks(response))
    request = IdempotentRequest.objects.select_related("query").get()
    assert request.query is not None
    for lease in (request.lease_expires_at, request.query.lease_expires_at):
        assert timedelta(seconds=60) < lease - timezone.now() < timedelta(minutes=2)
    hang_up(response)


def test_a_key_that_is_free_again_for_one_is_not_taken_from_another(
    as_alice: APIClient, alice: User, as_bob: APIClient, bob: User, stub: StubEngine
) -> None:
    for user in (alice, bob):
        left_behind(user, claim_s=-1)
    assert send(as_bob).status_code == 200
    assert IdempotentRequest.objects.filter(user=alice, status=None).exists()


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
        assert send(as_alice).json()["response"] == "1 2 3"
    assert len(logs.events("idempotent_result_not_kept")) == 1
    assert code_of(send(as_alice)) == (409, "idempotency_in_progress")
    expire_leases()
    assert send(as_alice).status_code == 200


def test_a_key_that_cannot_be_freed_is_free_when_its_lease_is_over(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    def away(*_args: object, **_more: object) -> None:
        raise DatabaseFailure("at 10.0.0.3")

    stub.enqueue(Behaviour.HTML)
    with monkeypatch.context() as patch:
        patch.setattr(idempotency, "_free", away)
        assert code_of(send(as_alice)) == (502, "engine_bad_reply")
    assert len(logs.events("idempotency_key_not_released")) == 1
    assert code_of(send(as_alice)) == (409, "idempotency_in_progress")
    expire_leases()
    assert send(as_alice).status_code == 200


def turns(client: APIClient) -> list[list[str]]:
    """What was asked, by conversation."""
    found = []
    for kept in client.get(CONVERSATIONS).json()["results"]:
        messages = client.get(f"{CONVERSATIONS}/{kept['id']}/messages").json()["results"]
        found.append([said["content"] for said in messages if said["role"] == "user"])
    return found


def conversation_for(client: APIClient, *, is_resumed: bool) -> str:
    if not is_resumed:
        return "new"
    begun = client.post(PROCESS, {"prompt": "Hello", "conversation": "new"})
    return str(begun.json()["conversation"])


resumed = pytest.mark.parametrize("is_resumed", [False, True], ids=["new", "resumed"])


@pytest.mark.parametrize("more", [{}, {"temperature": 0}], ids=["", "cached"])
def test_one_that_slept_between_its_claim_and_its_query_is_not_answered_beside_its_retry(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    body = {**COUNT, **more, "conversation": "new"}
    as_alice.post(PROCESS, {**COUNT, **more})
    started = services.start_query
    retried: list[Any] = []

    def late(**asked: Any) -> Any:
        if not retried:
            expire_leases()
            retried.append(None)
            retried[0] = send(as_alice, body)
        return started(**asked)

    monkeypatch.setattr(services, "start_query", late)
    slow = send(as_alice, body)
    assert (code_of(slow), slow["Retry-After"]) == ((503, "query_expired"), "1")
    assert (retried[0].status_code, is_replay(retried[0])) == (200, False)
    assert Query.objects.count() == 2
    assert turns(as_alice) == [["Count to 3"]]
    assert UsageDay.objects.get().reserved_tokens == 0
    again = send(as_alice, body)
    assert (again.content, is_replay(again)) == (retried[0].content, True)


@resumed
def test_an_answer_whose_key_is_claimed_anew_before_it_is_kept_is_no_turn(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, *, is_resumed: bool
) -> None:
    body = {**COUNT, "conversation": conversation_for(as_alice, is_resumed=is_resumed)}
    keep = idempotency_models.IdempotentRequestQuerySet.keep
    retried: list[Any] = []

    def late(*args: Any, **values: Any) -> bool:
        if not retried:
            expire_leases()
            retried.append(None)
            retried[0] = send(as_alice, body)
        return keep(*args, **values)

    monkeypatch.setattr(idempotency_models.IdempotentRequestQuerySet, "keep", late)
    assert send(as_alice, body).status_code == 200
    assert (retried[0].status_code, is_replay(retried[0])) == (200, False)
    assert turns(as_alice) == [["Hello"] * is_resumed + ["Count to 3"]]
    assert Query.objects.filter(status=Status.COMPLETED).count() == 2 + is_resumed
    assert is_replay(send(as_alice, body))


@resumed
def test_an_answer_that_was_settled_but_not_confirmed_is_no_turn_beside_its_retry(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, *, is_resumed: bool
) -> None:
    """As where the database stops for longer than anybody waits and then does what it was asked."""
    body = {**COUNT, "conversation": conversation_for(as_alice, is_resumed=is_resumed)}

    def unconfirmed(finish: Callable[[], bool]) -> bool:
        finish()
        raise OperationalError("it says nothing")

    with monkeypatch.context() as patch:
        patch.setattr(settlement, "retry_broken", unconfirmed)
        assert code_of(send(as_alice, body)) == (503, "database_unavailable")
    assert send(as_alice, body).status_code == 200
    assert turns(as_alice) == [["Hello"] * is_resumed + ["Count to 3"]]


@pytest.mark.parametrize("is_cleaned_up", [False, True])
def test_an_answer_that_could_not_be_kept_is_no_turn_when_it_is_asked_for_again(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, *, is_cleaned_up: bool
) -> None:
    def away(*_args: object, **_more: object) -> None:
        raise DatabaseFailure("at 10.0.0.3")

    body = {**COUNT, "conversation": "new"}
    with monkeypatch.context() as patch:
        patch.setattr(idempotency_models.IdempotentRequestQuerySet, "keep", away)
        assert send(as_alice, body).status_code == 200
        assert turns(as_alice) == [["Count to 3"]]
        expire_leases()
        assert forget_idempotent_requests() == 0, "it is looked for when the key is used again"
        assert turns(as_alice) == [["Count to 3"]]
        assert send(as_alice, body).status_code == 200
    assert turns(as_alice) == [["Count to 3"]]
    expire_leases()
    age(hours=24, seconds=1)
    if is_cleaned_up:
        assert forget_idempotent_requests() == 1
    assert send(as_alice, body).status_code == 200
    assert turns(as_alice) == [["Count to 3"]] * 2, "what was kept long enough stays as it is"


def test_a_result_that_was_kept_but_not_confirmed_is_left_alone(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = idempotency_models.IdempotentRequestQuerySet.keep

    def unconfirmed(*args: Any, **more: Any) -> None:
        keep(*args, **more)
        raise DatabaseFailure("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(idempotency_models.IdempotentRequestQuerySet, "keep", unconfirmed)
        first = send(as_alice)
    again = send(as_alice)
    assert (again.content, is_replay(again)) == (first.content, True)


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
    told = threading.Semaphore(0)

    def work(_number: int) -> Any:
        response = send(_same(client))
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
