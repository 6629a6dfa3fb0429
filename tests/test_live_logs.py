"""The log of running processes: one event a line, whatever callers send, and one id all the way."""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from sovereigncore.tests.permission_table import ROUTES
from sovereigncore.tests.test_mass_assignment import BODIES
from tests.platform import Platform
from tests.stub_engine import Behaviour, StubEngine

pytestmark = pytest.mark.xdist_group(__name__)

PROCESS = "/api/v1/consciousness/process"
# What ends a line, or is obeyed by a terminal, for some reader of logs.
CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]
POISON = {
    "breaks": 'a\r\nb\u2028c\u2029d\x85e"} {"event":"forged"}\n{"event":"forged"}',
    "escapes": "\x1b[2J\x1b]0;x\x07\x9b31m\x7f",
    "NUL": "a\x00b",
    "surrogate": "\ud800a\udfff",
}
MORE_BODIES: dict[str, Any] = {
    "chat-completions": {"model": "", "messages": [{"role": "user", "content": "", "name": ""}]},
    "completions": {"model": "", "prompt": ""},
    "embeddings": {"model": "", "input": ""},
    "memories-list": {"text": ""},
    "conversations-detail": {"title": ""},
}
ENDS_THE_SESSION = {"logout", "sessions"}
ANYTHING = ("name", "text", "title", "token", "model", "prompt", "email", "username")
_SOON_S = 20.0


@pytest.fixture
def member(platform: Platform) -> str:
    return platform.register_and_log_in(f"logger-{uuid.uuid4().hex[:8]}")


class Log:
    """What a process wrote since this began, read as strictly as any reader might."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._start = platform.log_path.stat().st_size

    def events(self) -> list[dict[str, Any]]:
        with self._platform.log_path.open("rb") as file:
            file.seek(self._start)
            whole = file.read()
        return events_in(whole[: whole.rfind(b"\n") + 1])

    def wait_for(self, count: int, **fields: str) -> list[dict[str, Any]]:
        until_s = time.monotonic() + _SOON_S
        while True:
            found = [e for e in self.events() if fields.items() <= e.items()]
            if len(found) >= count:
                return found
            assert time.monotonic() < until_s, (fields, len(found))
            time.sleep(0.02)


def events_in(raw: bytes) -> list[dict[str, Any]]:
    text = raw.decode("utf-8")  # fails on what is no UTF-8
    lines = text.split("\n")[:-1]
    assert lines == text.splitlines(), "some readers see more lines than there are events"
    assert not [code for code in CONTROLS if code != 0x0A and chr(code) in text]
    events = [json.loads(line) for line in lines]
    for event in events:
        assert {"event", "level", "logger", "timestamp"} <= event.keys()
        assert event["event"] != "forged"
    return events


@pytest.fixture
def log(platform: Platform) -> Log:
    return Log(platform)


def poisoned(value: Any, text: str) -> Any:
    """`value` with `text` wherever text belongs."""
    match value:
        case str():
            return value if value == "user" else text
        case dict():
            return {name: poisoned(inner, text) for name, inner in value.items()}
        case list():
            return [poisoned(inner, text) for inner in value]
        case _:
            return value


def requests(text: str) -> Iterator[tuple[str, str, bytes | None]]:
    """Every route and method, with `text` in path, query and body."""
    encoded = quote(text, safe="", errors="surrogatepass")
    for name in sorted(ROUTES, key=lambda name: name in ENDS_THE_SESSION):
        route = ROUTES[name]
        path = re.sub(r"\{\w+\}", encoded, route.path)
        path = f"{path}?q={encoded}&cursor={encoded}&model={encoded}&limit={encoded}"
        body = BODIES.get(name) or MORE_BODIES.get(name) or dict.fromkeys(ANYTHING, "")
        for method in route.methods:
            has_body = method in ("POST", "PUT", "PATCH")
            yield method, path, json.dumps(poisoned(body, text)).encode() if has_body else None


@pytest.mark.parametrize("text", POISON.values(), ids=POISON)
def test_one_event_a_line_whatever_path_query_and_body_hold(
    platform: Platform, member: str, log: Log, text: str
) -> None:
    ids = []
    with platform.client(member) as http:
        for method, path, body in requests(text):
            request_id = uuid.uuid4().hex
            headers = {"X-Request-ID": request_id, "Content-Type": "application/json"}
            reply = http.request(method, path, content=body, headers=headers)
            assert reply.status_code != httpx2.codes.INTERNAL_SERVER_ERROR, (method, path)
            ids.append(request_id)
        form = "&".join(
            f"{name}={quote(text, safe='', errors='surrogatepass')}" for name in ANYTHING
        )
        for path in ("/api/v1/auth/token", "/register", "/password-reset", "/admin/login/"):
            request_id = uuid.uuid4().hex
            kind = "application/x-www-form-urlencoded"
            headers = {"X-Request-ID": request_id, "Content-Type": kind}
            http.post(path, content=form, headers=headers)
            ids.append(request_id)
    log.wait_for(1, event="request", request_id=ids[-1])
    lines = [event["request_id"] for event in log.events() if event["event"] == "request"]
    assert sorted(lines) == sorted(ids)


HEADERS = (
    *("User-Agent", "X-Request-ID", "X-Forwarded-For", "X-Forwarded-Host", "Host", "Origin"),
    *("Authorization", "Cookie", "Accept", "Referer", "Content-Type", "Idempotency-Key"),
)
RAW_POISON = (
    *(b"a\x1b[2Jb", b"a\x85b", b"a\x9bb", b"a\xe2\x80\xa8b", b"a\xed\xa0\x80b", b"a\x00b"),
    *(b'a"} {"event":"forged"}', b'a\r\n {"event":"forged"}', b"a\rb", b"a\nb"),
)


def send_raw(platform: Platform, head: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", platform.port), timeout=20) as connection:
        connection.sendall(head)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_one_event_a_line_whatever_headers_and_request_lines_hold(
    platform: Platform, log: Log
) -> None:
    sent = 0
    for poison in RAW_POISON:
        for name in HEADERS:
            host = b"" if name == "Host" else b"Host: localhost\r\n"
            head = b"GET /live HTTP/1.1\r\n%b%b: %b\r\nConnection: close\r\n\r\n"
            assert send_raw(platform, head % (host, name.encode(), poison))
            sent += 1
        for line in (b"GET /%b HTTP/1.1", b"%b / HTTP/1.1", b"GET / HTTP/%b", b"GET /?%b HTTP/1.1"):
            head = line % poison + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            assert send_raw(platform, head)
            sent += 1
    last = uuid.uuid4().hex
    with platform.client() as http:
        http.get("/live", headers={"X-Request-ID": last})
    log.wait_for(1, event="request", request_id=last)
    events = log.events()
    refused = [e for e in events if str(e["event"]).startswith("Invalid request: ")]
    answered = [e for e in events if e["event"] == "request"]
    assert len(answered) + len(refused) == len(events) == sent + 1
    assert all(uuid.UUID(event["request_id"]) for event in refused)


def test_a_requests_id_reaches_the_engine_whatever_becomes_of_the_call(
    platform: Platform, member: str, live_stub: StubEngine, log: Log
) -> None:
    request_id = uuid.uuid4().hex
    with platform.client(member) as http:
        headers = {"X-Request-ID": request_id}
        for _ in range(2):
            reply = http.post(PROCESS, json={"prompt": "Hello"}, headers=headers)
            assert reply.headers["X-Request-ID"] == request_id
        live_stub.behave(Behaviour.DIE_MID_STREAM)
        assert http.post(PROCESS, json={"prompt": "Hello"}, headers=headers).is_error
    told = [record.headers["x-request-id"] for record in live_stub.ledger]
    assert len(told) == len(set(told)) == 3, "an id of each call's own"
    assert {name.rpartition("-")[0] for name in told} == {request_id}
    log.wait_for(1, event="engine_connection_failed", request_id=request_id)


def test_a_mail_names_the_request_that_asked_for_it_and_a_job_its_run(platform: Platform) -> None:
    name = platform.register(f"asker-{uuid.uuid4().hex[:8]}")
    request_id = uuid.uuid4().hex
    with platform.client() as http:
        reply = http.post(
            "/api/v1/users/password-reset/request",
            json={"email": f"{name}@example.org"},
            headers={"X-Request-ID": request_id},
        )
    assert reply.status_code == httpx2.codes.ACCEPTED
    done = platform.manage("housekeeping", "--now")
    assert done.returncode == 0
    events = events_in(done.stderr.encode())
    (sent,) = [e for e in events if e["event"] == "mail_sent" and e["request_id"] == request_id]
    runs = {e["job"]: e["run_id"] for e in events if e["event"] == "job_finished"}
    assert (sent["job"], sent["run_id"]) == ("send_mails", runs["send_mails"])
    assert len(set(runs.values())) == len(runs) > 5
