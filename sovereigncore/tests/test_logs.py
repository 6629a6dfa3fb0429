"""One event, one valid line of JSON, whatever it holds; and nothing in it that is a secret."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from accounts.models import User
from conftest import PASSWORD
from monitoring import metrics
from sovereigncore.middleware import RequestLogMiddleware
from tests.log_capture import LogCapture, captured_logs
from tests.stub_engine import Behaviour, StubEngine

log = structlog.get_logger("tests.logs")
foreign = logging.getLogger("tests.foreign")


class Awkward:
    def __repr__(self) -> str:
        return "awkward\n\ud800\u2028"


VALUES: dict[str, tuple[Any, Any]] = {
    "line feed": ("a\nb", "a\nb"),
    "carriage return": ("a\r\nb", "a\r\nb"),
    "escape": ("\x1b[31m", "\x1b[31m"),
    "C1 escape": ("\x9b31m\x7f", "\x9b31m\x7f"),
    "Unicode line breaks": ("\x85\u2028\u2029", "\x85\u2028\u2029"),
    "NUL": ("a\x00b", "a\x00b"),
    "a lone surrogate": ("a\ud800b", "a\\ud800b"),
    "surrogates inside": ({"\udfff": ["\ud800"]}, {"\\udfff": ["\\ud800"]}),
    "a huge integer": (10**30, hex(10**30)),
    "one that Python will not write in decimal": (10**5000, hex(10**5000)),
    "a huge integer inside": ([-(10**30)], [hex(-(10**30))]),
    "the largest integer": (2**63 - 1, 2**63 - 1),
    "no number": (float("nan"), None),
    "keys that are no text": ({1: 2, None: 3}, {"1": 2, "None": 3}),
    "bytes": (b"\xff", "b'\\xff'"),
    "a set": ({1}, [1]),
    "an object": (Awkward(), "awkward\n\\ud800\u2028"),
    "an exception": (ValueError("a\nb"), "ValueError('a\\nb')"),
    "a moment": (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02 00:00:00+00:00"),
    "an id": (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    "a path": (Path("/a"), "/a"),
}


@pytest.mark.parametrize(("value", "read"), VALUES.values(), ids=VALUES)
def test_whatever_a_field_holds_it_is_one_line_of_json(
    logs: LogCapture, value: Any, read: Any
) -> None:
    log.info("tested", value=value)
    assert logs.text.count("\n") == 1
    assert "\x1b" not in logs.text
    (event,) = logs.events()
    assert event["value"] == read
    assert event["level"] == "info"
    assert event["logger"] == "tests.logs"
    assert datetime.fromisoformat(event["timestamp"]).tzinfo is not None


@pytest.mark.parametrize("text", ["a\r\nb", "\x1b[2J", "\u2028\x85", "\ud800", '"} {"', "%s %d"])
def test_other_peoples_lines_are_json_too(logs: LogCapture, text: str) -> None:
    foreign.warning("%s", text)
    (event,) = logs.events()
    assert event["event"] == text.replace("\ud800", "\\ud800")
    assert event["logger"] == "tests.foreign"


def fail() -> None:
    raise ValueError("first\nsecond\ud800")


def test_a_traceback_is_one_line(logs: LogCapture) -> None:
    try:
        fail()
    except ValueError:
        foreign.exception("failed")
        log.exception("failed")
    first, second = logs.events()
    for event in (first, second):
        assert "Traceback (most recent call last):\n" in event["exception"]
        assert "ValueError: first\nsecond\\ud800" in event["exception"]


@given(
    st.recursive(
        st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.binary(), st.booleans()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        max_leaves=10,
    ),
    st.text(),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_and_every_event_name_makes_one_line(value: Any, name: str) -> None:
    with captured_logs() as logs:
        log.warning(name, value=value)
    assert len(logs.text.splitlines()) == 1
    orjson.loads(logs.text)


def test_levels_below_the_setting_are_dropped(logs: LogCapture) -> None:
    log.debug("quiet")
    foreign.debug("quiet")
    assert logs.text == ""


def test_an_access_line_holds_the_path_and_never_the_query(
    as_alice: APIClient, alice: User, logs: LogCapture
) -> None:
    as_alice.get("/api/v1/auth/me?token=query-canary", HTTP_X_REQUEST_ID="given-request-id")
    (event,) = logs.events()
    assert event.pop("duration_ms") > 0
    assert event.pop("timestamp")
    assert event == {
        "event": "request",
        "method": "GET",
        "path": "/api/v1/auth/me",
        "route": "me",
        "status": 200,
        "address": "127.0.0.1",
        "user_id": str(alice.id),
        "request_id": "given-request-id",
        "level": "info",
        "logger": "access",
    }


@pytest.mark.parametrize(
    "path", ["/a%0d%0aGET%20/x", "/%1b%5b31m", "/%e2%80%a8%c2%85", "/%ff%fe", "/%ed%a0%80", "/%00"]
)
def test_a_path_cannot_forge_a_line(anonymous: APIClient, logs: LogCapture, path: str) -> None:
    assert anonymous.get(path).status_code == 404
    (event,) = logs.events()
    assert event["route"] == "unmatched"
    assert event["path"].startswith("/")


def test_the_next_request_has_another_id(anonymous: APIClient, logs: LogCapture) -> None:
    anonymous.get("/live", HTTP_X_REQUEST_ID="first-request")
    anonymous.get("/live")
    first, second = (event["request_id"] for event in logs.events("request"))
    assert first == "first-request"
    assert uuid.UUID(second).version == 4


def test_nothing_secret_is_logged_from_login_to_logout(
    alice: User, stub: StubEngine, logs: LogCapture
) -> None:
    client = APIClient()
    secrets = [PASSWORD, "wrong-canary", "prompt-canary", "agent-canary", "Bearer", "eyJ"]

    def post(path: str, body: dict[str, Any] | None = None) -> Any:
        return client.post(f"/api/v1/{path}", body, HTTP_USER_AGENT="agent-canary")

    post("auth/token", {"username": "alice", "password": "wrong-canary"})
    post("auth/token", {"username": "user-canary", "password": "wrong-canary"})
    pair = post("auth/token", {"username": "alice", "password": PASSWORD}).json()
    pair = post("auth/token/refresh", {"refresh_token": pair["refresh_token"]}).json()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {pair['access_token']}")
    assert post("consciousness/process", {"prompt": "prompt-canary"}).status_code == 200
    stub.behave(Behaviour.ERROR_500_WITH_SECRET)
    assert post("consciousness/process", {"prompt": "prompt-canary"}).status_code == 502
    assert post("auth/token/refresh", {"refresh_token": "eyJ.eyJ.x"}).status_code == 401
    assert post("auth/logout").status_code == 204
    register = {"username": "new", "email": "canary@example.org", "password": PASSWORD}
    assert post("users/register", register).status_code == 201

    assert len(logs.events("request")) == 9
    tokens = (pair["access_token"], pair["refresh_token"])
    for secret in (*secrets, *tokens, "user-canary", "canary@example.org", "alice"):
        assert secret not in logs.text


def test_a_stream_is_logged_when_it_ends(
    as_alice: APIClient, stub: StubEngine, logs: LogCapture
) -> None:
    body = {"prompt": "hi", "stream": True}
    response = as_alice.post("/api/v1/consciousness/process", body)
    assert logs.events("request") == []
    b"".join(response)
    (event,) = logs.events("request")
    assert event["status"] == 200
    assert event["route"] == "process"


def test_a_stream_that_nobody_reads_is_logged_and_no_longer_in_progress(
    as_alice: APIClient, stub: StubEngine, logs: LogCapture
) -> None:
    before = in_progress()
    body = {"prompt": "hi", "stream": True}
    response = as_alice.post("/api/v1/consciousness/process", body)
    assert in_progress() == before + 1
    response.close()
    assert in_progress() == before
    assert len(logs.events("request")) == 1


def test_a_stream_that_is_closed_late_takes_nothing_from_the_request_under_way(
    logs: LogCapture,
) -> None:
    def requested(path: str) -> HttpRequest:
        return RequestFactory().get(path, headers={"X-Request-ID": f"request-{path[1:]}"})

    forgotten = RequestLogMiddleware(lambda _request: StreamingHttpResponse(()))(requested("/a"))

    def close_it(_request: HttpRequest) -> HttpResponse:
        forgotten.close()
        log.info("goes_on")
        return HttpResponse()

    RequestLogMiddleware(close_it)(requested("/b"))
    assert [(event["event"], event["request_id"]) for event in logs.events()] == [
        ("request", "request-a"),
        ("goes_on", "request-b"),
        ("request", "request-b"),
    ]


def in_progress() -> float:
    ((sample,),) = (metric.samples for metric in metrics.REQUESTS_IN_PROGRESS.collect())
    return sample.value


def test_our_own_loggers_are_not_repeated_by_djangos(
    anonymous: APIClient, logs: LogCapture
) -> None:
    for path in ("/nope", "/api/v1/auth/me"):
        anonymous.get(path)
        anonymous.get(path, HTTP_HOST="evil.example")
    assert [event["event"] for event in logs.events()] == ["request"] * 4
