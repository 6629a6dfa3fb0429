"""nginx by itself: refusals in the path's own shape, its log, addresses, certbot's files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.chaos.grown import within
from tests.rehearsal.topology import Topology
from tests.stub_engine import MODEL

pytestmark = pytest.mark.rehearsal

_PAGE = {"Accept": "text/html,*/*;q=0.8"}
_LOGGED_WITHIN_S = 5.0
_BIG = b"a" * (2 * 1024 * 1024)


@contextmanager
def _no_web_process(parts: Topology) -> Iterator[None]:
    for web in parts.webs:
        web.kill()
    try:
        yield
    finally:
        for web in parts.webs:
            web.start_again()


def _check_problem(reply: httpx2.Response, status: int, code: str) -> None:
    assert reply.status_code == status
    assert reply.headers["Content-Type"] == "application/problem+json"
    told = reply.json()
    assert set(told) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (told["status"], told["code"]) == (status, code)
    assert told["request_id"] == reply.headers["X-Request-ID"]


def _check_openai(reply: httpx2.Response, status: int, kind: str, code: str) -> None:
    assert reply.status_code == status
    assert reply.headers["Content-Type"] == "application/json"
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code)


def _check_page(reply: httpx2.Response, status: int) -> None:
    assert reply.status_code == status
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.text.startswith("<!doctype html>")
    assert reply.headers["X-Request-ID"] in reply.text


def test_without_web_processes_it_says_so_in_the_paths_shape(parts: Topology) -> None:
    with _no_web_process(parts), parts.client() as http:
        problem = http.get("/api/v1/auth/me")
        _check_problem(problem, 502, "service_unavailable")
        _check_problem(http.post("/live"), 502, "service_unavailable")
        openai = http.post("/v1/chat/completions", json={})
        _check_openai(openai, 502, "server_error", "service_unavailable")
        token = http.post("/api/v1/auth/token", data={"username": "a"})
        assert token.status_code == 502
        assert token.json()["error"] == "service_unavailable"
        page = http.get("/", headers=_PAGE)
        _check_page(page, 502)
        for reply in (problem, openai, token, page):
            assert reply.headers["Retry-After"] == "5"
            assert reply.headers["Cache-Control"] == "no-store"
            assert reply.headers["Strict-Transport-Security"] == "max-age=31536000"
            assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_bodies_that_are_too_large(parts: Topology) -> None:
    with parts.client("alice") as http:
        _check_problem(
            http.post("/api/v1/consciousness/process", content=_BIG), 413, "body_too_large"
        )
        reply = http.post("/v1/chat/completions", content=_BIG)
        _check_openai(reply, 413, "invalid_request_error", "body_too_large")
        _check_page(http.post("/register", content=_BIG, headers=_PAGE), 413)
        # Not by far: the platform's own words, which nginx leaves alone.
        just = http.post("/api/v1/consciousness/process", content=b"a" * (1024 * 1024 + 1))
    _check_problem(just, 413, "body_too_large")
    assert "bytes" in just.json()["detail"]


def test_addresses_and_headers_that_are_too_large(parts: Topology) -> None:
    with parts.client() as http:
        _check_problem(http.get("/live?" + "a" * 9000), 414, "uri_too_long")
        _check_problem(http.get("/live", headers={"X": "a" * 9000}), 431, "headers_too_large")


def _exchange(parts: Topology, line: str, *headers: str) -> tuple[bytes, bytes]:
    """Head and body of the answer, to what no client would write."""
    lines = [line, "Host: 127.0.0.1", "Connection: close", *headers]
    if "Host:" in line:
        lines.remove("Host: 127.0.0.1")
    with parts.nginx.connect() as connection:
        connection.sendall("".join(f"{part}\r\n" for part in [*lines, ""]).encode())
        said = b""
        while part := connection.recv(65536):
            said += part
    head, _, body = said.partition(b"\r\n\r\n")
    return head, body


def test_what_is_no_request_gets_an_answer_too(parts: Topology) -> None:
    for line, status, code in (
        ("GET /live HTTP/1.1\r\nHost: a b", 400, "bad_request"),
        ("nothing", 400, "bad_request"),
        ("GET /live HTTP/7.1", 505, "http_version_not_supported"),
    ):
        head, body = _exchange(parts, line)
        assert head.startswith(b"HTTP/1.1 %d " % status), line
        assert json.loads(body)["code"] == code


def test_plain_http_on_the_port_of_tls(parts: Topology) -> None:
    url = parts.nginx.url.replace("https:", "http:")
    _check_problem(httpx2.get(f"{url}/live", trust_env=False), 400, "bad_request")


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/a/../metrics"]
)
def test_metrics_are_not_for_outside(parts: Topology, path: str) -> None:
    token = parts.environment["METRICS_TOKEN"]
    head, body = _exchange(parts, f"GET {path} HTTP/1.1", f"Authorization: Bearer {token}")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert json.loads(body)["code"] == "not_found"
    with parts.webs[0].client(parts.environment["METRICS_TOKEN"]) as http:
        assert "sovereigncore_http_requests_in_progress" in http.get("/metrics").text


def test_what_plain_http_leads_to(parts: Topology) -> None:
    reply = httpx2.post(f"{parts.nginx.http_url}/api/v1/auth/token?a=b", trust_env=False)
    assert reply.status_code == 308
    assert reply.headers["Location"] == "https://127.0.0.1/api/v1/auth/token?a=b"


def test_certbot_proves_the_name_over_plain_http(parts: Topology) -> None:
    parts.nginx.serve_for_certbot("token-1", "token-1.of-the-account")
    where = f"{parts.nginx.http_url}/.well-known/acme-challenge"
    assert httpx2.get(f"{where}/token-1", trust_env=False).text == "token-1.of-the-account"
    assert httpx2.get(f"{where}/token-2", trust_env=False).status_code == 404


def test_openais_client_trusts_the_authority_by_a_variable(parts: Topology) -> None:
    """As docs/how-to/tls.md says."""
    listing = (
        "from openai import OpenAI; import sys;"
        "print([model.id for model in OpenAI(base_url=sys.argv[1]).models.list()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", listing, f"{parts.nginx.url}/v1"],
        env={
            "PATH": os.environ["PATH"],
            "OPENAI_API_KEY": parts.keys["alice"],
            "SSL_CERT_FILE": str(parts.nginx.authority),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{[MODEL]}\n"


def _logged(parts: Topology, request_id: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [entry for entry in parts.nginx.log() if entry["request_id"] == request_id]

    within(_LOGGED_WITHIN_S, lambda: len(found()) == 1, "the request in nginx's log")
    return found()[0]


def test_it_logs_paths_without_what_is_asked(parts: Topology) -> None:
    request_id = str(uuid.uuid4())
    canary = f"canary-{uuid.uuid4().hex}"
    with parts.client() as http:
        http.headers["X-Request-ID"] = request_id
        path = "/password-reset/confirm"
        http.get(f"{path}?token={canary}", headers={"Referer": f"https://a/?{canary}"})
    entry = _logged(parts, request_id)
    assert (entry["path"], entry["method"], entry["address"]) == (path, "GET", "127.0.0.1")
    assert entry["upstream"] in {f"127.0.0.1:{web.port}" for web in parts.webs}
    folder = parts.nginx.scratch.path
    for name in ("access.log", "error.log"):
        assert canary not in (folder / name).read_text()


def test_failures_put_no_query_string_into_its_error_log(parts: Topology) -> None:
    canary = f"canary-{uuid.uuid4().hex}"
    with _no_web_process(parts), parts.client() as http:
        assert http.get(f"/live?token={canary}").status_code == 502
    assert canary not in (parts.nginx.scratch.path / "error.log").read_text()


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [("of-a-caller-1", True), ("short", False), ("with space in it", False), ("a" * 65, False)],
)
def test_a_request_id_has_the_platforms_form(parts: Topology, sent: str, is_kept: bool) -> None:
    with parts.client() as http:
        told = http.get("/live", headers={"X-Request-ID": sent}).headers["X-Request-ID"]
    assert (told == sent) is is_kept
    assert _logged(parts, told)["status"] == 200


def test_the_platform_sees_the_callers_address_and_no_other(parts: Topology) -> None:
    request_id = str(uuid.uuid4())
    told = "203.0.113.7"
    with parts.nginx.connect(source="127.0.0.9") as connection:
        connection.sendall(
            b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"X-Request-ID: %s\r\nX-Forwarded-For: %s\r\nForwarded: for=%s\r\nX-Real-IP: %s\r\n\r\n"
            % (request_id.encode(), *[told.encode()] * 3)
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    seen = [
        json.loads(line)
        for web in parts.webs
        for line in web.log_lines()
        if request_id in line and '"access"' in line
    ]
    assert [entry["address"] for entry in seen] == ["127.0.0.9"]


def test_a_post_is_not_repeated_after_it_was_sent(parts: Topology) -> None:
    """A web process is killed while it answers: the caller is told, and nobody answers twice."""
    request_id = str(uuid.uuid4())
    victim, other = parts.webs
    with parts.nginx.connect() as connection:
        body = json.dumps({"prompt": "Count to 600", "use_memory": False}).encode()
        connection.sendall(
            b"POST /api/v1/consciousness/process HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Authorization: Bearer %s\r\nX-Request-ID: %s\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
            % (parts.keys["alice"].encode(), request_id.encode(), len(body), body)
        )
        _wait_until_running(parts)
        for web in parts.webs:
            web.process.send_signal(signal.SIGKILL)
            web.process.wait(10)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    for web in (victim, other):
        web.start_again()
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert len(_logged(parts, request_id)["upstream"].split(", ")) == 1


def _wait_until_running(parts: Topology) -> None:
    def is_running() -> bool:
        with parts.client("alice") as http:
            busy: int = http.get("/api/v1/consciousness/status").json()["queue"]["busy"]
        return busy == 1

    within(10.0, is_running, "the question is being answered")
