"""The password reset by mail: for the owner of the address and nobody else, once, soon."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
import time_machine
from django.core import mail
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.models import Kind, Link, Mail, Purpose, User
from accounts.services import set_active
from accounts.tests.mails import (
    ASK,
    ASK_PAGE,
    BASE,
    CHANGE_ADDRESS,
    CHANGE_ADDRESS_PAGE,
    CONFIRM,
    CONFIRM_PAGE,
    NEW_PASSWORD,
    PASSWORD_CHANGE,
    PROFILE,
    REGISTER,
    REGISTER_PAGE,
    VERIFY,
    VERIFY_PAGE,
    ask_reset,
    check_invalid,
    check_invalid_link,
    client,
    confirm_reset,
    deliver,
    deliver_one,
    dump,
    fill_in,
    html_of,
    link_in,
    login_status,
    mailed_reset,
    make_key,
    path_of,
    token_in,
    traces,
)
from accounts.tests.sessions import log_in, me, refresh
from conftest import PASSWORD
from monitoring.models import AuditEvent
from sovereigncore.tests.problems import REQUEST_ID, check_problem
from tests.log_capture import LogCapture
from tests.parallel import in_parallel

SECOND = timedelta(seconds=1)
MAILED = {"detail": "If there is an account with this address, a mail is on its way to it."}


@pytest.fixture(autouse=True)
def _roomy(settings: Any) -> None:
    settings.RATE_LIMIT_RESET = "1000/h"


@pytest.fixture
def browser() -> Client:
    """One that is taken at its word only with a CSRF token."""
    return Client(enforce_csrf_checks=True, headers={"Accept": "text/html"})


# --- From the request to the new password ----------------------------------------------------


def test_a_forgotten_password_is_replaced(alice: User, as_alice: APIClient) -> None:
    old, key = log_in(), make_key(as_alice)
    asked = ask_reset()
    assert (asked.status_code, asked.json()) == (202, MAILED)
    assert mail.outbox == [], "the worker sends it, not the request"
    token = token_in(deliver_one())
    done = confirm_reset(token)
    assert done.status_code == 200
    assert done.json() == {"detail": "The password is changed. Log in with it."}
    assert [me(old["access_token"]), me(key)] == [401, 401]
    assert refresh(old["refresh_token"]).status_code == 401
    assert login_status("alice", PASSWORD) == 401
    assert login_status("alice", NEW_PASSWORD) == 200


def test_the_pages_do_the_same(alice: User, as_alice: APIClient, browser: Client) -> None:
    old, key = log_in(), make_key(as_alice)
    asked = fill_in(browser, ASK_PAGE, email="alice@example.org")
    assert asked.status_code == 200
    assert b"If there is an account with this address" in asked.content
    path = path_of(link_in(deliver_one()))
    assert path.startswith(f"{CONFIRM_PAGE}?token=")
    done = fill_in(browser, path, new_password=NEW_PASSWORD, repeated=NEW_PASSWORD)
    assert done.status_code == 200
    assert b"Your password is changed" in done.content
    assert [me(old["access_token"]), me(key)] == [401, 401]
    assert refresh(old["refresh_token"]).status_code == 401
    assert login_status("alice", PASSWORD) == 401
    assert login_status("alice", NEW_PASSWORD) == 200


def test_the_owner_is_told(alice: User) -> None:
    confirm_reset(mailed_reset())
    notice = deliver_one()
    assert notice.to == ["alice@example.org"]
    assert notice.subject == "Your password was changed"
    assert f"{BASE}{ASK_PAGE}" in notice.body
    assert "token" not in notice.body + html_of(notice)
    assert deliver() == []


def test_it_is_in_the_audit_trail(alice: User) -> None:
    confirm_reset(mailed_reset())
    (event,) = AuditEvent.objects.filter(action="password.reset")
    assert (event.actor_id, event.subject_id) == (None, str(alice.id))


def test_nobody_elses_credentials_end(alice: User, bob: User) -> None:
    others = log_in("bob")
    confirm_reset(mailed_reset())
    assert me(others["access_token"]) == 200
    assert login_status("bob", PASSWORD) == 200


def test_the_mail_goes_to_the_address_as_its_owner_wrote_it(db: None) -> None:
    User.objects.create_user("frank", "Frank@Example.org", PASSWORD)
    for spelling in ("FRANK@example.org", "fran\u212a@example.org", "frank@\uff45xample.org"):
        assert ask_reset(spelling).status_code == 202
        assert deliver_one().to == ["Frank@Example.org"]


def test_who_has_no_account_or_a_disabled_one_gets_no_mail(alice: User, bob: User) -> None:
    set_active(bob, is_active=False)
    for address in ("nobody@example.org", "bob@example.org", "alice@example.org.evil.example"):
        assert ask_reset(address).status_code == 202
    assert deliver() == []
    assert not Mail.objects.exists(), "whose address it was is forgotten"
    assert not Link.objects.exists()


# --- The answer tells nothing ----------------------------------------------------------------

PROBES = [
    *("alice@example.org", "ALICE@EXAMPLE.ORG", "alice@\uff45xample.org"),
    *("bob@example.org", "nobody@example.org", "n@x.org"),
]


@pytest.fixture
def _bob_is_disabled(alice: User, bob: User) -> None:
    set_active(bob, is_active=False)


@pytest.mark.usefixtures("_bob_is_disabled", "frozen_time")
def test_the_api_answers_everybody_alike(hashed: list[str]) -> None:
    first, *others = (traces(lambda a=a: ask_reset(a), hashed) for a in PROBES)  # type: ignore[misc]
    assert (first["status"], first["hashes"]) == (202, 0)
    assert "INSERT INTO" in " ".join(first["queries"])
    for other in others:
        assert other == first


@pytest.mark.usefixtures("_bob_is_disabled", "frozen_time")
def test_the_page_answers_everybody_alike(hashed: list[str]) -> None:
    def ask(address: str) -> Callable[[], Any]:
        return lambda: Client().post(ASK_PAGE, {"email": address})

    first, *others = (traces(ask(address), hashed) for address in PROBES)
    assert (first["status"], first["hashes"]) == (200, 0)
    for other in others:
        assert other == first


@pytest.mark.usefixtures("_bob_is_disabled", "frozen_time")
def test_it_answers_alike_whatever_was_asked_before(hashed: list[str]) -> None:
    first = traces(ask_reset, hashed)
    assert traces(ask_reset, hashed) == first
    deliver()
    assert traces(ask_reset, hashed) == first
    deliver()
    assert traces(ask_reset, hashed) == first


def test_a_bad_link_costs_no_hash(alice: User, hashed: list[str]) -> None:
    check_invalid_link(confirm_reset("0" * 64))
    assert hashed == []


# --- What a link is good for -----------------------------------------------------------------


def test_a_link_is_good_once(alice: User) -> None:
    token = mailed_reset()
    assert confirm_reset(token).status_code == 200
    check_invalid_link(confirm_reset(token, "Third-Horse-9-Battery"))
    check_invalid_link(client.get(CONFIRM_PAGE, {"token": token}))
    assert login_status("alice", NEW_PASSWORD) == 200


@pytest.mark.django_db(transaction=True)
def test_of_fifty_at_once_one_wins(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.RATE_LIMIT_DEFAULT = "100000/m"
    user = User.objects.create_user("racer", "racer@example.org", PASSWORD)
    token = mailed_reset("racer@example.org")

    def password(number: int) -> str:
        return f"Racing-Horse-{number}-Battery"

    statuses = in_parallel(50, lambda number: confirm_reset(token, password(number)).status_code)
    assert statuses.count(200) == 1
    assert statuses.count(400) == 49
    user.refresh_from_db()
    assert user.check_password(password(statuses.index(200)))
    assert AuditEvent.objects.filter(action="password.reset").count() == 1
    assert Mail.objects.filter(kind=Kind.PASSWORD_CHANGED).count() == 1


def test_a_newer_link_ends_the_older_one(alice: User) -> None:
    older, newer = mailed_reset(), mailed_reset()
    assert older != newer
    check_invalid_link(confirm_reset(older))
    assert confirm_reset(newer).status_code == 200


def test_of_two_mails_sent_together_one_link_holds(alice: User) -> None:
    ask_reset()
    ask_reset()
    tokens = [token_in(message) for message in deliver()]
    assert len(set(tokens)) == 2
    assert [client.get(CONFIRM_PAGE, {"token": t}).status_code for t in tokens].count(200) == 1


def test_a_link_of_one_account_ends_no_other_ones(alice: User, bob: User) -> None:
    token = mailed_reset()
    mailed_reset("bob@example.org")
    assert confirm_reset(token).status_code == 200


def test_it_holds_for_ten_minutes(alice: User, frozen_time: time_machine.Traveller) -> None:
    token = mailed_reset()
    frozen_time.shift(timedelta(minutes=10) - SECOND)
    assert client.get(CONFIRM_PAGE, {"token": token}).status_code == 200
    frozen_time.shift(SECOND)
    check_invalid_link(client.get(CONFIRM_PAGE, {"token": token}))
    check_invalid_link(confirm_reset(token))


def test_the_ten_minutes_begin_when_the_mail_is_sent(
    alice: User, frozen_time: time_machine.Traveller
) -> None:
    ask_reset()
    frozen_time.shift(timedelta(minutes=30))
    token = token_in(deliver_one())
    frozen_time.shift(timedelta(minutes=10) - SECOND)
    assert confirm_reset(token).status_code == 200


def test_a_login_ends_it(alice: User) -> None:
    token = mailed_reset()
    log_in()
    check_invalid_link(confirm_reset(token))


def test_a_failed_login_does_not_end_it(alice: User) -> None:
    token = mailed_reset()
    assert login_status("alice", "Wrong-Horse-7-Battery") == 401
    assert confirm_reset(token).status_code == 200


def test_another_ones_login_does_not_end_it(alice: User, bob: User) -> None:
    token = mailed_reset()
    log_in("bob")
    assert confirm_reset(token).status_code == 200


def test_a_login_to_the_admin_site_ends_it(staff: User) -> None:
    token = mailed_reset("grace@example.org")
    form = {"username": "grace", "password": PASSWORD}
    assert Client().post(reverse("admin:login"), form).status_code == 302
    check_invalid_link(confirm_reset(token))


def test_a_password_change_ends_it(as_alice: APIClient) -> None:
    token = mailed_reset()
    body = {"current_password": PASSWORD, "new_password": "Third-Horse-9-Battery"}
    assert as_alice.post(PASSWORD_CHANGE, body).status_code == 200
    check_invalid_link(confirm_reset(token))


def test_an_address_change_ends_it(as_alice: APIClient) -> None:
    body = {"email": "new@example.org", "current_password": PASSWORD}
    assert as_alice.patch(PROFILE, body).status_code == 200
    change = token_in(deliver_one())
    reset = mailed_reset()
    assert client.post(CHANGE_ADDRESS, {"token": change}).status_code == 200
    check_invalid_link(confirm_reset(reset))


def in_admin(staff: User, page: str, user: User, form: dict[str, str]) -> None:
    """Submit a form of the admin site's about `user`."""
    site = Client()
    site.force_login(staff)
    response = site.post(reverse(f"admin:{page}", args=[user.pk]), form)
    assert response.status_code == 302, response.content


def test_a_password_that_staff_set_ends_it(alice: User, staff: User) -> None:
    token = mailed_reset()
    set_to = "Third-Horse-9-Battery"
    form = {"password1": set_to, "password2": set_to, "usable_password": "true"}
    in_admin(staff, "auth_user_password_change", alice, form)
    assert login_status("alice", PASSWORD) == 401
    check_invalid_link(confirm_reset(token))


def test_an_address_that_staff_set_ends_it(alice: User, staff: User) -> None:
    """Whoever reads the old mailbox is who staff may want to keep out."""
    token = mailed_reset()
    form = {"username": "alice", "email": "new@example.org", "full_name": "", "is_active": "on"}
    in_admin(staff, "accounts_user_change", alice, form)
    alice.refresh_from_db()
    assert alice.email == "new@example.org"
    check_invalid_link(confirm_reset(token))


def test_a_disabled_account_has_no_use_for_it(alice: User) -> None:
    token = mailed_reset()
    set_active(alice, is_active=False)
    check_invalid_link(confirm_reset(token))
    check_invalid_link(client.get(CONFIRM_PAGE, {"token": token}))


def test_a_mail_that_waited_for_an_address_that_changed_is_not_sent(alice: User) -> None:
    ask_reset()
    alice.email = "new@example.org"
    alice.save(update_fields=["email"])
    assert deliver() == []


@pytest.mark.parametrize("purpose", sorted(set(Purpose) - {Purpose.RESET_PASSWORD}))
def test_links_of_other_purposes_reset_nothing(alice: User, purpose: Purpose) -> None:
    token = Link.objects.all().issue(purpose, user=alice, address="alice@example.org").token
    check_invalid_link(confirm_reset(token))
    check_invalid_link(client.get(CONFIRM_PAGE, {"token": token}))
    assert login_status("alice", PASSWORD) == 200


@pytest.mark.parametrize("path", [VERIFY, CHANGE_ADDRESS])
def test_a_reset_link_is_good_for_nothing_else(alice: User, path: str) -> None:
    token = mailed_reset()
    extra = {"password": PASSWORD} if path == VERIFY else {}
    check_invalid_link(client.post(path, {"token": token, **extra}))
    assert confirm_reset(token).status_code == 200


@pytest.mark.parametrize("path", [VERIFY_PAGE, CHANGE_ADDRESS_PAGE, REGISTER_PAGE])
def test_nor_on_another_page(alice: User, path: str) -> None:
    check_invalid_link(client.get(path, {"token": mailed_reset()}))


# --- What is no link -------------------------------------------------------------------------

ALTERED: list[Callable[[str], str]] = [
    lambda token: token[:-1],
    lambda token: token[1:],
    lambda token: token + "0",
    lambda token: token.upper(),
    lambda token: token[::-1],
    lambda token: f"{token[:-1]}\u0660",
    lambda token: f"{token} OR 1=1",
    lambda token: token * 3,
    lambda token: "%",
    lambda token: "\U0001f600",
    lambda token: "x" * 200,
]


@pytest.mark.parametrize("alter", ALTERED)
def test_an_altered_token_is_none(alice: User, alter: Callable[[str], str]) -> None:
    token = mailed_reset()
    check_invalid_link(confirm_reset(alter(token)))
    check_invalid_link(client.get(CONFIRM_PAGE, {"token": alter(token)}))
    assert confirm_reset(token).status_code == 200


@pytest.mark.parametrize("value", [["t"], {"a": "b"}, 5, True, None, [], "", "x" * 201])
@pytest.mark.parametrize("field", ["token", "new_password"])
def test_only_text_is_a_token_or_a_password(alice: User, field: str, value: Any) -> None:
    if value == "x" * 201 and field == "new_password":
        value = "x" * 1025
    token = mailed_reset()
    body = {"token": token, "new_password": NEW_PASSWORD, field: value}
    check_invalid(client.post(CONFIRM, body), field)
    assert confirm_reset(token).status_code == 200


@pytest.mark.parametrize("text", [r"\u0000", r"\ud800"])
@pytest.mark.parametrize("field", ["token", "new_password"])
def test_nul_and_lone_surrogates_are_malformed(alice: User, field: str, text: str) -> None:
    token = mailed_reset()
    sent = {"token": token, "new_password": NEW_PASSWORD}
    raw = "{" + ",".join(f'"{n}":"{v}{text if n == field else ""}"' for n, v in sent.items()) + "}"
    response = client.post(
        CONFIRM, raw, content_type="application/json", HTTP_X_REQUEST_ID=REQUEST_ID
    )
    check_problem(response, 400, "malformed_request", "Bad Request")
    assert confirm_reset(token).status_code == 200


@pytest.mark.parametrize("more", ["%00", "%ED%A0%80", "%FF", "x" * 5000, "&token=x"])
def test_a_page_takes_no_altered_token_either(alice: User, more: str) -> None:
    token = mailed_reset()
    check_invalid_link(client.get(f"{CONFIRM_PAGE}?token={token}{more}"))
    form = f"token={token}{more}&new_password={NEW_PASSWORD}&repeated={NEW_PASSWORD}"
    urlencoded = "application/x-www-form-urlencoded"
    check_invalid_link(client.post(CONFIRM_PAGE, form, content_type=urlencoded))
    assert confirm_reset(token).status_code == 200


def test_a_page_without_a_token_says_so(db: None, browser: Client) -> None:
    response = browser.get(CONFIRM_PAGE)
    assert response.status_code == 400
    assert b"This link is not valid any more. Ask for a new one." in response.content


# --- The new password ------------------------------------------------------------------------

WEAK = [
    ("Short-7", "8 characters"),
    ("nouppercase7", "an upper-case letter"),
    ("NOLOWERCASE7", "a lower-case letter"),
    ("NoDigitsHere", "a digit"),
    ("Password123", "too common"),
    ("Alice@example.org1", "similar to the email"),
    ("Aa1" + "x" * 126, "longer than 128"),
]


@pytest.mark.parametrize(("password", "reason"), WEAK)
def test_a_weak_password_is_refused_and_the_link_holds(
    alice: User, password: str, reason: str
) -> None:
    token = mailed_reset()
    (message,) = check_invalid(confirm_reset(token, password), "new_password")
    assert reason in message
    assert password not in message
    assert confirm_reset(token).status_code == 200


def test_the_page_refuses_it_too(alice: User, browser: Client) -> None:
    path = path_of(link_in((ask_reset(), deliver_one())[1]))
    weak = fill_in(browser, path, new_password="Short-7", repeated="Short-7")
    assert weak.status_code == 422
    assert b"8 characters" in weak.content
    differ = fill_in(browser, path, new_password=NEW_PASSWORD, repeated=PASSWORD)
    assert differ.status_code == 422
    assert b"The two passwords differ." in differ.content
    for response in (weak, differ):
        assert NEW_PASSWORD.encode() not in response.content
        assert b"Short-7" not in response.content
    assert login_status("alice", PASSWORD) == 200


def test_a_password_is_taken_as_it_is(alice: User) -> None:
    password = "  Aa1 \u00e9\U0001f600 spaces  "
    assert confirm_reset(mailed_reset(), password).status_code == 200
    alice.refresh_from_db()
    assert alice.check_password(password)


@pytest.mark.parametrize("name", ["username", "email", "is_staff", "user", "user_id", "purpose"])
def test_nothing_else_can_be_sent(alice: User, bob: User, name: str) -> None:
    token = mailed_reset()
    body = {"token": token, "new_password": NEW_PASSWORD, name: "bob"}
    assert check_invalid(client.post(CONFIRM, body), name) == ["Unknown field."]
    check_invalid(client.post(ASK, {"email": "bob@example.org", name + "_": "bob"}), name + "_")


# --- The request -----------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:8528@evil.example", "evil.example#"])
def test_a_foreign_host_is_refused(alice: User, host: str) -> None:
    assert ask_reset(HTTP_HOST=host).status_code == 400
    assert not Mail.objects.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"HTTP_HOST": "evil.example"},
        {"HTTP_X_FORWARDED_HOST": "evil.example"},
        {"HTTP_X_FORWARDED_HOST": "evil.example", "HTTP_X_FORWARDED_PROTO": "https"},
        {"HTTP_FORWARDED": "host=evil.example"},
        {"HTTP_X_FORWARDED_PORT": "666"},
        {"HTTP_X_HOST": "evil.example", "HTTP_ORIGIN": "https://evil.example"},
        {"HTTP_REFERER": "https://evil.example/"},
    ],
)
@pytest.mark.parametrize("path", [ASK, ASK_PAGE])
def test_links_are_on_our_own_address_whatever_the_request_says(
    settings: Any, alice: User, path: str, headers: dict[str, str]
) -> None:
    """Even where any host is allowed and the proxy is trusted."""
    settings.ALLOWED_HOSTS = ["*"]
    settings.TRUSTED_PROXIES = [ip_network("127.0.0.1/32")]
    settings.PUBLIC_BASE_URL = "https://ai.example.org"
    extra: Any = headers
    format_ = "json" if path == ASK else "multipart"
    response = client.post(path, {"email": "alice@example.org"}, format=format_, **extra)
    assert response.status_code == (202 if path == ASK else 200)
    message = deliver_one()
    assert link_in(message).startswith(f"https://ai.example.org{CONFIRM_PAGE}?token=")
    raw = message.message().as_string()
    assert "evil" not in raw
    assert "666" not in str(message.body).replace(token_in(message), "")


@pytest.mark.parametrize(
    "value",
    [
        ["alice@example.org"],
        ["alice@example.org", "mallory@example.org"],
        {"email": "alice@example.org"},
        {"0": "alice@example.org", "1": "mallory@example.org"},
        *([], {}, 5, True, None, "", "alice"),
    ],
)
def test_only_text_is_an_address(alice: User, value: Any) -> None:
    check_invalid(ask_reset(value), "email")
    assert not Mail.objects.exists()


@pytest.mark.parametrize("body", [[], [{"email": "alice@example.org"}], "alice@example.org", None])
def test_only_an_object_is_a_request(alice: User, body: Any) -> None:
    assert client.post(ASK, body).status_code == 422
    assert not Mail.objects.exists()


INJECTIONS = [
    "alice@example.org\r\nBcc: mallory@example.org",
    "alice@example.org\nmallory@example.org",
    "alice@example.org\x0bmallory@example.org",
    "alice@example.org\u2028mallory@example.org",
    "alice@example.org,mallory@example.org",
    "alice@example.org, mallory@example.org",
    "alice@example.org;mallory@example.org",
    "alice@example.org mallory@example.org",
    "mallory@example.org <alice@example.org>",
    "<alice@example.org>",
    "alice@example.org>",
    "alice@example.org@evil.example",
]


@pytest.mark.parametrize("address", INJECTIONS)
def test_one_address_is_one_address(alice: User, address: str) -> None:
    check_invalid(ask_reset(address), "email")
    assert Client().post(ASK_PAGE, {"email": address}).status_code == 422
    assert not Mail.objects.exists()


def test_of_a_repeated_form_field_the_last_one_counts(alice: User) -> None:
    form = {"email": ["mallory@example.org", "alice@example.org"]}
    assert Client().post(ASK_PAGE, form).status_code == 200
    assert deliver_one().to == ["alice@example.org"]


def test_it_is_limited_by_network_address(
    settings: Any, alice: User, frozen_time: time_machine.Traveller
) -> None:
    settings.RATE_LIMIT_RESET = "3/h"
    assert [ask_reset(f"{n}@example.org").status_code for n in range(3)] == [202] * 3
    refused = ask_reset()
    assert refused.status_code == 429
    assert refused.json()["code"] == "rate_limited"
    assert refused["RateLimit-Policy"] == '"reset";q=3;w=3600'
    assert 0 < int(refused["Retry-After"]) <= 3600
    assert Client().post(ASK_PAGE, {"email": "alice@example.org"}).status_code == 429
    assert Client().get(ASK_PAGE).status_code == 200
    assert ask_reset(REMOTE_ADDR="192.0.2.9").status_code == 202
    frozen_time.shift(timedelta(seconds=int(refused["Retry-After"])))
    assert ask_reset().status_code == 202


def test_a_letter_that_only_looks_like_one_makes_no_address(alice: User) -> None:
    check_invalid(ask_reset("al\u0131ce@example.org"), "email")


def test_a_typing_mistake_is_no_attempt(settings: Any, db: None, frozen_time: object) -> None:
    settings.RATE_LIMIT_RESET = "3/h"
    assert [ask_reset("x").status_code for _ in range(4)] == [422] * 4
    assert [ask_reset().status_code for _ in range(4)] == [202] * 3 + [429]


def test_one_account_gets_five_mails_an_hour(
    alice: User, bob: User, frozen_time: time_machine.Traveller
) -> None:
    for _ in range(5):
        assert ask_reset().status_code == 202
        assert len(deliver()) == 1
        frozen_time.shift(timedelta(minutes=1))
    for spelling in ("alice@example.org", "ALICE@example.org"):
        assert ask_reset(spelling).status_code == 202
        assert deliver() == []
    assert len(deliver()) == 0
    ask_reset("bob@example.org")
    assert deliver_one().to == ["bob@example.org"]
    frozen_time.shift(timedelta(minutes=55))
    ask_reset()
    assert deliver_one().to == ["alice@example.org"]


def test_the_newest_of_five_still_holds(alice: User, frozen_time: object) -> None:
    tokens = [mailed_reset() for _ in range(5)]
    ask_reset()
    deliver()
    assert confirm_reset(tokens[-1]).status_code == 200


def test_a_link_that_holds_can_always_be_had(
    alice: User, frozen_time: time_machine.Traveller
) -> None:
    """Whatever a stranger asks for, so that the owner gets none: at the beginning of each hour."""
    for _ in range(5):
        mailed_reset()
    ask_reset()
    assert deliver() == [], "the newest holds"
    frozen_time.shift(timedelta(minutes=10))
    owners = mailed_reset()
    ask_reset()
    assert deliver() == [], "six in an hour, and one every ten minutes after that"
    assert confirm_reset(owners).status_code == 200


def test_registrations_in_somebodys_name_do_not_keep_them_from_it(
    settings: Any, alice: User, frozen_time: object
) -> None:
    settings.REGISTRATION_MODE, settings.RATE_LIMIT_REGISTER = "verified", "1000/h"
    sent = []
    for number in range(7):
        form = {"username": f"eve{number}", "email": "alice@example.org", "password": NEW_PASSWORD}
        assert client.post(REGISTER, form).status_code == 202
        sent += deliver()
    assert [message.subject for message in sent] == ["You have an account already"] * 5
    assert confirm_reset(mailed_reset()).status_code == 200


# --- The pages -------------------------------------------------------------------------------


def test_opening_a_link_uses_nothing_up(alice: User, hashed: list[str]) -> None:
    """Mail scanners open links, and so do previews."""
    path = path_of(link_in((ask_reset(), deliver_one())[1]))
    for _ in range(3):
        assert client.get(path).status_code == 200
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    assert client.get(path.replace("?", "/?")).status_code == 200
    assert hashed == []
    assert confirm_reset(path.partition("=")[2]).status_code == 200


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
def test_a_page_knows_three_methods(alice: User, method: str) -> None:
    path = path_of(link_in((ask_reset(), deliver_one())[1]))
    assert getattr(client, method)(path).status_code == 405


def test_a_form_from_elsewhere_is_refused(alice: User, browser: Client) -> None:
    token = mailed_reset()
    form = {"token": token, "new_password": NEW_PASSWORD, "repeated": NEW_PASSWORD}
    assert browser.post(CONFIRM_PAGE, form).status_code == 403
    assert browser.post(ASK_PAGE, {"email": "alice@example.org"}).status_code == 403
    browser.get(ASK_PAGE)  # brings the cookie
    assert browser.post(CONFIRM_PAGE, form).status_code == 403
    foreign = {**form, "csrfmiddlewaretoken": secrets.token_hex(16)}
    assert browser.post(CONFIRM_PAGE, foreign).status_code == 403
    assert login_status("alice", PASSWORD) == 200
    assert not Mail.objects.pending().exists()


def test_nobody_keeps_a_copy_of_the_pages(alice: User) -> None:
    path = path_of(link_in((ask_reset(), deliver_one())[1]))
    token = path.partition("=")[2]
    weak = {"token": token, "new_password": "x", "repeated": "x"}
    good = {"token": token, "new_password": NEW_PASSWORD, "repeated": NEW_PASSWORD}
    for response in (
        client.get(ASK_PAGE),
        client.get(path),
        Client().post(CONFIRM_PAGE, weak),
        Client().post(CONFIRM_PAGE, good),
    ):
        assert "no-store" in response["Cache-Control"]
        assert response["Referrer-Policy"] == "same-origin"
        assert response["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in response["Content-Security-Policy"]
    assert ask_reset()["Cache-Control"] == "no-store"
    assert confirm_reset(token)["Cache-Control"] == "no-store"


def test_the_page_shows_a_token_only_in_its_hidden_field(alice: User) -> None:
    path = path_of(link_in((ask_reset(), deliver_one())[1]))
    token = path.partition("=")[2]
    content = client.get(path).content.decode()
    assert content.count(token) == 1
    assert f'name="token" value="{token}"' in content
    assert "alice" not in content


def test_a_page_escapes_what_it_is_given(db: None) -> None:
    response = Client().post(ASK_PAGE, {"email": '"><script>alert(1)</script>'})
    assert response.status_code == 422
    assert b"<script" not in response.content
    assert b"&lt;script" in response.content


# --- What is kept and told -------------------------------------------------------------------


def test_logs_hold_no_token_password_or_address(
    alice: User, browser: Client, logs: LogCapture
) -> None:
    first = mailed_reset()
    check_invalid_link(confirm_reset(first + "0"))
    check_invalid(confirm_reset(first, "Short-7"), "new_password")
    fill_in(browser, f"{CONFIRM_PAGE}?token={first}", new_password=NEW_PASSWORD, repeated="x")
    assert confirm_reset(first).status_code == 200
    client.get(f"{CONFIRM_PAGE}?token={first}")
    ask_reset("nobody@example.org")
    deliver()
    assert len(logs.events("mail_sent")) == 2
    assert len(logs.events("request")) >= 6
    for secret in (first, NEW_PASSWORD, "Short-7", "token=", "alice", "nobody@", "@example.org"):
        assert secret not in logs.text


def test_the_database_holds_no_token(alice: User) -> None:
    ask_reset()
    (queued,) = Mail.objects.all()
    before = dump()
    assert str(queued.address) in before, "the dump does see mails"
    token = token_in(deliver_one())
    after = dump()
    assert bytes(Link.objects.get().digest).hex() in after, "the dump does see links"
    assert confirm_reset(token).status_code == 200
    used = dump()
    for text in (before, after, used):
        for secret in (token, token[:16], "token=", CONFIRM_PAGE):
            assert secret not in text
