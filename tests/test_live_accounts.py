"""Accounts under attack, against real processes: whose object it is, races, limits, leaks."""

from __future__ import annotations

import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.platform import PASSWORD, Platform, running_platform, until_heard
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.xdist_group(__name__)

REGISTER = "/api/v1/users/register"
TOKEN = "/api/v1/auth/token"
KEYS, SESSIONS = "/api/v1/keys", "/api/v1/auth/sessions"
QUERIES = "/api/v1/consciousness/queries"


def told(reply: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that a caller can learn from an answer, but for what counts requests and time."""
    request_id = reply.headers["X-Request-ID"]
    headers = {
        name: value
        for name, value in reply.headers.items()
        if "ratelimit" not in name and name not in ("date", "x-request-id")
    }
    return reply.status_code, reply.content.replace(request_id.encode(), b""), headers


# --- Whose it is -----------------------------------------------------------------------------


def test_somebody_elses_object_is_none(platform: Platform) -> None:
    owner, thief = (
        platform.register_and_log_in(f"{word}-{uuid.uuid4().hex[:8]}")
        for word in ("owner", "thief")
    )
    with platform.client(owner) as http:
        me = http.get("/api/v1/auth/me").json()["username"]
        made = http.post(KEYS, json={"name": "k", "scopes": ["read"]}).json()
        asked = http.post("/api/v1/consciousness/process", json={"prompt": "mine"}).json()
        session = http.get(SESSIONS).json()["results"][0]["id"]
    theirs = {
        f"{KEYS}/{{}}": made["id"],
        f"{SESSIONS}/{{}}": session,
        f"{QUERIES}/{{}}": asked["query_id"],
        **{
            f"/api/v1/users/{{}}{action}": me
            for action in ("", "/disable", "/enable", "/sign-out", "/send-reset")
        },
    }
    with platform.client(thief) as http:
        for path, known in theirs.items():
            unknown = "nobody-at-all" if "/users/" in path else str(uuid.uuid4())
            for method in ("GET", "HEAD", "PATCH", "PUT", "POST", "DELETE"):
                answers = [
                    told(http.request(method, path.format(name), json={}))
                    for name in (known, unknown)
                ]
                assert answers[0] == answers[1], (method, path)
                assert answers[0][0] in range(400, 500), (method, path)
        for path in (KEYS, QUERIES):
            assert http.get(path).json()["results"] == []
    with platform.client(owner) as http:
        assert http.get("/api/v1/auth/me").json()["username"] == me
        assert [key["revoked_at"] for key in http.get(KEYS).json()["results"]] == [None]
        assert len(http.get(QUERIES).json()["results"]) == 1


def test_many_at_once_see_their_own_and_nothing_else(platform: Platform) -> None:
    """On every route that says something of who asks, over all processes."""

    def live(number: int) -> int:
        canary = f"canary{number:02d}x{uuid.uuid4().hex[:10]}"
        token = platform.register_and_log_in(canary)
        looked = 0
        with platform.client(token) as http:
            assert http.patch("/api/v1/users/me", json={"full_name": canary}).is_success
            made = http.post(KEYS, json={"name": canary, "scopes": ["read"]}).json()
            paths = ["/api/v1/auth/me", "/api/v1/users/me", KEYS, f"{KEYS}/{made['id']}"]
            paths += [f"/api/v1/users/{canary}"]
            for _ in range(10):
                for path in paths:
                    text = http.get(path).text
                    assert text.count("canary") == text.count(canary) > 0, path
                    looked += 1
            refused = http.get("/api/v1/users/nobody-at-all").text
            assert "canary" not in refused
        return looked

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(live, range(8))) == 8 * 10 * 5


# --- Races -----------------------------------------------------------------------------------


def spelling(word: str, number: int) -> str:
    """`word` with the case of its letters by the bits of `number`."""
    return "".join(char.upper() if number >> place & 1 else char for place, char in enumerate(word))


def wide(word: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) for char in word)


@pytest.mark.parametrize("same", ["name", "address"])
def test_sixteen_spellings_of_one_identity_make_one_account(platform: Platform, same: str) -> None:
    run = uuid.uuid4().hex[:8]
    names = [spelling("registrant", number) + run for number in range(16)]
    domains = ["example.org", wide("example") + ".org", "EXAMPLE.org", "example." + wide("org")]
    addresses = [
        f"{spelling('someone', number)}{run}@{domains[number % 4]}" for number in range(16)
    ]
    if same == "name":
        addresses = [f"{number}-{address}" for number, address in enumerate(addresses)]
    else:
        names = [f"{name}-{number}" for number, name in enumerate(names)]

    def register(number: int) -> int:
        body = {"username": names[number], "email": addresses[number], "password": PASSWORD}
        with platform.client() as http:
            status: int = until_heard(lambda: http.post(REGISTER, json=body)).status_code
        return status

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(register, range(16)))
    assert statuses.count(201) == 1
    assert statuses.count(409) == 15


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("username", "\u0430dmin"), ("username", wide("admin")), ("username", "adm\u0131n")),
        *(("username", "admin\u200b"), ("username", "ad\u00admin"), ("username", "ad min")),
        *(("email", "a@exam\u034fple.org"), ("email", "a@exam\ufe0fple.org")),
        *(("email", "\u0430@example.org"), ("email", "a@xn--mller-kva.example")),
    ],
)
def test_what_only_looks_like_a_name_or_an_address_is_none(
    platform: Platform, field: str, value: str
) -> None:
    body = {"username": "somebody", "email": "somebody@example.org", "password": PASSWORD}
    with platform.client() as http:
        refused = http.post(REGISTER, json={**body, field: value})
    assert refused.status_code == httpx2.codes.UNPROCESSABLE_CONTENT, refused.text
    assert list(refused.json()["errors"]) == [field]


# --- Limits ----------------------------------------------------------------------------------


def test_logins_are_counted_exactly_over_all_processes(live_stub: StubEngine) -> None:
    """Whatever address they claim, and whichever account they are at."""
    processes = "4" if os.environ.get("REDIS_URL") else "1"
    with running_platform(
        live_stub, RATE_LIMIT_AUTH="5/h", RATE_LIMIT_DEFAULT="1000/m", WEB_CONCURRENCY=processes
    ) as platform:

        def guess(number: int) -> tuple[int, Any]:
            spoofed = {
                "X-Forwarded-For": f"203.0.113.{number}",
                "X-Real-IP": f"203.0.113.{number}",
                "Forwarded": f"for=203.0.113.{number}",
            }
            form = {"username": f"user-{number}", "password": "Wrong-Horse-7"}
            with platform.client() as http:
                reply = until_heard(lambda: http.post(TOKEN, data=form, headers=spoofed))
            return reply.status_code, reply.json()

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(guess, range(200)))
    statuses = [status for status, _ in answers]
    assert statuses.count(401) == 5
    assert statuses.count(429) == 195
    refusals = [
        json.dumps(body) for status, body in answers if status == httpx2.codes.TOO_MANY_REQUESTS
    ]
    assert not [text for text in refusals if "user-" in text]
