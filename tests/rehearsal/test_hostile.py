"""Clients that are slow, and clients that try to slip a second request past nginx."""

from __future__ import annotations

import contextlib
import ssl
import time
import uuid
from collections.abc import Iterator

import pytest

from tests.chaos.grown import median, percentile
from tests.rehearsal.topology import Topology

pytestmark = pytest.mark.rehearsal

_SLOW = 200
_OF_ONE_ADDRESS = 100  # limit_conn
_HOSTILE = "127.0.0.3"
_ASKED = 200
_ANSWERED_WITHIN_S = 2.0
_CUT_WITHIN_S = 30.0
_PATIENCE_S = 5.0

_HEAD = b"POST /api/v1/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_BODY_TO_COME = _HEAD + b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"


@contextlib.contextmanager
def _unfinished(parts: Topology, said: bytes) -> Iterator[list[ssl.SSLSocket]]:
    """Connections of one address that have said so much and say no more."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(parts.nginx.connect(source=_HOSTILE)) for _ in range(_SLOW)]
        for connection in opened:
            connection.sendall(said)
        yield opened


def _ask_for_a_while(parts: Topology) -> list[float]:
    """How long each answer to somebody else took, in seconds."""
    took_s = []
    with parts.client("alice") as http:
        for _ in range(_ASKED):
            began_s = time.monotonic()
            assert http.get("/api/v1/auth/me").status_code == 200
            took_s.append(time.monotonic() - began_s)
    return took_s


@pytest.mark.parametrize(
    "said", [b"GET /", _HEAD + b"X-Slow: ", _BODY_TO_COME], ids=["line", "head", "body"]
)
def test_slow_clients_slow_nobody_else(parts: Topology, said: bytes) -> None:
    _ask_for_a_while(parts)  # what is only slow the first time
    alone_s = _ask_for_a_while(parts)
    with _unfinished(parts, said):
        beside_s = _ask_for_a_while(parts)
    print(
        f"\n  median {median(alone_s) * 1000:.1f} ms alone, {median(beside_s) * 1000:.1f} ms beside"
        f" {_SLOW}; p99 {percentile(alone_s, 0.99) * 1000:.1f}"
        f" and {percentile(beside_s, 0.99) * 1000:.1f} ms"
    )
    assert max(beside_s) < _ANSWERED_WITHIN_S


def test_slow_clients_are_cut(parts: Topology) -> None:
    with _unfinished(parts, b"GET / HTTP/1.1\r\nHost:") as connections:
        until_s = time.monotonic() + _CUT_WITHIN_S
        for connection in connections:
            connection.settimeout(max(0.1, until_s - time.monotonic()))
            assert _read_all(connection) == b""


def test_one_address_has_so_many_requests_at_once(parts: Topology) -> None:
    with _unfinished(parts, _BODY_TO_COME) as connections:
        refused = 0
        for connection in connections:
            connection.settimeout(_PATIENCE_S if refused == 0 else 1.0)
            with contextlib.suppress(TimeoutError):
                head = connection.recv(4096)
                assert head.startswith(b"HTTP/1.1 429 "), head
                assert b"Retry-After: 1\r\n" in head
                refused += 1
        assert refused == _SLOW - _OF_ONE_ADDRESS
        with parts.client() as http:  # another address
            assert http.get("/live").status_code == 200


def _read_all(connection: ssl.SSLSocket) -> bytes:
    """Until the other end closes."""
    said = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        while part := connection.recv(65536):
            said += part
    return said


def _exchange(parts: Topology, said: bytes) -> bytes:
    with parts.nginx.connect() as connection:
        connection.sendall(said)
        return _read_all(connection)


def _paths(parts: Topology) -> str:
    """What reached the web processes so far."""
    for web in parts.webs:
        with web.client() as http:
            assert http.get("/live").status_code == 200  # after all that was sent before
    return "".join(web.log_path.read_text(encoding="utf-8") for web in parts.webs)


def _smuggling(hidden: bytes) -> dict[str, bytes]:
    """Requests that two servers could take for one and for two; the second one is `hidden`."""
    second = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Rest: " % hidden
    chunked = b"0\r\n\r\n" + second
    head = b"POST /live HTTP/1.1\r\nHost: 127.0.0.1\r\n"

    def lengths(*headers: bytes) -> bytes:
        return head + b"".join(header + b"\r\n" for header in headers) + b"\r\n"

    length = b"Content-Length: %d" % len(chunked)
    return {
        "CL.TE": lengths(length, b"Transfer-Encoding: chunked") + chunked,
        "TE.CL": lengths(b"Transfer-Encoding: chunked", b"Content-Length: 4")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(second), second),
        "CL twice": lengths(b"Content-Length: 0", length) + chunked,
        "CL twice, the other way": lengths(length, b"Content-Length: 0") + chunked,
        "CL list": lengths(b"Content-Length: 0, %d" % len(chunked)) + chunked,
        "CL signed": lengths(b"Content-Length: +%d" % len(chunked)) + chunked,
        "CL in hex": lengths(b"Content-Length: 0x%x" % len(chunked)) + chunked,
        "TE twice": lengths(length, b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")
        + chunked,
        "TE unknown": lengths(length, b"Transfer-Encoding: xchunked") + chunked,
        "TE with space": lengths(length, b"Transfer-Encoding : chunked") + chunked,
        "TE folded": lengths(length, b"Transfer-Encoding:\r\n chunked") + chunked,
        "TE by tab": lengths(length, b"Transfer-Encoding:\tchunked") + chunked,
        "TE in HTTP/1.0": b"POST /live HTTP/1.0\r\nTransfer-Encoding: chunked\r\n%s\r\n\r\n%s"
        % (length, chunked),
        "chunk size overflows": lengths(b"Transfer-Encoding: chunked")
        + b"10000000000000000\r\n"
        + second,
        "bare LF": b"POST /live HTTP/1.1\nHost: 127.0.0.1\nTransfer-Encoding: chunked\n"
        b"Content-Length: %d\n\n%s" % (len(chunked), chunked),
        "CR in a header": lengths(b"X: a\rTransfer-Encoding: chunked", length) + chunked,
    }


@pytest.mark.parametrize("how", _smuggling(b"/"))
def test_no_second_request_is_slipped_in(parts: Topology, how: str) -> None:
    hidden = f"/hidden-{uuid.uuid4().hex}"
    answers = _exchange(parts, _smuggling(hidden.encode())[how])
    assert answers.count(b"HTTP/1.1 ") == 1, answers
    # Whoever comes next on nginx's connections to the web processes gets the own answer.
    with parts.client() as http:
        for _ in range(8):
            assert http.get("/live").json() == {"status": "alive"}
    assert hidden not in _paths(parts)


def test_a_second_request_that_is_one_is_seen(parts: Topology) -> None:
    """So the test above could fail."""
    second = f"/second-{uuid.uuid4().hex}"
    request = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"
    last = request % (second.encode(), b"Connection: close\r\n")
    answers = _exchange(parts, request % (b"/live", b"") + last)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert second in _paths(parts)
