"""A real HTTP server that sends what a test tells it to, byte for byte, right or wrong."""

from __future__ import annotations

import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, cast

STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class RawRequest:
    """`connection` counts from 1: two requests of one number came over one connection."""

    connection: int
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


# What to send, at once or bit by bit, or None to say nothing until the client goes.
Reply = Callable[[RawRequest], bytes | Iterable[bytes] | None]


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast("_Server", self.server).raw
        with server.lock:
            server.connections += 1
            number = server.connections
        while line := self.rfile.readline().decode().strip():
            headers = dict(self._read_headers())
            body = self.rfile.read(int(headers.get("content-length", "0")))
            request = RawRequest(connection=number, line=line, headers=headers, body=body)
            with server.lock:
                server.requests.append(request)
            answer = server.reply(request)
            if answer is None:
                self.rfile.read(1)
                server.hung_up.set()
                return
            for part in [answer] if isinstance(answer, bytes) else answer:
                self.wfile.write(part)
            if not server.keeps_open:
                return

    def _read_headers(self) -> list[tuple[str, str]]:
        headers = []
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            headers.append((name.lower(), value.strip()))
        return headers


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    raw: RawServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes is what these tests are about."""


class RawServer:
    """`keeps_open`: whether connections may be used again, as HTTP/1.1 has it."""

    def __init__(
        self, reply: Reply, *, keeps_open: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self.reply, self.keeps_open = reply, keeps_open
        self.lock = threading.Lock()
        self.requests: list[RawRequest] = []
        self.connections = 0
        self.hung_up = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.raw = self
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True, name="raw-server"
        )

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join(STOP_TIMEOUT_S)
        self._server.server_close()


def http_reply(body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def json_reply(value: Any, *, status: str = "200 OK") -> bytes:
    return http_reply(json.dumps(value).encode(), status=status)


def models_reply(*names: str, owned_by: str = "llamacpp") -> bytes:
    return json_reply({"data": [{"id": name, "owned_by": owned_by} for name in names]})
