"""Registration in its four modes: who gets an account, what it takes, and what is told to whom."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.hashers import identify_hasher
from django.test import Client
from rest_framework.test import APIClient

from accounts.identity import RESERVED_USERNAMES
from accounts.models import Kind, Link, Mail, Purpose, Registration, User
from accounts.tests.mails import (
    ASK_PAGE,
    BASE,
    CONFIRM,
    INVITATIONS,
    NEW_PASSWORD,
    REGISTER,
    REGISTER_PAGE,
    VERIFY,
    VERIFY_PAGE,
    check_invalid,
    check_invalid_link,
    client,
    deliver,
    deliver_one,
    dump,
    fill_in,
    link_in,
    login_status,
    path_of,
    token_in,
    traces,
)
from conftest import PASSWORD
from monitoring.models import AuditEvent
from tests.log_capture import LogCapture
from tests.parallel import in_parallel

SECOND = timedelta(seconds=1)
VALID = {"username": "Zoe", "email": "Zoe@Example.org", "password": PASSWORD}
MAILED = {"detail": "If the address can be used, a mail with a link is on its way to it."}
OTHER_PASSWORD = "Third-Horse-9-Battery"


@pytest.fixture(autouse=True)
def _roomy(settings: Any) -> None:
    settings.RATE_LIMIT_REGISTER = settings.RATE_LIMIT_RESET = "1000/h"
    settings.RATE_LIMIT_DEFAULT = "100000/m"


@pytest.fixture
def verified(settings: Any, db: None) -> None:
    settings.REGISTRATION_MODE = "verified"


@pytest.fixture
def by_invitation(settings: Any, db: None) -> None:
    settings.REGISTRATION_MODE = "invite"


@pytest.fixture
def closed(settings: Any, db: None) -> None:
    settings.REGISTRATION_MODE = "closed"


@pytest.fixture
def browser() -> Client:
    return Client(enforce_csrf_checks=True, headers={"Accept": "text/html"})


def register(**changed: Any) -> Any:
    return client.post(REGISTER, {**VALID, **changed})


def wish(**changed: Any) -> str:
    """The token that a registration was answered with, by mail."""
    response = register(**changed)
    assert (response.status_code, response.json()) == (202, MAILED)
    return token_in(deliver_one())


def verify(token: str, **more: Any) -> Any:
    return client.post(VERIFY, {"token": token, "password": PASSWORD, **more})


def invite(staff: APIClient, **body: Any) -> str:
    """The token of a new invitation."""
    response = staff.post(INVITATIONS, body)
    assert response.status_code == 201, response.content
    token: str = response.json()["url"].partition("token=")[2]
    return token


def check_taken(response: Any, *fields: str) -> None:
    assert response.status_code == 409, response.content
    body = response.json()
    assert body["code"] == "identity_taken"
    assert list(body["errors"]) == list(fields)


def check_refused(response: Any, code: str) -> None:
    assert response.status_code == 403, response.content
    assert response.json()["code"] == code


def spelling(text: str, number: int) -> str:
    """One of 64 ways to write `text` in capitals and small letters."""
    bits = f"{number:06b}" * 8
    return "".join(c.upper() if bits[i] == "1" else c for i, c in enumerate(text))


# --- verified --------------------------------------------------------------------------------


def test_an_account_exists_when_its_address_is_proved(verified: None) -> None:
    token = wish(full_name="Zoe Example")
    assert not User.objects.exists()
    assert login_status("zoe", PASSWORD) == 401
    response = verify(token)
    assert response.status_code == 201
    user = User.objects.get()
    assert response.json() == {
        "id": str(user.id),
        "username": "Zoe",
        "email": "Zoe@Example.org",
        "full_name": "Zoe Example",
        "created_at": user.created_at.isoformat().replace("+00:00", "Z"),
    }
    assert (user.is_active, user.is_staff, user.is_superuser) == (True, False, False)
    assert login_status("zoe", PASSWORD) == 200
    (event,) = AuditEvent.objects.filter(action="user.registered")
    assert event.subject_id == str(user.id)


def test_the_pages_do_the_same(verified: None, browser: Client) -> None:
    asked = fill_in(browser, REGISTER_PAGE, **VALID)
    assert asked.status_code == 200
    assert b"If the address can be used, a mail with a link is on its way" in asked.content
    path = path_of(link_in(deliver_one()))
    assert path.startswith(f"{VERIFY_PAGE}?token=")
    done = fill_in(browser, path, password=PASSWORD)
    assert done.status_code == 200
    assert b"Log in as Zoe." in done.content
    assert login_status("zoe", PASSWORD) == 200


def test_the_pages_need_their_csrf_token(verified: None, browser: Client) -> None:
    token = wish()
    assert browser.post(VERIFY_PAGE, {"token": token}).status_code == 403
    assert browser.post(REGISTER_PAGE, VALID).status_code == 403
    assert not User.objects.exists()
    assert deliver() == []


@pytest.mark.usefixtures("verified", "frozen_time")
def test_everybody_gets_the_same_answer(alice: User, bob: User, hashed: list[str]) -> None:
    def ask(username: str, address: str) -> Callable[[], Any]:
        return lambda: register(username=username, email=address)

    first = traces(ask("fresh", "fresh@example.org"), hashed)
    assert (first["status"], first["hashes"]) == (202, 1)
    for name, address in (
        ("alice", "fresh2@example.org"),
        ("ALICE", "fresh3@example.org"),
        ("fresh4", "alice@example.org"),
        ("fresh5", "BOB@EXAMPLE.ORG"),
        ("alice", "alice@example.com"),
        ("fresh", "fresh6@example.org"),  # a name that somebody else wished for
    ):
        assert traces(ask(name, address), hashed) == first


@pytest.mark.usefixtures("verified", "frozen_time")
def test_nor_does_it_tell_that_somebody_waits_for_a_mail(hashed: list[str]) -> None:
    register(email="waiting@example.org")
    fresh = traces(lambda: register(email="fresh@example.org"), hashed)
    assert traces(lambda: register(email="waiting@example.org"), hashed) == fresh


@pytest.mark.usefixtures("verified", "frozen_time")
def test_the_page_answers_everybody_alike_too(alice: User, hashed: list[str]) -> None:
    def ask(username: str, address: str) -> Callable[[], Any]:
        form = {**VALID, "username": username, "email": address}
        return lambda: Client().post(REGISTER_PAGE, form)

    first = traces(ask("fresh", "fresh@example.org"), hashed)
    assert (first["status"], first["hashes"]) == (200, 1)
    assert traces(ask("alice", "fresh2@example.org"), hashed) == first
    assert traces(ask("fresh3", "alice@example.org"), hashed) == first


def test_who_has_an_account_already_is_told_by_mail_only(verified: None, alice: User) -> None:
    for address in ("alice@example.org", "ALICE@example.org"):
        assert register(email=address).json() == MAILED
        message = deliver_one()
        assert message.to == [address]
        assert message.subject == "You have an account already"
        assert f"{BASE}{ASK_PAGE}" in message.body
        assert "token" not in message.body
    assert not Link.objects.exists()
    assert User.objects.get() == alice


def test_the_newest_wish_replaces_the_ones_before(verified: None) -> None:
    older = wish()
    newer = wish(email="ZOE@example.org", username="zed", password=NEW_PASSWORD)
    check_invalid_link(verify(older))
    assert verify(newer, password=NEW_PASSWORD).json()["username"] == "zed"
    assert login_status("zed", NEW_PASSWORD) == 200


def test_a_wish_replaced_before_its_mail_was_sent_is_not_mailed(verified: None) -> None:
    register()
    register(username="zed")
    assert verify(token_in(deliver_one())).json()["username"] == "zed"


def test_wishes_for_other_addresses_stay(verified: None) -> None:
    token = wish()
    wish(email="other@example.org")
    assert verify(token).status_code == 201


def test_a_name_taken_meanwhile_can_be_replaced(verified: None) -> None:
    token = wish()
    User.objects.create_user("zoe", "somebody@example.org", PASSWORD)
    check_taken(verify(token), "username")
    check_taken(verify(token, username="ZOE"), "username")
    check_invalid(verify(token, username="register"), "username")
    response = verify(token, username="zed")
    assert response.status_code == 201
    assert (response.json()["username"], response.json()["email"]) == ("zed", "Zoe@Example.org")
    assert login_status("zed", PASSWORD) == 200
    check_invalid_link(verify(token, username="zack"))


def test_so_it_can_on_the_page(verified: None, browser: Client) -> None:
    path = path_of(f"{BASE}{VERIFY_PAGE}?token={wish()}")
    User.objects.create_user("zoe", "somebody@example.org", PASSWORD)
    refused = fill_in(browser, path, password=PASSWORD)
    assert refused.status_code == 422
    assert b"This name is taken." in refused.content
    reserved = fill_in(browser, path, password=PASSWORD, username="root")
    assert b"This name is reserved." in reserved.content
    done = fill_in(browser, path, password=PASSWORD, username="zed")
    assert b"Log in as zed." in done.content


def test_an_address_taken_meanwhile_makes_no_second_account(
    verified: None, browser: Client
) -> None:
    token = wish()
    owner = User.objects.create_user("somebody", "zoe@example.org", OTHER_PASSWORD)
    check_taken(verify(token), "email")
    page = fill_in(browser, f"{VERIFY_PAGE}?token={token}", password=PASSWORD)
    assert page.status_code == 422
    assert b"This address is taken." in page.content
    assert User.objects.get() == owner
    assert login_status("somebody", OTHER_PASSWORD) == 200


def test_a_link_holds_for_a_day(verified: None, frozen_time: time_machine.Traveller) -> None:
    token = wish()
    frozen_time.shift(timedelta(hours=24) - SECOND)
    assert client.get(VERIFY_PAGE, {"token": token}).status_code == 200
    frozen_time.shift(SECOND)
    check_invalid_link(client.get(VERIFY_PAGE, {"token": token}))
    check_invalid_link(verify(token))
    assert not User.objects.exists()


def test_opening_a_link_makes_no_account(verified: None) -> None:
    token = wish()
    for method in (client.get, client.head):
        assert method(VERIFY_PAGE, {"token": token}).status_code == 200
    assert not User.objects.exists()
    assert verify(token).status_code == 201


def test_a_link_is_good_once(verified: None) -> None:
    token = wish()
    assert verify(token).status_code == 201
    check_invalid_link(verify(token))
    check_invalid_link(verify(token, username="zed"))
    assert User.objects.count() == 1
    assert not Registration.objects.exists(), "the wish is forgotten"


@pytest.mark.parametrize("purpose", [Purpose.RESET_PASSWORD, Purpose.CHANGE_ADDRESS])
def test_links_of_other_purposes_verify_nothing(
    verified: None, alice: User, purpose: Purpose
) -> None:
    link = Link.objects.all().issue(purpose, user=alice, address="new@example.org")
    check_invalid_link(verify(link.token))
    check_invalid_link(client.get(VERIFY_PAGE, {"token": link.token}))


@pytest.mark.parametrize("name", ["email", "is_staff", "full_name", "registration"])
def test_nothing_but_a_name_can_be_changed_when_it_is_proved(verified: None, name: str) -> None:
    token = wish()
    assert check_invalid(verify(token, **{name: "x"}), name) == ["Unknown field."]
    assert verify(token).status_code == 201


@pytest.mark.parametrize("value", [["t"], {"a": "b"}, 5, True, None, [], "x" * 201, ""])
def test_only_text_is_a_token(verified: None, value: Any) -> None:
    check_invalid(client.post(VERIFY, {"token": value, "password": PASSWORD}), "token")


def test_a_wish_keeps_a_hash_and_no_password(verified: None, logs: LogCapture) -> None:
    register()
    assert identify_hasher(Registration.objects.get().password).verify(
        PASSWORD, Registration.objects.get().password
    )
    queued = dump()
    token = token_in(deliver_one())
    sent = dump()
    verify(token)
    for text in (queued, sent, dump()):
        for secret in (PASSWORD, token, "token="):
            assert secret not in text
    assert len(logs.events("registered")) == 1
    for secret in (PASSWORD, token, "example.org", "zoe", "Zoe"):
        assert secret not in logs.text


def test_the_owner_of_an_address_makes_nobody_else_an_account(
    verified: None, browser: Client
) -> None:
    """Anybody can wish for an account with somebody's address. Whoever proves the address sees
    which one, and does not know its password."""
    register(username="mallory-was-here")
    message = deliver_one()
    assert "mallory-was-here" in str(message.body)
    path = path_of(link_in(message))
    assert "mallory-was-here" in client.get(path).content.decode()
    refused = verify(token_in(message), password=NEW_PASSWORD)
    check_refused(refused, "wrong_password")
    page = fill_in(browser, path, password=NEW_PASSWORD)
    assert page.status_code == 422
    assert b"not the password that was chosen" in page.content
    assert not User.objects.exists()
    assert verify(token_in(message)).status_code == 201, "the link still holds"


def test_guesses_at_that_password_are_limited_before_hashing(
    verified: None, hashed: list[str]
) -> None:
    token = wish()
    hashed.clear()
    answers = [verify(token, password="x").status_code for _ in range(6)]
    assert answers == [403] * 5 + [429]
    assert len(hashed) == 5


def test_a_server_that_was_closed_meanwhile_makes_no_account(verified: None, settings: Any) -> None:
    token = wish()
    settings.REGISTRATION_MODE = "closed"
    check_refused(verify(token), "registration_closed")
    assert not User.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_fifty_confirmations_at_once_make_one_account(settings: Any) -> None:
    settings.REGISTRATION_MODE = "verified"
    settings.RATE_LIMIT_AUTH = "1000/m"
    token = wish()
    statuses = in_parallel(50, lambda n: verify(token, username=f"racer-{n}").status_code)
    assert statuses.count(201) == 1
    assert statuses.count(400) == 49
    assert User.objects.get().username == f"racer-{statuses.index(201)}"
    assert AuditEvent.objects.filter(action="user.registered").count() == 1


@pytest.mark.django_db(transaction=True)
def test_fifty_spellings_registered_and_confirmed_at_once_make_one_account(
    settings: Any,
) -> None:
    settings.REGISTRATION_MODE = "verified"
    settings.RATE_LIMIT_AUTH = "1000/m"

    def send(number: int) -> int:
        domain = "example.org" if number % 2 else "\uff45xample.org"
        address = f"{spelling('zoe', number)}@{domain}"
        status: int = register(username=spelling("racer", number), email=address).status_code
        return status

    assert in_parallel(50, send) == [202] * 50
    tokens = [token_in(message) for message in deliver()]
    assert tokens
    racing = tokens * (50 // len(tokens) + 1)
    statuses = in_parallel(50, lambda number: verify(racing[number]).status_code)
    assert statuses.count(201) == 1
    # A loser finds the link gone, or the name taken: by which row it reached first.
    assert statuses.count(400) + statuses.count(409) == 49
    assert User.objects.count() == 1


# --- invite ----------------------------------------------------------------------------------


def test_without_an_invitation_nobody_registers(by_invitation: None, hashed: list[str]) -> None:
    check_refused(register(), "invitation_needed")
    check_refused(register(invitation=""), "invitation_needed")
    check_refused(client.get(REGISTER_PAGE), "invitation_needed")
    check_refused(Client().post(REGISTER_PAGE, VALID), "invitation_needed")
    assert hashed == []
    assert not User.objects.exists()


def test_an_invitation_makes_one_account(by_invitation: None, as_staff: APIClient) -> None:
    token = invite(as_staff, email="zoe@example.org")
    message = deliver_one()
    assert message.to == ["zoe@example.org"]
    assert token_in(message) == token
    assert link_in(message).startswith(f"{BASE}{REGISTER_PAGE}?token=")
    response = register(invitation=token)
    assert response.status_code == 201
    assert response.json()["username"] == "Zoe"
    assert login_status("zoe", PASSWORD) == 200
    check_invalid_link(register(invitation=token, username="zed", email="zed@example.org"))
    check_invalid_link(client.get(REGISTER_PAGE, {"token": token}))


def test_an_invitation_can_be_handed_over_without_a_mail(
    by_invitation: None, as_staff: APIClient
) -> None:
    token = invite(as_staff)
    assert deliver() == []
    assert register(invitation=token).status_code == 201


def test_the_page_takes_it_too(by_invitation: None, as_staff: APIClient, browser: Client) -> None:
    path = f"{REGISTER_PAGE}?token={invite(as_staff)}"
    weak = fill_in(browser, path, **{**VALID, "password": "Short-7"})
    assert weak.status_code == 422
    assert b"8 characters" in weak.content
    assert b"Short-7" not in weak.content
    done = fill_in(browser, path, **VALID)
    assert done.status_code == 200
    assert b"Log in as Zoe." in done.content
    assert login_status("zoe", PASSWORD) == 200


@pytest.mark.django_db(transaction=True)
def test_fifty_registrations_with_one_invitation_make_one_account(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REGISTRATION_MODE = "invite"
    token = Link.objects.all().issue(Purpose.INVITE).token

    def send(number: int) -> int:
        names = {"username": f"racer-{number}", "email": f"racer-{number}@example.org"}
        status: int = register(**names, invitation=token).status_code
        return status

    statuses = in_parallel(50, send)
    assert statuses.count(201) == 1
    assert statuses.count(400) == 49
    assert User.objects.get().username == f"racer-{statuses.index(201)}"


@pytest.mark.parametrize(
    "address", ["ZOE@EXAMPLE.ORG", "zoe@\uff45xample.org", " zoe@example.org "]
)
def test_an_invitation_is_for_its_address_however_that_is_written(
    by_invitation: None, as_staff: APIClient, address: str
) -> None:
    token = invite(as_staff, email="Zoe@Example.org")
    assert register(invitation=token, email=address).status_code == 201


@pytest.mark.parametrize(
    "address", ["zed@example.org", "zoe@example.com", "zoe+x@example.org", "z.oe@example.org"]
)
def test_an_invitation_is_for_nobody_else(
    by_invitation: None, as_staff: APIClient, address: str
) -> None:
    token = invite(as_staff, email="zoe@example.org")
    check_refused(register(invitation=token, email=address), "invitation_for_another")
    form = {**VALID, "email": address, "token": token}
    check_refused(Client().post(REGISTER_PAGE, form), "invitation_for_another")
    assert register(invitation=token).status_code == 201


def test_an_invitation_holds_for_a_week(
    by_invitation: None, as_staff: APIClient, frozen_time: time_machine.Traveller
) -> None:
    token = invite(as_staff)
    frozen_time.shift(timedelta(days=7) - SECOND)
    assert client.get(REGISTER_PAGE, {"token": token}).status_code == 200
    frozen_time.shift(SECOND)
    check_invalid_link(client.get(REGISTER_PAGE, {"token": token}))
    check_invalid_link(register(invitation=token))


def test_a_revoked_invitation_is_none(by_invitation: None, as_staff: APIClient) -> None:
    token = invite(as_staff)
    (listed,) = as_staff.get(INVITATIONS).json()["results"]
    path = f"{INVITATIONS}/{listed['id']}"
    assert as_staff.delete(path).status_code == 204
    check_invalid_link(register(invitation=token))
    check_invalid_link(client.get(REGISTER_PAGE, {"token": token}))
    assert as_staff.get(INVITATIONS).json()["results"] == []
    assert as_staff.delete(path).status_code == 404
    actions = AuditEvent.objects.filter(subject_id=listed["id"]).order_by("pk")
    assert [event.action for event in actions] == ["invitation.made", "invitation.revoked"]


def test_opening_an_invitation_does_not_use_it_up(by_invitation: None, as_staff: APIClient) -> None:
    token = invite(as_staff)
    for method in (client.get, client.head, client.get):
        assert method(REGISTER_PAGE, {"token": token}).status_code == 200
    assert register(invitation=token).status_code == 201


@pytest.mark.parametrize(
    "changed",
    [
        {"password": "Short-7"},
        {"password": "Zoe@example.org1"},
        {"username": "register"},
        {"email": "x"},
        {"full_name": "x" * 151},
        {"is_staff": True},
    ],
)
def test_a_mistake_does_not_use_an_invitation_up(
    by_invitation: None, as_staff: APIClient, changed: dict[str, Any]
) -> None:
    token = invite(as_staff)
    assert register(invitation=token, **changed).status_code == 422
    assert register(invitation=token).status_code == 201


def test_neither_does_a_taken_name(by_invitation: None, as_staff: APIClient, alice: User) -> None:
    token = invite(as_staff)
    check_taken(register(invitation=token, username="ALICE"), "username")
    check_taken(register(invitation=token, email="ALICE@example.org"), "email")
    assert register(invitation=token).status_code == 201


@pytest.mark.parametrize("purpose", sorted(set(Purpose) - {Purpose.INVITE}))
def test_links_of_other_purposes_are_no_invitations(
    by_invitation: None, alice: User, purpose: Purpose
) -> None:
    token = Link.objects.all().issue(purpose, user=alice, address="zoe@example.org").token
    check_invalid_link(register(invitation=token))
    check_invalid_link(client.get(REGISTER_PAGE, {"token": token}))


def test_an_invitation_is_good_for_nothing_else(by_invitation: None, as_staff: APIClient) -> None:
    token = invite(as_staff)
    check_invalid_link(verify(token))
    check_invalid_link(client.post(CONFIRM, {"token": token, "new_password": NEW_PASSWORD}))
    assert register(invitation=token).status_code == 201


@pytest.mark.parametrize(
    ("alter", "status"),
    [
        (lambda token: token[:-1], 400),
        (lambda token: token + "0", 400),
        (lambda token: token.upper(), 400),
        (lambda _token: "x" * 201, 422),
        (lambda token: [token], 422),
        (lambda _token: None, 422),
        (lambda token: f"{token}\x00", 400),
    ],
)
def test_an_altered_invitation_is_none(
    by_invitation: None,
    as_staff: APIClient,
    hashed: list[str],
    alter: Callable[[str], Any],
    status: int,
) -> None:
    token = invite(as_staff)
    hashed.clear()
    assert register(invitation=alter(token)).status_code == status
    assert hashed == []
    assert register(invitation=token).status_code == 201


def test_a_bad_invitation_is_refused_in_every_mode(settings: Any, db: None) -> None:
    for mode in ("open", "verified", "invite"):
        settings.REGISTRATION_MODE = mode
        check_invalid_link(register(invitation="0" * 64))
    assert not User.objects.exists()


def test_only_staff_invite(as_alice: APIClient, as_staff: APIClient, anonymous: APIClient) -> None:
    invite(as_staff, email="zoe@example.org")
    (listed,) = as_staff.get(INVITATIONS).json()["results"]
    one = f"{INVITATIONS}/{listed['id']}"
    for caller, status in ((as_alice, 403), (anonymous, 401)):
        assert caller.post(INVITATIONS, {}).status_code == status
        assert caller.get(INVITATIONS).status_code == status
        assert caller.delete(one).status_code == status
    assert Link.objects.all().live().count() == 1


def test_staff_need_the_scope_for_it(staff: User, client_of: Callable[..., APIClient]) -> None:
    without = client_of(staff, "read write")
    assert without.post(INVITATIONS, {}).status_code == 403
    assert without.get(INVITATIONS).status_code == 403
    assert not Link.objects.exists()


def test_the_link_is_shown_once(as_staff: APIClient, staff: User) -> None:
    response = as_staff.post(INVITATIONS, {"email": "zoe@example.org"})
    assert response["Cache-Control"] == "no-store"
    made = response.json()
    url = made.pop("url")
    token = url.partition("token=")[2]
    listed = as_staff.get(INVITATIONS)
    assert listed.json()["results"] == [made]
    assert sorted(made) == ["address", "created_at", "expires_at", "id", "used_at"]
    assert token.encode() not in listed.content
    assert token not in dump()
    (event,) = AuditEvent.objects.filter(action="invitation.made")
    assert (event.actor_id, event.subject_id) == (staff.id, made["id"])


def test_the_list_tells_what_was_used(by_invitation: None, as_staff: APIClient) -> None:
    register(invitation=invite(as_staff))
    (listed,) = as_staff.get(INVITATIONS).json()["results"]
    assert listed["used_at"] is not None


@pytest.mark.usefixtures("verified")
def test_only_invitations_are_listed_and_revoked(as_staff: APIClient) -> None:
    token = wish()
    assert as_staff.get(INVITATIONS).json()["results"] == []
    link = Link.objects.get()
    assert as_staff.delete(f"{INVITATIONS}/{link.id}").status_code == 404
    assert verify(token).status_code == 201


@pytest.mark.parametrize("value", [["a@x.org"], {"a": "b"}, 5, True, None, "x", "a@x.org,b@x.org"])
def test_only_one_address_is_invited(as_staff: APIClient, value: Any) -> None:
    check_invalid(as_staff.post(INVITATIONS, {"email": value}), "email")
    assert not Link.objects.exists()


@pytest.mark.parametrize("name", sorted({field.name for field in Link._meta.get_fields()}))
def test_no_other_field_of_an_invitation_can_be_sent(as_staff: APIClient, name: str) -> None:
    for value in ("x", 1, None):
        if name != "mail":
            check_invalid(as_staff.post(INVITATIONS, {name: value}), name)
    assert not Link.objects.exists()


# --- closed ----------------------------------------------------------------------------------


def test_a_closed_server_refuses_everybody(closed: None, hashed: list[str]) -> None:
    token = Link.objects.all().issue(Purpose.INVITE).token
    for more in ({}, {"invitation": token}, {"invitation": "x"}):
        check_refused(register(**more), "registration_closed")
        form = {**VALID, "token": more.get("invitation", "")}
        check_refused(Client().post(REGISTER_PAGE, form), "registration_closed")
        query = {"token": form["token"]}
        check_refused(client.get(REGISTER_PAGE, query), "registration_closed")
    assert hashed == []
    assert not User.objects.exists()
    assert not Mail.objects.exists()
    assert Link.objects.all().live().count() == 1


def test_a_closed_server_tells_a_browser_so(closed: None, browser: Client) -> None:
    response = browser.get(REGISTER_PAGE)
    assert response.status_code == 403
    assert b"Registration is closed on this server." in response.content


# --- open ------------------------------------------------------------------------------------


def test_an_open_servers_page_makes_an_account_at_once(
    settings: Any, db: None, browser: Client
) -> None:
    settings.REGISTRATION_MODE = "open"
    done = fill_in(browser, REGISTER_PAGE, **VALID, full_name="Zoe")
    assert b"Log in as Zoe." in done.content
    assert login_status("zoe", PASSWORD) == 200
    assert deliver() == []
    taken = fill_in(browser, REGISTER_PAGE, **{**VALID, "email": "zed@example.org"})
    assert taken.status_code == 422
    assert b"This name is taken." in taken.content
    assert PASSWORD.encode() not in taken.content


@pytest.mark.parametrize("path", [REGISTER, REGISTER_PAGE])
def test_pages_and_api_share_one_limit(
    settings: Any, db: None, frozen_time: object, path: str
) -> None:
    settings.RATE_LIMIT_REGISTER = "2/h"
    assert register(email="x").status_code == 422
    assert Client().post(REGISTER_PAGE, {}).status_code == 422
    assert register().status_code == 201
    assert Client().post(REGISTER_PAGE, VALID).status_code == 422, "taken"
    poster = client if path == REGISTER else Client()
    other = {**VALID, "username": "zed", "email": "zed@example.org"}
    assert poster.post(path, other).status_code == 429
    assert client.get(REGISTER_PAGE).status_code == 200
    assert User.objects.count() == 1


# --- In every mode ---------------------------------------------------------------------------

MODES = ["open", "verified", "invite"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("word", sorted(RESERVED_USERNAMES - {"me"}))
def test_words_of_routes_are_reserved(settings: Any, db: None, mode: str, word: str) -> None:
    settings.REGISTRATION_MODE = mode
    token = Link.objects.all().issue(Purpose.INVITE).token if mode == "invite" else ""
    for name in (word, word.upper()):
        response = register(username=name, invitation=token)
        assert check_invalid(response, "username") == ["This name is reserved."]
        form = {**VALID, "username": name, "token": token}
        page = Client().post(REGISTER_PAGE, form)
        assert page.status_code == 422
        assert b"This name is reserved." in page.content
    assert not Registration.objects.exists()


FIELDS = sorted(
    {field.name for model in (User, Registration) for field in model._meta.get_fields()}
    - {"username", "email", "password", "full_name"}
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FIELDS)
def test_no_other_field_can_be_sent(settings: Any, db: None, mode: str, name: str) -> None:
    settings.REGISTRATION_MODE = mode
    token = Link.objects.all().issue(Purpose.INVITE).token if mode == "invite" else ""
    for value in (True, 1, "1", [1], {"id": 1}):
        response = register(**{name: value}, invitation=token)
        assert check_invalid(response, name) == ["Unknown field."]
    assert not User.objects.exists()
    assert not Registration.objects.exists()


@pytest.mark.parametrize("mode", ["open", "verified", "invite"])
def test_a_form_with_other_fields_gives_no_rights(settings: Any, db: None, mode: str) -> None:
    settings.REGISTRATION_MODE = mode
    token = Link.objects.all().issue(Purpose.INVITE).token if mode == "invite" else ""
    rights = dict.fromkeys(("is_staff", "is_superuser", "is_active", "token_epoch"), "1")
    form = {**VALID, **rights, "id": "1", "token": token}
    assert Client().post(REGISTER_PAGE, form).status_code == 200
    if mode == "verified":
        assert verify(token_in(deliver_one())).status_code == 201
    user = User.objects.get()
    assert (user.is_staff, user.is_superuser, user.token_epoch) == (False, False, 0)
    assert str(user.id) != "1"


def test_one_mailbox_gets_five_an_hour_however_its_address_is_written(
    verified: None, frozen_time: object
) -> None:
    domains = ["example.org", "EXAMPLE.org"]
    domains += [
        f"{'example'[:n]}{chr(ord('example'[n]) + 0xFEE0)}{'example'[n + 1 :]}.org"
        for n in range(7)
    ]
    sent = []
    for number, domain in enumerate(domains):
        assert register(username=f"zoe-{number}", email=f"zoe@{domain}").status_code == 202
        sent += deliver()
    assert [message.to for message in sent] == [["zoe@example.org"], ["zoe@EXAMPLE.org"]] + [
        ["zoe@example.org"]
    ] * 3


def test_a_mail_goes_to_the_address_that_mail_servers_take_the_given_one_for(
    verified: None,
) -> None:
    token = wish(email="ZOE@\uff45xample.org")
    (queued,) = Mail.objects.filter(kind=Kind.VERIFY_ADDRESS)
    assert queued.address == "ZOE@example.org"
    assert verify(token).status_code == 201
    assert User.objects.get().email_canonical == "zoe@example.org"
