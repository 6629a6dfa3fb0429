"""gunicorn's threaded worker, with slow and stuck clients kept from holding its threads.

Stock gthread gives a client that has sent its first byte a thread until it has sent its last one,
however long that takes: a hundred clients that never finish a request would be the end of every
other one. Here nothing holds a thread until it sends something, a request has to arrive within a
deadline, and when too many threads wait for bytes, those that wait longest give theirs up. A
client that reads its answer too slowly is cut too.

It also gives its port up as soon as it is to end, so that a proxy goes to another web process at
once.

Loaded by gunicorn's master, so it must not import the application.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import selectors
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker

from sovereigncore import free_memory
from sovereigncore.content_type import INCOMPLETE_BODY

HEAD_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0
MAX_BODY_BYTES = 1024 * 1024  # larger ones are refused by their length and never read
WRITE_TIMEOUT_S = 30.0
_LINGER_S = 0.5
_IMPATIENT_AFTER_S = 1.0  # what a thread may wait for bytes while threads are short
_SLEPT_AFTER_S = 3.0  # the main loop comes round every second

Application = Callable[..., Iterable[bytes]]

_REFUSALS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.LimitRequestLine, 414, "uri_too_long"),
    (errors.LimitRequestHeaders, 431, "headers_too_large"),
    (errors.ExpectationFailed, 417, "expectation_failed"),
    (errors.UnsupportedTransferCoding, 501, "unsupported_transfer_coding"),
    (errors.ParseException, 400, "bad_request"),
)
_OUR_OWN_FAULT = (
    errors.InvalidResponseHeader,
    errors.InvalidResponseHeaderName,
    errors.ConfigurationProblem,
)


class _Readers:
    """Which connections hold a thread that waits for bytes, since when and until when."""

    def __init__(self) -> None:
        self._waits: dict[socket.socket, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def begin(self, connection: socket.socket, timeout_s: float) -> None:
        now = time.monotonic()
        with self._lock:
            self._waits[connection] = (now, now + timeout_s)

    def end(self, connection: socket.socket) -> None:
        with self._lock:
            self._waits.pop(connection, None)

    def overdue(self, *, at_most: int) -> list[socket.socket]:
        """Those past their deadline, and the longest waiting ones of more than `at_most`."""
        now = time.monotonic()
        with self._lock:
            waits = sorted(self._waits.items(), key=lambda item: item[1][0])
        too_many = len(waits) - at_most
        return [
            connection
            for place, (connection, (since, until)) in enumerate(waits)
            if now > until or (place < too_many and now - since > _IMPATIENT_AFTER_S)
        ]


class _Queue(PollableMethodQueue):  # type: ignore[misc]  # gunicorn has no types
    """How threads wake the main loop; after that one's end it does nothing.

    A thread that outlives it ends later. Stock gthread then writes its byte into whatever has the
    descriptor by then, such as the connection to the database of another such thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()  # a signal's handler defers too, in whatever the thread does
        self._is_closed = False

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            super().close()

    def defer(self, callback: Callable[..., object], *args: object) -> None:
        with self._lock:
            if not self._is_closed:
                super().defer(callback, *args)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method_queue = _Queue()
        self._readers = _Readers()
        self._looked_s, self._has_spared = time.monotonic(), False
        self._free_memory = free_memory.GivingBack()

    def init_process(self) -> None:
        free_memory.share_one_arena()
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi: Application = self._with_whole_body(self.wsgi)

    def notify(self) -> None:
        """Called by the main loop every second, whatever the threads do."""
        super().notify()
        is_sparing = self._has_slept
        if not is_sparing:
            self._cut_overdue()
        self._looked_s, self._has_spared = time.monotonic(), is_sparing
        self._free_memory.now_and_then()

    def _cut_overdue(self) -> None:
        for connection in self._readers.overdue(at_most=max(1, self.cfg.threads // 2)):
            self.log.info("A client took too long to send its request and was cut.")
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # its thread reads the end and goes on

    @property
    def _has_slept(self) -> bool:
        """Whether this process was stopped since it last looked. What clients sent meanwhile is
        unread (a poll that was interrupted so finds nothing), and they are not late: they have
        until the next look. Not twice in a row: a main loop that is slow under load would let slow
        clients keep their threads for ever."""
        return not self._has_spared and time.monotonic() - self._looked_s > _SLEPT_AFTER_S

    def murder_keepalived(self, force: bool = False) -> None:
        if force or not self._has_slept:
            super().murder_keepalived(force)

    def murder_pending(self) -> None:
        if not self._has_slept:
            super().murder_pending()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Leaves the port when the worker is to end, and hears those who have connected already.

        Stock gthread leaves it once its last stream has ended: until then callers would connect,
        and be cut in the end without an answer. After SIGHUP the next workers have it too, and
        nobody notices.
        """
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        for listener in self.sockets:
            while self.nr_conns < self.worker_connections and self._accept_one(listener):
                pass
            listener.close()
        self.sockets.clear()

    def accept(self, listener: Any) -> None:
        """A new connection waits for its first byte where it costs no thread."""
        self._accept_one(listener)

    def _accept_one(self, listener: Any) -> bool:
        """Whether somebody was there."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                return False
            raise
        self.nr_conns += 1
        _limit_writes(client)
        conn = TConn(self.cfg, client, address, listener.getsockname())
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        ready = functools.partial(self.on_pending_socket_readable, conn)
        self.poller.register(client, selectors.EVENT_READ, ready)
        return True

    def handle(self, conn: TConn) -> Any:
        connection = conn.sock
        self._readers.begin(connection, HEAD_TIMEOUT_S)
        try:
            keeps = super().handle(conn)
        finally:
            self._readers.end(connection)
        if not keeps:
            # Here and not in the main loop, where stock gthread waits for the client to close too.
            util.close_graceful(connection, timeout=_LINGER_S)
        return keeps

    def finish_request(self, conn: TConn, fs: Any) -> None:
        if not fs.cancelled() and fs.exception() is None and not fs.result():
            self.nr_conns -= 1  # closed already
            return
        super().finish_request(conn, fs)

    def _with_whole_body(self, application: Application) -> Application:
        """Reads a body before the application runs: it has a deadline, the application none."""

        def with_whole_body(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            connection = environ["gunicorn.socket"]
            length = environ.get("CONTENT_LENGTH") or "0"
            if length.isdecimal() and 0 < int(length) <= MAX_BODY_BYTES:
                self._readers.begin(connection, BODY_TIMEOUT_S)
                body = environ["wsgi.input"].read(int(length))
                environ["wsgi.input"] = io.BytesIO(body)
                environ[INCOMPLETE_BODY] = len(body) < int(length)
            self._readers.end(connection)
            response = application(environ, start_response)
            if environ["REQUEST_METHOD"] != "HEAD":
                return response
            if hasattr(response, "close"):
                response.close()
            return []

        return with_whole_body

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """What gunicorn refuses by itself, in the shape of our other refusals."""
        structlog.contextvars.clear_contextvars()  # of the thread's last request, not of this one
        for kind, status, code in _REFUSALS:
            if isinstance(exc, kind) and not isinstance(exc, _OUR_OWN_FAULT):
                request_id = str(uuid.uuid4())
                with structlog.contextvars.bound_contextvars(request_id=request_id):
                    self.log.warning("Invalid request: %s", exc)
                _refuse(client, status, code, request_id)
                return
        super().handle_error(req, client, addr, exc)


def _limit_writes(client: socket.socket) -> None:
    seconds = struct.pack("ll", int(WRITE_TIMEOUT_S), 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)


def _refuse(client: socket.socket, status: int, code: str, request_id: str) -> None:
    phrase = HTTPStatus(status).phrase
    body = orjson.dumps(
        {
            "type": f"urn:sovereigncore:error:{code}",
            "title": phrase,
            "status": status,
            "detail": "This is no HTTP request that can be answered.",
            "code": code,
            "request_id": request_id,
        }
    )
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
        f"X-Request-ID: {request_id}\r\nX-Content-Type-Options: nosniff\r\n"
        "Cache-Control: no-store\r\n\r\n"
    )
    with contextlib.suppress(OSError):  # nobody is there to read it
        client.sendall(head.encode("ascii") + body)
