"""Refresh tokens: spent by one use, deadly when used twice, over after seven days."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import jwt
import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import Session, User
from accounts.services import set_active
from accounts.tests.sessions import REFRESH, TOKEN, log_in, me, refresh
from conftest import PASSWORD
from tests.log_capture import LogCapture
from tests.parallel import in_parallel

pytestmark = pytest.mark.usefixtures("alice")


def check_refused(response: Any) -> None:
    assert response.status_code == 401
    assert response.json() == {
        "error": "invalid_grant",
        "error_description": "The refresh token is not valid.",
        "detail": "The refresh token is not valid.",
    }
    assert response["WWW-Authenticate"] == "Bearer"


def test_a_refresh_token_is_exchanged_for_a_new_pair() -> None:
    old = log_in(scope="read")
    response = refresh(old["refresh_token"])
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert response["Pragma"] == "no-cache"
    new = response.json()
    assert sorted(new) == sorted(old)
    assert new["scope"] == "read"
    assert new["refresh_token"] != old["refresh_token"]
    assert new["access_token"] != old["access_token"]
    assert [me(new["access_token"]), me(old["access_token"])] == [200, 200]
    assert Session.objects.count() == 1


def test_the_oauth2_grant_does_the_same() -> None:
    form = {"grant_type": "refresh_token", "refresh_token": log_in()["refresh_token"]}
    response = APIClient().post(TOKEN, form)
    assert response.status_code == 200
    assert me(response.json()["access_token"]) == 200
    check_refused(APIClient().post(TOKEN, form))


def test_a_replay_ends_the_whole_family(logs: LogCapture) -> None:
    first = log_in()
    second = refresh(first["refresh_token"]).json()
    third = refresh(second["refresh_token"]).json()
    check_refused(refresh(first["refresh_token"]))
    for pair in (first, second, third):
        assert me(pair["access_token"]) == 401
        check_refused(refresh(pair["refresh_token"]))
    (replay,) = logs.events("refresh_token_replayed")
    assert replay["user_id"]


def test_a_replay_ends_no_other_session() -> None:
    victim, other = log_in(), log_in()
    refresh(victim["refresh_token"])
    check_refused(refresh(victim["refresh_token"]))
    assert me(other["access_token"]) == 200
    assert refresh(other["refresh_token"]).status_code == 200


def test_it_costs_few_queries() -> None:
    token = log_in()["refresh_token"]
    with CaptureQueriesContext(connection) as queries:
        assert refresh(token).status_code == 200
    assert len(queries) == 2


def test_seven_days_after_login_it_is_over_however_often_it_was_exchanged() -> None:
    start = timezone.now().replace(microsecond=0)
    with time_machine.travel(start, tick=False) as clock:
        pair = log_in()
        for _ in range(6):
            clock.shift(timedelta(days=1))
            pair = refresh(pair["refresh_token"]).json()
            assert pair["expires_in"] == 1800
        clock.move_to(start + timedelta(days=7) - timedelta(minutes=10))
        pair = refresh(pair["refresh_token"]).json()
        assert pair["expires_in"] == 600
        for name in ("access_token", "refresh_token"):
            claims = jwt.decode(pair[name], options={"verify_signature": False})
            assert claims["exp"] == int((start + timedelta(days=7)).timestamp())
        clock.shift(timedelta(minutes=10) - timedelta(seconds=1))
        assert me(pair["access_token"]) == 200
        clock.shift(timedelta(seconds=1))
        assert me(pair["access_token"]) == 401
        check_refused(refresh(pair["refresh_token"]))


def test_an_access_token_is_over_after_thirty_minutes_and_its_session_is_not() -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        pair = log_in()
        clock.shift(timedelta(minutes=30) - timedelta(seconds=1))
        assert me(pair["access_token"]) == 200
        clock.shift(timedelta(seconds=1))
        assert me(pair["access_token"]) == 401
        assert refresh(pair["refresh_token"]).status_code == 200


def test_neither_token_is_the_other() -> None:
    pair = log_in()
    assert me(pair["refresh_token"]) == 401
    check_refused(refresh(pair["access_token"]))
    assert me(pair["access_token"]) == 200, "a wrong kind of token is no replay"
    assert refresh(pair["refresh_token"]).status_code == 200


def test_a_disabled_account_gets_no_new_tokens(alice: User) -> None:
    pair = log_in()
    set_active(alice, is_active=False)
    check_refused(refresh(pair["refresh_token"]))
    set_active(alice, is_active=True)
    check_refused(refresh(pair["refresh_token"]))


def test_a_deleted_account_gets_no_new_tokens(alice: User) -> None:
    pair = log_in()
    alice.delete()
    check_refused(refresh(pair["refresh_token"]))


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        *(("", 200), ("read write", 200), ("write read", 200)),
        *(("read", 400), ("read write admin", 400), ("x", 400), ("read  write", 400)),
    ],
)
def test_a_refresh_keeps_the_scope(scope: str, status: int) -> None:
    token = log_in()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": token, "scope": scope}
    assert APIClient().post(TOKEN, form).status_code == status
    # One that was refused for its scope was not spent.
    assert refresh(token).status_code == (401 if status == 200 else 200)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"refresh_token": ""},
        {"refresh_token": None},
        {"refresh_token": ["x"]},
        {"refresh_token": {"a": "b"}},
        {"refresh_token": 5},
        {"refresh_token": True},
        {"refresh_token": "x" * 4097},
        {"refresh_token": "a\x00b"},
        {"refresh_token": "x", "refresh": "y"},
        {"token": "x"},
        [],
        "x",
    ],
)
def test_malformed_requests_are_invalid_requests(body: Any) -> None:
    response = APIClient().post(REFRESH, body)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"


def test_only_json_is_read(db: None) -> None:
    response = APIClient().post(REFRESH, "a=b", content_type="application/x-www-form-urlencoded")
    assert response.status_code == 415


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "\u00e9.\u00e9.\u00e9", "x" * 4096, "🙂"])
def test_what_is_no_token_is_refused_as_one(token: str) -> None:
    check_refused(refresh(token))


@pytest.mark.django_db(transaction=True)
def test_of_fifty_at_once_one_wins_and_the_family_dies() -> None:
    User.objects.create_user("racer", "racer@example.org", PASSWORD)
    pair = log_in("racer")
    client = APIClient()
    assert client.get("/live").status_code == 200  # its handler is built before the race

    def use(_number: int) -> Any:
        return client.post(REFRESH, {"refresh_token": pair["refresh_token"]})

    responses = in_parallel(50, use)
    statuses = [response.status_code for response in responses]
    assert statuses.count(200) == 1
    assert statuses.count(401) == 49
    (winner,) = (response.json() for response in responses if response.status_code == 200)
    assert me(winner["access_token"]) == me(pair["access_token"]) == 401
    check_refused(refresh(winner["refresh_token"]))


def test_the_exchange_looks_at_nothing_but_its_own_row(alice: User) -> None:
    """With a subquery in it two of many win on PostgreSQL, now and then."""
    with CaptureQueriesContext(connection) as queries:
        Session.objects.all().rotate(uuid.uuid4(), spent=b"1", fresh=b"2")
    (update,) = (query["sql"] for query in queries if query["sql"].startswith("UPDATE"))
    assert "SELECT" not in update
    assert "JOIN" not in update
