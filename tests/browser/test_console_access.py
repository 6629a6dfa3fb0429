"""Whoever uses the console, on whatever: by keyboard, by ear, on a phone, in the dark, without
scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.conftest import NETWORK_NAME
from tests.browser.console import answer_of, ask, expect, open_page, question, send, sign_in
from tests.platform import Platform
from tests.stub_engine import Behaviour, StubEngine

pytestmark = pytest.mark.browser

PHONE = {"width": 375, "height": 700}
# What is wrong with the page that is shown: fields without a label, buttons and links without a
# name, ids that are there twice, headings out of order, text that is hard to see (WCAG 2.2, 1.4.3).
FAULTS = """() => {
    const shown = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    const all = (selector) => [...document.body.querySelectorAll(selector)].filter(shown);
    const faults = [];
    for (const field of all("input, textarea, select")) {
        const isNamed = [...field.labels].some((label) => label.textContent.trim());
        if (!isNamed) faults.push(`no label: ${field.outerHTML}`);
    }
    for (const one of all("button, a")) {
        if (!(one.getAttribute("aria-label") ?? one.innerText).trim()) {
            faults.push(`no name: ${one.outerHTML}`);
        }
    }
    for (const graphic of all("svg:not([aria-hidden=true]), img:not([alt])")) {
        faults.push(`no text: ${graphic.outerHTML}`);
    }
    const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
    for (const id of ids) {
        if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`twice: #${id}`);
    }
    const levels = all("main :is(h1, h2, h3)").map((e) => Number(e.tagName[1]));
    if (levels.filter((level) => level === 1).length !== 1) faults.push(`headings: ${levels}`);
    levels.forEach((level, index) => {
        if (index && level > levels[index - 1] + 1) faults.push(`headings: ${levels}`);
    });

    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    function paint(colours) {  // one over the other
        context.clearRect(0, 0, 1, 1);
        for (const colour of colours) {
            context.fillStyle = colour;
            context.fillRect(0, 0, 1, 1);
        }
        return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    }
    function luminance(rgb) {
        const [r, g, b] = rgb.map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    }
    for (const element of all("*")) {
        const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!hasText || element.closest(":disabled, .unseen, .skip, option")) continue;
        const grounds = [];
        for (let e = element; e; e = e.parentElement) {
            grounds.unshift(getComputedStyle(e).backgroundColor);
        }
        const ground = paint(["white", ...grounds]);
        const text = paint([`rgb(${ground})`, getComputedStyle(element).color]);
        const [light, dark] = [luminance(ground), luminance(text)].sort((a, b) => b - a);
        const contrast = (light + 0.05) / (dark + 0.05);
        if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)}: ${element.outerHTML}`);
    }
    return faults;
}"""


@pytest.fixture(params=["light", "dark"])
def coloured(request: pytest.FixtureRequest, new_context: Callable[..., Any]) -> Any:
    return new_context(color_scheme=request.param).new_page()


def test_every_page_is_named_ordered_and_easy_to_see(
    stub: StubEngine, platform: Platform, coloured: Any
) -> None:
    page = coloured
    page.goto("/")
    page.get_by_role("button", name="Sign in").wait_for()
    assert page.evaluate(FAULTS) == []
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    sign_in(page, platform.register("owl" if is_dark else "eagle"))
    page.get_by_text("None yet.").wait_for()
    assert page.evaluate(FAULTS) == []
    ask(page, "Remember that I have eyes.")
    ask(page, "What about eyes?\n```\ncode\n```")
    page.get_by_text("1 memory used").click()
    stub.behave(Behaviour.BUSY_429)
    question(page).fill("x" * 10_001)
    page.get_by_text("10,001 characters").wait_for()
    question(page).fill("hello")
    question(page).press("Enter")
    page.locator("[data-slot=notice]").wait_for()
    assert page.evaluate(FAULTS) == []
    page.get_by_role("button", name="Delete").click()
    assert page.evaluate(FAULTS) == []
    page.keyboard.press("Escape")
    open_page(page, "Memory")
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("dialog").wait_for()
    assert page.evaluate(FAULTS) == []
    page.keyboard.press("Escape")
    open_page(page, "Usage")
    page.get_by_role("table").wait_for()
    assert page.evaluate(FAULTS) == []
    open_page(page, "Account")
    page.get_by_text("this one").wait_for()
    page.get_by_label("Full name").fill("\u202e")
    page.get_by_role("button", name="Save").click()
    page.locator(".field-problem").wait_for()
    page.get_by_label("What for").fill("a program")
    page.get_by_role("button", name="Make a key").click()
    page.get_by_role("dialog").wait_for()
    assert page.evaluate(FAULTS) == []


def test_the_faults_are_found_that_are_looked_for(page: Any) -> None:
    page.goto("/")
    page.get_by_role("button", name="Sign in").wait_for()
    page.evaluate(
        """() => {
            for (const tag of ["input", "button", "svg", "h1", "p"]) {
                const made = document.createElement(tag);
                made.id = "sign-in-name";
                document.querySelector("main").append(made);
            }
            const paragraph = document.querySelector("main").lastChild;
            paragraph.textContent = "hard to see";
            paragraph.style.color = "#888888";
            paragraph.style.background = "#777777";
        }"""
    )
    kinds = {fault.partition(":")[0].partition(" 1")[0] for fault in page.evaluate(FAULTS)}
    assert kinds == {"no label", "no name", "no text", "twice", "headings", "contrast"}


def test_everything_is_reached_by_keyboard(member: str, page: Any) -> None:
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(question(page)).to_be_focused()
    page.keyboard.type("count to 3")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Send")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Copy").wait_for()
    open_page(page, "Memory")
    expect(page.get_by_role("heading", level=1, name="Memory")).to_be_focused()
    order = []
    for _ in range(4):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.innerText || document.activeElement.id"))
    assert order == ["new-fact", "Remember", "find-fact", "Search"]


def test_readers_of_the_screen_are_told_what_others_see(
    stub: StubEngine, member: str, page: Any
) -> None:
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=2)
    log = page.get_by_role("log", name="Questions and answers")
    turn = send(page, "count to 4")
    expect(log).to_contain_text("1 2")
    expect(turn).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#announcer")).to_have_text("Stopped.")
    expect(turn).not_to_have_attribute("aria-busy", "true")
    stub.behave(Behaviour.NORMAL)
    ask(page, "count to 4")
    expect(page.locator("#announcer")).to_have_text("The answer is complete.")
    page.reload()
    expect(page.get_by_role("article")).to_have_count(2)
    expect(log).not_to_have_attribute("aria-busy", "true")


def test_a_phone_shows_everything(
    stub: StubEngine, platform: Platform, new_context: Callable[..., Any]
) -> None:
    page = new_context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
    page.goto("/")
    page.get_by_role("button", name="Sign in").wait_for()
    sign_in(page, platform.register("pocket"))
    side = page.get_by_role("navigation", name="Pages")
    expect(side).to_be_hidden()
    ask(page, "a-very-long-word-" * 20 + "\n```\n" + "code " * 100 + "\n```")
    _assert_fits(page)
    menu = page.get_by_role("button", name="Menu")
    for name in ("Memory", "Usage", "Account"):
        menu.tap()
        expect(menu).to_have_attribute("aria-expanded", "true")
        side.get_by_role("link", name=name).tap()
        page.get_by_role("heading", level=1, name=name).wait_for()
        expect(side).to_be_hidden()
        _assert_fits(page)
    menu.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="SovereignCore")).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_focused()
    expect(side).to_be_hidden()
    menu.tap()
    page.get_by_role("navigation", name="Conversations").get_by_role("link").tap()
    expect(page.get_by_role("article")).to_have_count(1)
    assert question(page).bounding_box()["y"] < PHONE["height"] - 30


def _assert_fits(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    too_wide = page.evaluate(
        """(width) => [...document.querySelectorAll("#main *")]
            .filter((e) => e.checkVisibility() && !e.closest("pre, .wide, .unseen"))
            .filter((e) => e.getBoundingClientRect().right > width + 1)
            .map((e) => e.outerHTML.slice(0, 80))""",
        PHONE["width"],
    )
    assert too_wide == []


def test_nothing_moves_for_who_wants_it_so(
    stub: StubEngine, platform: Platform, new_context: Callable[..., Any]
) -> None:
    page = new_context(reduced_motion="reduce").new_page()
    sign_in(page, platform.register("calm"))
    stub.behave(Behaviour.HANG_MID_STREAM, after_tokens=2)
    turn = send(page, "count to 4")
    expect(turn.locator("[data-slot=answer]")).to_have_text("1 2")
    assert page.evaluate("document.getAnimations().length") == 0
    page.get_by_role("button", name="Stop").click()
    expect(turn).to_contain_text("You stopped this answer.")


def test_without_scripts_the_page_says_so_and_leads_on(new_context: Callable[..., Any]) -> None:
    page = new_context(java_script_enabled=False).new_page()
    page.goto("/")
    # Locators by text leave out what is inside <noscript>.
    assert "The console needs JavaScript" in page.get_by_role("main").inner_text()
    for name in ("Create an account", "Forgot your password?", "Administration"):
        expect(page.get_by_role("link", name=name)).to_be_visible()
    page.get_by_role("link", name="Forgot your password?").click()
    page.get_by_role("button", name="Send me a link").wait_for()


def test_plain_http_in_a_network_does(platform: Platform, new_context: Callable[..., Any]) -> None:
    """There browsers have no locks between tabs, no clipboard and no random UUIDs."""
    page = new_context(base_url=f"http://{NETWORK_NAME}:{platform.port}").new_page()
    sign_in(page, platform.register("lan"))
    missing = page.evaluate("[navigator.locks, navigator.clipboard, crypto.randomUUID]")
    assert missing == [None, None, None]
    turn = ask(page, "count to 3")
    assert answer_of(turn) == "1 2 3"
    turn.get_by_role("button", name="Copy").click()
    turn.get_by_role("button", name="Copied").wait_for()
    question(page).press("Control+v")
    expect(question(page)).to_have_value("1 2 3")
    page.reload()
    expect(page.get_by_role("article")).to_have_count(1)
