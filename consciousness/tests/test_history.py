"""`/api/v1/consciousness/queries`: one's own questions, and nobody else's."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.models import Query, QueryContent, Status
from consciousness.tests.asking import (
    QUERIES,
    a_query,
    ask,
    ask_streamed,
    chunks,
    hang_up,
    wait_until_sent,
)
from tests.stub_engine import Behaviour, StubEngine


def results(client: APIClient, **parameters: Any) -> list[dict[str, Any]]:
    response = client.get(QUERIES, parameters)
    assert response.status_code == 200, response.content
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def test_what_was_asked_is_listed_newest_first(as_alice: APIClient, stub: StubEngine) -> None:
    first = ask(as_alice, "Count to 2", temperature=0.5, max_tokens=9).json()
    second = ask(as_alice).json()
    listed = results(as_alice)
    assert [row["id"] for row in listed] == [second["query_id"], first["query_id"]]
    row = listed[1]
    assert row.pop("created_at") < row.pop("finished_at")
    assert row.pop("processing_time_ms") >= 0
    assert row == {
        "id": first["query_id"],
        "kind": "process",
        "conversation": None,
        "engine": "default",
        "is_cached": False,
        "status": "completed",
        "model": first["model"],
        "temperature": 0.5,
        "max_tokens": 9,
        "usage": first["usage"],
        "is_estimated": False,
        "finish_reason": "stop",
        "error_code": "",
        "request_id": first["request_id"],
        "prompt": "Count to 2",
        "response": "1 2",
    }


def test_failed_and_cancelled_ones_are_listed_too(as_alice: APIClient, stub: StubEngine) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=2)
    response = ask_streamed(as_alice, "Count to 9")
    next(chunks(response))
    wait_until_sent(stub, 2)
    hang_up(response)
    stub.behave(Behaviour.LOADING_503)
    ask(as_alice)
    failed, cancelled = results(as_alice)
    assert (failed["status"], failed["error_code"]) == ("failed", "engine_loading")
    assert (cancelled["status"], cancelled["error_code"]) == ("cancelled", "")
    assert cancelled["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "cached_tokens": 0,
    }


def test_one_that_runs_is_listed_without_text(as_alice: APIClient, alice: User) -> None:
    a_query(alice, status=Status.RUNNING)
    (row,) = results(as_alice)
    assert (row["status"], row["finished_at"], row["prompt"]) == ("running", None, None)


def test_one_alone(as_alice: APIClient, stub: StubEngine) -> None:
    query_id = ask(as_alice).json()["query_id"]
    response = as_alice.get(f"{QUERIES}/{query_id}")
    assert response.status_code == 200
    assert [response.json()] == results(as_alice)
    assert response["Cache-Control"] == "no-store"
    assert as_alice.get(f"{QUERIES}/{query_id}/").json() == response.json()


def test_each_sees_their_own(
    as_alice: APIClient, alice: User, as_bob: APIClient, bob: User
) -> None:
    for user in (alice, bob):
        QueryContent.objects.create(query=a_query(user), prompt=f"canary of {user.username}")
    assert [row["prompt"] for row in results(as_alice)] == ["canary of alice"]
    assert [row["prompt"] for row in results(as_bob)] == ["canary of bob"]


def test_staff_sees_no_more_than_others(as_staff: APIClient, alice: User) -> None:
    query = a_query(alice)
    assert results(as_staff) == []
    assert as_staff.get(f"{QUERIES}/{query.id}").status_code == 404


def answer_less_id(client: APIClient, path: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    response = client.get(path)
    body = response.json()
    assert body.pop("request_id") == response["X-Request-ID"]
    volatile = {"X-Request-ID", "RateLimit", "x-ratelimit-remaining-requests"}
    volatile |= {"x-ratelimit-reset-requests", "Content-Length"}
    headers = {name: value for name, value in response.items() if name not in volatile}
    return response.status_code, body, headers


def test_a_foreign_one_is_the_same_as_one_that_does_not_exist(
    as_alice: APIClient, bob: User
) -> None:
    foreign = answer_less_id(as_alice, f"{QUERIES}/{a_query(bob).id}")
    assert foreign == answer_less_id(as_alice, f"{QUERIES}/{uuid.uuid4()}")
    assert foreign[0] == 404
    assert foreign[1]["code"] == "not_found"


@pytest.mark.parametrize(
    "name", ["-" * 36, "0" * 36, "not-a-uuid", "1", "00000000-0000-0000-0000-00000000000G", "%00"]
)
def test_names_that_are_no_ids(as_alice: APIClient, name: str) -> None:
    assert as_alice.get(f"{QUERIES}/{name}").status_code == 404


@pytest.fixture
def many(alice: User) -> list[str]:
    """23 queries, newest first: some at the very same moment, as a burst leaves them."""
    now = timezone.now()
    ages = [number // 3 for number in range(23)]
    made = [a_query(alice, created_at=now - timedelta(seconds=age)) for age in ages]
    return [str(query.id) for query in made]


def walk(client: APIClient, *, limit: int) -> list[list[str]]:
    pages, url = [], f"{QUERIES}?limit={limit}"
    while url:
        body = client.get(url).json()
        assert set(body) == {"next", "previous", "results"}
        pages.append([row["id"] for row in body["results"]])
        url = body["next"]
        assert len(pages) < 50
    return pages


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 22, 23, 100])
def test_pages_are_complete_and_without_duplicates(
    as_alice: APIClient, many: list[str], limit: int
) -> None:
    pages = walk(as_alice, limit=limit)
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    seen = [name for page in pages for name in page]
    assert len(seen) == len(set(seen)) == 23
    assert set(seen) == set(many)
    moments = dict(Query.objects.values_list("id", "created_at"))
    times = [moments[uuid.UUID(name)] for name in seen]
    assert times == sorted(times, reverse=True)


def test_pages_stay_complete_while_new_ones_come(
    as_alice: APIClient, alice: User, many: list[str]
) -> None:
    body = as_alice.get(f"{QUERIES}?limit=5").json()
    seen = [row["id"] for row in body["results"]]
    while body["next"]:
        a_query(alice, created_at=timezone.now() + timedelta(seconds=5))
        body = as_alice.get(body["next"]).json()
        seen += [row["id"] for row in body["results"]]
    assert sorted(seen) == sorted(many)


@pytest.mark.parametrize("limit", [1, 2, 5, 12])
def test_there_is_a_way_back(as_alice: APIClient, alice: User, limit: int) -> None:
    for age in range(13):
        a_query(alice, created_at=timezone.now() - timedelta(seconds=age))
    forth = [as_alice.get(f"{QUERIES}?limit={limit}").json()]
    while forth[-1]["next"]:
        forth.append(as_alice.get(forth[-1]["next"]).json())
    back = [forth[-1]]
    while back[-1]["previous"]:
        back.append(as_alice.get(back[-1]["previous"]).json())
    assert [page["results"] for page in reversed(back)] == [page["results"] for page in forth]
    assert back[-1]["results"] == forth[0]["results"]
    assert forth[0]["previous"] is None


def test_a_cursor_opens_nobody_elses_list(
    as_alice: APIClient, as_bob: APIClient, many: list[str]
) -> None:
    assert as_bob.get(as_alice.get(f"{QUERIES}?limit=5").json()["next"]).json()["results"] == []


def test_the_default_page(as_alice: APIClient, many: list[str]) -> None:
    assert len(results(as_alice)) == 20


@pytest.mark.parametrize(
    "limit", ["0", "101", "abc", "", "-1", "1.5", "\u0665", "9" * 400, "1e1", " 5", "0x5"]
)
def test_limits_out_of_bounds(as_alice: APIClient, limit: str) -> None:
    response = as_alice.get(QUERIES, {"limit": limit})
    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["limit"]


@pytest.mark.parametrize(
    "inside",
    [b"p=abc", b"p=2020-13-45", b"p=%00", b"o=x", b"r=x", b"p=9999999999-01-01", b"\xff\xfe"],
)
def test_cursors_made_up_by_a_caller_are_refused(
    as_alice: APIClient, many: list[str], inside: bytes
) -> None:
    cursor = base64.b64encode(inside).decode()
    response = as_alice.get(QUERIES, {"cursor": cursor})
    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["cursor"]


def test_the_number_of_database_queries_does_not_grow(as_alice: APIClient, alice: User) -> None:
    def count_queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert len(results(as_alice, limit=100)) == Query.objects.count()
        return len(captured) - 1  # less our own

    QueryContent.objects.create(query=a_query(alice), prompt="one")
    with_one = count_queries()
    for number in range(30):
        QueryContent.objects.create(query=a_query(alice), prompt=str(number))
    assert count_queries() == with_one == 2  # the credential and the page


def test_to_look_is_to_read(
    anonymous: APIClient, alice: User, client_of: Callable[..., APIClient]
) -> None:
    assert anonymous.get(QUERIES).status_code == 401
    assert client_of(alice, "write").get(QUERIES).status_code == 403
    assert client_of(alice, "read").get(QUERIES).status_code == 200


def test_history_is_deleted_and_not_written_to(as_alice: APIClient, alice: User) -> None:
    query = a_query(alice)
    for method in ("post", "put", "patch"):
        for path in (QUERIES, f"{QUERIES}/{query.id}"):
            assert getattr(as_alice, method)(path, {"status": "failed"}).status_code == 405
    query.refresh_from_db()
    assert query.status == Status.COMPLETED


def test_the_list_is_json_whatever_the_text(as_alice: APIClient, alice: User) -> None:
    text = '</script>"\u2028\x1b 👍'
    QueryContent.objects.create(query=a_query(alice), prompt=text, response=text)
    response = as_alice.get(QUERIES)
    assert json.loads(response.content)["results"][0]["prompt"] == text
