"""One request on one socket of the stub engine: its bytes, its accounting, its end.

An exchange ends early by an exception, at once when the client goes or the stub is stopped.
"""

import contextlib
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tests.stub_engine.ledger import Ledger
from tests.stub_engine.protocol import Generation

JSON_TYPE = "application/json; charset=utf-8"
_HANG_UP = getattr(select, "POLLRDHUP", 0)  # Linux only


class ExchangeEnded(Exception):
    """The exchange is over early, and so is its connection."""


class ClientGone(ExchangeEnded):
    """The client closed its connection before the end."""


@dataclass(slots=True)
class Exchange:
    """One request being answered. `generation` is None for a probe (health, models) and for
    embeddings, whose `prompt_tokens` are counted."""

    connection: socket.socket
    stopping: threading.Event
    ledger: Ledger
    number: int
    generation: Generation | None
    payload: Mapping[str, Any]
    n_ctx: int
    token_delay_s: float = 0.0
    keep_alive: bool = True
    predicted: int = 0
    prompt_tokens: int = 0

    @property
    def streams(self) -> bool:
        return self.generation is not None and self.generation.stream

    def wait(self, seconds: float | None) -> None:
        """Let time pass (None: for ever). Raises the moment the client goes or the stub stops.

        The stub stops by shutting the socket down, which wakes this up like a client does.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        poller = select.poll()  # not select(), which fails from the 1,024th descriptor on
        poller.register(self.connection, select.POLLIN | _HANG_UP)
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            events = poller.poll(None if left_s is None else left_s * 1000)
            if self.stopping.is_set():
                raise ExchangeEnded
            if not events:
                return
            if not self._has_pipelined_input() or events[0][1] & ~select.POLLIN:
                raise ClientGone
            poller.modify(self.connection, _HANG_UP)

    def _has_pipelined_input(self) -> bool:
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def send(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise (ExchangeEnded if self.stopping.is_set() else ClientGone) from error

    def send_head(self, status: int, content_type: str, **headers: str | int) -> None:
        """Status line and headers; `Content_Length=…` becomes Content-Length, or it is chunked."""
        self.keep_alive = status < HTTPStatus.BAD_REQUEST  # llama.cpp closes after an error
        generates = self.keep_alive and not content_type.startswith("text/html")
        read = self.generation.prompt_tokens if self.generation else self.prompt_tokens
        prompt_tokens = read if generates else 0
        self.ledger.update(self.number, status=status, prompt_tokens=prompt_tokens)
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Server: llama.cpp",
            f"Content-Type: {content_type}",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if "Content_Length" not in headers:
            lines.append("Transfer-Encoding: chunked")
        if not self.keep_alive:
            lines.append("Connection: close")
        self.send("\r\n".join([*lines, "", ""]).encode())

    def send_chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def send_body(self, status: int, content_type: str, body: bytes, **headers: str | int) -> None:
        """A whole reply. The ledger is closed first: a client that has it all finds it final."""
        self.send_head(status, content_type, Content_Length=len(body), **headers)
        self.ledger.close(self.number)
        self.send(body)

    def send_json(self, status: int, payload: Mapping[str, Any], **headers: str | int) -> None:
        self.send_body(status, JSON_TYPE, json.dumps(payload).encode(), **headers)

    def send_answer(self) -> None:
        """The whole payload at once; its tokens are counted as soon as the client can have them."""
        generation = self.generation
        count = len(generation.tokens) * generation.choices if generation else 0
        with self._counted(count):
            self.send_json(200, self.payload)

    @contextlib.contextmanager
    def _counted(self, count: int) -> Iterator[None]:
        """Count before writing: a client that has a token must find it in the ledger."""
        self.ledger.add_tokens(self.number, count)
        try:
            yield
        except ExchangeEnded:
            self.ledger.add_tokens(self.number, -count)
            raise

    def open_stream(self, generation: Generation) -> None:
        self.send_head(200, "text/event-stream", X_Accel_Buffering="no")
        for event in generation.role_events():
            self.send_chunk(event)

    def send_tokens(self, generation: Generation, tokens: Iterable[str]) -> None:
        for text in tokens:
            self.wait(self.token_delay_s)
            self.predicted += 1
            for index in generation.places:
                with self._counted(1):
                    self.send_chunk(generation.token_event(text, self.predicted, index))

    def close_stream(self, events: Iterable[bytes]) -> None:
        """The last events and the end of the body, in one write with the ledger closed before."""
        self.ledger.close(self.number)
        self.send(
            b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"
        )

    def reset(self) -> None:
        """Close with RST instead of FIN, as a process does that dies with unread input."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ExchangeEnded
