"""Server-sent events of a running query, whichever face of the API they are written for."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import orjson
import structlog
from django.db import InterfaceError, OperationalError
from django.http import StreamingHttpResponse

from consciousness.admission import CallerGone
from consciousness.asks import Answer
from consciousness.engine_stream import Chunk
from consciousness.running import RunningQuery
from monitoring import metrics
from sovereigncore.api import ServiceError
from sovereigncore.connections import release_connection, retry_broken
from sovereigncore.errors import DatabaseUnavailable, problem

HEARTBEAT_S = 10.0
RECHECK_S = 4.0  # open streams of a revoked credential end within five seconds

log = structlog.get_logger(__name__)


class CredentialRevoked(ServiceError):
    status = 401
    code = "credential_revoked"
    default_detail = "The credential was revoked while the answer was being written."


class Writer(Protocol):
    """How a face writes what happens. Each returns whole events, or nothing to say nothing."""

    def chunk(self, chunk: Chunk) -> bytes: ...

    def done(self, answer: Answer) -> bytes: ...

    def whole(self, answer: Answer) -> dict[str, Any]:
        """What a caller gets who does not stream."""

    def error(self, error: ServiceError) -> bytes: ...


class ProcessWriter:
    """The contract's own: `token` events, then `done` or `error`."""

    def __init__(self, whole: Callable[[Answer], dict[str, Any]], *, request_id: str) -> None:
        self._whole, self._request_id = whole, request_id

    def chunk(self, chunk: Chunk) -> bytes:
        return _event("token", {"text": chunk.text}) if chunk.text else b""

    def done(self, answer: Answer) -> bytes:
        return _done(self._whole(answer))

    def whole(self, answer: Answer) -> dict[str, Any]:
        return self._whole(answer)

    def error(self, error: ServiceError) -> bytes:
        told = problem(
            status=error.status,
            code=error.code,
            detail=error.detail,
            request_id=self._request_id,
        )
        return _event("error", told)


def process_events(whole: dict[str, Any], _request: object) -> bytes:
    """The contract's own events of an answer that is whole already: all its text, and `done`."""
    text = whole["response"]
    return (_event("token", {"text": text}) if text else b"") + _done(whole)


def _done(whole: dict[str, Any]) -> bytes:
    """The whole object less what the tokens before it said."""
    return _event("done", {name: told for name, told in whole.items() if name != "response"})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data, default=str))


def stream_response(
    running: RunningQuery,
    writer: Writer,
    *,
    is_abandoned: Callable[[], bool],
    is_live: Callable[[], bool],
) -> StreamingHttpResponse:
    """The response, begun once there is something to say, so that a failure until then is still an
    ordinary error response. Raises CallerGone when nobody waits for that."""
    try:
        first = _first_event(running, is_abandoned)
    except CallerGone:
        running.close()
        raise
    response = StreamingHttpResponse(
        EventStream(first, running, writer, is_abandoned=is_abandoned, is_live=is_live),
        content_type="text/event-stream",
    )
    response["X-Accel-Buffering"] = "no"  # nginx would collect the events otherwise
    return response


def _first_event(running: RunningQuery, is_abandoned: Callable[[], bool]) -> Chunk | Answer:
    for item in running:
        if item is not None:
            return item
        if is_abandoned():
            raise CallerGone
    raise AssertionError("a query's events end with its answer")


class EventStream:
    """The bytes of the response. Ends early, cancelling the query, when the client has gone.

    Closing it cancels the query also when nobody began to read: a generator that was never begun
    has no `finally` to run.
    """

    def __init__(
        self,
        first: Chunk | Answer,
        running: RunningQuery,
        writer: Writer,
        *,
        is_abandoned: Callable[[], bool],
        is_live: Callable[[], bool],
    ) -> None:
        self._running = running
        self._events = iter(running)
        self._writer = writer
        self._is_abandoned = is_abandoned
        self._is_live = is_live
        self._began_s = time.monotonic()
        self._outcome = "cancelled"  # until it has ended in another way
        self._has_ended = False
        self._bytes = self._written(first)

    def __iter__(self) -> Iterator[bytes]:
        return self._bytes

    def close(self) -> None:
        self._bytes.close()
        self._end()

    def _end(self) -> None:
        """Once, whoever comes first: the bytes' own end, or the close of a stream never begun."""
        if not self._has_ended:
            self._has_ended = True
            self._running.close()
            elapsed_s = time.monotonic() - self._began_s
            metrics.STREAM_DURATION.labels(self._outcome).observe(elapsed_s)

    def _written(self, item: Chunk | Answer | None) -> Generator[bytes]:
        written_s = checked_s = time.monotonic()
        try:
            while not isinstance(item, Answer):
                now = time.monotonic()
                if self._is_abandoned():
                    return
                if now - checked_s > RECHECK_S:
                    checked_s = now
                    _check_credential(self._is_live)
                if item and (said := self._writer.chunk(item)):
                    written_s = now
                    yield said
                elif now - written_s > HEARTBEAT_S:
                    written_s = now
                    yield b": still working\n\n"
                item = next(self._events)
            self._outcome = "completed"
            yield self._writer.done(item)
        except (ServiceError, OperationalError, InterfaceError) as error:
            yield self._failed(error)
        except CallerGone:
            return
        except Exception as error:  # too late for the 500 that it is
            log.exception("unhandled_error")
            yield self._failed(error)
        finally:
            self._end()

    def _failed(self, error: Exception) -> bytes:
        """The error's event. The query is closed before: a client need not read what it is sent."""
        self._outcome = "failed"
        self._running.close()
        return self._writer.error(_told(error))


def _check_credential(is_live: Callable[[], bool]) -> None:
    lives = retry_broken(is_live)
    release_connection()
    if not lives:
        raise CredentialRevoked


def _told(error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, (OperationalError, InterfaceError)):
        return DatabaseUnavailable()
    return ServiceError()
