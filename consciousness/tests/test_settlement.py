"""The end of a query is written once, whatever happens to the database's connection meanwhile, and
whoever took the query for an orphan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import settlement, sse
from consciousness.maintenance import settle_orphans
from consciousness.models import (
    Conversation,
    IdempotentRequest,
    Query,
    QueryContent,
    Status,
    UsageDay,
)
from consciousness.tests.asking import (
    a_query,
    ask,
    ask_streamed,
    assert_nothing_runs,
    chunks,
    event_of,
    hang_up,
)
from consciousness.tests.keyed import COUNT, send
from tests.stub_engine import Behaviour, StubEngine


def breaking(act: Callable[..., Any], *, times: int, is_done: bool = False) -> Callable[..., Any]:
    """`act` over a connection that breaks so many times, before or after it is done."""
    broken: list[None] = []

    def over_it(*args: Any, **kwargs: Any) -> Any:
        if len(broken) == times:
            return act(*args, **kwargs)
        broken.append(None)
        if is_done:
            act(*args, **kwargs)
        raise OperationalError("the connection was lost")

    return over_it


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after COMMIT"])
def test_a_connection_that_breaks_at_the_end_costs_no_answer(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, *, is_done: bool
) -> None:
    broken = breaking(settlement._finish, times=1, is_done=is_done)
    monkeypatch.setattr(settlement, "_finish", broken)
    body = ask(as_alice, "Count to 5").json()
    query, day = Query.objects.get(), UsageDay.objects.get()
    assert (query.status, query.completion_tokens) == (Status.COMPLETED, 5)
    assert query.content.response == body["response"] == "1 2 3 4 5"
    assert (day.requests, day.total_tokens, day.reserved_tokens) == (1, query.total_tokens, 0)
    assert_nothing_runs(stub)


def test_a_database_that_stays_away_at_the_end_costs_the_answer(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "_finish", breaking(settlement._finish, times=2))
    response = ask(as_alice, "Count to 5")
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert Query.objects.get().status == Status.RUNNING, "until housekeeping settles it"
    assert not QueryContent.objects.exists()


@pytest.mark.parametrize(("times", "last"), [(1, "done"), (2, "error")])
def test_a_credential_is_asked_for_twice_where_the_connection_breaks(
    as_alice: APIClient,
    stub: StubEngine,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    last: str,
) -> None:
    monkeypatch.setattr(sse, "RECHECK_S", 0.0)
    is_live = "accounts.authentication.SessionCredential.is_live"
    monkeypatch.setattr(is_live, breaking(lambda _self: True, times=times))
    events = [event_of(chunk)[0] for chunk in chunks(ask_streamed(as_alice, "Count to 5"))]
    assert events[-1] == last
    assert_nothing_runs(stub)


def given_up() -> None:
    """What housekeeping does where the clock jumped, the host slept or the database was away."""
    ended = timezone.now() - timedelta(seconds=1)
    assert Query.objects.all().active().update(lease_expires_at=ended) == 1
    assert settle_orphans() == 1


def test_one_taken_for_an_orphan_that_ends_all_the_same_is_counted_as_it_was(
    as_alice: APIClient, stub: StubEngine
) -> None:
    ask(as_alice, "Count to 3")
    stub.behave(Behaviour.SLOW, token_delay_s=0.01)
    stream = chunks(ask_streamed(as_alice, "Count to 9", conversation="new"))
    next(stream)
    given_up()
    assert UsageDay.objects.get().completion_tokens == 3 + 500
    assert event_of(list(stream)[-1])[0] == "done"
    query, day = Query.objects.latest("created_at"), UsageDay.objects.get()
    assert (query.status, query.error_code) == (Status.COMPLETED, "")
    assert (query.prompt_tokens, query.completion_tokens) == (3, 9)
    assert not query.is_estimated
    assert query.content.response == "1 2 3 4 5 6 7 8 9"
    assert query.conversation is not None
    assert (day.requests, day.reserved_tokens) == (2, 0)
    assert (day.prompt_tokens, day.completion_tokens) == (6, 12)
    assert settle_orphans() == 0


def test_one_taken_for_an_orphan_that_is_left_is_counted_as_it_was(
    as_alice: APIClient, stub: StubEngine
) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=2)
    response = ask_streamed(as_alice, "Count to 9")
    next(chunks(response))
    given_up()
    hang_up(response)
    query, day = Query.objects.get(), UsageDay.objects.get()
    assert (query.status, query.error_code) == (Status.CANCELLED, "")
    assert (day.completion_tokens, day.reserved_tokens) == (query.completion_tokens, 0)
    assert query.completion_tokens <= 2


def leases_end() -> None:
    """And nobody has looked yet."""
    Query.objects.all().active().update(lease_expires_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize("taken", [given_up, leases_end])
@pytest.mark.parametrize("is_resumed", [False, True], ids=["new", "resumed"])
def test_one_taken_for_dead_is_no_turn_beside_its_retry(
    as_alice: APIClient, stub: StubEngine, taken: Callable[[], None], *, is_resumed: bool
) -> None:
    conversation = "new"
    if is_resumed:
        conversation = ask(as_alice, "Count to 1", conversation="new").json()["conversation"]
    stub.behave(Behaviour.SLOW, token_delay_s=0.01)
    body = {**COUNT, "conversation": conversation}
    response = send(as_alice, {**body, "stream": True})
    stream = chunks(response)
    next(stream)
    IdempotentRequest.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    taken()
    assert send(as_alice, body).status_code == 200
    assert event_of(list(stream)[-1])[0] == "done"
    hang_up(response)
    counted = Query.objects.filter(content__prompt=COUNT["prompt"])
    assert [query.status for query in counted] == [Status.COMPLETED] * 2
    assert counted.filter(conversation__isnull=False).count() == 1
    assert Conversation.objects.count() == 1


def test_one_given_up_while_it_waited_is_not_answered(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = settlement.begin

    def late(*args: Any, **kwargs: Any) -> None:
        given_up()
        begin(*args, **kwargs)

    monkeypatch.setattr(settlement, "begin", late)
    response = ask(as_alice, "Count to 9")
    assert (response.status_code, response.json()["code"]) == (503, "query_expired")
    assert response["Retry-After"] == "1"
    query, day = Query.objects.get(), UsageDay.objects.get()
    assert (query.status, query.error_code) == (Status.FAILED, "query_expired")
    assert (day.requests, day.reserved_tokens) == (1, 0)
    assert day.completion_tokens == query.completion_tokens
    assert_nothing_runs(stub)


def test_one_that_was_renewed_since_it_was_found_is_no_orphan(alice: User) -> None:
    ended = timezone.now() - timedelta(seconds=1)
    query = a_query(alice, status=Status.RUNNING, lease_expires_at=ended)
    (found,) = Query.objects.all().orphaned()
    Query.objects.update(lease_expires_at=timezone.now() + timedelta(seconds=90))
    assert settlement.settle_orphan(found) is False
    query.refresh_from_db()
    assert query.status == Status.RUNNING
