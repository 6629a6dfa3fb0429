"""`POST /api/v1/auth/logout` ends one session, at once and for good."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import Session, User
from accounts.tests.sessions import LOGOUT, log_in, me, refresh

pytestmark = pytest.mark.usefixtures("alice")


def log_out(access_token: str, **extra: Any) -> Any:
    return APIClient().post(LOGOUT, HTTP_AUTHORIZATION=f"Bearer {access_token}", **extra)


def test_it_ends_the_session_at_the_next_request() -> None:
    pair = log_in()
    renewed = refresh(pair["refresh_token"]).json()
    response = log_out(renewed["access_token"])
    assert response.status_code == 204
    assert response.content == b""
    assert response["Cache-Control"] == "no-store"
    for access_token in (pair["access_token"], renewed["access_token"]):
        assert me(access_token) == 401
    assert refresh(renewed["refresh_token"]).status_code == 401


def test_other_sessions_live_on(bob: User) -> None:
    ended, other, bobs = log_in(), log_in(), log_in("bob")
    log_out(ended["access_token"])
    assert [me(pair["access_token"]) for pair in (ended, other, bobs)] == [401, 200, 200]
    assert refresh(other["refresh_token"]).status_code == 200


def test_the_moment_is_kept(frozen_time: object) -> None:
    pair = log_in()
    log_out(pair["access_token"])
    session = Session.objects.get()
    assert session.revoked_at == timezone.now()


def test_a_second_time_is_refused_like_any_dead_token() -> None:
    pair = log_in()
    assert log_out(pair["access_token"]).status_code == 204
    again = log_out(pair["access_token"])
    assert again.status_code == 401
    assert again["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("scope", ["read", "write", "read write"])
def test_a_narrow_credential_may_end_itself_too(scope: str) -> None:
    assert log_out(log_in(scope=scope)["access_token"]).status_code == 204


def test_a_refresh_token_does_not_log_out() -> None:
    pair = log_in()
    assert log_out(pair["refresh_token"]).status_code == 401
    assert me(pair["access_token"]) == 200


def test_nobody_else_is_logged_out_by_a_stranger() -> None:
    pair = log_in()
    assert APIClient().post(LOGOUT).status_code == 401
    assert me(pair["access_token"]) == 200


def test_a_body_is_ignored() -> None:
    pair, other = log_in(), log_in()
    session_id = str(Session.objects.latest("created_at").pk)
    response = log_out(pair["access_token"], data={"session": session_id})
    assert response.status_code == 204
    assert me(other["access_token"]) == 200
