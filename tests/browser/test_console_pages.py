"""The console's pages beside the conversations: memory, usage and account."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.browser.console import answer_of, ask, begin_anew, expect, fill_in, open_page, sign_in
from tests.outbox import deliver, recipient_of, token_in
from tests.platform import PASSWORD, Platform
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.browser

NEW_PASSWORD = "Another-Horse-8-Battery"


def facts(page: Any) -> Any:
    return page.get_by_role("list", name="Facts").get_by_role("listitem")


def note(page: Any, text: str) -> None:
    page.get_by_label("New fact").fill(text)
    page.get_by_role("button", name="Remember").click()
    expect(facts(page).first).to_contain_text(text)


# --- memory ---------------------------------------------------------------------------------


def test_a_fact_that_is_added_is_used_and_told(stub: StubEngine, member: str, page: Any) -> None:
    open_page(page, "Memory")
    expect(page.get_by_text("Nothing is remembered yet.")).to_be_visible()
    note(page, "My dog is called Rex.")
    begin_anew(page)
    turn = ask(page, "What is my dog called?")
    assert "My dog is called Rex." in stub.ledger[-1].body["messages"][-1]["content"]
    turn.get_by_text("1 memory used").click()
    expect(turn.get_by_role("listitem")).to_have_text("My dog is called Rex.")


def test_what_one_asks_to_remember_is_told_and_listed(member: str, page: Any) -> None:
    turn = ask(page, "Remember that I live in Bern.")
    expect(turn).to_contain_text("Remembered: I live in Bern")
    open_page(page, "Memory")
    expect(facts(page)).to_contain_text("I live in Bern")


def test_facts_are_found_edited_and_forgotten(member: str, page: Any) -> None:
    open_page(page, "Memory")
    for fact in ("The printer is on the first floor.", "Lunch is at noon."):
        note(page, fact)
    page.get_by_label("Find a fact").fill("printer")
    page.get_by_label("Find a fact").press("Enter")
    expect(page.get_by_text("1 fact found, the best first.")).to_be_visible()
    expect(facts(page)).to_have_count(1)
    page.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog", name="Edit the fact")
    dialog.get_by_label("Fact").fill("Lunch is at noon.")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_have_text("Another fact says this already.")
    dialog.get_by_label("Fact").fill("The printer is on the second floor.")
    dialog.get_by_role("button", name="Save").click()
    expect(facts(page)).to_contain_text("The printer is on the second floor.")
    page.get_by_label("Find a fact").fill("")
    expect(facts(page)).to_have_count(2)
    facts(page).filter(has_text="Lunch").get_by_role("button", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    expect(facts(page)).to_have_count(1)
    page.reload()
    expect(facts(page)).to_have_count(1)


def test_more_facts_are_loaded_when_asked_for(platform: Platform, page: Any) -> None:
    name = platform.register("elephant")
    with platform.client(platform.log_in(name)["access_token"]) as http:
        for number in range(23):
            fact = {"text": f"Fact {number}."}
            assert http.post("/api/v1/consciousness/memories", json=fact).status_code == 201
    sign_in(page, name)
    open_page(page, "Memory")
    expect(facts(page)).to_have_count(20)
    page.get_by_role("button", name="Show more").click()
    expect(facts(page)).to_have_count(23)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


# --- usage ----------------------------------------------------------------------------------


def test_usage_is_what_the_engine_counted(stub: StubEngine, member: str, page: Any) -> None:
    ask(page, "count to 7")
    (record,) = stub.ledger
    total = record.prompt_tokens + record.completion_tokens
    open_page(page, "Usage")
    expect(page.locator(".figure")).to_have_text(f"{total} tokens")
    expect(page.get_by_text(f"{1_000_000 - total:,} of 1,000,000 left.")).to_be_visible()
    cells = page.get_by_role("table").get_by_role("row").nth(1).get_by_role("cell")
    expected = ["1", "0", str(record.prompt_tokens), str(record.completion_tokens), str(total)]
    assert cells.all_inner_texts() == expected
    bars = page.locator(".bars > *")
    expect(bars).to_have_count(30)
    heights = bars.evaluate_all("bars => bars.map((bar) => bar.offsetHeight)")
    assert heights[-1] == max(heights) > 50
    assert max(heights[:-1]) <= 1


def test_somebody_who_asked_nothing_sees_that(member: str, page: Any) -> None:
    open_page(page, "Usage")
    expect(page.get_by_text("Nothing was asked.")).to_be_visible()
    expect(page.get_by_role("table")).to_be_hidden()


# --- account --------------------------------------------------------------------------------


def part(page: Any, heading: str) -> Any:
    """One part of the account page."""
    wanted = page.get_by_role("heading", level=2, name=heading)
    return page.locator("section").filter(has=wanted)


def test_the_full_name_is_changed(platform: Platform, member: str, page: Any) -> None:
    open_page(page, "Account")
    profile = part(page, "Profile")
    profile.get_by_label("Full name").fill("Ada Lovelace")
    profile.get_by_role("button", name="Save").click()
    expect(profile.get_by_role("status")).to_have_text("Saved.")
    profile.get_by_label("Full name").fill("Ada \u202eLovelace")
    profile.get_by_role("button", name="Save").click()
    expect(profile.get_by_label("Full name")).to_have_attribute("aria-invalid", "true")
    page.reload()
    expect(page.get_by_label("Full name")).to_have_value("Ada Lovelace")


def test_an_address_is_changed_by_a_mail_to_it(platform: Platform, member: str, page: Any) -> None:
    open_page(page, "Account")
    address = part(page, "E-mail address")
    expect(address).to_contain_text(f"Mails go to {member}@example.org.")
    address.get_by_label("New address").fill(f"{member}@example.com")
    address.get_by_label("Your password").fill("Wrong-Horse-7-Battery")
    address.get_by_role("button", name="Change address").click()
    expect(address.get_by_role("alert")).to_have_text("The current password is not right.")
    address.get_by_label("Your password").fill(PASSWORD)
    address.get_by_role("button", name="Change address").click()
    told = f"A mail with a link is on its way to {member}@example.com."
    expect(address.get_by_role("status")).to_contain_text(told)
    (mail,) = [m for m in deliver(platform) if recipient_of(m) == f"{member}@example.com"]
    page.goto(f"/email-change/confirm?token={token_in(mail)}")
    page.get_by_role("button").click()
    page.goto("/#/account")
    expect(address).to_contain_text(f"Mails go to {member}@example.com.")


def test_a_changed_password_ends_the_other_sessions_and_not_this_one(
    platform: Platform, member: str, page: Any
) -> None:
    elsewhere = platform.log_in(member)["access_token"]
    beside = page.context.new_page()
    beside.goto("/")
    beside.get_by_label("Your question").wait_for()
    open_page(page, "Account")
    password = part(page, "Password")
    for label, text in (
        ("Current password", PASSWORD),
        ("New password", NEW_PASSWORD),
        ("The same again", PASSWORD),
    ):
        password.get_by_label(label).fill(text)
    password.get_by_role("button", name="Change password").click()
    expect(password.get_by_text("The two are not the same.")).to_be_visible()
    password.get_by_label("The same again").fill(NEW_PASSWORD)
    password.get_by_role("button", name="Change password").click()
    expect(password.get_by_role("status")).to_contain_text("Your password is changed.")
    with platform.client(elsewhere) as http:
        assert http.get("/api/v1/auth/me").status_code == httpx2.codes.UNAUTHORIZED
    for tab in (page, beside):
        open_page(tab, "Usage")
        expect(tab.get_by_text("Nothing was asked.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    fill_in(page, member, NEW_PASSWORD)
    page.get_by_label("Your question").wait_for()


def test_a_key_is_shown_once_works_and_is_revoked(
    platform: Platform, member: str, page: Any
) -> None:
    open_page(page, "Account")
    keys = part(page, "API keys")
    expect(keys.get_by_text("You have no API keys.")).to_be_visible()
    expect(keys.get_by_label("administer: accounts of others")).to_be_hidden()
    keys.get_by_label("What for").fill("my program")
    keys.get_by_role("button", name="Make a key").click()
    dialog = page.get_by_role("dialog", name="Your new API key")
    key = dialog.get_by_label("my program").input_value()
    dialog.get_by_role("button", name="I have it").click()
    assert key not in page.content()
    with platform.client(key) as http:
        told = http.get("/api/v1/auth/me").json()
        assert told["username"] == member
        assert told["scopes"] == ["read", "write"]
        row = keys.get_by_role("listitem")
        expect(row).to_contain_text("my program")
        expect(row).to_contain_text("May read, write.")
        row.get_by_role("button", name="Revoke my program").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(row).to_contain_text("Revoked")
        expect(row.get_by_role("button", name="Revoke my program")).to_be_hidden()
        assert http.get("/api/v1/auth/me").status_code == httpx2.codes.UNAUTHORIZED


def test_a_key_may_do_what_was_chosen(platform: Platform, member: str, page: Any) -> None:
    open_page(page, "Account")
    keys = part(page, "API keys")
    keys.get_by_label("What for").fill("a reader")
    keys.get_by_label("read: history").uncheck()
    keys.get_by_label("write: ask").uncheck()
    keys.get_by_role("button", name="Make a key").click()
    expect(keys.get_by_role("alert")).to_have_text("Choose what the key may do.")
    keys.get_by_label("read: history").check()
    keys.get_by_label("For how long").select_option("Until it is revoked")
    keys.get_by_role("button", name="Make a key").click()
    key = page.get_by_role("dialog").get_by_label("a reader").input_value()
    page.get_by_role("button", name="I have it").click()
    expect(keys.get_by_role("listitem")).to_contain_text("May read. Not used yet. Does not expire.")
    with platform.client(key) as http:
        reply = http.post("/api/v1/consciousness/process", json={"prompt": "hello"})
    assert reply.status_code == httpx2.codes.FORBIDDEN


def test_sessions_are_listed_and_ended(platform: Platform, member: str, page: Any) -> None:
    elsewhere = platform.log_in(member)["access_token"]
    open_page(page, "Account")
    sessions = part(page, "Where you are signed in").get_by_role("listitem")
    expect(sessions).to_have_count(2)
    expect(sessions.filter(has_text="Chrome on Linux").get_by_text("this one")).to_be_visible()
    sessions.filter(has_text="python-httpx2").get_by_role("button", name="End").click()
    expect(sessions).to_have_count(1)
    with platform.client(elsewhere) as http:
        assert http.get("/api/v1/auth/me").status_code == httpx2.codes.UNAUTHORIZED
    page.get_by_role("button", name="Sign out everywhere").click()
    page.get_by_role("dialog").get_by_role("button", name="Sign out everywhere").click()
    page.get_by_text("You have signed out everywhere.").wait_for()


def test_ones_data_are_exported(member: str, page: Any) -> None:
    ask(page, "count to 2")
    open_page(page, "Account")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export my data").click()
    assert download.value.suggested_filename == f"{member}.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist()]
    assert any("count to 2" in text for text in texts)
    expect(page.get_by_text("Your browser has it.")).to_be_visible()


def test_an_account_is_closed(platform: Platform, member: str, page: Any) -> None:
    open_page(page, "Account")
    page.get_by_role("button", name="Close my account").click()
    dialog = page.get_by_role("dialog", name="Close your account?")
    dialog.get_by_label("Your password").fill("Wrong-Horse-7-Battery")
    dialog.get_by_role("button", name="Close my account").click()
    expect(dialog.get_by_role("alert")).to_have_text("The current password is not right.")
    dialog.get_by_label("Your password").fill(PASSWORD)
    dialog.get_by_role("button", name="Close my account").click()
    page.get_by_text("Your account is closed.").wait_for()
    fill_in(page, member)
    expect(page.get_by_role("alert")).to_have_text("Name or password is not right.")


def test_an_account_is_erased(
    platform: Platform, member: str, page: Any, new_context: Callable[..., Any]
) -> None:
    assert answer_of(ask(page, "count to 2")) == "1 2"
    open_page(page, "Account")
    page.get_by_role("button", name="Erase my account").click()
    dialog = page.get_by_role("dialog", name=f"Erase {member}?")
    expect(dialog).to_contain_text("Nobody can bring it back.")
    dialog.get_by_label("Your password").fill(PASSWORD)
    dialog.get_by_role("button", name="Erase everything").click()
    page.get_by_text("Your account and everything in it is erased.").wait_for()
    assert platform.register(member) == member  # the name is free again
    again = new_context().new_page()
    sign_in(again, member)
    expect(again.get_by_text("None yet.")).to_be_visible()
