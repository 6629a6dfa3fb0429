"""Accounts in the admin site: what staff see, and that what they do there holds at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from accounts.admin import UserAdmin
from accounts.models import Session, User
from accounts.tests.sessions import log_in, me, refresh
from conftest import PASSWORD

USERS = "/admin/accounts/user/"
SESSIONS = "/admin/accounts/session/"
NEW_PASSWORD = "Another-Horse-8-Battery"


@pytest.fixture
def browser(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def change_page(user: User) -> str:
    return reverse("admin:accounts_user_change", args=[user.pk])


def change_user(browser: Client, user: User, **changed: Any) -> Any:
    """Submit the change form as it is, but for `changed`; None unticks a box."""
    form = {
        "username": user.username,
        "email": user.email,
        "full_name": user.full_name,
        **{name: "on" for name in ("is_active", "is_staff", "is_superuser") if getattr(user, name)},
        **changed,
    }
    sent = {name: value for name, value in form.items() if value is not None}
    return browser.post(change_page(user), sent)


def add_user(browser: Client, **changed: str) -> Any:
    form = {
        "username": "dave",
        "email": "dave@example.org",
        "usable_password": "true",
        "password1": NEW_PASSWORD,
        "password2": NEW_PASSWORD,
        **changed,
    }
    return browser.post(f"{USERS}add/", form)


def form_errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    errors: dict[str, list[str]] = response.context["adminform"].form.errors
    return errors


def test_the_pages_render(browser: Client, alice: User) -> None:
    log_in()
    session = Session.objects.get()
    for path in (
        *("/admin/", USERS, f"{USERS}?q=ALICE", f"{USERS}?is_active__exact=1", f"{USERS}add/"),
        *(change_page(alice), f"{USERS}{alice.pk}/password/", f"{USERS}{alice.pk}/history/"),
        *(SESSIONS, f"{SESSIONS}?q=alice", f"{SESSIONS}{session.pk}/change/"),
    ):
        assert browser.get(path).status_code == 200, path
    assert b"alice@example.org" in browser.get(USERS).content


def test_a_login_here_is_by_any_spelling_and_for_staff_only(staff: User, alice: User) -> None:
    for name in ("GRACE", "Grace@Example.org"):
        form = {"username": name, "password": PASSWORD}
        assert Client().post("/admin/login/", form).status_code == 302
    refused = Client().post("/admin/login/", {"username": "alice", "password": PASSWORD})
    assert refused.status_code == 200
    assert b"for a staff account" in refused.content


def test_no_page_shows_a_digest_or_a_hash(browser: Client, alice: User) -> None:
    log_in()
    session = Session.objects.get()
    digest = bytes(session.refresh_digest)
    for path in (SESSIONS, f"{SESSIONS}{session.pk}/change/", change_page(alice)):
        content = browser.get(path).content
        for form in (digest.hex().encode(), str(digest).encode(), b"refresh_digest"):
            assert form not in content
        assert alice.password.encode() not in content


def test_sessions_can_be_seen_and_not_written(browser: Client, alice: User) -> None:
    log_in()
    session = Session.objects.get()
    before = Session.objects.values().get()
    for path in ("add/", f"{session.pk}/delete/", f"{session.pk}/change/"):
        assert browser.post(SESSIONS + path, {"scope": "admin", "post": "yes"}).status_code == 403
    deletion = {"action": "delete_selected", "_selected_action": [str(session.pk)], "post": "yes"}
    browser.post(SESSIONS, deletion)
    assert Session.objects.values().get() == before


def test_sessions_can_be_ended(browser: Client, alice: User, bob: User) -> None:
    ended, other = log_in(), log_in("bob")
    session = Session.objects.get(user=alice)
    form = {"action": "revoke", "_selected_action": [str(session.pk)]}
    response = browser.post(SESSIONS, form, follow=True)
    assert b"1 sessions ended." in response.content
    assert [me(pair["access_token"]) for pair in (ended, other)] == [401, 200]


def test_disabling_ends_the_sessions_at_once(browser: Client, alice: User) -> None:
    pair = log_in()
    assert change_user(browser, alice, is_active=None).status_code == 302
    assert me(pair["access_token"]) == 401
    assert refresh(pair["refresh_token"]).status_code == 401
    alice.refresh_from_db()
    assert change_user(browser, alice, is_active="on").status_code == 302
    assert me(pair["access_token"]) == 401, "what was ended does not come back"
    assert me(log_in()["access_token"]) == 200


@pytest.mark.parametrize("role", ["is_staff", "is_superuser"])
def test_a_change_of_role_ends_the_sessions(browser: Client, alice: User, role: str) -> None:
    pair = log_in()
    assert change_user(browser, alice, **{role: "on"}).status_code == 302
    assert me(pair["access_token"]) == 401


def test_another_change_ends_no_session(browser: Client, alice: User) -> None:
    pair = log_in()
    assert change_user(browser, alice, full_name="Alice Example").status_code == 302
    alice.refresh_from_db()
    assert alice.full_name == "Alice Example"
    assert me(pair["access_token"]) == 200


@pytest.mark.parametrize("is_usable", [True, False])
def test_a_new_password_ends_the_sessions(browser: Client, alice: User, is_usable: bool) -> None:
    pair = log_in()
    form = {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD, "usable_password": "true"}
    if not is_usable:
        form = {"usable_password": "false", "unset-password": "1"}
    assert browser.post(f"{USERS}{alice.pk}/password/", form).status_code == 302
    alice.refresh_from_db()
    assert alice.has_usable_password() is is_usable
    assert me(pair["access_token"]) == 401
    assert refresh(pair["refresh_token"]).status_code == 401


def test_ones_own_new_password_ends_ones_tokens_and_not_the_page(
    browser: Client, staff: User
) -> None:
    pair = log_in("grace")
    form = {
        "old_password": PASSWORD,
        "new_password1": NEW_PASSWORD,
        "new_password2": NEW_PASSWORD,
    }
    assert browser.post("/admin/password_change/", form).status_code == 302
    assert me(pair["access_token"]) == 401
    assert browser.get("/admin/").status_code == 200


def test_a_disabled_administrator_is_out_at_once(browser: Client, staff: User) -> None:
    User.objects.filter(pk=staff.pk).update(is_active=False)
    assert browser.get("/admin/").status_code == 302


@pytest.mark.parametrize("how", ["own sessions", "staff route", "admin action", "role"])
def test_signing_out_everywhere_ends_the_admins_pages_too(
    browser: Client, staff: User, client_of: Callable[..., APIClient], how: str
) -> None:
    heidi = User.objects.create_superuser("heidi", "heidi@example.org", PASSWORD)
    laptop = Client()
    laptop.post("/admin/login/", {"username": "heidi", "password": PASSWORD})
    assert laptop.get("/admin/").status_code == 200
    match how:
        case "own sessions":
            assert client_of(heidi).delete("/api/v1/auth/sessions").status_code == 204
        case "staff route":
            assert client_of(staff).post("/api/v1/users/heidi/sign-out").status_code == 204
        case "admin action":
            form = {"action": "sign_out", "_selected_action": [str(heidi.pk)]}
            assert browser.post(USERS, form).status_code == 302
        case _:
            assert change_user(browser, heidi, is_superuser=None).status_code == 302
    assert laptop.get("/admin/").status_code == 302
    assert browser.get("/admin/").status_code == 200, "nobody else's"


def test_the_form_overwrites_nothing_that_changed_meanwhile(
    browser: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner resets the password between the form's reading of the account and its writing."""
    save = UserAdmin.save_model

    def save_late(*arguments: Any) -> None:
        User.objects.filter(pk=alice.pk).update(password="new hash", token_epoch=7)
        save(*arguments)

    monkeypatch.setattr(UserAdmin, "save_model", save_late)
    assert change_user(browser, alice, full_name="Alice A.").status_code == 302
    alice.refresh_from_db()
    assert (alice.full_name, alice.password, alice.token_epoch) == ("Alice A.", "new hash", 7)
    assert change_user(browser, alice, is_staff="on").status_code == 302
    alice.refresh_from_db()
    assert (alice.is_staff, alice.password, alice.token_epoch) == (True, "new hash", 8)


def test_an_account_can_be_added(browser: Client) -> None:
    assert add_user(browser).status_code == 302
    dave = User.objects.get(username_canonical="dave")
    assert dave.check_password(NEW_PASSWORD)
    assert (dave.is_staff, dave.is_superuser) == (False, False)
    assert dave.email_canonical == "dave@example.org"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "ALICE"),
        ("username", "alice"),
        ("username", "\uff41lice"),
        ("username", "a b"),
        ("username", "me@example.org"),
        ("username", "system"),
        ("email", "Alice@Example.ORG"),
        ("email", "\uff41lice@example.org"),
        ("email", "nonsense"),
        ("email", f"a@{chr(0xFDFA) * 60}.example"),
        ("password2", "Different-Horse-9"),
    ],
)
def test_an_added_account_obeys_the_rules_of_registration(
    browser: Client, alice: User, field: str, value: str
) -> None:
    assert list(form_errors(add_user(browser, **{field: value}))) == [field]
    assert User.objects.count() == 2


@pytest.mark.parametrize("password", ["password", "Short-7", "nouppercase7"])
def test_an_added_account_has_a_good_password(browser: Client, password: str) -> None:
    errors = form_errors(add_user(browser, password1=password, password2=password))
    assert list(errors) == ["password2"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("username", "BOB"), ("email", "BOB@example.org"), ("username", "x y"), ("email", "x")],
)
def test_a_changed_account_obeys_them_too(
    browser: Client, alice: User, bob: User, field: str, value: str
) -> None:
    assert list(form_errors(change_user(browser, alice, **{field: value}))) == [field]


def test_an_account_may_keep_or_respell_its_own_name(browser: Client, alice: User) -> None:
    assert (
        change_user(browser, alice, username="Alice", email="Alice@example.org").status_code == 302
    )
    alice.refresh_from_db()
    assert (alice.username, alice.username_canonical) == ("Alice", "alice")
    assert log_in("ALICE")


def test_what_must_not_be_written_is_not_on_the_form(browser: Client, alice: User) -> None:
    before = User.objects.values().get(pk=alice.pk)
    written = {
        "token_epoch": "9",
        "username_canonical": "bob",
        "email_canonical": "bob@example.org",
        "password": "bcrypt_sha256$x",
        "last_login_0": "2020-01-01",
        "created_at": "2020-01-01",
        "id": "00000000-0000-0000-0000-000000000000",
    }
    assert change_user(browser, alice, **written).status_code == 302
    assert User.objects.values().get(pk=alice.pk) == before


def test_deeds_are_recorded_without_passwords(browser: Client, alice: User) -> None:
    form = {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD, "usable_password": "true"}
    browser.post(f"{USERS}{alice.pk}/password/", form)
    change_user(browser, alice, full_name="Alice Example")
    entries = list(LogEntry.objects.values_list("change_message", flat=True))
    assert len(entries) == 2
    assert NEW_PASSWORD not in str(entries)


def test_the_policy_for_scripts_is_strict_here_too(browser: Client, alice: User) -> None:
    for path in ("/admin/", USERS, change_page(alice), f"{USERS}add/", SESSIONS):
        response = browser.get(path)
        policy = response["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        text = response.content.decode()
        for script in text.split("<script")[1:]:
            tag = script.partition(">")[0]
            assert " src=" in tag or 'type="application/json"' in tag, path


def test_groups_are_not_offered(browser: Client) -> None:
    assert browser.get("/admin/auth/group/").status_code == 404


# --- Who may change whom


@pytest.fixture
def helper(db: None) -> Client:
    """Staff who may change accounts, and is no superuser."""
    user = User.objects.create_user("helper", "helper@example.org", PASSWORD, is_staff=True)
    for name in ("view_user", "change_user"):
        user.user_permissions.add(Permission.objects.get(codename=name))
    browser = Client()
    browser.force_login(user)
    return browser


def save_user(browser: Client, user: User, **changed: str) -> Any:
    form = {"username": user.username, "email": user.email, "full_name": "", "is_active": "on"}
    return browser.post(f"/admin/accounts/user/{user.pk}/change/", {**form, **changed})


def test_nobody_makes_themselves_superuser(helper: Client) -> None:
    own = User.objects.get(username="helper")
    assert save_user(helper, own, is_staff="on", is_superuser="on").status_code == 302
    own.refresh_from_db()
    assert (own.is_staff, own.is_superuser) == (True, False)


def test_a_superuser_is_changed_by_superusers_only(helper: Client, staff: User) -> None:
    assert save_user(helper, staff, full_name="pwn").status_code == 403
    word = "Another-Horse-8-Battery"
    form = {"usable_password": "true", "password1": word, "password2": word}
    path = f"/admin/accounts/user/{staff.pk}/password/"
    assert helper.post(path, form).status_code == 403
    staff.refresh_from_db()
    assert (staff.is_superuser, staff.full_name) == (True, "")
    assert staff.check_password(PASSWORD)


def test_members_are_changed_by_who_may(helper: Client, alice: User) -> None:
    assert save_user(helper, alice, full_name="Alice A.").status_code == 302
    alice.refresh_from_db()
    assert alice.full_name == "Alice A."


@pytest.mark.parametrize("kept", [{"is_staff": "on"}, {"is_staff": "on", "is_superuser": "on"}])
def test_the_last_superuser_cannot_give_it_up(staff: User, kept: dict[str, str]) -> None:
    browser = Client()
    browser.force_login(staff)
    form = {"username": staff.username, "email": staff.email, "full_name": "", **kept}
    if "is_superuser" not in kept:
        form["is_active"] = "on"
    assert browser.post(f"/admin/accounts/user/{staff.pk}/change/", form).status_code == 409
    staff.refresh_from_db()
    assert (staff.is_superuser, staff.is_active) == (True, True)
    User.objects.create_superuser("heidi", "heidi@example.org", PASSWORD)
    assert browser.post(f"/admin/accounts/user/{staff.pk}/change/", form).status_code == 302
