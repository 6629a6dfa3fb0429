"""The console's session: renewed in time and once, shared by tabs, with the rights asked for."""

from __future__ import annotations

import base64
import time
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from django_otp.oath import TOTP

from tests.browser.console import expect, fill_in, open_page, question
from tests.platform import PASSWORD, Platform

pytestmark = pytest.mark.browser

REFRESH = "**/api/v1/auth/token/refresh"


@pytest.fixture
def renewals(page: Any) -> list[int]:
    """The status of each renewal that any tab of `page`'s browser asks for."""
    statuses: list[int] = []

    def note(response: Any) -> None:
        if response.url.endswith("/auth/token/refresh"):
            statuses.append(response.status)

    page.context.on("response", note)
    return statuses


def go_on_for(page: Any, elapsed: timedelta) -> None:
    """Let the page's own clock be that much later."""
    page.clock.set_fixed_time(datetime.now().astimezone() + elapsed)


def test_the_token_is_renewed_shortly_before_it_ends(
    member: str, page: Any, renewals: list[int]
) -> None:
    go_on_for(page, timedelta(minutes=28))
    open_page(page, "Memory")
    expect(page.get_by_text("Nothing is remembered yet.")).to_be_visible()
    assert renewals == []
    go_on_for(page, timedelta(minutes=29, seconds=30))
    open_page(page, "Account")  # several requests at once
    expect(page.get_by_text("this one")).to_be_visible()
    expect(page.get_by_text("You have no API keys.")).to_be_visible()
    assert renewals == [httpx2.codes.OK]
    open_page(page, "Memory")
    expect(page.get_by_text("Nothing is remembered yet.")).to_be_visible()
    assert renewals == [httpx2.codes.OK]


def test_a_refused_token_is_renewed_once_and_the_request_repeated(
    member: str, page: Any, renewals: list[int]
) -> None:
    refused = {"type": "about:blank", "status": 401, "code": "invalid_credentials"}
    usage = "**/api/v1/usage?*"
    page.route(usage, lambda route: route.fulfill(status=401, json=refused), times=1)
    open_page(page, "Usage")
    expect(page.get_by_text("Nothing was asked.")).to_be_visible()
    assert renewals == [httpx2.codes.OK]
    page.route(usage, lambda route: route.fulfill(status=401, json=refused))
    open_page(page, "Memory")
    page.get_by_role("link", name="Usage").click()
    page.get_by_text("Your session has ended. Sign in again.").wait_for()
    assert renewals == [httpx2.codes.OK] * 2


def test_a_server_in_trouble_does_not_end_the_session(member: str, page: Any) -> None:
    busy = {"error": "database_unavailable", "detail": "The database does not answer."}
    page.route(REFRESH, lambda route: route.fulfill(status=503, json=busy), times=1)
    go_on_for(page, timedelta(hours=1))
    open_page(page, "Usage")
    expect(page.get_by_role("alert")).to_have_text("The server cannot reach its database.")
    open_page(page, "Memory")
    expect(page.get_by_text("Nothing is remembered yet.")).to_be_visible()


def test_a_new_tab_is_signed_in_and_tabs_renew_one_after_the_other(
    platform: Platform, member: str, page: Any, renewals: list[int]
) -> None:
    tabs = [page]
    for _ in range(3):
        tab = page.context.new_page()
        tab.goto("/#/memory")
        tab.get_by_role("heading", name="Memory", level=1).wait_for()
        tabs.append(tab)
    assert renewals == []
    for number, tab in enumerate(tabs):
        go_on_for(tab, timedelta(minutes=29, seconds=30 + number))
    for tab in tabs:  # all of them ask before any is answered
        tab.evaluate("location.hash = '#/usage'")
    for tab in tabs:
        expect(tab.get_by_text("Nothing was asked.")).to_be_visible()
    # None was spent twice, for that would have ended the session.
    assert set(renewals) == {httpx2.codes.OK}
    for tab in tabs:
        open_page(tab, "Memory")
        expect(tab.get_by_text("Nothing is remembered yet.")).to_be_visible()
    assert set(renewals) == {httpx2.codes.OK}


def test_a_copy_of_a_tab_does_not_spend_its_token_again(
    member: str, page: Any, renewals: list[int]
) -> None:
    kept = page.evaluate("sessionStorage.getItem('sovereigncore.refresh')")
    copy = page.context.new_page()
    copy.add_init_script(f"sessionStorage.setItem('sovereigncore.refresh', '{kept}')")
    copy.goto("/")
    question(copy).wait_for()
    assert renewals == [httpx2.codes.OK]
    go_on_for(page, timedelta(minutes=40))
    open_page(page, "Usage")
    expect(page.get_by_text("Nothing was asked.")).to_be_visible()
    assert set(renewals) == {httpx2.codes.OK}


def test_signing_out_in_one_tab_signs_all_of_them_out(member: str, page: Any) -> None:
    beside = page.context.new_page()
    beside.goto("/")
    question(beside).wait_for()
    page.get_by_role("button", name="Sign out").click()
    for tab in (page, beside):
        tab.get_by_text("You have signed out.").wait_for()
        assert tab.evaluate("sessionStorage.length") == 0


def test_who_signs_in_next_finds_nothing_of_who_was_there(
    platform: Platform, member: str, page: Any
) -> None:
    question(page).fill("a secret draft")
    page.get_by_role("button", name="Sign out").click()
    fill_in(page, platform.register(f"{member}next"))
    expect(question(page)).to_have_value("")
    assert member not in page.get_by_text(member, exact=True).all_inner_texts()


def test_no_token_is_kept_beyond_the_tab(member: str, page: Any) -> None:
    stored = page.evaluate("JSON.stringify(localStorage) + document.cookie")
    token = page.evaluate("sessionStorage.getItem('sovereigncore.refresh')")
    assert token.count(".") == 2
    for piece in token.split("."):
        assert piece not in stored
    assert page.evaluate("sessionStorage.length") == 1


def test_administrators_rights_are_asked_for_and_need_the_code(
    platform: Platform, page: Any
) -> None:
    made = platform.manage("bootstrap", "--username", "ada", "--email", "ada@example.org")
    password = made.stdout.rpartition(":")[2].strip()
    secret = base64.b32encode(b"twenty bytes secret!").decode()
    enrolled = platform.manage(
        "shell",
        "-c",
        "from accounts.models import User; from django_otp.plugins.otp_totp.models import"
        " TOTPDevice; TOTPDevice.objects.create(user=User.objects.get(username='ada'),"
        f" confirmed=True, key={b'twenty bytes secret!'.hex()!r})",
    )
    assert enrolled.returncode == 0, enrolled.stderr
    page.goto("/")
    expect(page.get_by_label("One-time code")).to_be_hidden()
    page.get_by_label("As an administrator").check()
    fill_in(page, "ada", password)
    expect(page.get_by_text("Your code, please.")).to_be_visible()
    page.get_by_label("One-time code").fill("000000")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("This code is not right, or was used before.")).to_be_visible()
    platform.manage("shell", "-c", FORGIVE)
    page.get_by_label("One-time code").fill(_code(secret))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Administration").wait_for()
    open_page(page, "Account")
    expect(page.get_by_label("administer: accounts of others")).to_be_visible()


# django-otp makes whoever gave a wrong code wait.
FORGIVE = (
    "from django_otp.plugins.otp_totp.models import TOTPDevice;"
    " TOTPDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)"
)


def test_a_members_account_has_no_administrators_rights(platform: Platform, page: Any) -> None:
    name = platform.register("plain")
    page.goto("/")
    page.get_by_label("As an administrator").check()
    fill_in(page, name)
    expect(page.get_by_role("alert")).to_have_text("This account has no such rights.")
    page.get_by_label("As an administrator").uncheck()
    fill_in(page, name, PASSWORD)
    question(page).wait_for()
    expect(page.get_by_role("link", name="Administration")).to_be_hidden()


def _code(secret: str) -> str:
    totp = TOTP(base64.b32decode(secret))
    totp.time = time.time()
    return f"{totp.token():06d}"
