"""The connection of one request to an engine, which any thread can end."""

from __future__ import annotations

import contextlib
import socket
from typing import Any


class Connection:
    """Give `watch` to the request as its `trace` extension."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._is_ended = False

    def watch(self, event: str, info: dict[str, Any]) -> None:
        # TLS takes the socket over from TCP.
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._stream = info["return_value"]
            if self._is_ended:
                self._shut_down(socket.SHUT_RDWR)

    def end(self, how: int = socket.SHUT_RDWR) -> None:
        """Tell the engine, and wake who waits for it out of recv(), which a mere close() would not
        do. One that is still being made ends as soon as it is."""
        self._is_ended = True
        self._shut_down(how)

    def _shut_down(self, how: int) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError):  # it is closed already
            # Not SSLSocket.shutdown(): the reader would go on with what is still encrypted.
            socket.socket.shutdown(self._stream.get_extra_info("socket"), how)
