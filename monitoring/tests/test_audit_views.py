"""`/api/v1/audit`: who did what to whom, for staff."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
import time_machine
from rest_framework.test import APIClient

from accounts.models import User
from monitoring import audit
from monitoring.audit.sealing import seal_audit
from monitoring.models import AuditEvent

AUDIT = "/api/v1/audit"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ONE, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
THING = "a-thing"


@pytest.fixture
def deeds(as_staff: APIClient) -> list[int]:
    """Four, an hour apart, each with something that the others have not; their ids."""
    deeds: list[dict[str, Any]] = [
        {"action": "key.revoked", "actor_id": OTHER, "subject_id": OTHER},
        {"action": "key.created", "actor_id": None, "subject_id": OTHER},
        {"action": "key.created", "actor_id": ONE, "subject_id": THING, "detail": {"n": 1}},
        {"action": "key.created", "actor_id": OTHER, "subject_id": ONE},
    ]
    before = AuditEvent.objects.latest("id").id
    for hours, deed in enumerate(deeds):
        with (
            time_machine.travel(NOON + timedelta(hours=hours), tick=False),
            structlog.contextvars.bound_contextvars(request_id=f"request-{hours}"),
        ):
            audit.record(deed.pop("action"), **deed)
    made = AuditEvent.objects.filter(id__gt=before).order_by("id")
    return list(made.values_list("id", flat=True))


def found(client: APIClient, **parameters: Any) -> list[dict[str, Any]]:
    response = client.get(AUDIT, parameters)
    assert response.status_code == 200, response.content
    assert set(response.json()) == {"next", "previous", "results"}
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def test_a_row_is_told_as_it_is(as_staff: APIClient, deeds: list[int]) -> None:
    seal_audit()
    (row,) = found(as_staff, subject=THING)
    digest = bytes(AuditEvent.objects.get(id=deeds[2]).digest).hex()
    assert row == {
        "id": deeds[2],
        "at": "2026-01-31T14:00:00Z",
        "action": "key.created",
        "actor": str(ONE),
        "subject": THING,
        "detail": {"n": 1},
        "request_id": "request-2",
        "digest": digest,
        "seal": 1,
    }


@pytest.mark.parametrize(
    ("parameters", "indexes"),
    [
        ({"until": "2026-02-01T00:00:00Z"}, [3, 2, 1, 0]),
        ({"action": "key.revoked"}, [0]),
        ({"action": "key.created"}, [3, 2, 1]),
        ({"action": "key.never"}, []),
        ({"action": "key"}, []),
        ({"actor": str(OTHER)}, [3, 0]),
        ({"actor": str(OTHER).upper(), "action": "key.created"}, [3]),
        ({"subject": str(OTHER)}, [1, 0]),
        ({"subject": "A-THING"}, []),
        ({"subject": "'; --"}, []),
        ({"request_id": "request-1"}, [1]),
        ({"since": "2026-01-31T14:00:00Z", "until": "2026-02-01T00:00:00Z"}, [3, 2]),
        ({"since": "2026-01-31T14:00:00.000001Z", "until": "2026-02-01T00:00:00Z"}, [3]),
        ({"until": "2026-01-31T13:00:00Z"}, [0]),
        ({"until": "2026-01-31T15:00:00+01:00"}, [1, 0]),
        ({"since": "2026-01-31T15:00:00Z", "until": "2026-01-31T12:00:00Z"}, []),
    ],
)
def test_what_is_found(
    as_staff: APIClient, deeds: list[int], parameters: dict[str, str], indexes: list[int]
) -> None:
    assert [row["id"] for row in found(as_staff, **parameters)] == [deeds[i] for i in indexes]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("action", value) for value in ("", " ", "x" * 65, "a\x00b")),
        *(("actor", value) for value in ("", "1", "alice", "null", "\x00")),
        *(("subject", value) for value in ("", "x" * 65, "\x00")),
        *(("request_id", value) for value in ("", "x" * 65, "\x00")),
        *(
            (name, value)
            for name in ("since", "until")
            for value in ("", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "1769860800")
        ),
        *(("after", "2026-01-31T12:00:00Z"), ("Action", "x"), ("action__in", "x"), ("id", "1")),
        *(("limit", "0"), ("limit", "101"), ("cursor", "x"), ("ordering", "id"), ("search", "x")),
    ],
)
def test_what_makes_no_sense_is_refused(as_staff: APIClient, name: str, value: str) -> None:
    response = as_staff.get(AUDIT, {name: value})
    assert response.status_code == 422
    assert list(response.json()["errors"]) == [name]


def test_what_is_said_twice_is_refused(as_staff: APIClient) -> None:
    response = as_staff.get(f"{AUDIT}?action=a&action=b")
    assert response.status_code == 422
    assert response.json()["errors"] == {"action": ["Given more than once."]}


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_are_complete(as_staff: APIClient, limit: int) -> None:
    with time_machine.travel(NOON, tick=False):  # all of one moment
        for number in range(10):
            audit.record("key.created", actor_id=None, detail={"n": number})
    url, seen = f"{AUDIT}?action=key.created&limit={limit}", list[int]()
    while url:
        body = as_staff.get(url).json()
        assert 1 <= len(body["results"]) <= limit
        seen += [row["detail"]["n"] for row in body["results"]]
        url = body["next"]
    assert seen == list(range(9, -1, -1))


def test_it_is_for_staff_with_the_scope(
    as_alice: APIClient, anonymous: APIClient, staff: User, client_of: Callable[..., APIClient]
) -> None:
    assert anonymous.get(AUDIT).status_code == 401
    assert as_alice.get(AUDIT).status_code == 403
    assert client_of(staff, scope="read write").get(AUDIT).status_code == 403
    assert client_of(staff, scope="admin").get(AUDIT).status_code == 200


def test_nothing_is_written_there(as_staff: APIClient, deeds: list[int]) -> None:
    for method in ("post", "put", "patch", "delete"):
        assert getattr(as_staff, method)(AUDIT, {}).status_code == 405


def test_the_number_of_statements_does_not_grow(
    as_staff: APIClient, django_assert_num_queries: Callable[..., Any]
) -> None:
    for rows in (1, 50):
        for _ in range(rows):
            audit.record("key.created", actor_id=ONE)
        seal_audit()
        with django_assert_num_queries(2):  # the credential and the page
            assert found(as_staff, actor=str(ONE), limit=100)
