"""What browsers and caches are told, on every kind of answer."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from conftest import PASSWORD
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.once

ME = "/api/v1/auth/me"
EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PAGES = ["/", "/nope", "/admin/login/", "/live", "/metrics", "/api/docs", "/api/v1/nope", "/v1/x"]
PAGES += ["/.well-known/jwks.json", ME, "/static/sovereigncore/site.css"]
CHAT = "/v1/chat/completions"
ORIGIN = "https://app.example.org"


@pytest.fixture
def browser(settings: Settings, tmp_path: Path) -> Client:
    """A browser, and a static file for it."""
    file = tmp_path / "sovereigncore/site.css"
    file.parent.mkdir()
    file.write_text("body { margin: 0 }")
    settings.STATIC_ROOT = tmp_path
    return Client(headers={"Accept": "text/html,*/*;q=0.8"})


def directives(policy: str) -> dict[str, str]:
    pairs = (part.strip().partition(" ") for part in policy.split(";") if part.strip())
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_has_the_security_headers(browser: Client, db: None, path: str) -> None:
    response = browser.get(path)
    for name, value in EVERYWHERE.items():
        assert response[name] == value
    policy = directives(response["Content-Security-Policy"])
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert "unsafe" not in response["Content-Security-Policy"]
    assert "http" not in response["Content-Security-Policy"]
    assert "camera=()" in response["Permissions-Policy"]
    assert uuid.UUID(response["X-Request-ID"]).version == 4
    assert "Server" not in response
    assert "X-Powered-By" not in response


@pytest.mark.parametrize("path", [path for path in PAGES if "static" not in path])
def test_no_page_may_be_framed(browser: Client, db: None, path: str) -> None:
    assert browser.get(path)["X-Frame-Options"] == "DENY"


def test_the_admin_has_the_same_policy(staff: User, browser: Client) -> None:
    browser.force_login(staff)
    response = browser.get("/admin/")
    assert response.status_code == 200
    assert "unsafe" not in response["Content-Security-Policy"]
    assert response["Cache-Control"].startswith("max-age=0, no-cache, no-store")


@pytest.mark.parametrize("path", ["/", "/nope", "/admin/login/", "/api/docs"])
def test_pages_need_nothing_that_the_policy_forbids(browser: Client, db: None, path: str) -> None:
    """No inline script or style, and nothing from another origin."""
    text = browser.get(path).content.decode()
    assert "<html" in text
    for forbidden in ("<style", " style=", " onclick=", " onload=", 'src="http', 'src="//'):
        assert forbidden not in text
    for script in text.split("<script")[1:]:
        assert " src=" in script.partition(">")[0]
    for link in text.split("<link")[1:]:
        assert "http" not in link.partition(">")[0]


def test_https_is_demanded_for_a_year(anonymous: APIClient, settings: Settings) -> None:
    settings.SECURE_HSTS_SECONDS = 31_536_000
    settings.SECURE_SSL_REDIRECT = True
    secure = anonymous.get("/nope", secure=True)
    assert secure["Strict-Transport-Security"] == "max-age=31536000"
    plain = anonymous.get("/nope")
    assert plain.status_code == 301
    assert plain["Location"] == "https://testserver/nope"
    assert [anonymous.get(path).status_code for path in ("/live", "/live/")] == [200, 200]


@pytest.mark.parametrize(
    "request_id",
    ["12345678", "a" * 64, "A-b-3-4-5", "--------", "0f8fad5b-d9cb-469f-a165-70867728950e"],
)
def test_a_well_formed_request_id_is_kept(anonymous: APIClient, request_id: str) -> None:
    assert anonymous.get("/live", HTTP_X_REQUEST_ID=request_id)["X-Request-ID"] == request_id


@pytest.mark.parametrize(
    "request_id",
    [
        *("", "1234567", "a" * 65, "with space", "under_score", "dot.dot.dot", "12345678\n"),
        *("<script>alert(1)</script>", "12345678\r\nSet-Cookie: a=b", "\u0661" * 8, "ümläute-ü"),
    ],
)
def test_any_other_request_id_is_replaced(anonymous: APIClient, request_id: str) -> None:
    given = anonymous.get("/live", HTTP_X_REQUEST_ID=request_id)["X-Request-ID"]
    assert given != request_id
    assert uuid.UUID(given).version == 4


@pytest.mark.parametrize("path", [ME, "/api/v1/nope", "/v1/nope", "/api/v1/consciousness/queries"])
def test_answers_to_callers_with_credentials_are_not_stored(as_alice: APIClient, path: str) -> None:
    assert as_alice.get(path)["Cache-Control"] == "no-store"


def test_an_answer_to_credentials_is_not_stored_wherever_they_were_sent(
    as_alice: APIClient,
) -> None:
    assert as_alice.get("/")["Cache-Control"] == "no-store"
    assert as_alice.get("/nope")["Cache-Control"] == "no-store"


def test_refusals_and_answers_of_the_model_are_not_stored(
    anonymous: APIClient, as_alice: APIClient, stub: StubEngine
) -> None:
    assert anonymous.get(ME)["Cache-Control"] == "no-store"
    body: dict[str, Any] = {"prompt": "hi"}
    whole = as_alice.post("/api/v1/consciousness/process", body)
    assert whole["Cache-Control"] == "no-store"
    streamed = as_alice.post("/api/v1/consciousness/process", {**body, "stream": True})
    assert streamed["Cache-Control"] == "no-store"
    assert streamed["X-Accel-Buffering"] == "no"
    b"".join(streamed)


def test_keys_that_everybody_may_know_are_stored_for_a_while(anonymous: APIClient) -> None:
    assert anonymous.get("/.well-known/jwks.json")["Cache-Control"] == "public, max-age=300"


def preflight(client: APIClient, origin: str, path: str = ME) -> Any:
    return client.options(
        path,
        HTTP_ORIGIN=origin,
        HTTP_ACCESS_CONTROL_REQUEST_METHOD="GET",
        HTTP_ACCESS_CONTROL_REQUEST_HEADERS="authorization",
    )


def test_a_listed_origin_may_read_the_api(as_alice: APIClient, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    response = as_alice.get(ME, HTTP_ORIGIN=ORIGIN)
    assert response.status_code == 200
    assert response["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Credentials" not in response
    exposed = response["Access-Control-Expose-Headers"].split(", ")
    assert {"X-Request-ID", "Retry-After", "Idempotent-Replayed"} <= set(exposed)
    assert "origin" in response["Vary"]
    allowed = preflight(as_alice, ORIGIN)
    assert allowed.status_code == 200
    assert allowed["Access-Control-Allow-Origin"] == ORIGIN
    sendable = allowed["Access-Control-Allow-Headers"].split(", ")
    assert {"authorization", "content-type", "idempotency-key"} <= set(sendable)


# With each request; "helper-method" where an answer is streamed by its `stream()`.
OPENAI_CLIENT_SENDS = {
    *("accept", "authorization", "content-type", "x-stainless-arch", "x-stainless-helper-method"),
    *("x-stainless-lang", "x-stainless-os", "x-stainless-package-version"),
    *("x-stainless-retry-count", "x-stainless-runtime", "x-stainless-runtime-version"),
    "x-stainless-timeout",
}


def test_a_page_may_use_openais_client(
    as_alice: APIClient, settings: Settings, stub: StubEngine
) -> None:
    settings.CORS_ALLOWED_ORIGINS, settings.DAILY_TOKEN_QUOTA = [ORIGIN], 100
    allowed = preflight(as_alice, ORIGIN, path=CHAT)["Access-Control-Allow-Headers"]
    assert set(allowed.split(", ")) >= OPENAI_CLIENT_SENDS
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 500}
    refused = as_alice.post(CHAT, asked, HTTP_ORIGIN=ORIGIN)
    assert refused.status_code == 429
    sent = {name for name in refused.headers if name.startswith("x-")}
    assert len(sent) == 7
    assert sent <= set(refused["Access-Control-Expose-Headers"].split(", "))


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "https://app.example.org.evil.example", "null", "*", ""),
        *("http://app.example.org", "https://APP.example.org:444", "https://xapp.example.org"),
    ],
)
def test_no_other_origin_may(as_alice: APIClient, settings: Settings, origin: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    for response in (as_alice.get(ME, HTTP_ORIGIN=origin), preflight(as_alice, origin)):
        assert response.status_code == 200
        assert not [name for name in response.headers if name.startswith("Access-Control")]


def test_no_origin_may_by_default(as_alice: APIClient) -> None:
    assert "Access-Control-Allow-Origin" not in as_alice.get(ME, HTTP_ORIGIN=ORIGIN)


@pytest.mark.parametrize("path", ["/", "/metrics", "/admin/login/", "/api/schema", "/nope"])
def test_only_the_api_is_open_to_other_origins(
    as_alice: APIClient, settings: Settings, path: str
) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]
    assert "Access-Control-Allow-Origin" not in as_alice.get(path, HTTP_ORIGIN=ORIGIN)


def test_cookies_of_the_admin_are_not_for_scripts(staff: User, browser: Client) -> None:
    form = {"username": staff.username, "password": PASSWORD}
    response = browser.post("/admin/login/", form)
    assert response.status_code == 302
    assert sorted(response.cookies) == ["csrftoken", "sessionid"]
    for cookie in response.cookies.values():
        assert cookie["httponly"] is True
        assert cookie["samesite"] == "Lax"


def test_the_front_page_is_for_people_and_for_programs(
    browser: Client, anonymous: APIClient
) -> None:
    assert b"<h1>SovereignCore</h1>" in browser.get("/").content
    assert anonymous.get("/").json()["name"] == "SovereignCore"
    for path in ("/", "/nope"):
        assert "Accept" in anonymous.get(path)["Vary"]
        assert "Accept" in browser.get(path)["Vary"]
