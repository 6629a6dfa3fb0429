"""The second factor: enrolled in the admin site, asked for there and by the scope `admin`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from accounts.services import second_factor
from conftest import PASSWORD
from monitoring.models import AuditEvent

PAGE = "/admin/second-factor/"
TOKEN = "/api/v1/auth/token"


@pytest.fixture
def clock() -> Any:
    """Stands still at the beginning of a code's half minute."""
    start_s = time.time() // 30 * 30
    with time_machine.travel(start_s, tick=False) as clock:
        yield clock


def code_of(user: User) -> str:
    """What the authenticator of `user` shows now."""
    device = TOTPDevice.objects.get(user=user)
    totp = TOTP(device.bin_key)
    totp.time = time.time()
    return f"{totp.token():06d}"


@pytest.fixture
def browser(staff: User) -> Client:
    client = Client()
    form = {"username": "grace", "password": PASSWORD}
    assert client.post("/admin/login/?next=/admin/", form).status_code == 302
    return client


@pytest.fixture
def codes(browser: Client, staff: User, clock: time_machine.Traveller) -> list[str]:
    """The backup codes of an account that has enrolled, half a minute ago."""
    browser.get(PAGE)
    page = browser.post(PAGE, {"code": code_of(staff)})
    assert page.status_code == 200, page.content
    clock.shift(timedelta(seconds=30))
    return re.findall(r"<code>([0-9a-f]{10})</code>", page.content.decode())


def log_in(**extra: str) -> Any:
    body = {"username": "grace", "password": PASSWORD, **extra}
    return APIClient().post(TOKEN, body)


def test_the_page_shows_a_code_to_scan_and_the_same_one_when_reloaded(
    browser: Client, staff: User
) -> None:
    first = browser.get(PAGE).content.decode()
    secret = second_factor.secret_of(TOTPDevice.objects.get(user=staff))
    assert secret in first
    assert 'src="data:image/svg+xml;base64,' in first
    assert secret in browser.get(PAGE).content.decode()
    assert TOTPDevice.objects.count() == 1


def test_enrolling_takes_a_right_code_and_gives_ten_backup_codes(
    codes: list[str], browser: Client, staff: User
) -> None:
    assert len(set(codes)) == 10
    assert browser.get("/admin/").status_code == 200, "this browser has just proved it"
    assert codes[0] not in browser.get(PAGE).content.decode(), "shown once"
    event = AuditEvent.objects.get(action="otp.enrolled")
    assert event.actor_id == staff.id


def test_backup_codes_are_not_in_the_database(codes: list[str]) -> None:
    stored = set(StaticToken.objects.values_list("token", flat=True))
    assert len(stored) == 10
    assert not stored & {*codes, *(code.upper() for code in codes)}


@pytest.mark.parametrize("code", ["", "000000", "abcdef", "12345", "\uff11" * 6, "0" * 100])
def test_enrolling_with_a_wrong_code_changes_nothing(
    browser: Client, staff: User, code: str
) -> None:
    browser.get(PAGE)
    TOTPDevice.objects.update(key="00" * 20)
    assert browser.post(PAGE, {"code": code}).status_code == 403
    assert not TOTPDevice.objects.get().confirmed
    assert not second_factor.is_needed(staff)


def test_the_admin_site_asks_for_a_code_from_then_on(
    codes: list[str], staff: User, clock: time_machine.Traveller
) -> None:
    browser = Client()
    form = {"username": "grace", "password": PASSWORD}
    browser.post("/admin/login/?next=/admin/accounts/user/", form)
    refused = browser.get("/admin/accounts/user/", follow=True)
    assert refused.redirect_chain[-1][0].startswith(PAGE)
    assert b"authenticator" in refused.content
    assert browser.post(PAGE, {"code": "000001"}).status_code == 403
    assert browser.get("/admin/").status_code == 302
    clock.shift(timedelta(seconds=30))  # past django-otp's own pause after a failure
    passed = browser.post(PAGE, {"code": code_of(staff), "next": "/admin/accounts/user/"})
    assert (passed.status_code, passed["Location"]) == (302, "/admin/accounts/user/")
    assert browser.get("/admin/accounts/user/").status_code == 200


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:x"])
def test_it_leads_nowhere_else(codes: list[str], staff: User, target: str) -> None:
    browser = Client()
    browser.force_login(staff)
    passed = browser.post(PAGE, {"code": code_of(staff), "next": target})
    assert (passed.status_code, passed["Location"]) == (302, "/admin/")


def test_a_code_holds_once(codes: list[str], staff: User) -> None:
    code = code_of(staff)
    assert log_in(scope="admin", otp=code).status_code == 200
    assert log_in(scope="admin", otp=code).status_code == 401


def test_a_backup_code_holds_once(codes: list[str], clock: time_machine.Traveller) -> None:
    assert log_in(scope="admin", otp=codes[0].upper()).status_code == 200
    assert log_in(scope="admin", otp=codes[0]).status_code == 401
    clock.shift(timedelta(minutes=1))
    assert log_in(scope="admin", otp=f" {codes[1][:5]}-{codes[1][5:]} ").status_code == 200


def test_guessing_codes_is_slowed_down(
    codes: list[str], staff: User, clock: time_machine.Traveller
) -> None:
    assert log_in(scope="admin", otp="000001").status_code == 401
    assert log_in(scope="admin", otp=code_of(staff)).status_code == 401, "too soon"
    clock.shift(timedelta(seconds=30))
    assert log_in(scope="admin", otp=code_of(staff)).status_code == 200


def test_admin_without_a_code_is_refused_and_the_rest_is_not(codes: list[str]) -> None:
    refused = log_in(scope="read admin")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    assert log_in().json()["scope"] == "read write"
    assert log_in(scope="read").status_code == 200


def test_with_a_code_all_scopes_are_given(codes: list[str], staff: User) -> None:
    assert log_in(otp=code_of(staff)).json()["scope"] == "admin read write"


def test_without_enrolment_nothing_is_asked(staff: User) -> None:
    assert log_in().json()["scope"] == "admin read write"


def test_where_it_is_required_an_account_must_enrol_first(
    staff: User, settings: Settings, clock: time_machine.Traveller
) -> None:
    settings.ADMIN_REQUIRE_OTP = True
    assert log_in().json()["scope"] == "read write"
    assert log_in(scope="admin", otp="123456").status_code == 401
    browser = Client()
    browser.force_login(staff)
    page = browser.get("/admin/", follow=True)
    assert page.redirect_chain[-1][0].startswith(PAGE)
    browser.post(PAGE, {"code": code_of(staff)})
    assert browser.get("/admin/").status_code == 200
    clock.shift(timedelta(seconds=30))
    assert "admin" in log_in(otp=code_of(staff)).json()["scope"]


def test_backup_codes_are_renewed_and_the_old_ones_end(codes: list[str], browser: Client) -> None:
    page = browser.post(PAGE, {"action": "renew"}).content.decode()
    renewed = re.findall(r"<code>([0-9a-f]{10})</code>", page)
    assert len(renewed) == 10
    assert not set(renewed) & set(codes)
    assert log_in(scope="admin", otp=codes[0]).status_code == 401


def test_it_can_be_turned_off_by_who_has_proved_it(
    codes: list[str], browser: Client, staff: User
) -> None:
    assert browser.post(PAGE, {"action": "remove"}).status_code == 302
    assert not second_factor.is_enrolled(staff)
    assert log_in().json()["scope"] == "admin read write"
    assert AuditEvent.objects.filter(action="otp.removed", actor_id=staff.id).exists()


def test_it_cannot_be_turned_off_where_it_is_required(
    codes: list[str], browser: Client, staff: User, settings: Settings
) -> None:
    settings.ADMIN_REQUIRE_OTP = True
    assert browser.post(PAGE, {"action": "remove"}).status_code == 200
    assert second_factor.is_enrolled(staff)


@pytest.mark.parametrize("action", ["renew", "remove"])
def test_without_the_code_nothing_of_it_can_be_changed(
    codes: list[str], staff: User, action: str
) -> None:
    browser = Client()
    browser.force_login(staff)
    assert browser.post(PAGE, {"action": action}).status_code == 403
    assert StaticToken.objects.count() == 10
    assert second_factor.is_enrolled(staff)


def test_members_have_no_such_page(alice: User) -> None:
    browser = Client()
    assert browser.get(PAGE)["Location"].startswith("/admin/login/")
    browser.force_login(alice)
    assert browser.get(PAGE)["Location"].startswith("/admin/login/")
    assert not TOTPDevice.objects.exists()


def test_another_persons_code_opens_nothing(
    codes: list[str], alice: User, client_of: Callable[..., APIClient], staff: User
) -> None:
    other = User.objects.create_superuser("heidi", "heidi@example.org", PASSWORD)
    second_factor.confirm_enrolment(other, _begin(other))
    assert log_in(username="heidi", scope="admin", otp=codes[0]).status_code == 401


def _begin(user: User) -> str:
    second_factor.begin_enrolment(user)
    return code_of(user)


def test_the_forms_need_a_csrf_token(staff: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(staff)
    assert browser.post(PAGE, {"code": "000000"}).status_code == 403
    assert not TOTPDevice.objects.exists()


def test_attempts_are_limited_before_anything_is_checked(
    codes: list[str], staff: User, settings: Settings
) -> None:
    settings.RATE_LIMIT_AUTH = "2/m"
    browser = Client()
    browser.force_login(staff)
    answers = [browser.post(PAGE, {"code": "000001"}).status_code for _ in range(3)]
    assert answers == [403, 403, 429]


def test_an_address_longer_than_a_name_can_log_in_to_the_admin_site(db: None) -> None:
    address = f"{'a' * 60}@example.org"
    User.objects.create_superuser("long", address, PASSWORD)
    browser = Client()
    form = {"username": address, "password": PASSWORD}
    assert browser.post("/admin/login/?next=/admin/", form).status_code == 302
