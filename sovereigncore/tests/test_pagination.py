"""Lists by the page: bounded, stable under new rows, and no cursor but ours."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.models import Query, Status

HISTORY = "/api/v1/consciousness/queries"


@pytest.fixture
def queries(alice: User) -> list[str]:
    """The ids of 45 queries; every three were made at one moment."""
    return ask(alice, at_one_moment=3)


def ask(user: User, *, at_one_moment: int) -> list[str]:
    now = timezone.now()
    rows = [
        Query(
            user=user,
            status=Status.COMPLETED,
            temperature=0,
            max_tokens=1,
            created_at=now - timedelta(seconds=number // at_one_moment),
            finished_at=now,
            lease_expires_at=now,
        )
        for number in range(45)
    ]
    return [str(query.pk) for query in Query.objects.bulk_create(rows)]


def page(client: APIClient, **parameters: Any) -> Any:
    return client.get(HISTORY, parameters)


def cursor(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def ids_of(body: dict[str, Any]) -> list[str]:
    return [entry["id"] for entry in body["results"]]


def test_twenty_by_default_and_as_many_as_asked(as_alice: APIClient, queries: list[str]) -> None:
    assert len(page(as_alice).json()["results"]) == 20
    for limit in (1, 7, 45, 100):
        assert len(page(as_alice, limit=limit).json()["results"]) == min(limit, 45)


@pytest.mark.parametrize(
    "limit",
    [
        *("0", "101", "-1", "+1", " 1", "1 ", "1.0", "1e1", "", "ten", "0x10", "1_0"),
        *("\u0661", "00000000019999", "9" * 5000, "0" * 9 + "1", "NaN", "null", "[1]"),
    ],
)
def test_a_limit_is_a_whole_number_from_1_to_100(
    as_alice: APIClient, queries: list[str], limit: str
) -> None:
    response = page(as_alice, limit=limit)
    assert response.status_code == 422
    assert response.json()["errors"] == {"limit": ["A whole number from 1 to 100."]}


@pytest.mark.parametrize("limit", [1, 2, 4, 20])
def test_from_page_to_page_one_meets_every_row_once(
    as_alice: APIClient, queries: list[str], limit: int
) -> None:
    pages = walk(as_alice, page(as_alice, limit=limit).json(), "next")
    seen = [entry for part in pages for entry in part]
    assert len(seen) == 45
    assert set(seen) == set(queries)


@pytest.mark.parametrize("limit", [1, 2, 4, 20])
def test_the_way_back_meets_the_same_rows(as_alice: APIClient, alice: User, limit: int) -> None:
    """Of rows at different moments: REST framework skips some that share one when it turns."""
    in_order = ask(alice, at_one_moment=1)
    body = page(as_alice, limit=limit).json()
    assert body["previous"] is None
    while body["next"]:
        body = as_alice.get(body["next"]).json()
    pages = walk(as_alice, body, "previous")
    assert [entry for part in reversed(pages) for entry in part] == in_order


def walk(client: APIClient, body: dict[str, Any], direction: str) -> list[list[str]]:
    pages = [ids_of(body)]
    while body[direction]:
        body = client.get(body[direction]).json()
        pages.append(ids_of(body))
    return pages


def test_new_rows_do_not_shift_the_next_page(
    as_alice: APIClient, alice: User, queries: list[str]
) -> None:
    body = page(as_alice, limit=21).json()
    now = timezone.now() + timedelta(seconds=60)
    for _ in range(5):
        Query.objects.create(
            user=alice, temperature=0, max_tokens=1, created_at=now, lease_expires_at=now
        )
    following = as_alice.get(body["next"]).json()
    assert len(following["results"]) == 21
    assert not set(ids_of(following)) & set(ids_of(body))


@pytest.mark.parametrize(
    "given",
    [
        *("x", "\u00e9", "AAAAA", cursor("p=2026-01-01 00:00:00%2B00:00")[:-3]),
        *map(cursor, ("p=", "p=garbage", "p=\x00", "p=2026-99-99 00:00:00+00:00", "o=x", "r=x")),
        *map(cursor, ("p=2026-01-01", "p=2026-01-01 00:00:00", "o=-1", "o=" + "9" * 5000)),
        *map(cursor, ("p=0001-01-01 00:00:00%2B14:00", "p=9999-12-31 23:59:59-14:00")),
        *map(cursor, ("p=1' OR '1'='1", "p=2026-01-01 00:00:00%2B00:00x", "p=NaN")),
        *(cursor(""), cursor("x=y"), "", "%", "\x00", "====", "!!!!", "A" * 3000),
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(
    as_alice: APIClient, queries: list[str], given: str
) -> None:
    response = page(as_alice, cursor=given)
    assert response.status_code == 422, response.content
    assert response.json()["errors"] == {"cursor": ["Not a cursor of this list."]}


@pytest.mark.parametrize(
    "given",
    [
        *map(cursor, ("o=99999999", "r=1", "p=0001-01-01 00:00:00%2B00:00")),
        cursor("p=9999-12-31 23:59:59%2B00:00"),
    ],
)
def test_a_cursor_that_points_nowhere_is_a_page(
    as_alice: APIClient, queries: list[str], given: str
) -> None:
    assert page(as_alice, cursor=given).status_code == 200


def test_somebody_elses_cursor_shows_nobodys_rows_but_ones_own(
    as_alice: APIClient, as_bob: APIClient, queries: list[str]
) -> None:
    following = page(as_alice, limit=5).json()["next"]
    assert as_bob.get(following).json()["results"] == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [("&".join(f"a{n}=1" for n in range(300)), 400), ("limit=5&limit=6", 422), ("%", 422)],
)
def test_odd_query_strings_are_no_bugs(as_alice: APIClient, query: str, expected: int) -> None:
    assert as_alice.get(f"{HISTORY}?{query}").status_code == expected


@pytest.mark.parametrize(
    "path",
    [
        *("consciousness/queries", "consciousness/conversations", "consciousness/memories"),
        *("keys", "auth/sessions", "users", "users/invitations"),
    ],
)
@pytest.mark.parametrize(
    ("query", "errors"),
    [
        ("serach=x", {"serach": ["Unknown field."]}),
        ("limit=1&limit=2", {"limit": ["Given more than once."]}),
        (f"{'n' * 100}=", {"n" * 64: ["Unknown field."]}),
    ],
)
def test_a_list_refuses_what_it_does_not_know(
    as_staff: APIClient, path: str, query: str, errors: dict[str, list[str]]
) -> None:
    response = as_staff.get(f"/api/v1/{path}?{query}")
    assert response.status_code == 422
    assert response.json()["errors"] == errors


def test_a_search_of_facts_refuses_what_it_does_not_know(as_alice: APIClient) -> None:
    response = as_alice.get("/api/v1/consciousness/memories?search=dog&limti=5")
    assert response.json()["errors"] == {"limti": ["Unknown field."]}


def test_usage_refuses_what_it_does_not_know(as_alice: APIClient) -> None:
    for query, name in (("day=5", "day"), ("days=5&days=6", "days")):
        response = as_alice.get(f"/api/v1/usage?{query}")
        assert response.status_code == 422
        assert list(response.json()["errors"]) == [name]
