"""Under `/v1` every refusal is OpenAI's error object, whoever refuses; poisoned input included."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.models import Query, UsageDay
from consciousness.tests.openai_asking import CHAT, COMPLETIONS, EMBEDDINGS, MODELS, error_of
from sovereigncore.tests.test_strict_input import JSON, MALFORMED, NAUGHTY
from tests.log_capture import LogCapture
from tests.stub_engine import StubEngine

HISTORY = "/api/v1/consciousness/queries"
GENERATING = (CHAT, COMPLETIONS, EMBEDDINGS)
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    COMPLETIONS: {"prompt": "hi"},
    EMBEDDINGS: {"input": "hi"},
}


@pytest.fixture(autouse=True)
def _history_still_reads(as_alice: APIClient) -> Iterator[None]:
    yield
    assert as_alice.get(HISTORY).status_code == 200


def refused(response: Any, status: int, code: str, kind: str = "invalid_request_error") -> None:
    error = error_of(response, status, code)
    assert (error["type"], error["param"]) == (kind, None)
    assert not Query.objects.exists()


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json(as_alice: APIClient, path: str, body: bytes) -> None:
    refused(as_alice.post(path, body, content_type=JSON), 400, "malformed_request")


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("body", [[], "messages", 5, True, None])
def test_json_that_is_no_object(as_alice: APIClient, path: str, body: Any) -> None:
    response = as_alice.post(path, json.dumps(body), content_type=JSON)
    error = error_of(response, 400, "validation_error")
    assert error["param"] == "request"


@pytest.mark.parametrize("path", GENERATING)
def test_a_hundred_unknown_fields_are_answered_in_brief(as_alice: APIClient, path: str) -> None:
    body = {**BODIES[path], **{f"field-{number}-" + "x" * 1000: 1 for number in range(100)}}
    error_of(as_alice.post(path, body), 400, "validation_error")


@pytest.mark.parametrize("path", GENERATING)
def test_bodies_that_their_headers_rule_out(as_alice: APIClient, path: str) -> None:
    large = as_alice.generic("POST", path, content_type=JSON, CONTENT_LENGTH="20000000")
    refused(large, 413, "body_too_large")
    bomb = gzip.compress(b"x" * 2**20)
    packed = as_alice.post(path, bomb, content_type=JSON, HTTP_CONTENT_ENCODING="gzip")
    refused(packed, 415, "unsupported_encoding")
    form = as_alice.generic("POST", path, "a=b", content_type="application/x-www-form-urlencoded")
    refused(form, 415, "unsupported_media_type")
    chunked: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    refused(as_alice.generic("POST", path, content_type=JSON, **chunked), 411, "length_required")


@pytest.mark.parametrize("text", NAUGHTY)
def test_naughty_text_is_text(as_alice: APIClient, stub: StubEngine, text: str) -> None:
    said = {"messages": [{"role": "user", "content": text}], "max_tokens": 5}
    assert as_alice.post(CHAT, said).status_code == 200
    assert as_alice.post(COMPLETIONS, {"prompt": text}).status_code == 200
    assert as_alice.post(EMBEDDINGS, {"input": text}).status_code == 200
    chat, completion, embedding = (record.body for record in stub.ledger)
    assert chat["messages"][0]["content"] == completion["prompt"] == text
    assert embedding["input"] == [text]
    kept = [row["prompt"] for row in as_alice.get(HISTORY).json()["results"]]
    assert kept == [None, text, text]


@pytest.mark.parametrize("path", [*GENERATING, MODELS, f"{MODELS}/a/b"])
def test_who_asks_without_a_right_to(
    client_of: Callable[..., APIClient], alice: User, path: str
) -> None:
    anonymous = APIClient()
    response = anonymous.get(path)
    refused(response, 401, "not_authenticated", "authentication_error")
    assert response["WWW-Authenticate"] == "Bearer"
    for stale in ("Bearer sk-" + "x" * 40, "Bearer x.y.z", "Bearer", "Basic YTpi"):
        response = anonymous.get(path, HTTP_AUTHORIZATION=stale)
        error = error_of(response, 401, response.json()["error"]["code"])
        assert error["type"] == "authentication_error"
    if path in GENERATING:
        reader = client_of(alice, scope="read")
        refused(reader.post(path, BODIES[path]), 403, "forbidden", "permission_error")


@pytest.mark.parametrize("path", [*GENERATING, MODELS])
def test_a_method_that_there_is_not(as_alice: APIClient, path: str) -> None:
    response = as_alice.put(path, {})
    refused(response, 405, "method_not_allowed")
    assert response["Allow"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat", "/v1/models/a%0a", "/v1//models"])
def test_a_path_that_there_is_not(as_alice: APIClient, method: str, path: str) -> None:
    refused(as_alice.generic(method, path), 404, "not_found")


def test_the_rate_limit(as_alice: APIClient, stub: StubEngine, settings: Settings) -> None:
    settings.RATE_LIMIT_DEFAULT = "1/h"
    assert as_alice.get(MODELS).status_code == 200
    response = as_alice.get(MODELS)
    refused(response, 429, "rate_limited", "rate_limit_error")
    assert int(response["Retry-After"]) > 1
    assert "x-should-retry" not in response
    assert response["x-ratelimit-remaining-requests"] == "0"
    settings.RATE_LIMIT_DEFAULT = "1000/h"


def test_a_quota_that_is_used_up_says_that_trying_again_is_no_use(
    as_alice: APIClient, alice: User, stub: StubEngine, settings: Settings
) -> None:
    settings.DAILY_TOKEN_QUOTA = 100_000
    UsageDay.objects.create(user=alice, day=timezone.now().date(), prompt_tokens=100_000)
    response = as_alice.post(CHAT, BODIES[CHAT])
    refused(response, 429, "insufficient_quota", "insufficient_quota")
    assert response["x-should-retry"] == "false"
    assert int(response["Retry-After"]) >= 1


def test_a_fault_of_our_own(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, logs: LogCapture
) -> None:
    def broken(*_args: object, **_more: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("consciousness.services.start_query", broken)
    as_alice.raise_request_exception = False
    refused(as_alice.post(CHAT, BODIES[CHAT]), 500, "internal_error", "server_error")
    assert len(logs.events("unhandled_error")) == 1
