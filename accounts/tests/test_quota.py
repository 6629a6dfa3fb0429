"""`PATCH /api/v1/users/{username}`: how many tokens a day staff let an account use."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts import api_keys, holders
from accounts.models import User
from accounts.tests.mails import check_invalid, make_key
from conftest import PASSWORD
from monitoring.models import AuditEvent

ALICE = "/api/v1/users/alice"
MOST = 10**12


def set_quota(api: APIClient, quota: Any, path: str = ALICE) -> Any:
    return api.patch(path, {"daily_token_quota": quota})


def recorded() -> list[dict[str, Any]]:
    events = AuditEvent.objects.filter(action="quota.set").order_by("id")
    return list(events.values_list("detail", flat=True))


def test_nobody_has_one_of_their_own_at_first(as_staff: APIClient, alice: User) -> None:
    assert alice.daily_token_quota is None
    assert as_staff.get(ALICE).json()["daily_token_quota"] is None
    assert configured.DAILY_TOKEN_QUOTA == 1_000_000


def test_staff_set_it_and_take_it_back(as_staff: APIClient, staff: User, alice: User) -> None:
    for quota in (50_000, 0, MOST, None):
        response = set_quota(as_staff, quota)
        assert response.status_code == 200
        assert response.json() == as_staff.get(ALICE).json()
        assert response.json()["daily_token_quota"] == quota
        alice.refresh_from_db()
        assert alice.daily_token_quota == quota
    assert recorded() == [
        {"from": None, "to": 50_000},
        {"from": 50_000, "to": 0},
        {"from": 0, "to": MOST},
        {"from": MOST, "to": None},
    ]
    event = AuditEvent.objects.filter(action="quota.set").latest("id")
    assert (event.actor_id, event.subject_id) == (staff.id, str(alice.id))


def test_the_list_shows_it(as_staff: APIClient, alice: User) -> None:
    set_quota(as_staff, 7)
    shown = {
        account["username"]: account["daily_token_quota"]
        for account in as_staff.get("/api/v1/users").json()["results"]
    }
    assert shown == {"alice": 7, "grace": None}


def test_the_same_number_again_is_no_deed(as_staff: APIClient, alice: User) -> None:
    for _ in range(2):
        assert set_quota(as_staff, 7).status_code == 200
    assert recorded() == [{"from": None, "to": 7}]


def test_it_ends_no_session(as_staff: APIClient, as_alice: APIClient) -> None:
    assert set_quota(as_staff, 7).status_code == 200
    assert as_alice.get("/api/v1/auth/me").status_code == 200


@pytest.mark.parametrize(
    "written",
    [
        *("-1", str(MOST + 1), str(2**63), str(2**64), "1" + "0" * 300, "1.0", "1e3", "true"),
        *('"5"', '""', "[5]", '{"a": 1}'),
    ],
)
def test_it_is_a_whole_number_of_a_reasonable_size(
    as_staff: APIClient, alice: User, written: str
) -> None:
    body = f'{{"daily_token_quota": {written}}}'
    check_invalid(as_staff.patch(ALICE, body, content_type="application/json"), "daily_token_quota")
    alice.refresh_from_db()
    assert alice.daily_token_quota is None
    assert recorded() == []


@pytest.mark.parametrize(
    "name", sorted({field.name for field in User._meta.get_fields()} - {"daily_token_quota"})
)
def test_nothing_else_of_an_account_is_changed_so(
    as_staff: APIClient, alice: User, name: str
) -> None:
    before = User.objects.values().get(pk=alice.pk)
    for value in (True, 1, "x", [1], None):
        response = as_staff.patch(ALICE, {"daily_token_quota": 7, name: value})
        assert check_invalid(response, name) == ["Unknown field."]
    assert User.objects.values().get(pk=alice.pk) == before


def test_nobody_sets_their_own(
    as_alice: APIClient, as_bob: APIClient, anonymous: APIClient, alice: User
) -> None:
    key = APIClient()
    key.credentials(HTTP_AUTHORIZATION=f"Bearer {make_key(as_alice)}")
    for api, status in ((as_alice, 403), (as_bob, 403), (key, 403), (anonymous, 401)):
        assert set_quota(api, 0).status_code == status
    assert check_invalid(
        as_alice.patch("/api/v1/users/me", {"daily_token_quota": 0}), "daily_token_quota"
    ) == ["Unknown field."]
    alice.refresh_from_db()
    assert alice.daily_token_quota is None


def test_staff_need_the_scope_for_it(
    staff: User, alice: User, client_of: Callable[..., APIClient]
) -> None:
    assert set_quota(client_of(staff, "read write"), 5).status_code == 403
    assert recorded() == []


def test_an_account_that_does_not_exist(as_staff: APIClient) -> None:
    assert set_quota(as_staff, 5, "/api/v1/users/nobody").status_code == 404


def test_a_superusers_is_set_by_superusers_only(
    as_staff: APIClient, staff: User, client_of: Callable[..., APIClient]
) -> None:
    helper = User.objects.create_user("helper", "helper@example.org", PASSWORD, is_staff=True)
    refused = set_quota(client_of(helper), 1, "/api/v1/users/grace")
    assert (refused.status_code, refused.json()["code"]) == (403, "needs_superuser")
    assert set_quota(as_staff, 5, "/api/v1/users/grace").status_code == 200
    staff.refresh_from_db()
    assert staff.daily_token_quota == 5


def test_who_asks_is_known_with_their_quota_in_one_query(as_alice: APIClient, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(daily_token_quota=123_456_789_012)
    digest = api_keys.digest(make_key(as_alice))
    with CaptureQueriesContext(connection) as queries:
        holder = holders.of_key(digest)
        assert holder is not None
        assert holder.user.daily_token_quota == 123_456_789_012
    noted_use = [query for query in queries if query["sql"].startswith("UPDATE")]
    assert len(queries) - len(noted_use) == 1


def test_the_admin_site_sets_it_too(staff: User, alice: User) -> None:
    browser = Client()
    browser.force_login(staff)
    page = f"/admin/accounts/user/{alice.pk}/change/"
    assert b"DAILY_TOKEN_QUOTA" in browser.get(page).content
    form = {"username": "alice", "email": "alice@example.org", "full_name": "", "is_active": "on"}
    for sent, kept in (("5000", 5000), ("0", 0), ("", None)):
        assert browser.post(page, {**form, "daily_token_quota": sent}).status_code == 302
        alice.refresh_from_db()
        assert alice.daily_token_quota == kept
        event = AuditEvent.objects.latest("id")
        assert (event.action, event.actor_id) == ("user.changed_by_staff", staff.id)
        assert event.detail == {"fields": ["daily_token_quota"]}
    for wrong in ("-1", str(MOST + 1), "1.5", "many"):
        refused = browser.post(page, {**form, "daily_token_quota": wrong})
        assert refused.status_code == 200
        assert list(refused.context["adminform"].form.errors) == ["daily_token_quota"]


def test_it_is_in_the_export(as_staff: APIClient, as_alice: APIClient) -> None:
    set_quota(as_staff, 4321)
    archive: Any = as_alice.get("/api/v1/users/me/export")
    with zipfile.ZipFile(io.BytesIO(b"".join(archive.streaming_content))) as files:
        assert json.loads(files.read("account.json"))[0]["daily_token_quota"] == 4321
