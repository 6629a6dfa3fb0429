"""From a header to a user: in one query, and never a moment longer than the account holds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.authentication import SessionCredential
from accounts.models import Session, User
from accounts.services import set_active
from accounts.tests.sessions import ME, log_in, me, refresh
from conftest import PASSWORD
from sovereigncore.api import Credential


def test_one_query_tells_who_asks_and_what_they_may_do(as_alice: APIClient) -> None:
    with CaptureQueriesContext(connection) as queries:
        response = as_alice.get(ME)
    assert len(queries) == 1
    assert response.json() == {
        "username": "alice",
        "email": "alice@example.org",
        "full_name": "",
        "disabled": False,
        "scopes": ["read", "write"],
    }


def test_a_forged_token_costs_no_query(db: None) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert me("a.b.c") == 401
        assert me("x" * 4000) == 401
    assert len(queries) == 0


@pytest.mark.parametrize(
    "header",
    [
        *("", " ", "Bearer", "Bearer ", "Basic {token}", "Token {token}", "{token}"),
        *("Bearer: {token}", "Bearer\t{token}", "Bearer,{token}", "Bearer  {token}"),
        *("Bearer {token} ", "Bearer {token} x", "Bearer {token}, Bearer {token}", "Bearer null"),
        *("Bearer {token}\r\nX: y", "Bearer \xe9{token}", "Bearer {token}\x00", "bearer={token}"),
        *("Digest username=alice", "Negotiate abc", "Bearer sk-0123456789abcdef0123456789abcdef"),
        *(" Bearer {token}", "JWT {token}"),
    ],
)
def test_one_way_to_write_the_header(alice: User, header: str) -> None:
    token = log_in()["access_token"]
    response = APIClient().get(ME, HTTP_AUTHORIZATION=header.format(token=token))
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response.json()["code"] == "invalid_credentials"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_has_no_case(alice: User, scheme: str) -> None:
    token = log_in()["access_token"]
    assert APIClient().get(ME, HTTP_AUTHORIZATION=f"{scheme} {token}").status_code == 200


def test_without_a_header_one_is_asked_for_it(anonymous: APIClient) -> None:
    response = anonymous.get(ME)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response.json()["code"] == "not_authenticated"


def test_a_token_anywhere_else_is_not_looked_at(alice: User) -> None:
    token = log_in()["access_token"]
    client = APIClient()
    client.cookies["access_token"] = token
    client.cookies["Authorization"] = f"Bearer {token}"
    response = client.get(
        f"{ME}?access_token={token}&token={token}",
        HTTP_X_AUTHORIZATION=f"Bearer {token}",
        HTTP_X_API_KEY=token,
        HTTP_PROXY_AUTHORIZATION=f"Bearer {token}",
    )
    assert response.status_code == 401


def test_a_disabled_users_next_request_is_refused(alice: User) -> None:
    token = log_in()["access_token"]
    set_active(alice, is_active=False)
    assert me(token) == 401
    set_active(alice, is_active=True)
    assert me(token) == 401, "what was ended does not come back"
    assert me(log_in()["access_token"]) == 200


def test_a_deleted_users_next_request_is_refused(alice: User) -> None:
    token = log_in()["access_token"]
    alice.delete()
    assert me(token) == 401


def test_a_raised_epoch_ends_every_session(alice: User, bob: User) -> None:
    first, second, bobs = log_in(), log_in(), log_in("bob")
    User.objects.filter(pk=alice.pk).update(token_epoch=1)
    assert [me(pair["access_token"]) for pair in (first, second, bobs)] == [401, 401, 200]
    assert refresh(first["refresh_token"]).status_code == 401
    assert me(log_in()["access_token"]) == 200


@pytest.mark.parametrize("is_usable", [True, False])
def test_a_new_password_ends_every_session(alice: User, is_usable: bool) -> None:
    token = log_in()["access_token"]
    if is_usable:
        alice.set_password("Another-Horse-8")
    else:
        alice.set_unusable_password()
    alice.save()
    assert me(token) == 401


def test_a_role_taken_away_takes_its_scope_out_of_old_tokens(staff: User) -> None:
    token = log_in("grace")["access_token"]
    authorization = f"Bearer {token}"
    before = APIClient().get(ME, HTTP_AUTHORIZATION=authorization).json()["scopes"]
    User.objects.filter(pk=staff.pk).update(is_staff=False)
    after = APIClient().get(ME, HTTP_AUTHORIZATION=authorization).json()["scopes"]
    assert (before, after) == (["admin", "read", "write"], ["read", "write"])


def test_a_role_given_later_is_not_in_old_tokens(alice: User) -> None:
    token = log_in()["access_token"]
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    response = APIClient().get(ME, HTTP_AUTHORIZATION=f"Bearer {token}")
    assert response.json()["scopes"] == ["read", "write"]


@pytest.mark.parametrize("ended", ["expired", "revoked", "deleted"])
def test_an_ended_session_ends_its_access_token(alice: User, ended: str) -> None:
    token = log_in()["access_token"]
    session = Session.objects.filter(user=alice)
    now = timezone.now()
    if ended == "deleted":
        session.delete()
    else:
        session.update(**{"expires_at" if ended == "expired" else "revoked_at": now})
    assert me(token) == 401


def test_an_open_stream_can_ask_whether_its_credential_holds(alice: User) -> None:
    log_in()
    session = Session.objects.get(user=alice)
    credential = SessionCredential(session_id=session.pk, scopes=frozenset({"read"}))
    assert isinstance(credential, Credential)
    with CaptureQueriesContext(connection) as queries:
        assert credential.is_live()
    assert len(queries) == 1
    set_active(alice, is_active=False)
    assert not credential.is_live()


@pytest.mark.parametrize(
    ("scope", "look", "change"), [("read", 200, 403), ("write", 403, 422), ("read write", 200, 422)]
)
def test_scopes_decide_what_a_credential_may_do(
    alice: User, client_of: Callable[..., APIClient], scope: str, look: int, change: int
) -> None:
    client = client_of(alice, scope=scope)
    assert client.get(ME).status_code == look
    refused = client.post("/api/v1/consciousness/process", {})
    assert refused.status_code == change
    assert refused.json()["code"] == ("forbidden" if change == 403 else "validation_error")


def test_tokens_hold_what_they_need_and_no_personal_data(alice: User) -> None:
    pair = log_in()
    session = Session.objects.get(user=alice)
    for name, kind, lifetime in (
        ("access_token", "at+jwt", timedelta(minutes=30)),
        ("refresh_token", "rt+jwt", timedelta(days=7)),
    ):
        header = jwt.get_unverified_header(pair[name])
        assert header == {"alg": "HS256", "kid": "t1", "typ": kind}
        claims: dict[str, Any] = jwt.decode(pair[name], options={"verify_signature": False})
        assert claims.pop("jti")
        assert claims.pop("exp") - claims.pop("iat") == lifetime.total_seconds()
        assert claims == {
            "sub": str(alice.id),
            "sid": str(session.id),
            "epoch": 0,
            "scope": "read write",
            "iss": settings.PUBLIC_BASE_URL,
            "aud": "sovereigncore",
            "token_type": name.removesuffix("_token"),
        }


def test_the_database_holds_a_digest_and_no_token(alice: User) -> None:
    pair = log_in()
    row = str(list(Session.objects.filter(user=alice).values()))
    claims = jwt.decode(pair["refresh_token"], options={"verify_signature": False})
    for secret in (pair["access_token"], pair["refresh_token"], claims["jti"], PASSWORD):
        assert secret not in row
    assert len(bytes(Session.objects.get(user=alice).refresh_digest)) == 32
