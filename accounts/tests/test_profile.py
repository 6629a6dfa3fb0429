"""`/api/v1/users/me`: what one can change about oneself, and what asks for the password first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import Kind, Link, Mail, Purpose, Session, User
from accounts.services import set_active
from accounts.tests.mails import (
    ASK_PAGE,
    BASE,
    CHANGE_ADDRESS,
    CHANGE_ADDRESS_PAGE,
    NEW_PASSWORD,
    PASSWORD_CHANGE,
    PROFILE,
    ask_reset,
    check_invalid,
    check_invalid_link,
    client,
    confirm_reset,
    deliver,
    deliver_one,
    dump,
    fill_in,
    link_in,
    login_status,
    mailed_reset,
    make_key,
    path_of,
    token_in,
)
from accounts.tests.sessions import log_in, me, refresh
from conftest import PASSWORD
from monitoring.models import AuditEvent
from tests.log_capture import LogCapture
from tests.parallel import in_parallel

SECOND = timedelta(seconds=1)
WRONG = "Wrong-Horse-7-Battery"


def bearer(token: str) -> APIClient:
    api = APIClient()
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return api


def change_password(api: APIClient, current: Any = PASSWORD, new: Any = NEW_PASSWORD) -> Any:
    return api.post(PASSWORD_CHANGE, {"current_password": current, "new_password": new})


def ask_address(api: APIClient, address: Any, password: Any = PASSWORD, **more: Any) -> Any:
    return api.patch(PROFILE, {"email": address, "current_password": password, **more})


def mailed_change(api: APIClient, address: str = "new@example.org") -> str:
    """The token that proves the new address."""
    assert ask_address(api, address).status_code == 200
    return token_in(deliver_one())


def confirm_change(token: Any) -> Any:
    return client.post(CHANGE_ADDRESS, {"token": token})


def check_wrong_password(response: Any) -> None:
    assert response.status_code == 403, response.content
    assert response.json()["code"] == "wrong_password"
    assert response.json()["detail"] == "The current password is not right."


# --- The profile -----------------------------------------------------------------------------


def test_one_sees_oneself(as_alice: APIClient, alice: User) -> None:
    response = as_alice.get(PROFILE)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    alice.refresh_from_db()
    assert alice.last_login is not None
    assert response.json() == {
        "id": str(alice.id),
        "username": "alice",
        "email": "alice@example.org",
        "full_name": "",
        "created_at": alice.created_at.isoformat().replace("+00:00", "Z"),
        "last_login": alice.last_login.isoformat().replace("+00:00", "Z"),
    }


def test_seeing_and_changing_oneself_costs_few_queries(as_alice: APIClient) -> None:
    with CaptureQueriesContext(connection) as looking:
        as_alice.get(PROFILE)
    assert len(looking) == 2, "who asks, and their dates"
    with CaptureQueriesContext(connection) as changing:
        as_alice.patch(PROFILE, {"full_name": "Alice A."})
    statements = [query["sql"].split()[0] for query in changing]
    assert [word for word in statements if word in ("SELECT", "UPDATE", "INSERT")] == [
        # The same, and what is on record between them, whose id is asked for first.
        *("SELECT", "UPDATE", "SELECT", "INSERT", "SELECT")
    ]


def test_nobody_else_does(anonymous: APIClient, as_bob: APIClient, alice: User) -> None:
    for call in (anonymous.get, anonymous.patch):
        assert call(PROFILE).status_code == 401
    assert anonymous.post(PASSWORD_CHANGE, {}).status_code == 401
    assert as_bob.get(PROFILE).json()["username"] == "bob"


def test_a_reader_changes_nothing(alice: User, client_of: Callable[..., APIClient]) -> None:
    reader = client_of(alice, "read")
    assert reader.get(PROFILE).status_code == 200
    assert reader.patch(PROFILE, {"full_name": "A"}).status_code == 403
    assert ask_address(reader, "new@example.org").status_code == 403
    assert change_password(reader).status_code == 403
    assert deliver() == []


@pytest.mark.parametrize(
    "name", ["Alice Example", "\U0001f600" * 150, "O'Brien-\u0141\u00f3d\u017a", "x" * 150, ""]
)
def test_a_full_name_is_kept_as_it_is(as_alice: APIClient, alice: User, name: str) -> None:
    response = as_alice.patch(PROFILE, {"full_name": name})
    assert response.status_code == 200
    assert response.json()["full_name"] == name
    assert as_alice.get(PROFILE).json()["full_name"] == name
    (event,) = AuditEvent.objects.filter(action="user.renamed")
    assert (event.actor_id, event.subject_id) == (alice.id, str(alice.id))
    assert event.detail == {}


@pytest.mark.parametrize(
    "value", ["x" * 151, "\U0001f600" * 151, ["x"], {"a": "b"}, 5, True, None, []]
)
def test_a_full_name_is_a_short_text(as_alice: APIClient, value: Any) -> None:
    check_invalid(as_alice.patch(PROFILE, {"full_name": value}), "full_name")
    assert as_alice.get(PROFILE).json()["full_name"] == ""


@pytest.mark.parametrize("text", [r"\u0000", r"\ud800", r"a\udfff"])
def test_nul_and_lone_surrogates_are_malformed(as_alice: APIClient, text: str) -> None:
    raw = f'{{"full_name":"{text}"}}'
    response = as_alice.patch(PROFILE, raw, content_type="application/json")
    assert response.status_code == 400
    assert response.json()["code"] == "malformed_request"


CONTROLS = ["a\r\nb", "a\x1b[31mb", "a\u2028b", "a\u202eb", "a\x7fb", "a\x85b", "a\tb"]


@pytest.mark.parametrize("name", CONTROLS)
def test_a_name_with_control_characters_from_before_breaks_nothing(
    as_alice: APIClient, alice: User, staff: User, logs: LogCapture, name: str
) -> None:
    User.objects.filter(pk=alice.pk).update(full_name=name)  # such names are taken no more
    assert as_alice.get(PROFILE).json()["full_name"] == name
    site = Client()
    site.force_login(staff)
    assert site.get("/admin/accounts/user/").status_code == 200
    assert len(logs.events("request")) == 2
    assert "full_name" not in logs.text
    assert name not in logs.text


@pytest.mark.parametrize(
    "name",
    sorted({field.name for field in User._meta.get_fields()} - {"full_name", "email"}),
)
def test_no_other_field_can_be_sent(as_alice: APIClient, alice: User, name: str) -> None:
    before = User.objects.values().get(pk=alice.pk)
    for value in (True, 1, "x", [1], None):
        response = as_alice.patch(PROFILE, {"full_name": "A", name: value})
        assert check_invalid(response, name) == ["Unknown field."]
    assert User.objects.values().get(pk=alice.pk) == before


@pytest.mark.parametrize("body", [[], [{"full_name": "A"}], "A", 5])
def test_only_an_object_changes_anything(as_alice: APIClient, alice: User, body: Any) -> None:
    assert as_alice.patch(PROFILE, body).status_code == 422
    assert not AuditEvent.objects.filter(action="user.renamed").exists()


def test_nothing_asked_is_nothing_done(as_alice: APIClient) -> None:
    assert as_alice.patch(PROFILE, {}).status_code == 200
    assert not AuditEvent.objects.filter(action="user.renamed").exists()
    assert not Mail.objects.exists()


# --- The password ----------------------------------------------------------------------------


def test_a_new_password_ends_what_the_old_one_opened(as_alice: APIClient) -> None:
    key, other = make_key(as_alice), log_in()
    mine = log_in()
    response = change_password(bearer(mine["access_token"]))
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert response["Pragma"] == "no-cache"
    pair = response.json()
    assert sorted(pair) == sorted(mine)
    assert pair["scope"] == mine["scope"]
    for old in (mine, other):
        assert me(old["access_token"]) == 401
        assert refresh(old["refresh_token"]).status_code == 401
    assert as_alice.get(PROFILE).status_code == 401
    assert me(pair["access_token"]) == 200
    assert refresh(pair["refresh_token"]).status_code == 200
    assert me(key) == 200, "keys stay: their owner made them"
    assert login_status("alice", PASSWORD) == 401
    assert login_status("alice", NEW_PASSWORD) == 200


def test_the_owner_is_told_and_so_is_the_audit_trail(as_alice: APIClient, alice: User) -> None:
    assert change_password(as_alice).status_code == 200
    notice = deliver_one()
    assert notice.to == ["alice@example.org"]
    assert notice.subject == "Your password was changed"
    assert f"{BASE}{ASK_PAGE}" in notice.body
    (event,) = AuditEvent.objects.filter(action="password.changed")
    assert (event.actor_id, event.subject_id) == (alice.id, str(alice.id))


def test_the_new_session_can_do_no_more_than_the_old_one(
    staff: User, client_of: Callable[..., APIClient]
) -> None:
    pair = change_password(client_of(staff, "read write")).json()
    assert pair["scope"] == "read write"


def test_a_key_can_do_it_with_the_password_and_gets_its_own_scopes(as_alice: APIClient) -> None:
    key = make_key(as_alice)
    check_wrong_password(change_password(bearer(key), WRONG))
    assert change_password(bearer(key)).json()["scope"] == "read write"


def test_the_wrong_current_password_changes_nothing(as_alice: APIClient) -> None:
    check_wrong_password(change_password(as_alice, WRONG))
    check_wrong_password(change_password(as_alice, PASSWORD + "x"))
    check_wrong_password(change_password(as_alice, PASSWORD.upper()))
    assert as_alice.get(PROFILE).status_code == 200
    assert login_status("alice", PASSWORD) == 200
    assert deliver() == []
    assert not AuditEvent.objects.filter(action="password.changed").exists()


def test_guesses_are_limited_by_account_and_before_hashing(
    as_alice: APIClient, as_bob: APIClient, frozen_time: time_machine.Traveller, hashed: list[str]
) -> None:
    other = bearer(make_key(as_alice))
    hashed.clear()
    for _ in range(3):
        check_wrong_password(change_password(as_alice, WRONG))
    for _ in range(2):
        check_wrong_password(ask_address(other, "new@example.org", WRONG))
    assert len(hashed) == 5
    for refused in (
        change_password(as_alice),
        change_password(other),
        ask_address(as_alice, "new@example.org"),
        as_alice.post(
            PASSWORD_CHANGE,
            {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
            REMOTE_ADDR="192.0.2.9",
        ),
    ):
        assert refused.status_code == 429
        assert refused["RateLimit-Policy"] == '"auth";q=5;w=60'
        assert 0 < int(refused["Retry-After"]) <= 60
    assert len(hashed) == 5
    check_wrong_password(change_password(as_bob, WRONG))
    assert as_alice.get(PROFILE).status_code == 200
    assert as_alice.patch(PROFILE, {"full_name": "A"}).status_code == 200
    frozen_time.shift(timedelta(seconds=60))
    assert change_password(as_alice).status_code == 200


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("Short-7", "8 characters"),
        ("nouppercase7", "an upper-case letter"),
        ("NOLOWERCASE7", "a lower-case letter"),
        ("NoDigitsHere", "a digit"),
        ("Password123", "too common"),
        ("Alice@example.org1", "similar to the email"),
        ("Aa1" + "x" * 126, "longer than 128"),
    ],
)
def test_a_weak_password_is_refused_before_any_hash(
    as_alice: APIClient, hashed: list[str], password: str, reason: str
) -> None:
    hashed.clear()
    (message,) = check_invalid(change_password(as_alice, new=password), "new_password")
    assert reason in message
    assert password not in message
    assert hashed == []
    assert as_alice.get(PROFILE).status_code == 200


def test_a_password_like_the_name_is_refused(client_of: Callable[..., APIClient], db: None) -> None:
    user = User.objects.create_user("annabelle42", "x@example.org", PASSWORD, full_name="Xy")
    messages = check_invalid(change_password(client_of(user), new="Annabelle42"), "new_password")
    assert messages == ["The password is too similar to the username."]


@pytest.mark.parametrize("field", ["current_password", "new_password"])
@pytest.mark.parametrize("value", [["x"], {"a": "b"}, 5, True, None, [], "", "x" * 1025])
def test_only_text_is_a_password(as_alice: APIClient, field: str, value: Any) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, field: value}
    check_invalid(as_alice.post(PASSWORD_CHANGE, body), field)


@pytest.mark.parametrize("name", ["username", "email", "token_epoch", "scope", "user"])
def test_no_other_field_goes_with_a_password(as_alice: APIClient, name: str) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, name: "bob"}
    assert check_invalid(as_alice.post(PASSWORD_CHANGE, body), name) == ["Unknown field."]
    assert login_status("alice", PASSWORD) == 200


def test_a_very_long_wrong_password_is_wrong(as_alice: APIClient) -> None:
    check_wrong_password(change_password(as_alice, "x" * 1024))


@pytest.mark.django_db(transaction=True)
def test_changes_at_once_leave_one_password_and_one_session(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.RATE_LIMIT_AUTH = settings.RATE_LIMIT_DEFAULT = "100000/m"
    User.objects.create_user("alice", "alice@example.org", PASSWORD)
    api = bearer(log_in()["access_token"])

    def password(number: int) -> str:
        return f"Racing-Horse-{number}-Battery"

    responses = in_parallel(20, lambda number: change_password(api, new=password(number)))
    winners = [number for number in range(20) if responses[number].status_code == 200]
    alice = User.objects.get()
    (last,) = (number for number in range(20) if alice.check_password(password(number)))
    assert last in winners
    live = [me(responses[number].json()["access_token"]) for number in winners]
    assert live.count(200) == Session.objects.all().live().count()
    assert live.count(200) <= 1


# --- The address -----------------------------------------------------------------------------


def test_an_address_changes_when_it_is_proved(as_alice: APIClient, alice: User) -> None:
    response = ask_address(as_alice, "New@Example.org")
    assert response.status_code == 200
    assert response.json()["email"] == "alice@example.org"
    message = deliver_one()
    assert message.to == ["New@Example.org"]
    assert message.subject == "Confirm your new e-mail address"
    assert as_alice.get(PROFILE).json()["email"] == "alice@example.org"
    done = confirm_change(token_in(message))
    assert done.status_code == 200
    assert done.json()["email"] == "New@Example.org"
    assert as_alice.get(PROFILE).json()["email"] == "New@Example.org"
    alice.refresh_from_db()
    assert alice.email_canonical == "new@example.org"
    assert login_status("new@example.org", PASSWORD) == 200
    assert login_status("alice@example.org", PASSWORD) == 401
    (event,) = AuditEvent.objects.filter(action="user.address_changed")
    assert event.subject_id == str(alice.id)


def test_the_page_does_the_same(as_alice: APIClient) -> None:
    ask_address(as_alice, "new@example.org")
    path = path_of(link_in(deliver_one()))
    assert path.startswith(f"{CHANGE_ADDRESS_PAGE}?token=")
    browser = Client(enforce_csrf_checks=True, headers={"Accept": "text/html"})
    page = browser.get(path)
    assert b"Use new@example.org?" in page.content
    assert "no-store" in page["Cache-Control"]
    assert browser.head(path).status_code == 200
    token = path.partition("token=")[2]
    assert browser.post(CHANGE_ADDRESS_PAGE, {"token": token}).status_code == 403
    assert as_alice.get(PROFILE).json()["email"] == "alice@example.org"
    done = fill_in(browser, path)
    assert b"Mails go to new@example.org from now on." in done.content
    assert as_alice.get(PROFILE).json()["email"] == "new@example.org"


def test_the_old_address_is_told(as_alice: APIClient) -> None:
    confirm_change(mailed_change(as_alice))
    notice = deliver_one()
    assert notice.to == ["alice@example.org"]
    assert notice.subject == "Your e-mail address was changed"
    assert "new@example.org" not in str(notice.message())


def test_it_needs_the_password(as_alice: APIClient, hashed: list[str]) -> None:
    hashed.clear()
    check_invalid(as_alice.patch(PROFILE, {"email": "new@example.org"}), "current_password")
    assert hashed == []
    check_wrong_password(ask_address(as_alice, "new@example.org", WRONG))
    check_wrong_password(ask_address(as_alice, "new@example.org", WRONG, full_name="Mallory"))
    assert deliver() == []
    assert as_alice.get(PROFILE).json()["full_name"] == "", "all or nothing"


def test_name_and_address_go_together(as_alice: APIClient) -> None:
    response = ask_address(as_alice, "new@example.org", full_name="Alice A.")
    assert response.json()["full_name"] == "Alice A."
    assert confirm_change(token_in(deliver_one())).json()["full_name"] == "Alice A."


@pytest.mark.parametrize(
    "value",
    [
        *(["a@x.org"], {"a": "b"}, 5, True, None, [], "", "x", "a@x.org,b@x.org"),
        *("a@x.org\r\nBcc: b@x.org", "A <a@x.org>", "x" * 250 + "@a.org"),
    ],
)
def test_an_address_has_its_form(as_alice: APIClient, value: Any) -> None:
    check_invalid(ask_address(as_alice, value), "email")
    assert not Mail.objects.exists()


def test_an_address_with_an_account_is_told_and_nothing_changes(
    as_alice: APIClient, bob: User
) -> None:
    free = ask_address(as_alice, "new@example.org")
    deliver()
    for spelling in ("bob@example.org", "BOB@EXAMPLE.ORG"):
        taken = ask_address(as_alice, spelling)
        assert (taken.status_code, taken.content) == (200, free.content)
        message = deliver_one()
        assert message.subject == "You have an account already"
        assert "token" not in message.body
    assert Link.objects.count() == 1
    assert as_alice.get(PROFILE).json()["email"] == "alice@example.org"


def test_an_address_taken_meanwhile_is_refused(as_alice: APIClient) -> None:
    token = mailed_change(as_alice)
    other = User.objects.create_user("other", "NEW@example.org", PASSWORD)
    response = confirm_change(token)
    assert response.status_code == 409
    assert response.json()["code"] == "identity_taken"
    assert response.json()["errors"] == {"email": ["This address is taken."]}
    assert as_alice.get(PROFILE).json()["email"] == "alice@example.org"
    assert deliver() == [], "nothing changed, so nobody is told"
    page = Client().post(CHANGE_ADDRESS_PAGE, {"token": token})
    assert page.status_code == 409
    other.delete()
    assert confirm_change(token).status_code == 200


def test_the_same_address_in_another_spelling_can_be_kept(as_alice: APIClient) -> None:
    """One's own address is no news to oneself."""
    ask_address(as_alice, "Alice@Example.org")
    assert deliver_one().subject == "You have an account already"
    assert as_alice.get(PROFILE).json()["email"] == "alice@example.org"


def test_a_change_link_is_good_once(as_alice: APIClient) -> None:
    token = mailed_change(as_alice)
    assert confirm_change(token).status_code == 200
    check_invalid_link(confirm_change(token))
    check_invalid_link(client.get(CHANGE_ADDRESS_PAGE, {"token": token}))


@pytest.mark.django_db(transaction=True)
def test_of_fifty_confirmations_one_wins(settings: Any) -> None:
    settings.RATE_LIMIT_DEFAULT = "100000/m"
    User.objects.create_user("alice", "alice@example.org", PASSWORD)
    token = mailed_change(bearer(log_in()["access_token"]))
    statuses = in_parallel(50, lambda _number: confirm_change(token).status_code)
    assert statuses.count(200) == 1
    assert statuses.count(400) == 49
    assert User.objects.get().email == "new@example.org"
    assert Mail.objects.filter(kind=Kind.ADDRESS_CHANGED).count() == 1


def test_the_newest_change_replaces_the_older_one(as_alice: APIClient) -> None:
    older = mailed_change(as_alice, "older@example.org")
    newer = mailed_change(as_alice, "newer@example.org")
    check_invalid_link(confirm_change(older))
    assert confirm_change(newer).json()["email"] == "newer@example.org"


def test_a_change_link_holds_for_a_day(
    as_alice: APIClient, frozen_time: time_machine.Traveller
) -> None:
    token = mailed_change(as_alice)
    frozen_time.shift(timedelta(hours=24) - SECOND)
    assert client.get(CHANGE_ADDRESS_PAGE, {"token": token}).status_code == 200
    frozen_time.shift(SECOND)
    check_invalid_link(confirm_change(token))


def test_a_change_ends_the_links_sent_to_the_old_address(as_alice: APIClient) -> None:
    change, reset = mailed_change(as_alice), mailed_reset()
    assert confirm_change(change).status_code == 200
    check_invalid_link(confirm_reset(reset))


def test_a_reset_goes_to_the_new_address_only(as_alice: APIClient) -> None:
    confirm_change(mailed_change(as_alice))
    deliver()
    ask_reset("alice@example.org")
    assert deliver() == []
    ask_reset("new@example.org")
    assert deliver_one().to == ["new@example.org"]


def test_a_new_password_ends_a_change_that_a_thief_began(as_alice: APIClient) -> None:
    token = mailed_change(as_alice, "mallory@example.org")
    assert change_password(as_alice).status_code == 200
    check_invalid_link(confirm_change(token))


def test_a_change_that_waits_in_the_queue_ends_with_the_password_too(
    as_alice: APIClient,
) -> None:
    ask_address(as_alice, "mallory@example.org")
    assert change_password(as_alice).status_code == 200
    assert [message.to for message in deliver()] == [["alice@example.org"]]


def test_a_disabled_account_changes_nothing(as_alice: APIClient, alice: User) -> None:
    token = mailed_change(as_alice)
    ask_address(as_alice, "newer@example.org")
    set_active(alice, is_active=False)
    check_invalid_link(confirm_change(token))
    assert deliver() == []


@pytest.mark.parametrize("purpose", sorted(set(Purpose) - {Purpose.CHANGE_ADDRESS}))
def test_links_of_other_purposes_change_no_address(alice: User, purpose: Purpose) -> None:
    token = Link.objects.all().issue(purpose, user=alice, address="new@example.org").token
    check_invalid_link(confirm_change(token))
    check_invalid_link(client.get(CHANGE_ADDRESS_PAGE, {"token": token}))


@pytest.mark.parametrize("value", [["t"], {"a": "b"}, 5, True, None, [], "", "x" * 201])
def test_only_text_is_a_token(db: None, value: Any) -> None:
    check_invalid(confirm_change(value), "token")


def test_sessions_and_keys_stay(as_alice: APIClient) -> None:
    key = make_key(as_alice)
    confirm_change(mailed_change(as_alice))
    assert as_alice.get(PROFILE).status_code == 200
    assert me(key) == 200


def test_logs_and_database_hold_no_secret(as_alice: APIClient, logs: LogCapture) -> None:
    token = mailed_change(as_alice)
    kept = dump()
    confirm_change(token)
    ask_address(as_alice, "third@example.org", WRONG)
    change_password(as_alice, WRONG)
    change_password(as_alice)
    deliver()
    for secret in (token, PASSWORD, NEW_PASSWORD, WRONG):
        assert secret not in logs.text
        assert secret not in kept + dump()
    assert "example.org" not in logs.text
