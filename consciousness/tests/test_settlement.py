"""The end of a query is written once, whatever happens to the database's connection meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from rest_framework.test import APIClient

from consciousness import settlement, sse
from consciousness.models import Query, QueryContent, Status, UsageDay
from consciousness.tests.asking import ask, ask_streamed, assert_nothing_runs, chunks, event_of
from tests.stub_engine import StubEngine


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
