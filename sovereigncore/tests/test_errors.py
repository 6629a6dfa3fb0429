"""One error, the shape that its path promises: RFC 6749, OpenAI, a page, or problem details."""

from __future__ import annotations

import io
from typing import Any, NoReturn

import pytest
from django.test import Client
from rest_framework.test import APIClient

from sovereigncore.tests.problems import REQUEST_ID, check_problem
from tests.log_capture import LogCapture


@pytest.mark.parametrize(
    "where", ["/nope", "/api", "/api/", "/api/v2/x", "/api/v1/", "/api/v1/auth", "/V1/models"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
def test_an_unknown_path_is_a_problem(program: APIClient, where: str, method: str) -> None:
    body = check_problem(program.generic(method, where), 404, "not_found", "Not Found")
    assert body == {"detail": "Not found."}


@pytest.mark.parametrize("where", ["/v1", "/v1/", "/v1/responses", "/v1/audio/speech/"])
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_an_unknown_openai_path_is_an_openai_error(
    program: APIClient, where: str, accept: str
) -> None:
    response = program.post(where, {}, HTTP_ACCEPT=accept)
    assert response.status_code == 404
    assert response["Content-Type"] == "application/json"
    assert response.json() == {
        "error": {
            "message": "Not found.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        }
    }


def test_an_unknown_page_is_a_page_for_browsers(browser: Client) -> None:
    response = browser.get("/nope/<script>")
    assert response.status_code == 404
    assert response["Content-Type"] == "text/html; charset=utf-8"
    text = response.content.decode()
    assert "<h1>Not Found</h1>" in text
    assert REQUEST_ID in text
    assert "<script>" not in text


def test_an_unknown_api_path_is_a_problem_for_browsers_too(browser: Client) -> None:
    check_problem(browser.get("/api/v1/nope"), 404, "not_found", "Not Found")


@pytest.mark.parametrize(
    "where", ["/", "/live", "/ready/", "/metrics", "/admin", "/api/v1/auth/me"]
)
def test_a_method_that_does_not_exist_is_a_problem(as_alice: APIClient, where: str) -> None:
    response = as_alice.generic("BREW", where, HTTP_X_REQUEST_ID=REQUEST_ID)
    body = check_problem(response, 405, "method_not_allowed", "Method Not Allowed")
    assert body == {"detail": 'Method "BREW" not allowed.'}
    assert "GET" in response["Allow"]


def test_a_method_that_does_not_exist_comes_before_forgery_checks(browser: Client) -> None:
    assert [browser.post(where).status_code for where in ("/", "/live", "/admin")] == [405] * 3


@pytest.mark.parametrize("where", ["/api/v1/auth/token", "/api/v1/auth/token/refresh/"])
def test_token_routes_speak_rfc_6749(program: APIClient, db: None, where: str) -> None:
    wrong_method = program.get(where)
    assert wrong_method.status_code == 405
    assert wrong_method.json() == {
        "error": "method_not_allowed",
        "error_description": 'Method "GET" not allowed.',
        "detail": 'Method "GET" not allowed.',
    }
    wrong_type = program.post(where, b"<a/>", content_type="text/xml")
    assert wrong_type.status_code == 415
    assert wrong_type.json()["error"] == "unsupported_media_type"
    malformed = program.post(where, b"{", content_type="application/json")
    assert malformed.status_code == 400
    assert malformed.json()["error"] == "invalid_request"
    assert malformed.json()["detail"] == malformed.json()["error_description"]
    too_large = program.post(where, {"a": "x" * 1_100_000})
    assert too_large.status_code == 413
    assert too_large.json()["error"] == "body_too_large"


def test_the_media_type_is_refused_as_a_problem(as_alice: APIClient) -> None:
    response = as_alice.post(
        "/api/v1/consciousness/process",
        b"prompt=hi",
        content_type="application/x-www-form-urlencoded",
        HTTP_X_REQUEST_ID=REQUEST_ID,
    )
    check_problem(response, 415, "unsupported_media_type", "Unsupported Media Type")


@pytest.mark.parametrize(
    "host", ["evil.example", "testserver.evil.example", "testserver@evil", "a b", "[::", "x" * 9000]
)
def test_a_foreign_host_is_refused_in_every_shape(
    program: APIClient, browser: Client, host: str
) -> None:
    for where in ("/", "/live", "/api/v1/auth/me", "/static/x", "/nope"):
        response = program.get(where, HTTP_HOST=host)
        body = check_problem(response, 400, "bad_host", "Bad Request")
        assert body == {"detail": "This host name is not served here."}
    assert program.get("/v1/models", HTTP_HOST=host).json()["error"]["code"] == "bad_host"
    token = program.post("/api/v1/auth/token", {}, HTTP_HOST=host)
    assert token.json()["error"] == "bad_host"
    page = browser.get("/", headers={"Host": host})
    assert page.status_code == 400
    assert b"<h1>Bad Request</h1>" in page.content


def test_a_form_without_its_token_is_refused_as_a_page(browser: Client, db: None) -> None:
    response = browser.post("/admin/login/", {"username": "a", "password": "b"})
    assert response.status_code == 403
    assert b"<h1>Forbidden</h1>" in response.content
    assert b"Reload the page" in response.content


def test_an_upload_that_breaks_off_is_no_bug(as_alice: APIClient, logs: LogCapture) -> None:
    class Gone(io.BytesIO):
        def read(self, *_: object) -> NoReturn:
            raise ConnectionResetError

    broken_upload: dict[str, Any] = {"wsgi.input": Gone()}
    response = as_alice.generic(
        "POST",
        "/api/v1/consciousness/process",
        content_type="application/json",
        CONTENT_LENGTH="100",
        HTTP_X_REQUEST_ID=REQUEST_ID,
        **broken_upload,
    )
    check_problem(response, 400, "malformed_request", "Bad Request")
    assert logs.events("unhandled_error") == []
