"""`POST /api/v1/auth/token`: who gets tokens, and that a refusal tells nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import Session, User
from accounts.services import set_active
from conftest import PASSWORD

TOKEN = "/api/v1/auth/token"
FORM = "application/x-www-form-urlencoded"

pytestmark = pytest.mark.usefixtures("frozen_time", "alice", "no_login_limit")


@pytest.fixture
def no_login_limit(settings: Any) -> None:
    settings.RATE_LIMIT_AUTH = "1000/m"


def log_in(client: APIClient, **body: Any) -> Any:
    return client.post(TOKEN, {"username": "alice", "password": PASSWORD, **body})


def test_a_login_starts_a_session_and_returns_its_tokens(anonymous: APIClient, alice: User) -> None:
    response = log_in(anonymous)
    assert response.status_code == 200
    body = response.json()
    assert sorted(body) == ["access_token", "expires_in", "refresh_token", "scope", "token_type"]
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 1800
    assert body["scope"] == "read write"
    session = Session.objects.get(user=alice)
    now = timezone.now()
    assert session.created_at == session.last_used_at == now
    assert session.expires_at == now + timedelta(days=7)
    assert session.address == "127.0.0.1"
    alice.refresh_from_db()
    assert alice.last_login == now


def test_the_answer_is_stored_nowhere(anonymous: APIClient) -> None:
    response = log_in(anonymous)
    assert response["Cache-Control"] == "no-store"
    assert response["Pragma"] == "no-cache"
    assert response["Content-Type"] == "application/json"
    assert "Set-Cookie" not in response


def test_the_oauth2_form_works(anonymous: APIClient) -> None:
    form = {
        "grant_type": "password",
        "username": "alice",
        "password": PASSWORD,
        "scope": "read",
        "client_id": "ignored, as RFC 6749 demands",
    }
    response = anonymous.post(TOKEN, urlencode(form), content_type=FORM)
    assert response.status_code == 200
    assert response.json()["scope"] == "read"
    assert anonymous.post(TOKEN, urlencode(form), content_type=f"{FORM}; charset=UTF-8").json()


@pytest.mark.parametrize(
    "name",
    [
        *("alice", "ALICE", "Alice", " alice ", "\uff41lice"),
        *("alice@example.org", "Alice@Example.ORG", "\uff41lice@example.org"),
    ],
)
def test_the_name_or_the_address_in_any_spelling(anonymous: APIClient, name: str) -> None:
    assert log_in(anonymous, username=name).status_code == 200


@pytest.mark.parametrize(
    "password",
    [
        *(PASSWORD.lower(), PASSWORD.upper(), f" {PASSWORD}", f"{PASSWORD} ", PASSWORD[:-1]),
        *(f"{PASSWORD}\n", "\uff23" + PASSWORD[1:], PASSWORD * 2, "!", "x" * 128),
    ],
)
def test_the_password_in_one_spelling_only(anonymous: APIClient, password: str) -> None:
    assert log_in(anonymous, password=password).status_code == 401


def test_a_refusal_says_what_clients_expect(anonymous: APIClient) -> None:
    response = log_in(anonymous, password="wrong")
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response["Content-Type"] == "application/json"
    assert response.json() == {
        "error": "invalid_grant",
        "error_description": "The credentials are not valid.",
        "detail": "The credentials are not valid.",
    }
    assert not Session.objects.exists()


def refusal(body: dict[str, str], hashed: list[str]) -> tuple[Any, ...]:
    """Everything that a caller sees of a refusal, and the work that it made."""
    hashed.clear()
    with CaptureQueriesContext(connection) as queries:
        response = APIClient().post(TOKEN, body, HTTP_X_REQUEST_ID="same-for-all")
    headers = {n: v for n, v in response.headers.items() if not n.lower().endswith(VARYING)}
    shapes = [query["sql"].replace(body["username"], "name") for query in queries]
    return response.status_code, response.content, headers, len(hashed), shapes


# How many requests are left differs from one to the next, whoever asks.
VARYING = ("ratelimit", "requests")


def test_nobody_can_tell_why_a_login_was_refused(bob: User, staff: User, hashed: list[str]) -> None:
    """Wrong password, unknown name, disabled account: the same bytes, queries and hashes."""
    set_active(bob, is_active=False)
    unusable = User.objects.create_user("nopass", "nopass@example.org", PASSWORD)
    unusable.set_unusable_password()
    unusable.save()
    wrong = refusal({"username": "alice", "password": "Wrong-1-password"}, hashed)
    assert wrong[0] == 401
    assert wrong[3] == 1
    assert len(wrong[4]) == 1
    for name, password in (
        ("alice@example.org", "Wrong-1-password"),
        ("grace", "Wrong-1-password"),
        ("nobody", "Wrong-1-password"),
        ("nobody@example.org", "Wrong-1-password"),
        ("bob", "Wrong-1-password"),
        ("bob", PASSWORD),
        ("nopass", "Wrong-1-password"),
        ("nopass", "!"),
    ):
        assert refusal({"username": name, "password": password}, hashed) == wrong


def test_an_overlong_password_costs_no_hash(anonymous: APIClient, hashed: list[str]) -> None:
    hashed.clear()
    assert log_in(anonymous, password="x" * 129).status_code == 401
    assert log_in(anonymous, username="nobody", password="x" * 1024).status_code == 401
    assert log_in(anonymous, password="x" * 1025).status_code == 400
    assert hashed == []


def test_the_longest_password_works(anonymous: APIClient) -> None:
    password = "Aa1" + "x" * 125
    User.objects.create_user("long", "long@example.org", password)
    assert log_in(anonymous, username="long", password=password).status_code == 200
    assert log_in(anonymous, username="long", password=password[:-1] + "y").status_code == 401


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("", "read write"),
        ("read", "read"),
        ("write", "write"),
        ("write read", "read write"),
        ("read read", "read"),
    ],
)
def test_a_part_of_the_scopes_held(anonymous: APIClient, asked: str, granted: str) -> None:
    body = log_in(anonymous, scope=asked).json()
    assert body["scope"] == granted
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert claims["scope"] == granted


def test_staff_hold_the_admin_scope(anonymous: APIClient, staff: User) -> None:
    assert log_in(anonymous, username="grace").json()["scope"] == "admin read write"
    assert log_in(anonymous, username="grace", scope="admin").json()["scope"] == "admin"


@pytest.mark.parametrize("scope", ["admin", "read admin", "everything", "READ", "read,write"])
def test_more_than_the_scopes_held_is_an_invalid_scope(anonymous: APIClient, scope: str) -> None:
    response = log_in(anonymous, scope=scope)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_scope"
    assert not Session.objects.exists()


def test_a_scope_is_judged_after_the_password(anonymous: APIClient) -> None:
    response = log_in(anonymous, scope="admin", password="wrong")
    assert response.status_code == 401
    assert response.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "scope",
    [
        *("read  write", "read\twrite", "read\nwrite", 'read"', "read\\write", "lire\u00e9"),
        *("read\u2003write", "x" * 65, "read\x00", ["read"], {"read": True}, 5, True, None),
    ],
)
def test_a_malformed_scope_is_an_invalid_request(anonymous: APIClient, scope: Any) -> None:
    response = log_in(anonymous, scope=scope)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"


@pytest.mark.parametrize("field", ["username", "password", "grant_type", "scope"])
@pytest.mark.parametrize("value", [["alice"], {"a": "b"}, 5, True, None, [], {"$ne": ""}])
def test_only_text_is_text(anonymous: APIClient, field: str, value: Any) -> None:
    response = log_in(anonymous, **{field: value})
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"
    assert list(response.json()["errors"]) == [field]


@pytest.mark.parametrize("field", ["username", "password"])
@pytest.mark.parametrize("value", ["", "a\x00b", "\x00"])
def test_empty_or_nul_is_refused(anonymous: APIClient, field: str, value: str) -> None:
    assert log_in(anonymous, **{field: value}).status_code == 400


@pytest.mark.parametrize("body", ["[]", '"x"', "5", "null", "true", "{}", '{"username":"alice"}'])
def test_other_bodies_are_invalid_requests(anonymous: APIClient, body: str) -> None:
    response = anonymous.post(TOKEN, body, content_type="application/json")
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    "form",
    [
        "username=alice&username=bob&password=x",
        "username=alice&password=x&password=y",
        "username[]=alice&password=x",
        "username=a%00b&password=x",
        "grant_type=&username=alice&password=x",
        "&".join(f"a{number}=1" for number in range(300)),
        "",
        "%",
        "username=%ff%fe",
    ],
)
def test_malformed_forms_are_invalid_requests(anonymous: APIClient, form: str) -> None:
    response = anonymous.post(TOKEN, form, content_type=FORM)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    "grant", ["client_credentials", "authorization_code", "PASSWORD", "urn:x", "implicit"]
)
def test_other_grants_are_not_supported(
    anonymous: APIClient, hashed: list[str], grant: str
) -> None:
    hashed.clear()
    response = log_in(anonymous, grant_type=grant)
    assert response.status_code == 400
    assert response.json()["error"] == "unsupported_grant_type"
    assert hashed == []


def test_credentials_in_the_address_are_not_looked_at(anonymous: APIClient) -> None:
    query = urlencode({"username": "alice", "password": PASSWORD})
    assert anonymous.post(f"{TOKEN}?{query}", {}).status_code == 400


@pytest.mark.parametrize("agent", ["", "x" * 500, "\x00\x01", "\u00fc" * 300, "<script>"])
def test_any_user_agent_is_kept_in_short(anonymous: APIClient, alice: User, agent: str) -> None:
    body = {"username": "alice", "password": PASSWORD}
    assert anonymous.post(TOKEN, body, HTTP_USER_AGENT=agent).status_code == 200
    kept = Session.objects.get(user=alice).agent
    assert kept == agent.replace("\x00", "")[:200]
