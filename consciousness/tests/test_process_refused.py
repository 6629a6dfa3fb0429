"""What `process` refuses: exact status, exact field, and the engine never hears of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from consciousness.models import Query
from consciousness.tests.asking import CAPITAL, PROCESS, ask, assert_nothing_runs
from monitoring.awareness import awareness
from monitoring.governor import GovernorState, Mode
from tests.stub_engine import StubEngine

MISSING = object()


def post_raw(client: Any, raw: bytes, *, content_type: str = "application/json") -> Any:
    return client.generic("POST", PROCESS, raw, content_type=content_type)


def refusal(client: APIClient, body: Any) -> dict[str, Any]:
    response = client.post(PROCESS, body)
    assert response.status_code == 422, response.content
    assert response["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == 422
    assert problem["code"] == "validation_error"
    assert problem["request_id"] == response["X-Request-ID"]
    return problem


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", MISSING),
        ("prompt", None),
        ("prompt", ""),
        ("prompt", "   "),
        ("prompt", "\t\r\n \u00a0\u2003"),
        ("prompt", "x" * 10_001),
        ("prompt", "👍" * 10_001),
        ("prompt", 5),
        ("prompt", True),
        ("prompt", ["What?"]),
        ("prompt", {"text": "What?"}),
        ("temperature", -0.0001),
        ("temperature", 2.0001),
        ("temperature", "0.5"),
        ("temperature", None),
        ("temperature", True),
        ("temperature", [1]),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 4097),
        ("max_tokens", 10**18),
        ("max_tokens", 10**30),
        ("max_tokens", 5.0),
        ("max_tokens", 1.5),
        ("max_tokens", "5"),
        ("max_tokens", None),
        ("max_tokens", False),
        ("model", ""),
        ("model", 7),
        ("model", None),
        ("model", ["stub-model"]),
        ("model", "m" * 129),
        ("store", "true"),
        ("store", 1),
        ("store", None),
        ("stream", "yes"),
        ("stream", 0),
        ("stream", None),
        ("promt", "a typo"),
        ("user", "bob"),
        ("user_id", 1),
        ("status", "completed"),
        ("is_estimated", True),
        ("query_id", "00000000-0000-0000-0000-000000000000"),
    ],
)
def test_each_rule_names_its_field(
    as_alice: APIClient, stub: StubEngine, field: str, value: object
) -> None:
    body: dict[str, Any] = {"prompt": CAPITAL, field: value}
    if value is MISSING:
        del body[field]
    problem = refusal(as_alice, body)
    assert list(problem["errors"]) == [field]
    assert stub.ledger == []
    assert not Query.objects.exists()


def test_every_broken_rule_is_told_at_once(as_alice: APIClient, stub: StubEngine) -> None:
    problem = refusal(as_alice, {"prompt": "", "temperature": 3, "max_tokens": 0})
    assert set(problem["errors"]) == {"prompt", "temperature", "max_tokens"}


@pytest.mark.parametrize("body", [[], ["prompt"], "prompt", 5, True, None])
def test_a_body_that_is_no_object_is_refused(
    as_alice: APIClient, stub: StubEngine, body: Any
) -> None:
    response = post_raw(as_alice, json.dumps(body).encode())
    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["request"]
    assert stub.ledger == []


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"{", 400),
        (b'{"prompt": "a"} {}', 400),
        (b'{"prompt": "a", "temperature": 1e400}', 400),
        (b'{"prompt": "a", "temperature": NaN}', 400),
        (b'{"prompt": "NUL \\u0000"}', 400),
        (b'{"prompt": "lone \\ud800 surrogate"}', 400),
        (b'{"prompt": "\xff\xfe"}', 400),
        (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"prompt": "' + b"x" * 1024 * 1024 + b'"}', 413),
    ],
)
def test_bodies_that_are_no_json_of_ours(
    as_alice: APIClient, stub: StubEngine, raw: bytes, status: int
) -> None:
    response = post_raw(as_alice, raw)
    assert response.status_code == status
    assert stub.ledger == []
    assert not Query.objects.exists()


def test_an_empty_body_lacks_a_prompt(as_alice: APIClient, stub: StubEngine) -> None:
    response = post_raw(as_alice, b"")
    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["prompt"]


def test_forms_are_not_taken(as_alice: APIClient, stub: StubEngine) -> None:
    response = post_raw(as_alice, b"prompt=hello", content_type="application/x-www-form-urlencoded")
    assert response.status_code == 415
    assert response.json()["code"] == "unsupported_media_type"


def test_only_post(as_alice: APIClient) -> None:
    for method in ("get", "put", "patch", "delete"):
        assert getattr(as_alice, method)(PROCESS).status_code == 405


def test_without_a_credential(anonymous: APIClient, stub: StubEngine, db: None) -> None:
    response = ask(anonymous)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert response.json()["code"] == "not_authenticated"
    assert stub.ledger == []
    assert not Query.objects.exists()


def test_to_ask_is_to_write(
    alice: User, client_of: Callable[..., APIClient], stub: StubEngine
) -> None:
    reader = client_of(alice, "read")
    response = ask(reader)
    assert response.status_code == 403
    assert response.json()["code"] == "forbidden"
    assert stub.ledger == []
    assert not Query.objects.exists()
    assert ask(client_of(alice, "write")).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_exhausted_host_takes_no_new_work(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    exhausted = GovernorState(mode=Mode.SURVIVAL, reasons=("memory 99 percent",))
    monkeypatch.setattr(awareness, "_governor", exhausted)
    response = ask(as_alice, stream=stream)
    assert response.status_code == 503
    assert response["Retry-After"] == "15"  # as long as the governor needs to believe in better
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == "survival_mode"
    assert "memory 99 percent" in response.json()["detail"]
    assert stub.ledger == []
    assert not Query.objects.exists()
    assert_nothing_runs(stub)


def test_a_host_that_conserves_still_answers(
    as_alice: APIClient, stub: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awareness, "_governor", GovernorState(mode=Mode.CONSERVING))
    response = ask(as_alice)
    assert response.status_code == 200
    assert response.json()["cognitive_mode"] == "conserving"


def test_the_default_limit_holds(as_alice: APIClient, stub: StubEngine, settings: Any) -> None:
    settings.RATE_LIMIT_DEFAULT = "2/m"
    assert [ask(as_alice).status_code for _ in range(3)] == [200, 200, 429]
    assert len(stub.ledger) == 2
    assert Query.objects.count() == 2
