"""Clients that are slow, and clients that try to slip a second request past nginx."""

from __future__ import annotations

import contextlib
import ssl
import time
import uuid

import pytest

from tests.chaos.grown import within
from tests.rehearsal.slow import SLOW, UNFINISHED, ask_for_a_while, unfinished
from tests.rehearsal.topology import Topology

pytestmark = pytest.mark.rehearsal

_OF_ONE_ADDRESS = 100  # limit_conn
_ANSWERED_WITHIN_S = 2.0
_REFUSED_WITHIN_S = 5.0
_CUT_WITHIN_S = 30.0


@pytest.mark.parametrize("said", UNFINISHED.values(), ids=UNFINISHED)
def test_slow_clients_slow_nobody_else(parts: Topology, said: bytes) -> None:
    """That it is at most twice as slow at the worst, `make chaos` measures."""
    with unfinished(parts, said):
        assert max(ask_for_a_while(parts)) < _ANSWERED_WITHIN_S


def test_slow_clients_are_cut(parts: Topology) -> None:
    with unfinished(parts, UNFINISHED["head"]) as connections:
        until_s = time.monotonic() + _CUT_WITHIN_S
        for connection in connections:
            connection.settimeout(max(0.1, until_s - time.monotonic()))
            assert _read_all(connection) == b""


def test_one_address_has_so_many_requests_at_once(parts: Topology) -> None:
    with unfinished(parts, UNFINISHED["body"]) as connections:
        told: dict[ssl.SSLSocket, bytes] = {}

        def listen() -> int:
            for connection in connections:
                with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                    told.setdefault(connection, connection.recv(4096))
            return len(told)

        for connection in connections:
            connection.setblocking(False)
        within(_REFUSED_WITHIN_S, lambda: listen() >= SLOW - _OF_ONE_ADDRESS, "refusals")
        assert listen() == SLOW - _OF_ONE_ADDRESS
        for head in told.values():
            assert head.startswith(b"HTTP/1.1 429 "), head
            assert b"\r\nRetry-After: 1\r\n" in head
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
