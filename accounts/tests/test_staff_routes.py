"""`/api/v1/users/`: what administrators see of accounts, and what they can do to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import User
from accounts.tests.mails import (
    check_invalid,
    confirm_reset,
    deliver,
    deliver_one,
    make_key,
    token_in,
)
from accounts.tests.sessions import log_in, me, refresh
from conftest import PASSWORD
from monitoring.models import AuditEvent

USERS = "/api/v1/users"
ALICE = f"{USERS}/alice"


@pytest.fixture
def as_helper(client_of: Callable[..., APIClient], db: None) -> APIClient:
    """Staff, and no superuser."""
    helper = User.objects.create_user("helper", "helper@example.org", PASSWORD, is_staff=True)
    return client_of(helper)


def names(response: Any) -> list[str]:
    assert response.status_code == 200, response.content
    return [account["username"] for account in response.json()["results"]]


def code_of(response: Any, status: int) -> str:
    assert response.status_code == status, response.content
    code: str = response.json()["code"]
    return code


def newest_deed() -> tuple[str, object, str]:
    event = AuditEvent.objects.latest("id")
    return event.action, event.actor_id, event.subject_id


# --- Looking ---------------------------------------------------------------------------------


def test_an_account_is_shown_without_what_proves_who_one_is(
    as_staff: APIClient, alice: User
) -> None:
    assert as_staff.get(ALICE).json() == {
        "id": str(alice.id),
        "username": "alice",
        "email": "alice@example.org",
        "full_name": "",
        "disabled": False,
        "is_staff": False,
        "daily_token_quota": None,
        "created_at": alice.created_at.isoformat().replace("+00:00", "Z"),
        "last_login": None,
    }


def test_the_list_is_newest_first_and_in_pages(as_staff: APIClient) -> None:
    for number in range(5):
        User.objects.create(username=f"user-{number}", email=f"user-{number}@example.org")
    first = as_staff.get(USERS, {"limit": 3})
    assert names(first) == ["user-4", "user-3", "user-2"]
    second = as_staff.get(first.json()["next"])
    assert names(second) == ["user-1", "user-0", "grace"]
    assert second.json()["next"] is None


def test_the_list_costs_the_same_however_long(as_staff: APIClient) -> None:
    costs = []
    for number in range(3):
        User.objects.create(username=f"user-{number}", email=f"user-{number}@example.org")
        with CaptureQueriesContext(connection) as queries:
            as_staff.get(USERS)
        costs.append(len(queries))
    assert costs == [2, 2, 2]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *(("ALI", ["alice"]), ("\uff21lice", ["alice"]), ("@example.org", ["bob", "alice"])),
        *(("Liddell", ["alice"]), ("liddell", ["alice"]), ("nobody", []), ("%", []), ("_", [])),
        *(("' OR 1=1 --", []), ("\\", []), ("alice@example.org", ["alice"])),
    ],
)
def test_a_search_finds_parts_of_names_and_addresses(
    as_staff: APIClient, alice: User, text: str, found: list[str]
) -> None:
    User.objects.filter(pk=alice.pk).update(full_name="Alice Liddell")
    User.objects.create(username="bob", email="bob@example.org")
    User.objects.filter(username="grace").update(email="g@e.org", email_canonical="g@e.org")
    assert names(as_staff.get(USERS, {"search": text})) == found


def test_what_is_no_text_to_search_for_is_refused(as_staff: APIClient) -> None:
    check_invalid(as_staff.get(USERS, {"search": "x" * 101}), "search")
    check_invalid(as_staff.get(f"{USERS}?search=%00"), "search")


def test_everybody_sees_themselves_and_nobody_else(
    as_alice: APIClient, as_bob: APIClient, anonymous: APIClient
) -> None:
    assert as_alice.get(ALICE).json()["email"] == "alice@example.org"
    assert as_alice.get(f"{USERS}/ALICE").status_code == 200
    foreign, none = as_bob.get(ALICE), as_bob.get(f"{USERS}/nobody")
    assert (foreign.status_code, none.status_code) == (404, 404)
    assert {**foreign.json(), "request_id": ""} == {**none.json(), "request_id": ""}
    assert as_bob.get(USERS).status_code == 403
    assert anonymous.get(ALICE).status_code == 401


# --- Acting ----------------------------------------------------------------------------------


def test_a_disabled_account_is_refused_at_once(as_staff: APIClient, staff: User) -> None:
    alice = User.objects.create_user("alice", "alice@example.org", PASSWORD)
    pair = log_in()
    response = as_staff.post(f"{ALICE}/disable")
    assert response.status_code == 200
    assert response.json()["disabled"] is True
    assert newest_deed() == ("user.disabled", staff.id, str(alice.id))
    assert me(pair["access_token"]) == 401
    assert refresh(pair["refresh_token"]).status_code == 401

    assert as_staff.post(f"{ALICE}/enable").json()["disabled"] is False
    assert newest_deed() == ("user.enabled", staff.id, str(alice.id))
    assert me(pair["access_token"]) == 401, "what was ended does not come back"
    assert me(log_in()["access_token"]) == 200


def test_doing_it_twice_is_one_deed(as_staff: APIClient, alice: User) -> None:
    for _ in range(2):
        assert as_staff.post(f"{ALICE}/disable").status_code == 200
    assert AuditEvent.objects.filter(action="user.disabled").count() == 1


def test_signing_out_ends_sessions_and_no_keys(
    as_staff: APIClient, as_alice: APIClient, staff: User, alice: User
) -> None:
    key = make_key(as_alice)
    pair = log_in()
    assert as_staff.post(f"{ALICE}/sign-out").status_code == 204
    assert newest_deed() == ("user.signed_out", staff.id, str(alice.id))
    assert me(pair["access_token"]) == 401
    assert refresh(pair["refresh_token"]).status_code == 401
    assert me(key) == 200


def test_a_reset_is_mailed_to_the_owner_and_nobody_sees_its_link(
    as_staff: APIClient, staff: User, alice: User
) -> None:
    response = as_staff.post(f"{ALICE}/send-reset")
    assert (response.status_code, response.content) == (202, b"")
    assert newest_deed() == ("password.reset_sent", staff.id, str(alice.id))
    message = deliver_one()
    assert message.to == ["alice@example.org"]
    assert confirm_reset(token_in(message)).status_code == 200


def test_a_disabled_accounts_owner_gets_no_reset(as_staff: APIClient, alice: User) -> None:
    as_staff.post(f"{ALICE}/disable")
    assert as_staff.post(f"{ALICE}/send-reset").status_code == 202
    assert deliver() == []


@pytest.mark.parametrize("action", ["disable", "enable", "sign-out", "send-reset"])
def test_a_superuser_is_acted_on_by_superusers_only(
    as_helper: APIClient, staff: User, action: str
) -> None:
    pair = log_in("grace")
    assert code_of(as_helper.post(f"{USERS}/grace/{action}"), 403) == "needs_superuser"
    assert me(pair["access_token"]) == 200
    assert deliver() == []


def test_staff_act_on_members(as_helper: APIClient, alice: User) -> None:
    assert as_helper.post(f"{ALICE}/disable").json()["disabled"] is True


def test_nobody_disables_themselves(as_staff: APIClient) -> None:
    for action in ("disable", "enable"):
        assert code_of(as_staff.post(f"{USERS}/grace/{action}"), 409) == "not_on_oneself"


def test_a_superuser_may_disable_another_and_one_stays(
    as_staff: APIClient, staff: User, client_of: Callable[..., APIClient]
) -> None:
    heidi = client_of(User.objects.create_superuser("heidi", "heidi@example.org", PASSWORD))
    assert as_staff.post(f"{USERS}/heidi/disable").status_code == 200
    assert heidi.post(f"{USERS}/grace/disable").status_code == 401
    staff.refresh_from_db()
    assert staff.is_active


@pytest.mark.parametrize("action", ["disable", "enable", "sign-out", "send-reset"])
def test_an_account_that_does_not_exist(as_staff: APIClient, action: str) -> None:
    assert as_staff.post(f"{USERS}/nobody/{action}").status_code == 404
