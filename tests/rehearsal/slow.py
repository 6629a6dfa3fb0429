"""Two hundred clients of one address that begin a request and do not end it, and somebody else who
asks meanwhile."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator

from tests.rehearsal.topology import Topology

SLOW = 200
_HOSTILE = "127.0.0.3"
_ASKED = 200
_HEAD = b"POST /api/v1/auth/token HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UNFINISHED = {
    "line": b"GET /",
    "head": _HEAD + b"X-Slow: ",
    "body": _HEAD + b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
}


@contextlib.contextmanager
def unfinished(parts: Topology, said: bytes) -> Iterator[list[ssl.SSLSocket]]:
    """Connections that have said so much and say no more."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(parts.nginx.connect(source=_HOSTILE)) for _ in range(SLOW)]
        for connection in opened:
            connection.sendall(said)
        yield opened


def ask_for_a_while(parts: Topology) -> list[float]:
    """How long each answer to somebody else took, in seconds."""
    took_s = []
    with parts.client("alice") as http:
        for _ in range(_ASKED):
            began_s = time.monotonic()
            assert http.get("/api/v1/auth/me").status_code == 200
            took_s.append(time.monotonic() - began_s)
    return took_s
