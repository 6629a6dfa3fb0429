"""A real Chromium, pages that complain about nothing and ask nobody else for anything, and the
platform that the console's tests share."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.browser.console import sign_in
from tests.platform import Platform, running_platform
from tests.stub_engine import StubEngine

TIMEOUT_S = 30.0
# Chromium calls every answer of 400 and up an error; those are asked for here.
_EXPECTED = re.compile(
    r"Failed to load resource: (the server responded with a status of [45]|net::ERR_INTERNET_DISC)"
    # Of what is neither https nor this machine: Chromium ignores the header, and says so.
    r"|The Cross-Origin-Opener-Policy header has been ignored"
)
# A name that is not this machine's to the browser, as other machines of a network have.
NETWORK_NAME = "console.test"
_numbers = itertools.count(1)
_TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
    console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=TIMEOUT_S * 1000)
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    assert path, "install Chromium (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        rules = f"--host-resolver-rules=MAP {NETWORK_NAME} 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", rules])
        yield browser
        browser.close()


@pytest.fixture
def new_context(chromium: Any, platform: Platform) -> Iterator[Callable[..., Any]]:
    """`new_context(**options)`: a browser of its own, with its own cookies and storage."""
    complaints: list[str] = []
    asked: list[str] = []
    contexts: list[Any] = []

    def make(**options: Any) -> Any:
        context = chromium.new_context(**{"base_url": platform.url, **options})
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_S * 1000)
        context.on("console", lambda message: complaints.extend(_complaint(message)))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("request", lambda request: asked.append(request.url))
        context.on("response", lambda response: complaints.extend(_missing(response)))
        if options.get("java_script_enabled", True):
            context.add_init_script(_TELL_VIOLATIONS)
        return context

    yield make
    for context in contexts:
        context.close()
    assert complaints == []
    ours = (
        *(platform.url, f"blob:{platform.url}", "data:"),
        f"http://{NETWORK_NAME}:{platform.port}/",
    )
    assert [url for url in asked if not url.startswith(ours)] == []


@pytest.fixture(scope="session")
def _engine() -> Iterator[StubEngine]:
    with StubEngine() as stub:
        yield stub


@pytest.fixture(scope="session")
def platform(_engine: StubEngine) -> Iterator[Platform]:
    with running_platform(
        _engine,
        RATE_LIMIT_DEFAULT="10000/m",
        ALLOWED_HOSTS=f"127.0.0.1,{NETWORK_NAME}",
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def stub(_engine: StubEngine) -> Iterator[StubEngine]:
    """The engine behind it, well-behaved at the start of each test."""
    _engine.reset()
    yield _engine
    assert _engine.wait_idle(), "the test left a generation running"


@pytest.fixture
def page(new_context: Callable[..., Any]) -> Any:
    return new_context().new_page()


@pytest.fixture
def member(platform: Platform, page: Any) -> str:
    """The name of somebody new who is signed in on `page`."""
    name = platform.register(f"member{next(_numbers)}")
    sign_in(page, name)
    return name


def _complaint(message: Any) -> list[str]:
    is_one = message.type in ("error", "warning") and not _EXPECTED.match(message.text)
    return [message.text] if is_one else []


def _missing(response: Any) -> list[str]:
    is_missing = "/static/" in response.url and response.status not in (200, 304)
    return [f"{response.status} {response.url}"] if is_missing else []
