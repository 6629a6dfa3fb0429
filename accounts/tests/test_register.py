"""`POST /api/v1/users/register`: one identity, one account, and nothing that was not asked for."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.identity import RESERVED_USERNAMES
from accounts.models import User
from accounts.tests.sessions import me
from tests.parallel import in_parallel

REGISTER = "/api/v1/users/register"
VALID = {"username": "Dave", "email": "Dave@Example.org", "password": "Correct-Horse-7"}


@pytest.fixture(autouse=True)
def _open(settings: Any) -> None:
    settings.REGISTRATION_MODE = "open"
    settings.RATE_LIMIT_REGISTER = "1000/h"


def wide(text: str) -> str:
    """The full-width form of ASCII letters and digits."""
    return "".join(chr(ord(char) + 0xFEE0) if char.isalnum() else char for char in text)


def register(**changed: Any) -> Any:
    return APIClient().post(REGISTER, {**VALID, **changed})


def check_invalid(response: Any, field: str) -> list[str]:
    assert response.status_code == 422, response.content
    body = response.json()
    assert body["code"] == "validation_error"
    assert list(body["errors"]) == [field]
    messages: list[str] = body["errors"][field]
    return messages


@pytest.mark.django_db
def test_an_account_is_made_and_can_log_in(frozen_time: object) -> None:
    response = register(full_name="Dave Example")
    assert response.status_code == 201
    user = User.objects.get()
    assert response.json() == {
        "id": str(user.id),
        "username": "Dave",
        "email": "Dave@Example.org",
        "full_name": "Dave Example",
        "created_at": timezone.now().isoformat().replace("+00:00", "Z"),
    }
    assert (user.is_active, user.is_staff, user.is_superuser) == (True, False, False)
    assert (user.username_canonical, user.email_canonical) == ("dave", "dave@example.org")
    login = {"username": "DAVE", "password": VALID["password"]}
    pair = APIClient().post("/api/v1/auth/token", login).json()
    assert me(pair["access_token"]) == 200


@pytest.mark.django_db
def test_the_answer_and_the_row_hold_no_password() -> None:
    response = register()
    assert VALID["password"].encode() not in response.content
    assert b"bcrypt" not in response.content
    assert User.objects.get().password.startswith("bcrypt_sha256$")


@pytest.mark.django_db
@pytest.mark.parametrize("field", ["username", "email", "password"])
def test_three_fields_are_required(field: str) -> None:
    body = {name: value for name, value in VALID.items() if name != field}
    check_invalid(APIClient().post(REGISTER, body), field)
    check_invalid(register(**{field: ""}), field)
    check_invalid(register(**{field: None}), field)


@pytest.mark.django_db
@pytest.mark.parametrize("field", ["username", "email", "password", "full_name"])
@pytest.mark.parametrize("value", [["x"], {"a": "b"}, 5, True, []])
def test_only_text_is_text(field: str, value: Any) -> None:
    check_invalid(register(**{field: value}), field)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name",
    ["me", "a" * 51, "a b", "a.b", "dave@x", "../x", wide("dave"), "d\u0430ve", "dave\u200b"],
)
def test_a_name_has_its_form(name: str) -> None:
    check_invalid(register(username=name), "username")


@pytest.mark.django_db
@pytest.mark.parametrize("word", sorted(RESERVED_USERNAMES - {"me"}))  # that one is too short
def test_words_of_routes_are_reserved(word: str) -> None:
    for spelling in (word, word.upper(), word.title()):
        assert check_invalid(register(username=spelling), "username") == ["This name is reserved."]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address",
    [
        *("dave", "dave@", "@x.org", "a b@x.org", "a@x.org, b@x.org", "a@x.org\r\nBcc: b@x.org"),
        *("x" * 250 + "@a.org", f"a@{chr(0xFDFA) * 60}.example", "Dave <dave@example.org>"),
    ],
)
def test_an_address_has_its_form(address: str) -> None:
    check_invalid(register(email=address), "email")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("Short-7", "8 characters"),
        ("nouppercase7", "an upper-case letter"),
        ("NOLOWERCASE7", "a lower-case letter"),
        ("NoDigitsHere", "a digit"),
        ("Password123", "too common"),
        ("Dave@example.org1", "similar to the email"),
        ("Aa1" + "x" * 126, "longer than 128"),
    ],
)
def test_a_password_has_its_form(password: str, reason: str) -> None:
    (message,) = check_invalid(register(password=password), "password")
    assert reason in message
    assert password not in message


@pytest.mark.django_db
def test_a_password_is_taken_as_it_is() -> None:
    password = "  Aa1 \u00e9\U0001f600 spaces  "
    assert register(password=password).status_code == 201
    assert User.objects.get().check_password(password)


@pytest.mark.django_db
@pytest.mark.parametrize("field", ["username", "email", "password", "full_name"])
def test_nul_is_refused(field: str) -> None:
    assert register(**{field: "Dave\x00Aa1xyz"}).status_code == 400


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"email": "other@example.org"}, ["username"]),
        ({"username": "dave", "email": "other@example.org"}, ["username"]),
        ({"username": "DAVE", "email": "other@example.org"}, ["username"]),
        ({"username": "other"}, ["email"]),
        ({"username": "other", "email": "DAVE@EXAMPLE.ORG"}, ["email"]),
        ({"username": "other", "email": f"Dave@{wide('example')}.org"}, ["email"]),
        ({"username": "other", "email": " dave@example.org "}, ["email"]),
        ({"username": "dAVE", "email": "dAVE@eXAMPLE.oRG"}, ["username", "email"]),
    ],
)
def test_another_spelling_is_taken(changed: dict[str, str], fields: list[str]) -> None:
    assert register().status_code == 201
    response = register(**changed)
    assert response.status_code == 409
    body = response.json()
    assert body["code"] == "identity_taken"
    assert body["detail"] == "That name or address is taken."
    assert list(body["errors"]) == fields
    assert User.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name", sorted({field.name for field in User._meta.get_fields()} - {*VALID, "full_name"})
)
def test_no_other_field_of_an_account_can_be_sent(name: str) -> None:
    for value in (True, 1, "1", [1]):
        assert check_invalid(register(**{name: value}), name) == ["Unknown field."]
    assert not User.objects.exists()


@pytest.mark.django_db
def test_other_routes_change_nothing_either(alice: User) -> None:
    """RFC 6749 lets token requests carry unknown parameters; they are ignored."""
    before = User.objects.values().get(pk=alice.pk)
    extra = {"is_staff": True, "is_superuser": True, "token_epoch": 9, "email": "x@example.org"}
    body = {"username": "alice", "password": "Correct-Horse-7-Battery", **extra}
    response = APIClient().post("/api/v1/auth/token", body)
    assert response.status_code == 200
    assert response.json()["scope"] == "read write"
    after = User.objects.values().get(pk=alice.pk)
    assert {**after, "last_login": None} == before


@pytest.mark.django_db
def test_a_closed_server_says_so(settings: Any, hashed: list[str]) -> None:
    settings.REGISTRATION_MODE = "closed"
    response = register()
    assert response.status_code == 403
    assert response.json()["code"] == "registration_closed"
    assert not User.objects.exists()
    assert hashed == []


@pytest.mark.django_db
def test_it_is_limited_by_address(settings: Any, frozen_time: object, hashed: list[str]) -> None:
    settings.RATE_LIMIT_REGISTER = "5/h"
    client = APIClient()
    assert client.post(REGISTER, {}).status_code == 422, "a typing mistake is no attempt"
    statuses = [client.post(REGISTER, VALID).status_code for _ in range(6)]
    assert statuses == [201, *[409] * 4, 429]
    hashed.clear()
    refused = client.post(REGISTER, VALID)
    assert refused.status_code == 429
    assert refused["RateLimit-Policy"] == '"register";q=5;w=3600'
    assert hashed == []
    assert client.post(REGISTER, VALID, REMOTE_ADDR="192.0.2.9").status_code == 409


@pytest.mark.django_db(transaction=True)
def test_fifty_spellings_at_once_make_one_account() -> None:
    client = APIClient()
    assert client.get("/live").status_code == 200  # its handler is built before the race

    def send(number: int) -> int:
        bits = f"{number:06b}" * 3
        name, address = (
            "".join(c.upper() if bits[i] == "1" else c for i, c in enumerate(text))
            for text in ("registrant", "dave@example.org")
        )
        body = {"username": name, "email": address, "password": VALID["password"]}
        status: int = client.post(REGISTER, body).status_code
        return status

    statuses = in_parallel(50, send)
    assert statuses.count(201) == 1
    assert statuses.count(409) == 49
    assert User.objects.count() == 1
