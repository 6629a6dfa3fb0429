"""What views raise and how it is told: refusals as they are, bugs as a 500 with one log line."""

from __future__ import annotations

import pytest
from django.http import HttpRequest
from django.test import Client
from rest_framework.test import APIClient

from sovereigncore.tests.problems import REQUEST_ID, check_problem
from sovereigncore.tests.raising_urls import ERRORS
from tests.log_capture import LogCapture

with_raising_routes = pytest.mark.urls("sovereigncore.tests.raising_urls")


@with_raising_routes
def test_a_bug_is_a_500_with_one_log_line_and_nothing_of_itself(
    program: APIClient, logs: LogCapture
) -> None:
    response = program.get("/api/v1/raise/bug?secret=query-canary")
    body = check_problem(response, 500, "internal_error", "Internal Server Error")
    assert body == {"detail": "The server failed to handle this request."}
    (error,) = logs.events("unhandled_error")
    assert error["request_id"] == REQUEST_ID
    assert error["route"] == "raise"
    assert error["level"] == "error"
    assert "RuntimeError: canary-in-the-bug" in error["exception"]
    (access,) = logs.events("request")
    assert access["status"] == 500
    assert len(logs.events()) == 2
    assert "query-canary" not in logs.text


@with_raising_routes
def test_a_bug_in_a_page_is_a_page(browser: Client, logs: LogCapture) -> None:
    response = browser.get("/page/bug")
    assert response.status_code == 500
    text = response.content.decode()
    assert "<h1>Internal Server Error</h1>" in text
    assert REQUEST_ID in text
    assert "canary" not in text
    assert len(logs.events("unhandled_error")) == 1


@with_raising_routes
def test_a_bug_behind_an_openai_path_is_an_openai_error(program: APIClient) -> None:
    response = program.get("/v1/raise/bug")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert response.json()["error"]["code"] == "internal_error"


def test_a_bug_in_middleware_is_logged_too(
    program: APIClient, logs: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpRequest, "get_host", ERRORS["bug"])
    response = program.get("/api/v1/auth/me")
    check_problem(response, 500, "internal_error", "Internal Server Error")
    (error,) = logs.events("unhandled_error")
    assert error["request_id"] == REQUEST_ID


@with_raising_routes
@pytest.mark.parametrize(
    ("kind", "status", "code", "title"),
    [
        ("database", 503, "database_unavailable", "Service Unavailable"),
        ("interface", 503, "database_unavailable", "Service Unavailable"),
        ("forbidden", 403, "forbidden", "Forbidden"),
        ("missing", 404, "not_found", "Not Found"),
        ("suspicious", 400, "malformed_request", "Bad Request"),
        ("api-list", 500, "error", "Internal Server Error"),
        ("teapot", 418, "teapot", "I'm a Teapot"),
    ],
)
def test_known_errors_of_the_api(
    program: APIClient, logs: LogCapture, kind: str, status: int, code: str, title: str
) -> None:
    body = check_problem(program.get(f"/api/v1/raise/{kind}"), status, code, title)
    assert "canary" not in body["detail"]
    assert logs.events("unhandled_error") == []


@with_raising_routes
@pytest.mark.parametrize(
    ("kind", "status"), [("forbidden", 403), ("missing", 404), ("suspicious", 400), ("bad", 400)]
)
def test_known_errors_of_pages_are_no_bugs(
    browser: Client, logs: LogCapture, kind: str, status: int
) -> None:
    response = browser.get(f"/page/{kind}")
    assert response.status_code == status
    assert b"canary" not in response.content
    assert logs.events("unhandled_error") == []


@with_raising_routes
def test_retry_after_goes_with_the_error(program: APIClient) -> None:
    assert program.get("/api/v1/raise/teapot")["Retry-After"] == "7"
    assert program.get("/api/v1/raise/database")["Retry-After"] == "2"


@with_raising_routes
def test_field_errors_are_flat_lists(program: APIClient) -> None:
    nested = program.get("/api/v1/raise/validation").json()
    assert nested["status"] == 422
    assert nested["errors"] == {"outer.inner": ["First.", "Second."]}
    assert program.get("/api/v1/raise/validation-list").json()["errors"] == {"request": ["Whole."]}


@with_raising_routes
def test_openai_validation_is_a_400_that_names_the_first_field(program: APIClient) -> None:
    response = program.get("/v1/raise/validation")
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "outer.inner: First.",
        "type": "invalid_request_error",
        "param": "outer.inner",
        "code": "validation_error",
    }
