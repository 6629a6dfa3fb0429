"""Engines changed in the admin site of a running platform: every web process follows, unstarted."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.platform import Platform
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.xdist_group(__name__)

STATE = "/api/v1/consciousness/state"
PROCESS = "/api/v1/consciousness/process"
ENGINES = "/admin/consciousness/upstream/"
EVERYWHERE_WITHIN_S = 2.0
BACK_WITHIN_S = 5.0
# So many answers in a row, each over a connection of its own, come from both processes.
IN_A_ROW = 24
QUESTIONS = 24


@pytest.fixture
def site(platform: Platform) -> Iterator[httpx2.Client]:
    """A browser in which an administrator has signed in."""
    name = f"admin-{uuid.uuid4().hex[:8]}"
    platform.register(name)
    made = platform.manage(
        "shell",
        "-c",
        "from accounts.models import User;"
        f"User.objects.filter(username='{name}').update(is_staff=True, is_superuser=True)",
    )
    assert made.returncode == 0, made.stderr
    with platform.client() as browser:
        submit(browser, "/admin/login/", username=name, password="Correct-Horse-7-Battery")
        yield browser


@pytest.fixture
def second() -> Iterator[StubEngine]:
    with StubEngine() as engine:
        yield engine


def submit(browser: httpx2.Client, path: str, **fields: str) -> None:
    page = browser.get(path).text
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert token is not None, page
    done = browser.post(path, data={**fields, "csrfmiddlewaretoken": token[1]})
    assert done.status_code == httpx2.codes.FOUND, done.text


def statuses(platform: Platform, token: str) -> dict[str, str]:
    with platform.client(token) as http:
        body = http.get(STATE).json()
    return {engine["name"]: engine["status"] for engine in body["engines"]}


def ask_many(platform: Platform, token: str) -> list[int]:
    """The statuses of so many questions, four at a time, each over a connection of its own."""

    def ask(number: int) -> int:
        with platform.client(token) as http:
            return http.post(PROCESS, json={"prompt": f"Count to {number}"}).status_code

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, range(1, QUESTIONS + 1)))


def everywhere(is_so: Callable[[], bool], *, within_s: float) -> None:
    """No process says otherwise `within_s` from now, nor so many answers later."""
    began_s, last_otherwise_s, in_a_row = time.monotonic(), 0.0, 0
    while in_a_row < IN_A_ROW:
        asked_s = time.monotonic() - began_s
        if is_so():
            in_a_row += 1
        else:
            in_a_row, last_otherwise_s = 0, asked_s
            assert asked_s < within_s
    assert last_otherwise_s < within_s


def test_an_engine_comes_dies_returns_and_goes_without_a_restart(
    platform: Platform, site: httpx2.Client, second: StubEngine
) -> None:
    token = platform.register_and_log_in(f"user-{uuid.uuid4().hex[:12]}")
    submit(
        site,
        f"{ENGINES}add/",
        name="second",
        address=second.url,
        api_key=second.api_key,
        slots="2",
        weight="100",
        priority="0",
        is_enabled="on",
    )
    row = re.search(rf"{ENGINES}([0-9a-f-]{{36}})/change/", site.get(ENGINES).text)
    assert row is not None
    try:
        everywhere(
            lambda: statuses(platform, token) == {"default": "up", "second": "up"},
            within_s=EVERYWHERE_WITHIN_S,
        )
        assert ask_many(platform, token) == [httpx2.codes.OK] * QUESTIONS
        assert len(second.ledger) > 0
        second.stop()
        # Whom it would have answered, the other one answers.
        assert ask_many(platform, token) == [httpx2.codes.OK] * QUESTIONS
        everywhere(
            lambda: statuses(platform, token) == {"default": "up", "second": "open"},
            within_s=EVERYWHERE_WITHIN_S,
        )
        with platform.client() as http:
            assert http.get("/ready").status_code == httpx2.codes.OK
        second.start()
        everywhere(
            lambda: statuses(platform, token) == {"default": "up", "second": "up"},
            within_s=BACK_WITHIN_S,
        )
        before = len(second.ledger)
        assert ask_many(platform, token) == [httpx2.codes.OK] * QUESTIONS
        assert len(second.ledger) > before
        with platform.client() as http:
            metrics = http.get("/metrics").text
        assert 'sovereigncore_engine_up{engine="second"} 1.0' in metrics
        assert 'sovereigncore_engine_breaker_open{engine="second"} 0.0' in metrics
        assert second.api_key not in "\n".join(platform.log_lines())
    finally:
        submit(site, f"{ENGINES}{row[1]}/delete/", post="yes")
    everywhere(lambda: statuses(platform, token) == {"default": "up"}, within_s=EVERYWHERE_WITHIN_S)
