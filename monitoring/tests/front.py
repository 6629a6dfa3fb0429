"""A server in the proxy's place: gives the answers that a test wrote down, by path, else 404."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, cast

Headers = list[tuple[str, str]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    front: Front


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        front = cast("_Server", self.server).front
        front.asked.append((self.path, self.headers["Host"]))
        status, headers, body = front.answers.get(self.path, (404, [], ""))
        if front.token and self.headers["Authorization"] != f"Bearer {front.token}":
            status, headers, body = 401, [], ""
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body.encode())))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_arguments: Any) -> None:
        """Nothing: pytest's output is for failures."""


class Front:
    """On loopback; with TLS when given a context. `token`: what it wants of everybody."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, tuple[int, Headers, str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.token = ""
        self._scheme = "https" if context else "http"
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.front = self
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
