"""The stub's HTTP side: connections, routes, the key."""

import hmac
import json
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from tests.stub_engine.behaviours import PLAYS, Behaviour, Script
from tests.stub_engine.exchange import ClientGone, Exchange, ExchangeEnded
from tests.stub_engine.protocol import (
    CHAT_PATH,
    COMPLETION_PATH,
    EMBEDDING_PATH,
    BadRequest,
    Generation,
    describe_error,
    describe_models,
    describe_properties,
    describe_vectors,
    parse_request,
    plan_generation,
)
from tests.stub_engine.state import StubState

BODY_LIMIT_BYTES = 32 * 1024 * 1024


class StubServer(ThreadingHTTPServer):
    """Knows its open connections, so that a stop can cut those that hang."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, state: StubState, port: int) -> None:
        self.state = state
        self._connections: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), StubHandler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for a name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        lingers = struct.unpack("ii", request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0]
        if lingers:  # a FIN now would spoil the RST
            request.close()
        else:
            super().shutdown_request(request)
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()

    def cut_connections(self, timeout_s: float) -> None:
        with self._changed:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # its client was first
                    continue
            if not self._changed.wait_for(lambda: not self._connections, timeout_s):
                raise TimeoutError(f"{len(self._connections)} connections of the stub do not end")

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class StubHandler(BaseHTTPRequestHandler):
    """Routes. What an answer looks like is decided elsewhere."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def state(self) -> StubState:
        return cast("StubServer", self.server).state

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Silent: the ledger says it all."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer_probe({"status": "ok"})
        elif not self._is_authorized():
            self._refuse(401, "authentication_error", "Invalid API Key")
        elif self.path == "/v1/models":
            self._answer_probe(describe_models(self.state.n_ctx, int(time.time())))
        elif self.path == "/props":
            takes_tools = self.state.takes_tools
            self._reply(describe_properties(self.state.n_ctx, takes_tools=takes_tools))
        elif self.path == "/_stub/ledger":
            self._reply(self._describe_state())
        else:
            self._refuse(404, "not_found_error", "File Not Found")

    def do_POST(self) -> None:
        raw = self._read_body()
        if raw is None:
            self._refuse(
                413, "invalid_request_error", "a Content-Length of at most 32 MiB is required"
            )
        elif self.path in (CHAT_PATH, COMPLETION_PATH, EMBEDDING_PATH):
            self._answer(raw)
        elif not self._is_authorized():
            self._refuse(401, "authentication_error", "Invalid API Key")
        elif self.path == "/_stub/behaviour":
            self._change_behaviour(raw)
        elif self.path == "/_stub/reset":
            self.state.reset()
            self._reply({})
        else:
            self._refuse(404, "not_found_error", "File Not Found")

    def _read_body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_LIMIT_BYTES:
            return None
        return self.rfile.read(int(length))

    def _is_authorized(self) -> bool:
        given = self.headers.get("Authorization", "").encode()
        return hmac.compare_digest(given, f"Bearer {self.state.api_key}".encode())

    def _answer(self, raw: bytes) -> None:
        """Record the request, whatever becomes of it, and play its script."""
        state = self.state
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            body, problem = parse_request(raw, self.path), ""
        except BadRequest as error:
            body, problem = {}, str(error)
        # Refusals below use up no queued script: those are for requests that reach the engine.
        authorized = self._is_authorized()
        script = state.take_script() if authorized and not problem else Script()
        number = state.book.open(script.behaviour, headers, body)
        if not authorized:
            self._refuse(401, "authentication_error", "Invalid API Key", number)
        elif problem:
            self._refuse(400, "invalid_request_error", problem, number)
        elif self.path == EMBEDDING_PATH:
            self._answer_embedding(body, number, script)
        else:
            generation = plan_generation(body, number, state.created)
            if generation.prompt_tokens > state.n_ctx:
                script = Script(Behaviour.OVERLONG_400)
            self._play(self._exchange(number, generation, generation.completion()), script)

    def _answer_embedding(self, body: dict[str, Any], number: int, script: Script) -> None:
        if not self.state.has_embeddings:
            message = "This server does not support embeddings. Start it with `--embeddings`"
            self._refuse(501, "not_supported_error", message, number)
            return
        given = body["input"]
        vectors = describe_vectors([given] if isinstance(given, str) else given)
        exchange = self._exchange(number, payload=vectors)
        exchange.prompt_tokens = vectors["usage"]["prompt_tokens"]
        self._play(exchange, script)

    def _answer_probe(self, payload: Mapping[str, Any]) -> None:
        self._play(self._exchange(payload=payload), self.state.probe_script)

    def _change_behaviour(self, raw: bytes) -> None:
        """The fields are those of the Python API; `times` queues, `probes` is for the probes."""
        try:
            wanted = json.loads(raw)
            behaviour = Behaviour(wanted.pop("behaviour"))
            if wanted.pop("probes", False):
                self.state.behave_probes(behaviour, **wanted)
            elif "times" in wanted:
                self.state.enqueue(behaviour, **wanted)
            else:
                self.state.behave(behaviour, **wanted)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._refuse(400, "invalid_request_error", str(error))
        else:
            self._reply({})

    def _describe_state(self) -> dict[str, Any]:
        book = self.state.book
        records = [asdict(record) for record in book.records]
        return {"active": book.active, "peak_active": book.peak_active, "records": records}

    def _exchange(
        self,
        number: int = 0,
        generation: Generation | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> Exchange:
        state = self.state
        return Exchange(
            self.connection,
            state.stopping,
            state.book,
            number,
            generation,
            payload or {},
            state.n_ctx,
        )

    def _reply(self, payload: Mapping[str, Any]) -> None:
        self._play(self._exchange(payload=payload), Script())

    def _refuse(self, status: int, kind: str, message: str, number: int = 0) -> None:
        exchange = self._exchange(number)
        self._run(
            exchange, lambda: exchange.send_json(status, describe_error(status, kind, message))
        )

    def _play(self, exchange: Exchange, script: Script) -> None:
        exchange.token_delay_s = script.delay_s
        self._run(exchange, lambda: PLAYS[script.behaviour](exchange, script))

    def _run(self, exchange: Exchange, answer: Callable[[], None]) -> None:
        try:
            answer()
        except ClientGone:
            self.state.book.mark_disconnected(exchange.number)
            self.close_connection = True
        except ExchangeEnded:
            self.close_connection = True
        finally:
            self.state.book.close(exchange.number)
        if not exchange.keep_alive:
            self.close_connection = True
