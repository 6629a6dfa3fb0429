"""The console as a member meets it: signing in, asking, and all that a conversation needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from tests.browser.console import (
    answer_of,
    ask,
    begin_anew,
    expect,
    fill_in,
    open_page,
    question,
    send,
    sign_in,
    titles,
)
from tests.platform import Platform
from tests.stub_engine import Behaviour, StubEngine

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="document.title=1"> </script><b>bold</b> \u202eevil &amp; {{ 7*7 }}'


def said_to(stub: StubEngine) -> list[str]:
    """What the engine was given last, message by message."""
    return [message["content"] for message in stub.ledger[-1].body["messages"]]


# --- signing in ---------------------------------------------------------------------------


def test_a_wrong_password_is_told_and_nothing_typed_is_lost(platform: Platform, page: Any) -> None:
    name = platform.register("wendy")
    page.goto("/")
    fill_in(page, name, "Wrong-Horse-7-Battery")
    expect(page.get_by_role("alert")).to_have_text("Name or password is not right.")
    expect(page.get_by_label("Name or e-mail address")).to_have_value(name)
    fill_in(page, f"{name}@example.org")
    question(page).wait_for()
    expect(page).to_have_title("New conversation · SovereignCore")


def test_somebody_without_an_account_finds_the_way_to_one(platform: Platform, page: Any) -> None:
    page.goto("/")
    page.get_by_role("link", name="Create an account").click()
    page.get_by_role("button", name="Create account").wait_for()
    page.goto("/")
    page.get_by_role("link", name="Forgot your password?").click()
    page.get_by_role("button", name="Send me a link").wait_for()


def test_a_reload_keeps_the_session_and_a_new_browser_has_none(
    member: str, page: Any, new_context: Callable[..., Any]
) -> None:
    page.reload()
    question(page).wait_for()
    stranger = new_context().new_page()
    stranger.goto("/")
    stranger.get_by_role("button", name="Sign in").wait_for()


def test_signing_out_ends_the_session_on_the_server(
    platform: Platform, member: str, page: Any
) -> None:
    with page.expect_response("**/api/v1/auth/logout") as logout:
        page.get_by_role("button", name="Sign out").click()
    assert logout.value.status == httpx2.codes.NO_CONTENT
    page.get_by_text("You have signed out.").wait_for()
    with platform.client() as http:
        reply = http.get("/api/v1/auth/me", headers=logout.value.request.all_headers())
    assert reply.status_code == httpx2.codes.UNAUTHORIZED
    page.reload()
    page.get_by_role("button", name="Sign in").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_being_signed_out_elsewhere_ends_the_console_and_keeps_what_was_written(
    platform: Platform, member: str, page: Any
) -> None:
    question(page).fill("half a thought")
    with platform.client(platform.log_in(member)["access_token"]) as http:
        assert http.delete("/api/v1/auth/sessions").status_code == httpx2.codes.NO_CONTENT
    page.get_by_role("link", name="Usage").click()
    page.get_by_text("Your session has ended. Sign in again.").wait_for()
    fill_in(page, member)
    page.get_by_role("heading", name="Usage").wait_for()
    page.get_by_role("link", name="New conversation").first.click()
    expect(question(page)).to_have_value("half a thought")


# --- asking -------------------------------------------------------------------------------


def test_an_answer_arrives_piece_by_piece(stub: StubEngine, member: str, page: Any) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=3)
    turn = send(page, "count to 5")
    answer = turn.locator("[data-slot=answer]")
    expect(answer).to_have_text("1 2 3")
    expect(turn).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Stop").click()
    expect(turn).to_contain_text("You stopped this answer.")
    stub.behave(Behaviour.SLOW)
    page.evaluate(
        """() => {
            const log = document.querySelector("[role=log]");
            window.lengths = new Set();
            new MutationObserver(() => window.lengths.add(log.innerText.length))
                .observe(log, { subtree: true, childList: true, characterData: true });
        }"""
    )
    assert answer_of(ask(page, "count to 20")) == " ".join(map(str, range(1, 21)))
    assert page.evaluate("window.lengths.size") > 5


def test_what_was_written_until_a_stop_stays_as_the_turn(
    stub: StubEngine, member: str, page: Any
) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=3)
    turn = send(page, "count to 9")
    expect(turn.locator("[data-slot=answer]")).to_have_text("1 2 3")
    page.get_by_role("button", name="Stop").click()
    expect(turn).to_contain_text("You stopped this answer.")
    assert stub.wait_idle()
    assert stub.ledger[-1].disconnected
    expect(page).to_have_url(re.compile("#/chat/"))
    stub.behave(Behaviour.NORMAL)
    ask(page, "and then?")
    assert said_to(stub) == ["count to 9", "1 2 3", "and then?"]
    page.reload()
    expect(page.get_by_role("article").first).to_contain_text("You stopped this answer.")
    expect(page.get_by_role("article").first.locator("[data-slot=answer]")).to_have_text("1 2 3")


def test_what_was_kept_is_looked_for_until_it_is_there(
    stub: StubEngine, member: str, page: Any
) -> None:
    """The history comes late, as from a server that has much to do, and once not at all."""
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=3)
    nothing = {"next": None, "previous": None, "results": []}
    answers: Iterator[dict[str, Any]] = iter([{"status": 503}, {"json": nothing}])

    def answer(route: Any) -> None:
        told = next(answers, None)
        route.fulfill(**told) if told else route.continue_()

    page.route("**/consciousness/queries?*", answer)
    turn = send(page, "count to 9")
    expect(turn.locator("[data-slot=answer]")).to_have_text("1 2 3")
    page.get_by_role("button", name="Stop").click()
    expect(turn).to_contain_text("You stopped this answer.")
    expect(page).to_have_url(re.compile("#/chat/"))
    assert next(answers, None) is None


def test_a_question_stopped_before_its_answer_began_is_there_to_be_asked_again(
    stub: StubEngine, member: str, page: Any
) -> None:
    stub.behave(Behaviour.HANG_BEFORE_FIRST_TOKEN)
    turn = send(page, "count to 3")
    expect(turn).to_contain_text("Waiting for the engine")
    page.get_by_role("button", name="Stop").click()
    expect(question(page)).to_have_value("count to 3")
    expect(page.get_by_role("article")).to_have_count(0)
    stub.behave(Behaviour.NORMAL)
    question(page).press("Enter")
    expect(page.get_by_role("article").locator("[data-slot=answer]")).to_have_text("1 2 3")


def test_a_conversation_goes_on_after_a_reload(stub: StubEngine, member: str, page: Any) -> None:
    ask(page, "What is the capital of France?")
    page.reload()
    expect(page.get_by_role("article")).to_have_count(1)
    turn = ask(page, "count to 2")
    assert answer_of(turn) == "1 2"
    expect(turn).to_contain_text("stub-model")
    expect(turn).to_contain_text("tokens")
    assert said_to(stub) == ["What is the capital of France?", "Paris.", "count to 2"]
    assert titles(page) == ["What is the capital of France?"]


def test_shift_and_enter_begin_a_new_line(stub: StubEngine, member: str, page: Any) -> None:
    question(page).press_sequentially("one")
    before = question(page).bounding_box()["height"]
    question(page).press("Shift+Enter")
    question(page).press_sequentially("two")
    expect(question(page)).to_have_value("one\ntwo")
    assert question(page).bounding_box()["height"] > before
    question(page).press("Enter")
    expect(page.get_by_role("article").locator("[data-slot=prompt]")).to_have_text("one\ntwo")
    expect(page.get_by_role("button", name="Copy")).to_be_visible()


def test_an_answer_goes_on_while_one_looks_elsewhere(
    stub: StubEngine, member: str, page: Any
) -> None:
    stub.behave(Behaviour.SLOW)
    send(page, "count to 30")
    open_page(page, "Memory")
    page.go_back()
    turn = page.get_by_role("article")
    expect(turn).to_have_count(1)
    turn.get_by_role("button", name="Copy").wait_for()
    assert answer_of(turn).endswith(" 29 30")
    assert titles(page) == ["count to 30"]


def test_another_tab_shows_the_answer_once_it_is_there(
    stub: StubEngine, member: str, page: Any
) -> None:
    ask(page, "count to 1")
    stub.behave(Behaviour.SLOW)
    send(page, "count to 40")
    beside = page.context.new_page()
    beside.goto(page.url)
    expect(beside.get_by_text("An answer is being written …")).to_be_visible()
    expect(beside.get_by_role("article")).to_have_count(2)
    assert answer_of(beside.get_by_role("article").last).endswith(" 39 40")
    expect(beside.get_by_text("An answer is being written …")).to_be_hidden()


def test_a_reload_stops_an_answer_and_shows_what_was_written(
    stub: StubEngine, member: str, page: Any
) -> None:
    ask(page, "count to 1")
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=3)
    turn = send(page, "count to 9")
    expect(turn.locator("[data-slot=answer]")).to_have_text("1 2 3")
    page.reload()
    turn = page.get_by_role("article").nth(1)
    expect(turn).to_contain_text("You stopped this answer.")
    expect(turn.locator("[data-slot=answer]")).to_have_text("1 2 3")


def test_an_answer_is_copied_as_it_was_written(
    stub: StubEngine, platform: Platform, new_context: Callable[..., Any]
) -> None:
    page = new_context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    sign_in(page, platform.register("copia"))
    turn = ask(page, "two\n\nparagraphs and\n```\ncode\n```")
    turn.get_by_role("button", name="Copy").click()
    turn.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == "Echo: two\n\nparagraphs and\n```\ncode\n```"
    expect(turn.locator("[data-slot=answer] pre code")).to_have_text("code")


# --- what goes wrong ----------------------------------------------------------------------


def test_a_busy_engine_is_told_with_its_time_and_the_question_is_kept(
    stub: StubEngine, platform: Platform, page: Any
) -> None:
    page.clock.install()
    sign_in(page, platform.register("busy"))
    stub.behave(Behaviour.BUSY_429)
    question(page).fill("count to 4")
    question(page).press("Enter")
    notice = page.locator("[data-slot=notice]")
    expect(notice).to_contain_text("The engine is busy. Try again in ")
    expect(question(page)).to_have_value("count to 4")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    stub.behave(Behaviour.NORMAL)
    page.clock.fast_forward(8000)
    expect(notice).to_have_text("The engine is busy. Try again now.")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("article").locator("[data-slot=answer]")).to_have_text("1 2 3 4")
    expect(notice).to_be_hidden()


def test_an_answer_that_breaks_off_says_so_and_can_be_asked_for_again(
    stub: StubEngine, member: str, page: Any
) -> None:
    stub.behave(Behaviour.ERROR_MID_STREAM, after_tokens=2)
    turn = send(page, "count to 6")
    expect(turn).to_contain_text("Interrupted: The engine sent something that cannot be used.")
    expect(turn.locator("[data-slot=answer]")).to_have_text("1 2")
    stub.behave(Behaviour.NORMAL)
    turn.get_by_role("button", name="Try again").click()
    second = page.get_by_role("article").nth(1)
    expect(second.locator("[data-slot=answer]")).to_have_text("1 2 3 4 5 6")
    page.reload()
    turn = page.get_by_role("article").first
    expect(turn).to_contain_text("Interrupted: The engine sent something that cannot be used.")
    question(page).fill("half a thought")
    turn.get_by_role("button", name="Try again").click()
    third = page.get_by_role("article").nth(2)
    expect(third.locator("[data-slot=answer]")).to_have_text("1 2 3 4 5 6")
    expect(question(page)).to_have_value("half a thought")


def test_a_server_that_cannot_be_reached_costs_nothing_written(member: str, page: Any) -> None:
    page.context.set_offline(True)
    question(page).fill("hello?")
    question(page).press("Enter")
    expect(page.locator("[data-slot=notice]")).to_have_text("The server cannot be reached.")
    expect(question(page)).to_have_value("hello?")
    page.context.set_offline(False)
    question(page).press("Enter")
    expect(page.get_by_role("article")).to_contain_text("Echo: hello?")


def test_a_question_that_is_too_long_is_told_before_it_is_sent(member: str, page: Any) -> None:
    question(page).fill("x" * 10_001)
    expect(page.get_by_text("10,001 characters of 10,000 possible ones.")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    question(page).fill("\N{PARTY POPPER}" * 10_000)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


@pytest.mark.parametrize(
    ("mode", "words"), [("conserving", "saving resources"), ("survival", "takes no questions")]
)
def test_a_server_in_need_is_told_quietly(
    platform: Platform, member: str, page: Any, mode: str, words: str
) -> None:
    page.route("**/consciousness/state", lambda route: route.fulfill(json={"cognitive_mode": mode}))
    page.reload()
    expect(page.locator("[data-slot=banner]")).to_contain_text(words)


# --- conversations ------------------------------------------------------------------------


def test_conversations_are_listed_by_their_last_activity_and_opened(
    stub: StubEngine, member: str, page: Any
) -> None:
    for number in (1, 2):
        ask(page, f"count to {number}")
        begin_anew(page)
    assert titles(page) == ["count to 2", "count to 1"]
    page.get_by_role("link", name="count to 1").click()
    expect(page.get_by_role("article").locator("[data-slot=answer]")).to_have_text("1")
    expect(page.get_by_role("link", name="count to 1")).to_have_attribute("aria-current", "page")
    ask(page, "and more")
    expect(
        page.get_by_role("navigation", name="Conversations").get_by_role("link").first
    ).to_have_text("count to 1")
    assert titles(page) == ["count to 1", "count to 2"]


def test_older_conversations_and_turns_are_loaded_when_asked_for(
    stub: StubEngine, platform: Platform, page: Any
) -> None:
    name = platform.register("prolific")
    with platform.client(platform.log_in(name)["access_token"]) as http:
        path = "/api/v1/consciousness/process"
        for number in range(32):
            reply = http.post(path, json={"prompt": f"talk {number}", "conversation": "new"})
        for number in range(21):
            turn = {"prompt": f"turn {number}", "conversation": reply.json()["conversation"]}
            assert http.post(path, json=turn).status_code == httpx2.codes.OK
    sign_in(page, name)
    links = page.get_by_role("navigation", name="Conversations").get_by_role("link")
    expect(links).to_have_count(30)
    page.get_by_role("button", name="Show more").click()
    expect(links).to_have_count(32)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    expect(links.nth(30)).to_be_focused()
    links.first.click()
    turns = page.get_by_role("article")
    expect(turns).to_have_count(20)
    expect(turns.last).to_contain_text("turn 20")
    page.get_by_role("button", name="Show earlier ones").click()
    expect(turns).to_have_count(22)
    expect(turns.first).to_contain_text("talk 31")
    expect(page.get_by_role("button", name="Show earlier ones")).to_be_hidden()


def test_a_conversation_is_renamed(stub: StubEngine, member: str, page: Any) -> None:
    ask(page, "hello")
    page.get_by_role("button", name="Rename").click()
    dialog = page.get_by_role("dialog", name="Rename the conversation")
    expect(dialog.get_by_label("Title")).to_have_value("hello")
    dialog.get_by_label("Title").fill("Greetings")
    dialog.get_by_label("Title").press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_have_text("Greetings")
    assert titles(page) == ["Greetings"]
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Greetings")


def test_a_conversation_is_deleted_once_that_is_confirmed(
    stub: StubEngine, member: str, page: Any
) -> None:
    ask(page, "hello")
    url = page.url
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("article")).to_have_count(1)
    expect(page.get_by_role("button", name="Delete")).to_be_focused()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("What would you like to know?").wait_for()
    assert titles(page) == []
    page.goto(url)
    expect(page.get_by_text("There is no such conversation.")).to_be_visible()


# --- whose words they are -----------------------------------------------------------------


def test_hostile_words_are_only_words(stub: StubEngine, member: str, page: Any) -> None:
    turn = ask(page, HOSTILE)
    assert answer_of(turn) == f"Echo: {HOSTILE}"
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill(HOSTILE)
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    assert titles(page) == [HOSTILE]
    page.reload()
    expect(page.get_by_role("article")).to_contain_text(HOSTILE)
    open_page(page, "Memory")
    page.get_by_label("New fact").fill(HOSTILE)
    page.get_by_role("button", name="Remember").click()
    expect(page.get_by_role("list", name="Facts").get_by_role("listitem")).to_contain_text(HOSTILE)
    page.get_by_role("button", name="Forget").click()
    expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
    page.keyboard.press("Escape")
    assert page.locator("#console :is(img, script, b:not([data-slot]))").count() == 0
    # Turned round inside its own line, and nowhere else.
    assert page.locator("#console bdi").first.evaluate("e => getComputedStyle(e).unicodeBidi") == (
        "isolate"
    )
