"""What people do in the console, for tests: by labels and roles, as assistive software sees it."""

from __future__ import annotations

from typing import Any

from tests.platform import PASSWORD


def expect(what: Any) -> Any:
    """Playwright's assertions, which wait. Imported late: `make test` collects this without it."""
    from playwright.sync_api import expect as wait_until

    return wait_until(what)


def sign_in(page: Any, name: str, password: str = PASSWORD) -> None:
    """At the sign-in page; returns once the console is there."""
    page.goto("/")
    fill_in(page, name, password)
    question(page).wait_for()


def fill_in(page: Any, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Name or e-mail address").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def question(page: Any) -> Any:
    return page.get_by_label("Your question")


def send(page: Any, text: str) -> Any:
    """Ask; the turn that this made, whatever becomes of it."""
    turns = page.get_by_role("article")
    before = turns.count()
    question(page).fill(text)
    question(page).press("Enter")
    turn = turns.nth(before)
    turn.wait_for()
    return turn


def ask(page: Any, text: str) -> Any:
    """Ask and wait for the whole answer; the turn."""
    turn = send(page, text)
    turn.get_by_role("button", name="Copy").wait_for()
    return turn


def answer_of(turn: Any) -> str:
    return str(turn.locator("[data-slot=answer]").inner_text())


def begin_anew(page: Any) -> None:
    page.get_by_role("link", name="New conversation").first.click()
    page.get_by_text("What would you like to know?").wait_for()


def open_page(page: Any, name: str) -> None:
    """One of the pages beside the conversations, by its link."""
    page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
    page.get_by_role("heading", level=1, name=name).wait_for()


def titles(page: Any) -> list[str]:
    """Of the conversations listed, the latest first."""
    links = page.get_by_role("navigation", name="Conversations").get_by_role("link")
    return [str(text) for text in links.all_inner_texts()]
