"""What stands for the proxy with TLS: answers 200, and its certificate ends when a test says."""

from __future__ import annotations

import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.x509 import IPAddress

from tests.certificates import self_signed


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_arguments: Any) -> None:
        """Nothing: pytest's output is for failures."""


class FrontDoor:
    """HTTPS on loopback, self-signed."""

    def __init__(self, *, valid_days: float = 90) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew(valid_days=valid_days)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}/live"

    def renew(self, *, valid_days: float) -> None:
        """From the next connection on."""
        with tempfile.TemporaryDirectory() as folder:
            both = Path(folder) / "both.pem"
            self_signed(IPAddress(ip_address("127.0.0.1")), both, valid_days=valid_days)
            self._context.load_cert_chain(both)

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
